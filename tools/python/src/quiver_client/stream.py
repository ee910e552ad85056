"""A stream over threads: one reads the inputs, one for each server sends and receives, the caller's takes the results."""
from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import grpc

from .core import Core
from .errors import Failure
from .results import Result
from .retry import Deadline
from .servers import Server
from .stream_state import Link, StreamState, end_of, start_message


def stream_results(core: Core, state: StreamState, inputs: Iterable, deadline: Deadline,
                   metadata: tuple) -> Iterator[Result]:
    run = _StreamRun(core, state, deadline, metadata)
    threads = [threading.Thread(target=run.serve, args=(server,), daemon=True) for server in core.servers.all]
    # The caller's iterable may never return: nobody waits for this one.
    threading.Thread(target=run.feed, args=(inputs,), daemon=True).start()
    for thread in threads:
        thread.start()
    try:
        while results := run.wait_for_results():
            yield from results
    finally:
        run.cancel()
        for thread in threads:
            thread.join()


class _Cancelled(Exception):
    """The caller wants no more."""


class _StreamRun:
    def __init__(self, core: Core, state: StreamState, deadline: Deadline, metadata: tuple):
        self._core = core
        self._state = state
        self._deadline = deadline
        self._metadata = metadata
        self._changed = threading.Condition()
        self._calls: dict[Server, tuple[Link, grpc.Call]] = {}

    def feed(self, inputs: Iterable) -> None:
        try:
            for item in inputs:
                with self._changed:
                    self._changed.wait_for(lambda: self._state.has_room or self._state.over)
                    if self._state.over:
                        return
                    self._state.add(item)
                    self._changed.notify_all()
            with self._changed:
                self._state.end()
                self._changed.notify_all()
        except BaseException as error:  # pylint: disable=broad-except
            self._fail(error)

    def serve(self, server: Server) -> None:
        """One call after the other, until there is nothing left to do."""
        try:
            while self._may_start(server):
                link = Link(server.address)
                failure = self._call(server, link)
                with self._changed:
                    self._state.broke(link, failure)
                    self._changed.notify_all()
                    if self._state.over:
                        return
                delay = self._core.servers.failed(server, failure)
                with self._changed:
                    self._changed.wait_for(lambda: self._state.over, timeout=delay)
        except BaseException as error:  # pylint: disable=broad-except
            self._fail(error)

    def wait_for_results(self) -> list[Result]:
        """Nothing at the end."""
        with self._changed:
            while True:
                results = self._state.pop()
                if results:
                    self._changed.notify_all()
                    return results
                if self._state.failure is not None:
                    raise self._state.failure
                if self._state.done:
                    return []
                self._changed.wait()

    def cancel(self) -> None:
        self._fail(_Cancelled())

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            done = self._state.done
            self._state.fail(error)
            self._changed.notify_all()
            calls = list(self._calls.values())
        for link, call in calls:
            # One that has answered everything ends by itself.
            if not (done and link.ready):
                call.cancel()

    def _may_start(self, server: Server) -> bool:
        with self._changed:
            return not self._state.over

    def _call(self, server: Server, link: Link) -> Failure:
        try:
            call = server.stub.EmbedStream(self._messages(link), timeout=self._deadline.remaining_s(),
                                           metadata=self._metadata)
            with self._changed:
                self._calls[server] = link, call
                over = self._state.over
            if over:
                call.cancel()
            for response in call:
                with self._changed:
                    self._state.answer(link, response)
                    self._changed.notify_all()
                self._core.servers.succeeded(server)
            return end_of(link)
        except grpc.RpcError as error:
            return Failure.of_rpc(error)

    def _messages(self, link: Link) -> Iterator:
        """On gRPC's thread."""
        yield start_message(self._core.model, self._state)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._state.can_take(link) or self._state.finished(link))
                if self._state.finished(link):
                    return
                message = self._state.take(link)
            yield message
