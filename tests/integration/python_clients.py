#!/usr/bin/env python3
"""Two Python clients at once, reflection and health, against a real server with a tiny model.

Usage: python_clients.py QUIVER_SERVER MAKE_TINY_MODEL, from the root of the repository.
"""

import math
import pathlib
import struct
import subprocess
import sys
import tempfile
import threading
import time

import grpc
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from running_server import START_SECONDS, Server, generate_stubs

SERVICE = "quiver.v1.EmbedService"


def await_serving(health):
    for service in ("", SERVICE):
        end = time.monotonic() + START_SECONDS
        request = health_pb2.HealthCheckRequest(service=service)
        while health.Check(request, timeout=10).status != health_pb2.HealthCheckResponse.SERVING:
            assert time.monotonic() < end, f"{service!r} was never SERVING"
            time.sleep(0.05)


def check_reflection(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**request):
        message = reflection_pb2.ServerReflectionRequest(**request)
        return next(stub.ServerReflectionInfo(iter([message])))

    names = [s.name for s in ask(list_services="").list_services_response.service]
    assert SERVICE in names and "grpc.health.v1.Health" in names, names
    methods = {}
    for data in ask(file_containing_symbol=SERVICE).file_descriptor_response.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        for service in file.service:
            methods[f"{file.package}.{service.name}"] = {m.name for m in service.method}
    assert methods[SERVICE] == {"Embed", "EmbedStream", "Tokenize", "GetModelInfo"}, methods


def vector(result):
    assert result.HasField("embedding"), result
    values = struct.unpack(f"<{result.embedding.dimensions}f", result.embedding.data)
    norm = math.sqrt(sum(v * v for v in values))
    assert abs(norm - 1) < 1e-3, norm
    return result.embedding.data


def run_client(address, number, failures):
    """One client with a channel of its own: unary calls and a stream agree on every vector."""
    from quiver.v1 import embed_pb2, embed_pb2_grpc
    try:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = embed_pb2_grpc.EmbedServiceStub(channel)
            info = stub.GetModelInfo(embed_pb2.GetModelInfoRequest(), timeout=60)
            texts = [f"client {number} says {i}: " + "word " * (i % 40) for i in range(100)]
            inputs = [embed_pb2.Input(id=str(i), text=t) for i, t in enumerate(texts)]
            unary = {}
            for begin in range(0, len(inputs), 20):
                request = embed_pb2.EmbedRequest(inputs=inputs[begin:begin + 20])
                response = stub.Embed(request, timeout=120)
                assert response.usage.succeeded == 20, response.usage
                assert response.vector_space == info.vector_space
                for result in response.results:
                    unary[result.id] = vector(result)

            def messages():
                yield embed_pb2.EmbedStreamRequest(start=embed_pb2.EmbedStreamStart(in_order=True))
                for begin in range(0, len(inputs), 50):
                    yield embed_pb2.EmbedStreamRequest(inputs=inputs[begin:begin + 50])
                yield embed_pb2.EmbedStreamRequest(inputs=[embed_pb2.Input(text="")])

            responses = list(stub.EmbedStream(messages(), timeout=120))
            results = [r for response in responses for r in response.results]
            assert [r.index for r in results] == list(range(len(inputs) + 1))
            for result in results[:-1]:
                assert vector(result) == unary[result.id], f"item {result.id} differs"
            assert results[-1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            summary = responses[-1].summary
            assert summary.items == len(inputs) + 1
            assert dict(summary.failures_by_code) == {3: 1}, summary

            tokens = stub.Tokenize(embed_pb2.TokenizeRequest(inputs=inputs[:1]), timeout=60)
            ids = tokens.results[0].token_ids
            again = stub.Embed(embed_pb2.EmbedRequest(inputs=[embed_pb2.Input(token_ids=ids)]))
            assert vector(again.results[0]) == unary["0"]

            try:
                stub.Embed(embed_pb2.EmbedRequest(model="another", inputs=inputs[:1]), timeout=60)
                raise AssertionError("another model was served")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND, error
    except BaseException as error:  # pylint: disable=broad-except
        failures.append((number, error))


def main():
    program, make_tiny_model = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        generate_stubs(work / "stubs")
        subprocess.run([make_tiny_model, str(work / "model")], check=True)
        with Server(program, work / "model", work) as server:
            with grpc.insecure_channel(server.grpc) as channel:
                await_serving(health_pb2_grpc.HealthStub(channel))
                check_reflection(channel)
            failures = []
            clients = [threading.Thread(target=run_client, args=(server.grpc, n, failures))
                       for n in range(2)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            assert not failures, failures
            assert server.stop() == 0, "the server did not end well"
    print("python_clients: passed")


if __name__ == "__main__":
    main()
