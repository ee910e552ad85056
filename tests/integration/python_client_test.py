"""The Python package, installed from a wheel, against real servers: vectors, errors, keys, streams that outlive servers.

Usage: python_client_test.py QUIVER_SERVER MAKE_TINY_MODEL
"""
import asyncio
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import grpc
import numpy as np

import python_package
import running_server
from running_server import ROOT, RestartableServer, Server

SERVER, MAKE_TINY_MODEL = sys.argv[1:3]
FOLDER = tempfile.TemporaryDirectory()
WORK = pathlib.Path(FOLDER.name)
python_package.use(WORK)
from quiver_client import AsyncClient, CallError, Client, EmbedError, Input  # noqa: E402

running_server.generate_stubs(WORK / "stubs")
from quiver.v1 import embed_pb2 as pb  # noqa: E402
from quiver.v1 import embed_pb2_grpc as rpc  # noqa: E402

TINY = WORK / "tiny"
subprocess.run([MAKE_TINY_MODEL, TINY, "--fixtures", f"{ROOT}/tests/fixtures"], check=True)
TEXTS = ["人工智能正在改变世界。", "a cat", "a kitten", "the dog runs", *(f"text {i} " + "word " * (i % 40) for i in range(200))]


def gather(client_of, work):
    """What the coroutine `work` of an AsyncClient returns."""
    async def run():
        async with client_of() as client:
            return await work(client)
    return asyncio.run(run())


class Vectors(unittest.TestCase):
    """On the default model if it is there, with limits that a list of texts does not fit into."""

    @classmethod
    def setUpClass(cls):
        work = WORK / "vectors"
        work.mkdir()
        model = os.environ.get("QUIVER_DEFAULT_MODEL") or TINY
        cls.server = Server(SERVER, model, work, "--device", "cpu", "--max-items-per-request", "30",
                            "--max-message-bytes", "16384")
        cls.addClassCleanup(cls.server.__exit__)
        cls.client = Client(cls.server.grpc)
        cls.addClassCleanup(cls.client.close)
        channel = grpc.insecure_channel(cls.server.grpc)
        cls.addClassCleanup(channel.close)
        cls.stub = rpc.EmbedServiceStub(channel)

    def raw(self, contents, **options):
        """By stubs as anyone would make them."""
        results = []
        for content in contents:
            message = pb.Input(text=content) if isinstance(content, str) else pb.Input(token_ids=pb.TokenIds(ids=content))
            reply = self.stub.Embed(pb.EmbedRequest(inputs=[message], options=pb.EmbedOptions(**options)))
            results.append(reply.results[0].embedding)
        return results

    def check(self, vectors, embeddings):
        self.assertEqual([vector.tobytes() for vector in vectors], [embedding.data for embedding in embeddings])

    def test_vectors_are_those_of_the_stubs_to_the_bit(self):
        expected = self.raw(TEXTS)
        # The first call is made while the model may still be loading.
        vectors = self.client.embed(TEXTS)
        self.assertEqual((vectors.shape, vectors.dtype), ((len(TEXTS), expected[0].dimensions), np.float32))
        self.check(vectors, expected)
        self.check(gather(lambda: AsyncClient(self.server.grpc), lambda client: client.embed(TEXTS)), expected)
        results = list(self.client.stream((Input(text, id=text) for text in TEXTS), in_order=True))
        self.assertEqual([result.id for result in results], TEXTS)
        self.check([result.vector for result in results], expected)
        self.assertEqual([r.token_count for r in results], [e.token_count for e in expected])

    def test_every_output_type_becomes_an_array(self):
        texts = TEXTS[:3]
        single = self.client.embed(texts)
        self.check(self.client.embed(texts, output_type="float16"), self.raw(texts, output_type=pb.OUTPUT_TYPE_FLOAT16))
        widened = self.client.embed(texts, output_type="bfloat16")
        self.assertEqual(widened.dtype, np.float32)
        self.check((widened.view(np.uint32) >> 16).astype(np.uint16), self.raw(texts, output_type=pb.OUTPUT_TYPE_BFLOAT16))
        for result, vector in zip(self.client.embed_results(texts, output_type="int8"), single, strict=True):
            self.assertEqual(result.vector.dtype, np.int8)
            np.testing.assert_allclose(result.scale * result.vector, vector, atol=result.scale)
        bits = np.unpackbits(self.client.embed(texts, output_type="binary"), axis=1)
        np.testing.assert_array_equal(bits[:, :single.shape[1]], single > 0)
        self.assertEqual(self.client.embed([]).shape, (0, single.shape[1]))

    def test_options_and_ids_reach_the_server(self):
        texts = TEXTS[:3]
        self.check(self.client.embed(texts, normalize=False, lane="bulk"), self.raw(texts, normalize=False))
        ids = self.client.tokenize(texts)
        self.assertTrue(all(part.dtype == np.uint32 for part in ids))
        self.check(self.client.embed_ids(ids), self.raw(texts))
        self.check(self.client.embed_ids([[5, 6, 7]]), self.raw([[5, 6, 7]]))
        result, = self.client.embed_results(["word " * 3000], truncate="right")
        self.assertTrue(result.truncated)

    def test_the_model_describes_itself(self):
        info = self.client.model_info()
        self.assertEqual(info.SerializeToString(), self.stub.GetModelInfo(pb.GetModelInfoRequest()).SerializeToString())
        result, = self.client.embed_results(["a"])
        self.assertEqual(result.space.fingerprint, info.vector_space.fingerprint)

    def test_a_bad_input_fails_alone_at_its_own_position(self):
        texts = [*TEXTS[:40], "", None, "\ud800", "x" * 20000, "last"]
        with self.assertRaises(EmbedError) as caught:
            self.client.embed(texts)
        self.assertEqual({i: f.field for i, f in caught.exception.errors.items()},
                         {40: "text", 41: "", 42: "text", 43: "text"})
        self.assertIn("input 40: INVALID_ARGUMENT: text: must not be empty (and 3 more failed)", str(caught.exception))
        self.check([r.vector for r in caught.exception.results if r.error is None], self.raw([*TEXTS[:40], "last"]))
        for results in (self.client.embed_results(texts), list(self.client.stream(texts, in_order=True))):
            self.assertEqual([r.index for r in results if r.error], [40, 41, 42, 43])
        with self.assertRaises(EmbedError) as caught:
            self.client.tokenize(texts)
        self.assertEqual(list(caught.exception.errors), [40, 41, 42, 43])

    def test_what_no_server_takes_is_refused(self):
        for options in ({"dimensions": 1}, {"prompt_name": "none of them"}):
            for call in (lambda o=options: self.client.embed(["a"], **o),
                         lambda o=options: list(self.client.stream(["a"], **o)),
                         lambda o=options: gather(lambda: AsyncClient(self.server.grpc),
                                                  lambda client: client.embed(TEXTS, **o))):
                with self.assertRaises(CallError) as caught:
                    call()
                self.assertEqual(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
                self.assertIn(next(iter(options)), caught.exception.failure.field)
        for call in (lambda: self.client.embed("one string"), lambda: self.client.embed(["a"], unknown=1)):
            self.assertRaises(TypeError, call)
        for options in ({"truncate": "middle"}, {"lane": "fast"}, {"dimensions": -1}, {"prompt_name": "", "instruction": ""}):
            self.assertRaises(ValueError, self.client.embed, ["a"], **options)
        with Client(self.server.grpc, model="another") as client, self.assertRaises(CallError) as caught:
            client.embed(["a"])
        self.assertEqual(caught.exception.code, grpc.StatusCode.NOT_FOUND)
        client = Client(self.server.grpc)
        client.close()
        self.assertRaises(CallError, client.embed, ["a"])


class Doors(unittest.TestCase):
    def test_tls_and_a_key_open_the_door(self):
        work = WORK / "tls"
        work.mkdir()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=quiver.test", "-addext", "subjectAltName=DNS:quiver.test", "-keyout",
                        work / "key.pem", "-out", work / "cert.pem"], check=True, capture_output=True)
        (work / "keys").write_text(hashlib.sha256(b"the key").hexdigest() + " test\n")
        with Server(SERVER, TINY, work, "--device", "cpu", "--tls-certificate", str(work / "cert.pem"), "--tls-key",
                    str(work / "key.pem"), "--api-keys", str(work / "keys")) as server:
            trusted = {"tls": work / "cert.pem", "tls_server_name": "quiver.test"}
            with Client(server.grpc, api_key="the key", **trusted) as client:
                self.assertEqual(len(client.embed(["a"])), 1)
                self.assertEqual(len(list(client.stream(["a", "b"]))), 2)
            self.assertEqual(len(gather(lambda: AsyncClient(server.grpc, api_key="the key", **trusted),
                                        lambda client: client.embed(["a"]))), 1)
            with Client(server.grpc, api_key="another", **trusted) as client, self.assertRaises(CallError) as caught:
                client.embed(["a"])
            self.assertEqual(caught.exception.code, grpc.StatusCode.UNAUTHENTICATED)


class Streams(unittest.TestCase):
    """Over tiny models, with servers that come and go."""

    def serve(self, name):
        server = RestartableServer(SERVER, f"{name}-{self.id().rsplit('.', 1)[-1]}", TINY, WORK)
        self.addCleanup(server.kill)
        return server.start()

    def restart(self, server):
        """As a machine that fails, and comes back."""
        server.process.kill()
        server.process.wait()
        server.start()

    def expected(self, server, count):
        with Client(server.grpc) as client:
            return client.embed([f"item {i}" for i in range(count)])

    def check(self, results, expected):
        self.assertEqual(sorted(result.id for result in results), list(range(len(expected))))
        for result in results:
            np.testing.assert_array_equal(result.vector, expected[result.id])

    def test_a_killed_server_costs_no_input_and_doubles_none(self):
        total = 6000
        for in_order in (False, True):
            with self.subTest(in_order=in_order):
                server = self.serve(f"alone{in_order}")
                expected = self.expected(server, total)
                results = []
                with Client(server.grpc) as client:
                    for result in client.stream((Input(f"item {i}", i) for i in range(total)), in_order=in_order,
                                                max_in_flight=500):
                        results.append(result)
                        if len(results) in (1500, 3000):
                            self.restart(server)
                self.check(results, expected)
                if in_order:
                    self.assertEqual([result.id for result in results], list(range(total)))
                server.kill()

    def test_a_killed_server_of_two_leaves_its_work_to_the_other(self):
        total = 6000
        servers = [self.serve(f"of-two-{i}") for i in range(2)]
        expected = self.expected(servers[0], total)
        results = []
        with Client([server.grpc for server in servers]) as client:
            for result in client.stream((Input(f"item {i}", i) for i in range(total)), max_in_flight=500):
                results.append(result)
                if len(results) == 1500:
                    servers[0].process.kill()
            # And so do calls.
            np.testing.assert_array_equal(client.embed([f"item {i}" for i in range(total)]), expected)
        self.check(results, expected)

    def test_asyncio_outlives_a_killed_server_too(self):
        total = 6000
        server = self.serve("asyncio")
        expected = self.expected(server, total)

        async def items():
            for i in range(total):
                if i % 100 == 0:
                    await asyncio.sleep(0)
                yield Input(f"item {i}", i)

        async def work(client):
            results = []
            async for result in client.stream(items(), max_in_flight=500):
                results.append(result)
                if len(results) == 2000:
                    await asyncio.to_thread(self.restart, server)
            return results

        self.check(gather(lambda: AsyncClient(server.grpc), work), expected)

    def test_a_server_that_drains_costs_nothing(self):
        total = 6000
        server = self.serve("drained")
        expected = self.expected(server, total)
        results = []
        with Client(server.grpc) as client:
            for result in client.stream((Input(f"item {i}", i) for i in range(total)), max_in_flight=500):
                results.append(result)
                if len(results) == 2000:
                    self.assertEqual(server.stop(), 0)
                    server.start()
        self.check(results, expected)

    def test_a_long_stream_is_not_held(self):
        server = self.serve("long")
        total, seen, at_start = 100_000, 0, 0
        with Client(server.grpc) as client:
            for result in client.stream(f"item {i}" for i in range(total)):
                self.assertIsNone(result.error)
                seen += 1
                if seen == total // 5:
                    at_start = resident_bytes()
        self.assertEqual(seen, total)
        # The other four fifths, kept, are 80,000 results of more than 500 bytes.
        self.assertLess(resident_bytes() - at_start, 20_000_000)


class Package(unittest.TestCase):
    def test_a_source_distribution_holds_all_that_its_wheel_needs(self):
        work = WORK / "sdist"
        work.mkdir()
        source = python_package.copy_source(work)
        build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
        archive = python_package.run(sys.executable, "-c", build, work, cwd=source).split()[-1]
        python = python_package.install(work, work / archive)
        self.assertEqual(python_package.run(python, "-c", "import quiver_client; print(quiver_client.Client.__name__)",
                                            cwd=work).strip(), "Client")


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
