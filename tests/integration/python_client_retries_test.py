"""What the Python package does when servers refuse, break and stall, told by servers that do so on purpose.

Usage: python_client_retries_test.py
"""
import asyncio
import concurrent.futures
import pathlib
import sys
import tempfile
import threading
import time
import unittest

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import python_package

FOLDER = tempfile.TemporaryDirectory()
python_package.use(pathlib.Path(FOLDER.name))
from quiver_client import AsyncClient, CallError, Client, Retry, VectorSpaceError  # noqa: E402
from quiver_client._pb import embed_pb2 as pb  # noqa: E402
from quiver_client._pb import embed_pb2_grpc as rpc  # noqa: E402

Code = grpc.StatusCode
VECTOR = pb.Embedding(data=bytes(8), type=pb.OUTPUT_TYPE_FLOAT32, dimensions=2)


def status(code, retry_after_s=None):
    out = status_pb2.Status(code=code.value[0], message="on purpose")
    if retry_after_s is not None:
        hint = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=int(retry_after_s * 1e9) % 10**9,
                                                                            seconds=int(retry_after_s)))
        detail = any_pb2.Any()
        detail.Pack(hint)
        out.details.append(detail)
    return out


def end(context, code, retry_after_s=None):
    out = status(code, retry_after_s)
    context.set_trailing_metadata((("grpc-status-details-bin", out.SerializeToString()),))
    context.abort(code, out.message)


class FakeServer(rpc.EmbedServiceServicer):
    """Answers every input with VECTOR, unless a test replaces on_embed or on_stream."""

    def __init__(self, space="a space"):
        self.space = pb.VectorSpace(fingerprint=space)
        self.calls = []
        self.pool = concurrent.futures.ThreadPoolExecutor(16)
        self.server = grpc.server(self.pool)
        rpc.add_EmbedServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def on_embed(self, number, request, context):
        """An EmbedResponse; `number` counts calls from 0."""
        return self.reply(request)

    def on_stream(self, number, requests, context):
        for request in requests:
            yield pb.EmbedStreamResponse(results=[pb.EmbedResult(id=i.id, embedding=VECTOR) for i in request.inputs])

    def reply(self, request, refused=()):
        """VECTOR for each, but for the texts `refused`: {text: Status}."""
        results = [pb.EmbedResult(error=refused[i.text]) if i.text in refused else pb.EmbedResult(embedding=VECTOR)
                   for i in request.inputs]
        return pb.EmbedResponse(results=results, vector_space=self.space)

    def GetModelInfo(self, request, context):
        return pb.ModelInfo(limits=pb.Limits(max_items_per_request=100, max_message_bytes=1 << 20))

    def Embed(self, request, context):
        self.calls.append((time.monotonic(), [i.text for i in request.inputs]))
        return self.on_embed(len(self.calls) - 1, request, context)

    def EmbedStream(self, requests, context):
        self.calls.append((time.monotonic(), []))
        number = len(self.calls) - 1
        next(requests)
        yield pb.EmbedStreamResponse(vector_space=self.space)
        yield from self.on_stream(number, requests, context)


class Case(unittest.TestCase):
    def fake(self, space="a space"):
        server = FakeServer(space)
        self.addCleanup(server.pool.shutdown)
        self.addCleanup(lambda: server.server.stop(0).wait())
        return server

    def client(self, *servers, **more):
        client = Client([server.address for server in servers], **more)
        self.addCleanup(client.close)
        return client

    def await_that(self, condition):
        limit = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.01)


class Calls(Case):
    def first_refuses(self, code, retry_after_s):
        server = self.fake()

        def on_embed(number, request, context):
            return end(context, code, retry_after_s) if number == 0 else server.reply(request)

        server.on_embed = on_embed
        return server

    def waited(self, server):
        return server.calls[1][0] - server.calls[0][0]

    def test_a_hint_is_waited_for_and_no_less(self):
        for code in (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE):
            server = self.first_refuses(code, 0.7)
            self.assertEqual(self.client(server).embed(["a"]).shape, (1, 2))
            self.assertGreaterEqual(self.waited(server), 0.7)

            server = self.first_refuses(code, 0.7)

            async def ask(server=server):
                async with AsyncClient(server.address) as client:
                    return await client.embed(["a"])

            self.assertEqual(asyncio.run(ask()).shape, (1, 2))
            self.assertGreaterEqual(self.waited(server), 0.7)

    def test_without_a_hint_unavailable_backs_off_by_itself(self):
        server = self.first_refuses(Code.UNAVAILABLE, None)
        self.client(server, retry=Retry(first_backoff_s=0.4)).embed(["a"])
        self.assertGreaterEqual(self.waited(server), 0.2)

    def test_what_will_not_pass_is_not_tried_again(self):
        for code in (Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT, Code.INTERNAL, Code.DEADLINE_EXCEEDED):
            server = self.first_refuses(code, None)
            with self.assertRaises(CallError) as caught:
                self.client(server).embed(["a"])
            self.assertEqual((caught.exception.code, len(server.calls)), (code, 1))

    def test_a_wait_beyond_the_deadline_is_not_begun(self):
        for more, timeout in (({}, 20), ({"retry": Retry(give_up_after_s=20)}, None)):
            server = self.first_refuses(Code.RESOURCE_EXHAUSTED, 3600)
            begin = time.monotonic()
            with self.assertRaises(CallError) as caught:
                self.client(server, **more).embed(["a"], timeout=timeout)
            self.assertEqual(caught.exception.failure.retry_after_s, 3600)
            self.assertLess(time.monotonic() - begin, 20)

    def test_a_deadline_ends_a_call_that_hangs(self):
        server = self.fake()
        done = threading.Event()
        server.on_embed = lambda number, request, context: done.wait() and server.reply(request)
        self.addCleanup(done.set)
        with self.assertRaises(CallError) as caught:
            self.client(server).embed(["a"], timeout=0.5)
        self.assertEqual(caught.exception.code, Code.DEADLINE_EXCEEDED)

    def test_another_server_takes_what_one_refuses_without_a_wait(self):
        full, free = self.fake(), self.fake()
        full.on_embed = lambda number, request, context: end(context, Code.RESOURCE_EXHAUSTED, 3600)
        client = self.client(full, free)
        for _ in range(10):
            client.embed(["a"], timeout=60)
        self.assertEqual((len(full.calls), len(free.calls)), (1, 10))

    def test_a_server_that_is_not_there_costs_nothing(self):
        gone, there = self.fake(), self.fake()
        gone.server.stop(0).wait()
        client = self.client(gone, there)
        for _ in range(10):
            client.embed(["a"])
        self.assertEqual(len(there.calls), 10)

    def test_only_refused_inputs_are_sent_again(self):
        server = self.fake()
        refused = {"b": status(Code.RESOURCE_EXHAUSTED, 0.3), "c": status(Code.INVALID_ARGUMENT)}
        server.on_embed = lambda number, request, context: server.reply(request, refused if number == 0 else {})
        results = self.client(server).embed_results(["a", "b", "c", "d"])
        self.assertEqual([texts for _, texts in server.calls], [["a", "b", "c", "d"], ["b"]])
        self.assertGreaterEqual(self.waited(server), 0.3)
        self.assertEqual([r.error and r.error.code for r in results], [None, None, Code.INVALID_ARGUMENT, None])

    def test_inputs_refused_to_the_end_keep_their_own_errors(self):
        server = self.fake()
        server.on_embed = lambda number, request, context: server.reply(
            request, {"b": status(Code.RESOURCE_EXHAUSTED, 3600)})
        results = self.client(server).embed_results(["a", "b"], timeout=20)
        self.assertEqual([r.error and r.error.retry_after_s for r in results], [None, 3600])

    def test_calls_go_to_the_server_that_has_least_to_do(self):
        slow, fast = self.fake(), self.fake()
        done = threading.Event()
        slow.on_embed = lambda number, request, context: done.wait() and slow.reply(request)
        self.addCleanup(done.set)
        client = self.client(slow, fast)
        client.model_info()
        client.model_info()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            held = pool.submit(lambda: [client.embed(["held"]) for _ in range(2)])
            self.await_that(lambda: slow.calls)
            before = len(fast.calls)
            for _ in range(10):
                client.embed(["a"])
            self.assertEqual((len(slow.calls), len(fast.calls) - before), (1, 10))
            done.set()
            held.result()

    def test_a_long_list_goes_to_all_servers_side_by_side(self):
        servers = [self.fake(), self.fake()]
        self.assertEqual(self.client(*servers).embed(["a"] * 1000).shape, (1000, 2))
        for server in servers:
            self.assertGreater(len(server.calls), 0)

    def test_two_vector_spaces_are_not_mixed(self):
        servers = [self.fake("one"), self.fake("two")]
        with self.assertRaisesRegex(VectorSpaceError, "one.*two|two.*one"):
            self.client(*servers).embed(["a"] * 1000)
        with self.assertRaises(VectorSpaceError):
            list(self.client(*servers).stream("a" for _ in iter(int, 1)))


class Streams(Case):
    def test_a_broken_stream_is_taken_up_and_every_input_answered_once(self):
        server = self.fake()

        def on_stream(number, requests, context):
            for message, request in enumerate(requests):
                results = [pb.EmbedResult(id=i.id, embedding=VECTOR) for i in request.inputs]
                if number < 5 and message == 1:
                    # Half of the message, and an answer that was never asked for.
                    yield pb.EmbedStreamResponse(results=[*results[::2], pb.EmbedResult(id="999999", embedding=VECTOR)])
                    end(context, Code.UNAVAILABLE, 0.05)
                yield pb.EmbedStreamResponse(results=results)

        server.on_stream = on_stream
        results = list(self.client(server).stream(f"text {i}" for i in range(2000)))
        self.assertEqual(sorted(result.index for result in results), list(range(2000)))
        self.assertEqual(len(server.calls), 6)

    def test_an_input_refused_within_a_stream_is_sent_again_after_the_hint(self):
        server = self.fake()

        def on_stream(number, requests, context):
            for request in requests:
                yield pb.EmbedStreamResponse(results=[
                    pb.EmbedResult(id=i.id, error=status(Code.RESOURCE_EXHAUSTED, 0.3))
                    if number == 0 and i.text == "b" else pb.EmbedResult(id=i.id, embedding=VECTOR)
                    for i in request.inputs])

        server.on_stream = on_stream
        results = list(self.client(server).stream(["a", "b", "c"]))
        self.assertEqual(sorted((r.index, r.error) for r in results), [(0, None), (1, None), (2, None)])
        self.assertGreaterEqual(server.calls[1][0] - server.calls[0][0], 0.3)

    def test_an_input_that_breaks_every_stream_fails_alone(self):
        server = self.fake()

        def on_stream(number, requests, context):
            for request in requests:
                results = [pb.EmbedResult(id=i.id, embedding=VECTOR) for i in request.inputs if i.text != "poison"]
                yield pb.EmbedStreamResponse(results=results)
                if len(results) < len(request.inputs):
                    end(context, Code.UNAVAILABLE, 0.01)

        server.on_stream = on_stream
        results = list(self.client(server).stream(["a", "poison", "c"], in_order=True))
        self.assertEqual([r.error and r.error.code for r in results], [None, Code.UNAVAILABLE, None])

    def test_a_stream_gives_up_when_nothing_comes(self):
        server = self.fake()
        server.on_stream = lambda number, requests, context: end(context, Code.UNAVAILABLE) or []
        with self.assertRaises(CallError) as caught:
            list(self.client(server, retry=Retry(give_up_after_s=0.5)).stream(["a"]))
        self.assertEqual(caught.exception.code, Code.UNAVAILABLE)
        self.assertGreater(len(server.calls), 1)

    def test_a_deadline_ends_a_stream(self):
        server = self.fake()
        server.on_stream = lambda number, requests, context: (r for r in requests if not r.inputs)
        with self.assertRaises(CallError) as caught:
            list(self.client(server).stream(["a"], timeout=0.5))
        self.assertEqual(caught.exception.code, Code.DEADLINE_EXCEEDED)

    def test_no_more_is_read_than_may_be_in_flight(self):
        read = 0

        def texts():
            nonlocal read
            while True:
                read += 1
                yield "text"

        server = self.fake()
        results = self.client(server).stream(texts(), max_in_flight=100)
        next(results)
        # What was taken at once has left the window; one more is in the reader's hand.
        self.await_that(lambda: read > 100)
        time.sleep(0.2)
        self.assertLessEqual(read, 201)
        results.close()

        server.on_stream = lambda number, requests, context: (r for r in requests if not r.inputs)
        read = 0
        with self.assertRaises(CallError):
            next(self.client(server).stream(texts(), max_in_flight=100, timeout=1))
        self.assertLessEqual(read, 101)

    def test_leaving_early_ends_the_call_at_the_server(self):
        server = self.fake()
        ended = threading.Event()
        plain = server.on_stream

        def on_stream(number, requests, context):
            context.add_callback(ended.set)
            yield from plain(number, requests, context)

        server.on_stream = on_stream
        results = self.client(server).stream("text" for _ in iter(int, 1))
        next(results)
        results.close()
        self.assertTrue(ended.wait(30))

    def test_what_the_inputs_raise_comes_out(self):
        def texts():
            yield "a"
            raise KeyError("of the caller")

        with self.assertRaisesRegex(KeyError, "of the caller"):
            list(self.client(self.fake()).stream(texts()))

    def test_results_come_while_the_inputs_wait(self):
        go_on = threading.Event()

        def texts():
            yield "a"
            self.assertTrue(go_on.wait(30))
            yield "b"

        results = self.client(self.fake()).stream(texts())
        self.assertEqual(next(results).index, 0)
        go_on.set()
        self.assertEqual([r.index for r in results], [1])

    def test_a_stalled_server_holds_its_share_only(self):
        stalled, well = self.fake(), self.fake()
        done = threading.Event()

        def on_stream(number, requests, context):
            done.wait()
            yield from FakeServer.on_stream(stalled, number, requests, context)

        stalled.on_stream = on_stream
        self.addCleanup(done.set)
        results = self.client(stalled, well).stream(("text" for _ in range(5000)), max_in_flight=200)
        taken = [next(results).index for _ in range(4900)]
        done.set()
        self.assertEqual(sorted([*taken, *(r.index for r in results)]), list(range(5000)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
