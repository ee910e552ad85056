"""The client for asyncio."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Unpack

import grpc
import numpy as np

from ._pb import embed_pb2 as pb
from .aio_stream import stream_results
from .core import Core, Send, Sleep, Steps, Together
from .errors import Failure
from .options import EmbedOptions, PromptOptions, write_options
from .requests import Content, Input, check_list
from .results import Result
from .retry import Deadline, Retry
from .servers import Servers, Tls, channel_arguments, credentials_of, metadata_of
from .stream_state import StreamState


class AsyncClient:
    """`Client` for asyncio: the same names, arguments, results and errors. Made and used in one running event loop;
    close it, or use it in an `async with` statement. Cancelling a call's task cancels the call."""

    def __init__(self, addresses: str | Sequence[str], *, api_key: str | None = None, tls: Tls = False,
                 tls_server_name: str | None = None, tenant: str | None = None, model: str = "",
                 retry: Retry = Retry()):
        credentials, arguments = credentials_of(tls), channel_arguments(tls_server_name)

        def connect(address: str) -> grpc.aio.Channel:
            if credentials is None:
                return grpc.aio.insecure_channel(address, arguments)
            return grpc.aio.secure_channel(address, credentials, arguments)

        self._metadata = metadata_of(api_key, tenant)
        self._core = Core(Servers(addresses, connect, retry), model, retry)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what is under way, which then raises CallError."""
        self._core.servers.closed = True
        for server in self._core.servers.all:
            await server.channel.close()

    async def model_info(self, *, timeout: float | None = 60.0) -> pb.ModelInfo:
        """As Client.model_info."""
        return await self._run(self._core.model_info(timeout))

    async def embed(self, texts: Sequence[str], *, timeout: float | None = 60.0,
                    **options: Unpack[EmbedOptions]) -> np.ndarray:
        """As Client.embed: [n, d]."""
        return await self._run(self._core.embed_vectors(check_list(texts, "texts"), timeout, options))

    async def embed_ids(self, ids: Sequence[Sequence[int] | np.ndarray], *, timeout: float | None = 60.0,
                        **options: Unpack[EmbedOptions]) -> np.ndarray:
        """As Client.embed_ids: [n, d]."""
        return await self._run(self._core.embed_vectors(check_list(ids, "ids"), timeout, options))

    async def embed_results(self, inputs: Sequence[Content | Input], *, timeout: float | None = 60.0,
                            **options: Unpack[EmbedOptions]) -> list[Result]:
        """As Client.embed_results."""
        return await self._run(self._core.embed_results(inputs, timeout, options))

    async def tokenize(self, texts: Sequence[str], *, timeout: float | None = 60.0,
                       **options: Unpack[PromptOptions]) -> list[np.ndarray]:
        """As Client.tokenize."""
        return await self._run(self._core.tokenize(texts, timeout, options))

    def stream(self, inputs: Iterable[Content | Input] | AsyncIterable[Content | Input], *, in_order: bool = False,
               max_in_flight: int = 4096, timeout: float | None = None,
               **options: Unpack[EmbedOptions]) -> AsyncIterator[Result]:
        """As Client.stream, for `async for`. `inputs` may be asynchronous; one that is not is read in the event loop,
        and should not wait. An iterator that is left early is closed by its `aclose()`."""
        state = StreamState(self._core.retry, len(self._core.servers.all), write_options(options), in_order,
                            max_in_flight)
        deadline = Deadline(timeout, self._core.retry)

        async def run() -> AsyncIterator[Result]:
            state.set_limits(await self._run(self._core.limits(deadline)))
            results = stream_results(self._core, state, inputs, deadline, self._metadata)
            try:
                async for result in results:
                    yield result
            finally:
                await results.aclose()

        return run()

    async def _run(self, steps: Steps):
        outcome = None
        try:
            while True:
                outcome = await self._do(steps.send(outcome))
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    async def _do(self, step):
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Together):
            turn = asyncio.Semaphore(step.at_once)

            async def in_turn(steps: Steps):
                async with turn:
                    return await self._run(steps)

            running = [asyncio.create_task(in_turn(steps)) for steps in step.steps]
            try:
                return await asyncio.gather(*running)
            finally:
                # The first that fails is the call's error; nobody waits for the rest.
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        assert isinstance(step, Send)
        try:
            return await getattr(step.server.stub, step.method)(step.request, timeout=step.timeout_s,
                                                                metadata=self._metadata)
        except grpc.RpcError as error:
            return Failure.of_rpc(error)
