"""Traces from both doors, as a collector and the callers see them, and what a collector in trouble does to serving.

Usage: tracing_test.py QUIVER_SERVER MAKE_TINY_MODEL
"""
import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from otlp_collector import PATIENCE, Collector
from running_server import ROOT, RestartableServer, free_port, generate_stubs

SERVER, MAKE_TINY_MODEL = sys.argv[1:3]
METHOD = "quiver.v1.EmbedService/"
SERVER_KIND, INTERNAL_KIND = 2, 1
ERROR_STATUS = 2
# Flags: sampled, whether the parent is remote is known, it is.
ROOT_FLAGS, REMOTE_FLAGS = 0x101, 0x301


def resident_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def new_id(size):
    return os.urandom(size).hex()


def metric(server, name):
    return sum(float(line.split()[-1]) for line in server.get("/metrics").splitlines() if line.startswith(name))


def nanoseconds(duration):
    return duration.seconds * 10**9 + duration.nanos


class TracingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.exit = contextlib.ExitStack()
        cls.work = pathlib.Path(cls.exit.enter_context(tempfile.TemporaryDirectory()))
        generate_stubs(cls.work / "stubs")
        subprocess.run([MAKE_TINY_MODEL, str(cls.work / "model"), "--fixtures", f"{ROOT}/tests/fixtures"], check=True)
        cls.collector = Collector()
        cls.exit.callback(cls.collector.close)
        cls.server = cls.start("main", "--access-log", "on", "--log-format", "json", "--otlp-endpoint", cls.collector.url,
                               env={"OTEL_SERVICE_NAME": "embedder", "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=a%20pod",
                                    "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret"})

    @classmethod
    def tearDownClass(cls):
        cls.exit.close()

    @classmethod
    def start(cls, name, *flags, env=None):
        server = RestartableServer(SERVER, name, cls.work / "model", cls.work, *flags, env=env)
        cls.exit.callback(server.kill)
        return server.start()

    @staticmethod
    def embed(server, texts=("a cat",), metadata=(), **fields):
        """The reply over gRPC and its trailing metadata; the error's if it fails."""
        import grpc
        from quiver.v1 import embed_pb2, embed_pb2_grpc
        with grpc.insecure_channel(server.grpc) as channel:
            request = embed_pb2.EmbedRequest(inputs=[embed_pb2.Input(text=text) for text in texts], **fields)
            try:
                reply, call = embed_pb2_grpc.EmbedServiceStub(channel).Embed.with_call(request, metadata=metadata,
                                                                                       timeout=PATIENCE)
            except grpc.RpcError as error:
                reply, call = None, error
        return reply, dict(call.trailing_metadata())

    @staticmethod
    def post(server, body, headers, path="/v1/embeddings"):
        connection = http.client.HTTPConnection(server.http, timeout=PATIENCE)
        connection.putrequest("POST", path)
        text = json.dumps(body).encode()
        for name, value in [("Content-Type", "application/json"), ("Content-Length", len(text)), *headers]:
            connection.putheader(name, value)
        connection.endheaders(text)
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply

    def access_lines(self, trace, count=1):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            lines = [json.loads(line) for line in self.server.log.read_text().splitlines()]
            found = [line for line in lines if line["message"] == "request" and line["trace_id"] == trace]
            if len(found) >= count:
                return found
            time.sleep(0.02)
        raise TimeoutError(f"no access log of {trace}")

    def check_tree(self, spans):
        """The server span and, by name, its children, of which all stand below it and within its time."""
        (server,) = [span for span in spans if span.kind == SERVER_KIND]
        children = {}
        for span in spans:
            if span is server:
                continue
            self.assertEqual((span.parent, span.kind, span.trace), (server.id, INTERNAL_KIND, server.trace))
            self.assertLessEqual(server.begin, span.begin)
            self.assertLessEqual(span.begin, span.end)
            self.assertLessEqual(span.end, server.end)
            children.setdefault(span.name, []).append(span)
        self.assertEqual(len({span.id for span in spans}), len(spans))
        return server, children

    def test_a_grpc_call_becomes_a_trace_with_the_times_of_its_reply(self):
        trace, caller = new_id(16), new_id(8)
        reply, trailers = self.embed(self.server, ["a cat", "a dog that barks", ""], [
            ("traceparent", f"00-{trace}-{caller}-01"), ("tracestate", "vendor=1"), ("quiver-tenant", "team")])
        server, children = self.check_tree(self.collector.of_trace(trace))
        self.assertEqual(trailers["traceresponse"], f"00-{trace}-{server.id}-01")
        self.assertEqual((server.name, server.parent, server.flags, server.state, server.status),
                         (METHOD + "Embed", caller, REMOTE_FLAGS, "vendor=1", 0))
        self.assertEqual(sorted((name, len(spans)) for name, spans in children.items()),
                         [("compute", 1), ("queue", 1), ("tokenize", 1)])
        tokenize, queue, compute = (children[name][0] for name in ("tokenize", "queue", "compute"))
        timing = reply.timing
        for span, stated in ((tokenize, timing.tokenize), (queue, timing.queue), (compute, timing.compute)):
            self.assertEqual(span.end - span.begin, nanoseconds(stated), span)
        self.assertEqual(queue.end, compute.begin)
        self.assertLessEqual(tokenize.end, queue.begin)
        # The reply was not yet made when its time was taken.
        self.assertGreaterEqual(server.end - server.begin, nanoseconds(timing.total))
        attributes = server.attributes
        expected = {"rpc.system.name": "grpc", "rpc.method": METHOD + "Embed", "rpc.response.status_code": "OK",
                    "client.address": "127.0.0.1", "gen_ai.operation.name": "embeddings", "gen_ai.response.model": "m",
                    "gen_ai.usage.input_tokens": reply.usage.total_tokens, "quiver.tenant": "team", "quiver.batches": 1,
                    "quiver.lane": "interactive", "quiver.succeeded_items": 2, "quiver.failed_items": 1}
        self.assertEqual(expected, {key: attributes.get(key) for key in expected})
        self.assertNotIn("error.type", attributes)
        self.assertEqual(compute.attributes["quiver.items"], 2)
        self.assertEqual(compute.attributes["quiver.tokens"], reply.usage.total_tokens)
        self.assertGreaterEqual(compute.attributes["quiver.batch.sequences"], 2)
        self.assertGreaterEqual(compute.attributes["quiver.batch.tokens"], reply.usage.total_tokens)
        self.assertTrue(0 < compute.attributes["quiver.batch.occupancy"] <= 1)

        (line,) = self.access_lines(trace)
        self.assertEqual((line["span_id"], line["sampled"], line["route"], line["code"], line["tenant"], line["succeeded"]),
                         (server.id, True, METHOD + "Embed", "OK", "team", 2))

    def test_an_http_request_becomes_a_trace(self):
        trace, caller = new_id(16), new_id(8)
        reply = self.post(self.server, {"model": "m", "input": ["a cat"]}, [("TraceParent", f"00-{trace}-{caller}-01")])
        server, children = self.check_tree(self.collector.of_trace(trace))
        self.assertEqual(reply.getheader("traceresponse"), f"00-{trace}-{server.id}-01")
        self.assertEqual((server.name, server.parent, server.flags), ("POST /v1/embeddings", caller, REMOTE_FLAGS))
        self.assertEqual(sorted(children), ["compute", "queue", "tokenize"])
        expected = {"http.request.method": "POST", "http.route": "/v1/embeddings", "url.scheme": "http",
                    "http.response.status_code": 200, "network.peer.address": "127.0.0.1"}
        self.assertEqual(expected, {key: server.attributes.get(key) for key in expected})
        (line,) = self.access_lines(trace)
        self.assertEqual((line["http_status"], line["route"], line["span_id"]), (200, "/v1/embeddings", server.id))

    def test_without_a_good_parent_a_trace_begins_here(self):
        good = f"00-{new_id(16)}-{new_id(8)}-01"
        for headers in ([], [("traceparent", good[:-1])], [("traceparent", good.upper())], [("traceparent", good)] * 2,
                        [("traceparent", f"00-{'0' * 32}-{new_id(8)}-01")], [("traceparent", "\xff" * 8)]):
            reply = self.post(self.server, {"inputs": "a cat"}, headers, "/embed")
            self.assertEqual(reply.status, 200)
            version, trace, span, flags = reply.getheader("traceresponse").split("-")
            self.assertEqual((version, flags), ("00", "01"))
            self.assertNotEqual(trace, good.split("-")[1])
            server, _ = self.check_tree(self.collector.of_trace(trace))
            self.assertEqual((server.id, server.parent, server.flags), (span, "", ROOT_FLAGS))

    def test_a_caller_that_does_not_sample_is_not_exported_but_logged(self):
        trace = new_id(16)
        _, trailers = self.embed(self.server, metadata=[("traceparent", f"00-{trace}-{new_id(8)}-00")])
        self.assertRegex(trailers["traceresponse"], f"^00-{trace}-[0-9a-f]{{16}}-00$")
        (line,) = self.access_lines(trace)
        self.assertEqual(line["sampled"], False)
        # What came later has been exported.
        later = new_id(16)
        self.embed(self.server, metadata=[("traceparent", f"00-{later}-{new_id(8)}-01")])
        self.collector.of_trace(later)
        self.assertFalse([span for span in self.collector.spans if span.trace == trace])

    def test_errors_say_whose_they_are(self):
        trace = new_id(16)
        parent = ("traceparent", f"00-{trace}-{new_id(8)}-01")
        self.assertIsNone(self.embed(self.server, metadata=[parent], model="another")[0])
        self.assertEqual(self.post(self.server, {"model": "m", "input": []}, [parent]).status, 400)
        by_name = {span.name: span for span in self.collector.of_trace(trace, roots=2)}
        self.assertEqual(set(by_name), {METHOD + "Embed", "POST /v1/embeddings"})
        for span, kind in ((by_name[METHOD + "Embed"], "NOT_FOUND"), (by_name["POST /v1/embeddings"], "400")):
            # The client's, so that the server's is not in error.
            self.assertEqual((span.attributes["error.type"], span.status), (kind, 0))

    def test_a_stream_is_one_span_with_a_bounded_number_below(self):
        import grpc
        from quiver.v1 import embed_pb2, embed_pb2_grpc
        trace, messages = new_id(16), 60

        def requests():
            yield embed_pb2.EmbedStreamRequest(start=embed_pb2.EmbedStreamStart())
            for i in range(messages):
                # One at a time, each a batch of its own.
                yield embed_pb2.EmbedStreamRequest(inputs=[embed_pb2.Input(text=f"text {i}")])
                answered.get()

        import queue
        answered = queue.Queue()
        with grpc.insecure_channel(self.server.grpc) as channel:
            call = embed_pb2_grpc.EmbedServiceStub(channel).EmbedStream(
                requests(), metadata=[("traceparent", f"00-{trace}-{new_id(8)}-01")], timeout=PATIENCE)
            for response in call:
                for _ in response.results:
                    answered.put(True)
            trailers = dict(call.trailing_metadata())
        server, children = self.check_tree(self.collector.of_trace(trace))
        self.assertEqual(server.name, METHOD + "EmbedStream")
        self.assertEqual(trailers["traceresponse"], f"00-{trace}-{server.id}-01")
        self.assertEqual(server.attributes["quiver.succeeded_items"], messages)
        self.assertEqual(server.attributes["quiver.batches"], messages)
        self.assertEqual({name: len(spans) for name, spans in children.items()}, {"queue": 16, "compute": 16})
        self.assertEqual(server.attributes["quiver.lane"], "bulk")

    def test_the_resource_and_the_headers_are_as_the_environment_says(self):
        trace = new_id(16)
        self.embed(self.server, metadata=[("traceparent", f"00-{trace}-{new_id(8)}-01")])
        self.collector.of_trace(trace)
        resource = self.collector.resource
        self.assertEqual((resource["service.name"], resource["k8s.pod.name"]), ("embedder", "a pod"))
        self.assertRegex(resource["service.version"], r"^\d+\.")
        self.assertRegex(resource["service.instance.id"], "^[0-9a-f]{32}$")
        path, headers = self.collector.requests[-1]
        self.assertEqual((path, headers["api-key"], headers["Content-Type"]), ("/v1/traces", "secret", "application/json"))
        self.assertNotIn("secret", self.server.log.read_text())

    def test_off_there_are_no_ids(self):
        server = self.start("off")
        _, trailers = self.embed(server, metadata=[("traceparent", f"00-{new_id(16)}-{new_id(8)}-01")])
        self.assertNotIn("traceresponse", trailers)
        self.assertIsNone(self.post(server, {"model": "m", "input": "a"}, []).getheader("traceresponse"))
        self.assertEqual(metric(server, "quiver_trace_spans"), 0)

    def test_a_collector_that_is_down_harms_nobody_and_gets_what_waits_when_it_ends(self):
        server = self.start("down", "--otlp-endpoint", f"http://127.0.0.1:{free_port()}")
        for _ in range(20):
            self.assertIsNotNone(self.embed(server)[0])
        begin = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - begin, PATIENCE / 2)
        self.assertIn("traces cannot be exported", server.log.read_text())

    def test_what_waits_at_the_end_is_sent(self):
        server = self.start("end", "--otlp-endpoint", self.collector.url)
        trace = new_id(16)
        self.embed(server, metadata=[("traceparent", f"00-{trace}-{new_id(8)}-01")])
        self.assertEqual(server.stop(), 0)
        self.assertEqual(len([span for span in self.collector.spans if span.trace == trace]), 4)

    def test_a_collector_in_trouble_is_asked_again_and_one_that_refuses_is_not(self):
        collector = Collector()
        self.exit.callback(collector.close)
        answers = [(503, {"Retry-After": 1}, {}), (400, {}, {}), (500, {}, {}),
                   (200, {}, {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "no"}})]
        collector.answer = lambda: answers.pop(0) if answers else (200, {}, {})
        server = self.start("trouble", "--otlp-endpoint", collector.url)
        # The first message is asked for twice, and refused for good then.
        for number, failed in ((2, 4), (3, 8), (4, 9)):
            self.assertIsNotNone(self.embed(server)[0])
            end = time.monotonic() + PATIENCE
            while metric(server, "quiver_trace_spans_failed_total") < failed:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
            self.assertEqual(len(collector.requests), number)
        self.assertEqual(metric(server, "quiver_trace_spans_exported_total"), 3)
        self.assertEqual(metric(server, "quiver_trace_spans_dropped_total"), 0)

    def test_a_collector_that_hangs_makes_spans_drop_and_nothing_else(self):
        import grpc
        from quiver.v1 import embed_pb2, embed_pb2_grpc
        collector = Collector()
        self.exit.callback(collector.close)
        collector.answer = lambda: time.sleep(PATIENCE) or (200, {}, {})
        server = self.start("hang", "--otlp-endpoint", collector.url)
        with grpc.insecure_channel(server.grpc) as channel:
            stub = embed_pb2_grpc.EmbedServiceStub(channel)
            # Requests of one span, so many that the queue overflows while the first message hangs.
            for _ in range(40):
                for call in [stub.GetModelInfo.future(embed_pb2.GetModelInfoRequest()) for _ in range(500)]:
                    call.result(timeout=PATIENCE)
            self.assertGreater(metric(server, "quiver_trace_spans_dropped_total"), 0)
            request = embed_pb2.EmbedRequest(inputs=[embed_pb2.Input(text="a cat")])
            self.assertEqual(stub.Embed(request, timeout=PATIENCE).usage.succeeded, 1)
        begin = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - begin, PATIENCE / 2)

    def test_a_collector_that_answers_without_end_costs_no_memory(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.exit.callback(listener.close)
        begun = threading.Event()

        def answer(connection):
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8589934592\r\n\r\n")
                begun.set()
                while True:
                    connection.sendall(bytes(1 << 16))

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        server = self.start("endless", "--otlp-endpoint", f"http://127.0.0.1:{listener.getsockname()[1]}")
        self.assertIsNotNone(self.embed(server)[0])
        before = resident_bytes(server.process.pid)
        most = 0
        end = time.monotonic() + 3
        while time.monotonic() < end:
            self.assertIsNotNone(self.embed(server)[0])
            most = max(most, resident_bytes(server.process.pid))
            time.sleep(0.05)
        self.assertTrue(begun.is_set())
        self.assertLess(most - before, 50_000_000)
        self.assertEqual(server.stop(), 0)

    def test_a_collector_behind_tls_must_have_a_certificate_that_is_trusted(self):
        for name, subject in (("right", "IP:127.0.0.1"), ("wrong", "DNS:another.test")):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                            "2", "-subj", "/CN=collector", "-addext", f"subjectAltName={subject}", "-keyout",
                            str(self.work / f"{name}.key"), "-out", str(self.work / f"{name}.pem")], check=True,
                           capture_output=True)
            collector = Collector(self.work / f"{name}.pem", self.work / f"{name}.key")
            self.exit.callback(collector.close)
            server = self.start(name, "--otlp-endpoint", collector.url, env={"SSL_CERT_FILE": str(self.work / f"{name}.pem")})
            _, trailers = self.embed(server)
            if name == "right":
                self.assertEqual(len(collector.of_trace(trailers["traceresponse"].split("-")[1])), 4)
            self.assertEqual(server.stop(), 0)
            failed = "traces cannot be exported" in server.log.read_text()
            self.assertEqual((failed, len(collector.spans)), (False, 4) if name == "right" else (True, 0))

    def test_a_wrong_endpoint_ends_the_start(self):
        for flags, env in ((["--otlp-endpoint", "collector:4318"], {}), ([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"})):
            ended = subprocess.run([SERVER, "--model", str(self.work / "model"), "--grpc-port", "0", "--http-port", "0", *flags],
                                   env={**os.environ, **env}, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(ended.returncode, 2, ended.stderr)
            self.assertIn("must be http://HOST:PORT or https://HOST:PORT, not 'collector:4318'", ended.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
