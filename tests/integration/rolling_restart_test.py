"""Three servers behind client-side balancing are restarted one by one under load: no unary call fails, no stream's item is lost.

Usage: rolling_restart_test.py QUIVER_SERVER MAKE_TINY_MODEL
"""
import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from running_server import ROOT, RestartableServer, generate_stubs

SERVER, MAKE_TINY_MODEL = sys.argv[1:3]
ROUNDS = 2
CALLERS = 8
# What a client needs to say: balance over all addresses, and try elsewhere what a server that ends did not take. gRPC itself
# answers CANCELLED to a call that arrives while the server closes its connections.
SERVICE_CONFIG = json.dumps({
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{"name": [{"service": "quiver.v1.EmbedService", "method": "Embed"}], "timeout": "20s", "retryPolicy": {
        "maxAttempts": 5, "initialBackoff": "0.02s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]}}]})


class RollingRestartTest(unittest.TestCase):
    def setUp(self):
        import grpc
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        work = pathlib.Path(folder.name)
        generate_stubs(work / "stubs")
        from quiver.v1 import embed_pb2, embed_pb2_grpc
        self.grpc, self.pb = grpc, embed_pb2
        subprocess.run([MAKE_TINY_MODEL, str(work / "model"), "--fixtures", f"{ROOT}/tests/fixtures"], check=True)
        self.servers = [RestartableServer(SERVER, f"server{i}", work / "model", work) for i in range(3)]
        for server in self.servers:
            self.addCleanup(server.kill)
            server.start()
        addresses = ",".join(server.grpc for server in self.servers)
        channel = grpc.insecure_channel(f"ipv4:{addresses}", options=[("grpc.service_config", SERVICE_CONFIG)])
        self.addCleanup(channel.close)
        self.stub = embed_pb2_grpc.EmbedServiceStub(channel)
        self.stop = threading.Event()
        self.calls, self.failures = 0, []
        self.counted = threading.Lock()

    def call(self, caller):
        n = 0
        while not self.stop.is_set():
            n += 1
            request = self.pb.EmbedRequest(inputs=[self.pb.Input(text=f"caller {caller} call {n}")])
            try:
                reply = self.stub.Embed(request)
                assert reply.results[0].HasField("embedding"), reply
                with self.counted:
                    self.calls += 1
            except self.grpc.RpcError as error:
                with self.counted:
                    self.failures.append(f"{error.code()}: {error.details()}")

    def stream_all(self, total, answers):
        """Sends items 0 to total - 1 until each has its vector: what a stream that broke has not answered goes into the next."""
        missing = list(range(total))
        streams = 0
        while missing and not (self.stop.is_set() and streams > 50):
            streams += 1
            wanted = queue.SimpleQueue()
            for i in range(0, len(missing), 16):
                wanted.put(missing[i:i + 16])

            def messages():
                first = self.pb.EmbedStreamRequest()
                first.start.SetInParent()
                yield first
                while not wanted.empty() and not self.stop.is_set():
                    message = self.pb.EmbedStreamRequest()
                    for item in wanted.get():
                        message.inputs.add(id=str(item), text=f"item {item}")
                    yield message
                    time.sleep(0.005)

            try:
                for response in self.stub.EmbedStream(messages()):
                    for result in response.results:
                        if result.HasField("embedding"):
                            answers.setdefault(int(result.id), []).append(result.embedding.data)
                        elif result.error.code not in (14, 1):
                            self.failures.append(str(result.error))
            except self.grpc.RpcError as error:
                if error.code() != self.grpc.StatusCode.UNAVAILABLE:
                    self.failures.append(f"stream: {error.code()}: {error.details()}")
            missing = [item for item in missing if item not in answers]
            time.sleep(0.02)
        return streams

    def test_no_call_fails_and_no_item_is_lost(self):
        threads = [threading.Thread(target=self.call, args=(caller,)) for caller in range(CALLERS)]
        total, answers, streams = 12000, {}, []
        threads.append(threading.Thread(target=lambda: streams.append(self.stream_all(total, answers))))
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        for _ in range(ROUNDS):
            for server in self.servers:
                self.assertEqual(server.stop(), 0, "the drain is to be clean")
                server.start()
                time.sleep(0.3)
        threads[-1].join(timeout=120)
        self.stop.set()
        for thread in threads:
            thread.join()
        print(f"{ROUNDS * 3} restarts: {self.calls} unary calls, {len(self.failures)} failed; {len(answers)} of {total} items "
              f"over {streams[0]} streams")
        self.assertEqual(self.failures[:5], [])
        self.assertGreater(self.calls, 500)
        self.assertEqual(sorted(answers), list(range(total)))
        # An item that was sent again after its answer was lost has the same vector.
        self.assertTrue(all(len(set(vectors)) == 1 for vectors in answers.values()))
        self.assertGreater(streams[0], 1, "a stream is to break")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
