"""A stream over asyncio: a task reads the inputs, one for each server sends and receives, the caller's takes the
results."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable

import grpc

from .core import Core
from .errors import Failure
from .results import Result
from .retry import Deadline
from .servers import Server
from .stream_state import Link, StreamState, end_of, start_message

# An iterable that never waits must let the others run.
_FEED_AT_ONCE = 64


async def stream_results(core: Core, state: StreamState, inputs: Iterable | AsyncIterable, deadline: Deadline,
                         metadata: tuple) -> AsyncIterator[Result]:
    run = _StreamRun(core, state, deadline, metadata)
    feeder = asyncio.create_task(run.feed(inputs))
    servers = [asyncio.create_task(run.serve(server)) for server in core.servers.all]
    try:
        while results := await run.wait_for_results():
            for result in results:
                yield result
    finally:
        feeder.cancel()
        run.cancel()
        await asyncio.gather(feeder, *servers, return_exceptions=True)


class _Cancelled(Exception):
    """The caller wants no more."""


class _StreamRun:
    def __init__(self, core: Core, state: StreamState, deadline: Deadline, metadata: tuple):
        self._core = core
        self._state = state
        self._deadline = deadline
        self._metadata = metadata
        self._changed = asyncio.Event()
        self._calls: dict[Server, tuple[Link, grpc.aio.Call]] = {}

    async def feed(self, inputs: Iterable | AsyncIterable) -> None:
        try:
            async for item in _async_items(inputs):
                await self._wait_for(lambda: self._state.has_room or self._state.over)
                if self._state.over:
                    return
                self._state.add(item)
                self._notify()
            self._state.end()
            self._notify()
        except Exception as error:  # pylint: disable=broad-except
            self._fail(error)

    async def serve(self, server: Server) -> None:
        """One call after the other, until there is nothing left to do."""
        try:
            while not self._state.over:
                link = Link(server.address)
                failure = await self._call(server, link)
                self._state.broke(link, failure)
                self._notify()
                if self._state.over:
                    return
                delay = self._core.servers.failed(server, failure)
                try:
                    await asyncio.wait_for(self._wait_for(lambda: self._state.over), delay)
                except TimeoutError:
                    pass
        except Exception as error:  # pylint: disable=broad-except
            self._fail(error)

    async def wait_for_results(self) -> list[Result]:
        """Nothing at the end."""
        while True:
            if results := self._state.pop():
                self._notify()
                return results
            if self._state.failure is not None:
                raise self._state.failure
            if self._state.done:
                return []
            await self._changed.wait()

    def cancel(self) -> None:
        self._fail(_Cancelled())

    def _fail(self, error: BaseException) -> None:
        done = self._state.done
        self._state.fail(error)
        self._notify()
        for link, call in self._calls.values():
            # One that has answered everything ends by itself.
            if not (done and link.ready):
                call.cancel()

    def _notify(self) -> None:
        """Wakes everyone who waits, once."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_for(self, condition) -> None:
        while not condition():
            await self._changed.wait()

    async def _call(self, server: Server, link: Link) -> Failure:
        call = None
        try:
            call = server.stub.EmbedStream(self._messages(link), timeout=self._deadline.remaining_s(),
                                           metadata=self._metadata)
            self._calls[server] = link, call
            async for response in call:
                self._state.answer(link, response)
                self._notify()
                self._core.servers.succeeded(server)
            return end_of(link)
        except grpc.RpcError as error:
            return Failure.of_rpc(error)
        except asyncio.CancelledError:
            # grpc.aio says so of a call that this stream has cancelled too.
            if not self._state.over:
                raise
            return Failure(grpc.StatusCode.CANCELLED, "the stream is over")

    async def _messages(self, link: Link) -> AsyncIterator:
        yield start_message(self._core.model, self._state)
        while True:
            await self._wait_for(lambda: self._state.can_take(link) or self._state.finished(link))
            if self._state.finished(link):
                return
            yield self._state.take(link)


async def _async_items(inputs: Iterable | AsyncIterable) -> AsyncIterator:
    if isinstance(inputs, AsyncIterable):
        async for item in inputs:
            yield item
        return
    for number, item in enumerate(inputs):
        if number % _FEED_AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item
