#!/usr/bin/env python3
"""Whatever a client sends, and whatever stands in a model's files, is answered with a status and a reason, and harms nobody else.

Usage: bad_input.py QUIVER_SERVER MAKE_TINY_MODEL
"""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

import grpc

import running_server

SERVER, MAKE_TINY_MODEL = sys.argv[1:]
STUBS = tempfile.TemporaryDirectory()
running_server.generate_stubs(pathlib.Path(STUBS.name, "stubs"))
from google.rpc.error_details_pb2 import BadRequest  # noqa: E402
from google.rpc.status_pb2 import Status as RpcStatus  # noqa: E402
from quiver.v1 import embed_pb2 as pb  # noqa: E402
from quiver.v1 import embed_pb2_grpc as rpc  # noqa: E402

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
MAX_TOKENS = 4096
MAX_TEXT_BYTES = 32 * MAX_TOKENS
HIDDEN_SIZE = 64


def make_model(target, *flags):
    subprocess.run([MAKE_TINY_MODEL, target, "--fixtures", running_server.ROOT / "tests/fixtures", *flags], check=True)
    return target


class Request(unittest.TestCase):
    """Each against a Qwen3, while another client's requests go on and must give the same bits throughout."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        work = pathlib.Path(cls.folder.name)
        cls.server = running_server.Server(SERVER, make_model(work / "qwen3"), work)
        cls.addClassCleanup(cls.server.__exit__)
        cls.channel = grpc.insecure_channel(cls.server.grpc, [("grpc.max_send_message_length", -1)])
        cls.stub = rpc.EmbedServiceStub(cls.channel)
        cls.good = cls.first_vector()
        cls.stop = threading.Event()
        cls.neighbour_failures = []
        cls.neighbour = threading.Thread(target=cls.be_a_neighbour)
        cls.neighbour.start()

    @classmethod
    def first_vector(cls):
        request = pb.EmbedRequest(inputs=[pb.Input(text="good")])
        # The ports are bound before the model is loaded.
        for attempt in range(600):
            try:
                return cls.stub.Embed(request, wait_for_ready=True, timeout=60).results[0].embedding.data
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or attempt == 599:
                    raise
                threading.Event().wait(0.1)

    @classmethod
    def be_a_neighbour(cls):
        with grpc.insecure_channel(cls.server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = rpc.EmbedServiceStub(channel)
            while not cls.stop.wait(0.01):
                response = stub.Embed(pb.EmbedRequest(inputs=[pb.Input(text="good")] * 3), timeout=60)
                if any(result.embedding.data != cls.good for result in response.results):
                    cls.neighbour_failures.append(response)

    @classmethod
    def tearDownClass(cls):
        cls.stop.set()
        cls.neighbour.join()
        cls.channel.close()
        code = cls.server.stop()
        cls.folder.cleanup()
        assert not cls.neighbour_failures, cls.neighbour_failures[0]
        assert code == 0, f"the server ended with {code}"

    def check_status(self, status, field, parts):
        """`status` is INVALID_ARGUMENT, names `field` in words and in its details, and says each of `parts`."""
        self.assertEqual(status.code, INVALID_ARGUMENT.value[0], status.message)
        violations = BadRequest()
        self.assertTrue(status.details[0].Unpack(violations))
        self.assertEqual(violations.field_violations[0].field, field)
        self.assertTrue(status.message.startswith(f"{field}: "), status.message)
        for part in parts:
            self.assertIn(part, status.message)

    def check_request_fails(self, call, field, *parts):
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        self.assertEqual(raised.exception.code(), INVALID_ARGUMENT)
        details = dict(raised.exception.trailing_metadata())["grpc-status-details-bin"]
        self.check_status(RpcStatus.FromString(details), field, parts)

    def check_options_fail(self, field, *parts, **options):
        request = {"inputs": [pb.Input(text="good")], "options": pb.EmbedOptions(**options)}
        self.check_request_fails(lambda: self.stub.Embed(pb.EmbedRequest(**request), timeout=60), field, *parts)
        start = pb.EmbedStreamRequest(start=pb.EmbedStreamStart(options=request["options"]), inputs=request["inputs"])
        self.check_request_fails(lambda: list(self.stub.EmbedStream(iter([start]), timeout=60)), f"start.{field}", *parts)

    def check_results(self, results, field, parts):
        """Of three inputs only the second failed."""
        self.assertEqual(len(results), 3)
        for index in (0, 2):
            self.assertEqual(results[index].embedding.data, self.good)
        self.check_status(results[1].error, f"inputs[1].{field}", parts)

    def check_input_fails(self, bad, field, *parts):
        """The input fails alone: between two good ones of one request, and of one message of a stream."""
        inputs = [pb.Input(text="good"), bad, pb.Input(text="good")]
        self.check_results(self.stub.Embed(pb.EmbedRequest(inputs=inputs), timeout=60).results, field, parts)
        message = pb.EmbedStreamRequest(start=pb.EmbedStreamStart(in_order=True), inputs=inputs)
        responses = self.stub.EmbedStream(iter([message]), timeout=60)
        self.check_results([result for response in responses for result in response.results], field, parts)

    def test_empty_input(self):
        self.check_input_fails(pb.Input(text=""), "text", "must not be empty")
        self.check_input_fails(pb.Input(token_ids=pb.TokenIds()), "token_ids", "must not be empty")
        self.check_input_fails(pb.Input(), "content", "text or token_ids", "unset")

    def test_no_input(self):
        self.check_request_fails(lambda: self.stub.Embed(pb.EmbedRequest(), timeout=60), "inputs", "at least 1", "are 0")

    def test_too_many_inputs(self):
        request = pb.EmbedRequest(inputs=[pb.Input(text="good")] * 10_001)
        self.check_request_fails(lambda: self.stub.Embed(request, timeout=60), "inputs", "10000", "10001")

    def test_ten_megabytes_of_text(self):
        self.check_input_fails(pb.Input(text="x" * (10 << 20)), "text", str(MAX_TEXT_BYTES), str(10 << 20))

    def test_over_long_without_truncation(self):
        request = pb.TokenizeRequest(inputs=[pb.Input(text="word " * MAX_TOKENS)],
                                     options=pb.EmbedOptions(truncation=pb.TRUNCATION_RIGHT))
        cut = self.stub.Tokenize(request, timeout=60).results[0]
        self.assertTrue(cut.truncated)
        self.assertEqual(len(cut.token_ids.ids), MAX_TOKENS)
        self.check_input_fails(pb.Input(text="word " * MAX_TOKENS), "text", str(MAX_TOKENS), "it has ")
        ids = pb.TokenIds(ids=[5] * (MAX_TOKENS + 1))
        self.check_input_fails(pb.Input(token_ids=ids), "token_ids", str(MAX_TOKENS), str(MAX_TOKENS + 1))

    def test_dimensions_of_zero_and_above_the_hidden_size(self):
        for dimensions in (0, HIDDEN_SIZE + 1, 2**32 - 1):
            self.check_options_fail("options.dimensions", f" to {HIDDEN_SIZE}", f"is {dimensions}", dimensions=dimensions)

    def test_unknown_prompt(self):
        self.check_options_fail("options.prompt_name", '"nope"', '"query"', prompt_name="nope")

    def test_id_out_of_range(self):
        size = self.stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).vocabulary_size
        for bad in (size, 2**32 - 1):
            ids = pb.TokenIds(ids=[1, bad])
            self.check_input_fails(pb.Input(token_ids=ids), "token_ids", "index 1", f"is {bad}")

    def test_invalid_utf8(self):
        request = pb.EmbedRequest(inputs=[pb.Input(text=text) for text in ("good", "abc~", "good")])
        # Protobuf would not write this.
        data = request.SerializeToString().replace(b"abc~", b"abc\xff")
        embed = self.channel.unary_unary("/quiver.v1.EmbedService/Embed", response_deserializer=pb.EmbedResponse.FromString)
        self.check_results(embed(data, timeout=60).results, "text", ["UTF-8", "byte 3"])
        self.check_request_fails(lambda: embed(data + pb.EmbedRequest(model="abc~").SerializeToString()
                                               .replace(b"abc~", b"abc\xff"), timeout=60), "model", "UTF-8", "byte 3")

    def test_unknown_enum(self):
        for field, limit in (("output_type", 5), ("truncation", 3), ("lane", 2)):
            self.check_options_fail(f"options.{field}", f"from 0 to {limit}", "is 77", **{field: 77})


class DimensionsOfABert(unittest.TestCase):
    def test_dimensions_that_the_model_does_not_support(self):
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            with running_server.Server(SERVER, make_model(work / "bert", "--family", "bert"), work) as server, \
                 grpc.insecure_channel(server.grpc) as channel:
                health = channel.unary_unary("/grpc.health.v1.Health/Check")
                while health(b"", timeout=10) != b"\x08\x01":
                    self.assertIsNone(server.process.poll())
                    threading.Event().wait(0.05)
                request = pb.EmbedRequest(inputs=[pb.Input(text="good")], options=pb.EmbedOptions(dimensions=HIDDEN_SIZE - 1))
                with self.assertRaises(grpc.RpcError) as raised:
                    rpc.EmbedServiceStub(channel).Embed(request, timeout=60)
                self.assertEqual(raised.exception.code(), INVALID_ARGUMENT)
                self.assertIn(f"options.dimensions: must be {HIDDEN_SIZE}", raised.exception.details())
                self.assertIn(f"is {HIDDEN_SIZE - 1}", raised.exception.details())


class ModelFiles(unittest.TestCase):
    """The server says which file is wrong and why, and ends with exit code 1."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.model = make_model(pathlib.Path(folder.name, "model"))
        self.weights = self.model / "model.safetensors"
        self.data = self.weights.read_bytes()
        self.header_size = struct.unpack("<Q", self.data[:8])[0]

    def check_refused(self, *parts):
        run = subprocess.run([SERVER, "--model", self.model, "--grpc-port", "0", "--http-port", "0"], capture_output=True,
                             text=True, timeout=120, check=False)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertEqual(run.stdout, "")
        for part in ("cannot load the model", *parts):
            self.assertIn(part, run.stderr)

    def write_header(self, change):
        """Changes the header's tensors; the data stay."""
        header = json.loads(self.data[8:8 + self.header_size])
        change(header)
        text = json.dumps(header).encode()
        self.weights.write_bytes(struct.pack("<Q", len(text)) + text + self.data[8 + self.header_size:])

    def test_truncated_safetensors(self):
        for size in (4, self.header_size // 2, len(self.data) - 1):
            self.weights.write_bytes(self.data[:size])
            self.check_refused("model.safetensors", "DATA_LOSS")

    def test_corrupt_safetensors(self):
        self.weights.write_bytes(self.data[:8] + b"\xff" * self.header_size + self.data[8 + self.header_size:])
        self.check_refused("model.safetensors", "DATA_LOSS", "header")

    def test_weights_that_are_not_numbers(self):
        self.weights.write_bytes(self.data[:8 + self.header_size] + b"\xff" * (len(self.data) - 8 - self.header_size))
        self.check_refused("not finite")

    def test_lying_safetensors(self):
        norm = "model.norm.weight"

        def move(header):
            header[norm]["data_offsets"] = [offset + (1 << 40) for offset in header[norm]["data_offsets"]]

        def grow(header):
            header[norm]["shape"] = [HIDDEN_SIZE * 2]

        def reshape(header):
            header[norm]["shape"] = [HIDDEN_SIZE // 2, 2]

        self.write_header(move)
        self.check_refused("model.safetensors", norm, "leaves the file")
        self.write_header(grow)
        self.check_refused("model.safetensors", norm, f"takes {HIDDEN_SIZE * 8} bytes")
        self.write_header(reshape)
        self.check_refused("model.safetensors", norm, f"[{HIDDEN_SIZE}]", f"[{HIDDEN_SIZE // 2}, 2]")

    def test_tokenizer_of_another_kind(self):
        path = self.model / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        tokenizer["model"] = {"type": "Unigram", "vocab": [["<unk>", 0.0]]}
        path.write_text(json.dumps(tokenizer))
        self.check_refused("tokenizer.json", "model.type", "Unigram")
        path.write_text((self.model / "config.json").read_text())
        self.check_refused("tokenizer.json")

    def test_missing_shard(self):
        shutil.rmtree(self.model)
        make_model(self.model, "--shards", "3")
        (self.model / "model-00002-of-00003.safetensors").unlink()
        self.check_refused("model-00002-of-00003.safetensors", "NOT_FOUND")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
