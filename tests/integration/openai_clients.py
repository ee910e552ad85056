#!/usr/bin/env python3
"""The clients most people have, unchanged, get the very vectors that gRPC gives: the openai package, LangChain's and LlamaIndex's.

Usage: openai_clients.py QUIVER_SERVER MAKE_TINY_MODEL
"""
import asyncio
import base64
import pathlib
import subprocess
import sys
import tempfile
import unittest

import grpc
import numpy as np
import openai
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding

import running_server

SERVER, MAKE_TINY_MODEL = sys.argv[1:]
STUBS = tempfile.TemporaryDirectory()
running_server.generate_stubs(pathlib.Path(STUBS.name, "stubs"))
from quiver.v1 import embed_pb2 as pb  # noqa: E402
from quiver.v1 import embed_pb2_grpc as rpc  # noqa: E402

# What LlamaIndex and LangChain ask for unless told otherwise.
LLAMA_INDEX_MODEL = "text-embedding-ada-002"
TEXTS = ["人工智能正在改变世界。", "a cat", "a kitten", "the dog runs", "word " * 1000]


def bits(vector):
    return np.asarray(vector, dtype=np.float32).tobytes()


class OpenAiClients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        work = pathlib.Path(folder.name)
        subprocess.run([MAKE_TINY_MODEL, work / "model", "--fixtures", running_server.ROOT / "tests/fixtures"],
                       check=True)
        cls.server = running_server.Server(SERVER, work / "model", work, "--served-name",
                                           f"org/tiny,{LLAMA_INDEX_MODEL}")
        cls.addClassCleanup(cls.server.__exit__)
        cls.url = f"http://{cls.server.await_address('http')}/v1"
        cls.client = openai.OpenAI(base_url=cls.url, api_key="none")
        cls.addClassCleanup(cls.client.close)
        channel = grpc.insecure_channel(cls.server.grpc)
        cls.addClassCleanup(channel.close)
        cls.stub = rpc.EmbedServiceStub(channel)
        # The client itself tries again while the model is loaded.
        cls.client.with_options(max_retries=20).models.list()

    def by_grpc(self, inputs, **options):
        inputs = [pb.Input(text=i) if isinstance(i, str) else pb.Input(token_ids=pb.TokenIds(ids=i)) for i in inputs]
        reply = self.stub.Embed(pb.EmbedRequest(inputs=inputs, options=pb.EmbedOptions(**options)), timeout=60)
        self.assertEqual(reply.usage.failed, 0)
        return [r.embedding.data for r in reply.results], reply.usage.total_tokens

    def check(self, reply, inputs, **options):
        expected, tokens = self.by_grpc(inputs, **options)
        self.assertEqual([item.index for item in reply.data], list(range(len(inputs))))
        for item, data in zip(reply.data, expected, strict=True):
            got = item.embedding
            self.assertEqual(base64.b64decode(got) if isinstance(got, str) else bits(got), data)
        self.assertEqual((reply.usage.prompt_tokens, reply.usage.total_tokens), (tokens, tokens))
        self.assertEqual(reply.model, "org/tiny")

    def test_sync(self):
        create = self.client.embeddings.create
        self.check(create(model="org/tiny", input=TEXTS), TEXTS)
        self.check(create(model="org/tiny", input=TEXTS[0]), TEXTS[:1])
        for encoding in ("float", "base64"):
            self.check(create(model="org/tiny", input=TEXTS, encoding_format=encoding, user="u"), TEXTS)

    def test_token_ids(self):
        create = self.client.embeddings.create
        self.check(create(model="org/tiny", input=[5, 6, 7]), [[5, 6, 7]])
        self.check(create(model="org/tiny", input=[[5, 6, 7], [8]]), [[5, 6, 7], [8]])

    def test_dimensions(self):
        info = self.stub.GetModelInfo(pb.GetModelInfoRequest())
        n = info.dimensions.min_value
        self.check(self.client.embeddings.create(model="org/tiny", input=TEXTS, dimensions=n), TEXTS, dimensions=n)

    def test_extra_fields(self):
        reply = self.client.embeddings.create(model="org/tiny", input=TEXTS, extra_body={
            "instruction": "Find the animal", "normalize": False, "priority": "bulk", "truncate": True})
        self.check(reply, TEXTS, instruction="Find the animal", normalize=False)

    def test_async(self):
        async def ask():
            async with openai.AsyncOpenAI(base_url=self.url, api_key="none") as client:
                return await asyncio.gather(*(client.embeddings.create(model="org/tiny", input=t) for t in TEXTS))
        for text, reply in zip(TEXTS, asyncio.run(ask()), strict=True):
            self.check(reply, [text])

    def test_models(self):
        names = [m.id for m in self.client.models.list()]
        self.assertEqual(names, ["org/tiny", LLAMA_INDEX_MODEL])
        for name in names:
            self.assertEqual(self.client.models.retrieve(name).id, name)

    def test_errors(self):
        create = self.client.embeddings.create
        with self.assertRaises(openai.NotFoundError) as caught:
            create(model="another", input="a")
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            create(model="org/tiny", input=["a", ""])
        self.assertEqual(caught.exception.param, "input[1]")
        with self.assertRaises(openai.BadRequestError) as caught:
            create(model="org/tiny", input="a", dimensions=3)
        self.assertEqual(caught.exception.param, "dimensions")

    def test_langchain(self):
        # Without the flag it sends ids of OpenAI's tokenizer; those that this model does not have are refused.
        embeddings = OpenAIEmbeddings(model="org/tiny", base_url=self.url, api_key="none",
                                      check_embedding_ctx_length=False)
        expected, _ = self.by_grpc(TEXTS)
        self.assertEqual([bits(v) for v in embeddings.embed_documents(TEXTS)], expected)
        self.assertEqual(bits(embeddings.embed_query(TEXTS[1])), expected[1])
        with self.assertRaisesRegex(openai.UnprocessableEntityError, "check_embedding_ctx_length=False"):
            self.client.embeddings.create(model="org/tiny", input=[[9906, 99999]])

    def test_llama_index(self):
        embedding = OpenAIEmbedding(api_base=self.url, api_key="none")
        texts = [t.strip() for t in TEXTS]
        expected, _ = self.by_grpc(texts)
        self.assertEqual([bits(v) for v in embedding.get_text_embedding_batch(texts)], expected)
        self.assertEqual(bits(embedding.get_query_embedding(texts[1])), expected[1])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
