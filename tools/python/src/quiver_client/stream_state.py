"""What of a stream waits, is with a server, and is answered: no I/O, no threads, no lock."""
from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from ._pb import embed_pb2 as pb
from .errors import CallError, Failure, VectorSpaceError
from .requests import Budget, Content, Input, write_input
from .results import Result, VectorSpace, read_result
from .retry import Retry

# A message of this size costs little beside its inputs' work, and small ones keep results coming.
_GOOD_ITEMS = 64
_GOOD_BYTES = 256 * 1024
_MAX_BYTES = 64 << 20
# An input that every server dies of must not go round for ever.
_MAX_SENDS = 10


@dataclass(slots=True)
class _Pending:
    index: int
    id: Any
    message: pb.Input
    size: int
    sends: int = 0


class Link:
    """One EmbedStream call: open until it broke, ready once the server has accepted the options."""

    def __init__(self, address: str):
        self.address = address
        self.open = True
        self.ready = False
        self.space: VectorSpace | None = None
        # Why the server took an input no further: it gets no more on this call.
        self.refusal: Failure | None = None
        self.with_server: dict[int, _Pending] = {}


class StreamState:
    """Inputs come in by `add`, go out by `take`, come back by `answer` and leave by `pop`; `broke` puts what a link had
    not answered back to the front. At most `max_items` are between `add` and `pop`."""

    def __init__(self, retry: Retry, servers: int, options: pb.EmbedOptions, in_order: bool, max_items: int):
        if max_items < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_items}")
        self.options = options
        self.failure: BaseException | None = None
        self._retry = retry
        self._in_order = in_order
        self._max_items = max_items
        # A slow server must not get hold of all of them.
        self._max_items_of_link = max(1, max_items // servers)
        self._budget: Budget | None = None
        self._space: tuple[str, str] | None = None
        self._waiting: deque[_Pending] = deque()
        self._answered: dict[int, Result] = {}
        self._ended = False
        self._added = 0
        self._popped = 0
        self._bytes = 0
        self._last_answer = time.monotonic()

    def set_limits(self, limits: pb.Limits) -> None:
        """Before anything else."""
        self._budget = Budget(limits, self.options, _GOOD_ITEMS, _GOOD_BYTES)

    @property
    def done(self) -> bool:
        """Everything was answered and taken."""
        return self._ended and self._popped == self._added

    @property
    def over(self) -> bool:
        """Servers have nothing more to do."""
        return self.failure is not None or (self._ended and not self._owed)

    @property
    def has_room(self) -> bool:
        return self._added - self._popped < self._max_items and self._bytes < _MAX_BYTES

    @property
    def _owed(self) -> bool:
        """Whether an input has no answer yet."""
        return self._added > self._popped + len(self._answered)

    def add(self, item: Content | Input) -> None:
        if not self._owed:
            self._last_answer = time.monotonic()
        item = item if isinstance(item, Input) else Input(item)
        index = self._added
        self._added += 1
        message = write_input(item.content)
        failure = message if isinstance(message, Failure) else self._budget.check(message)
        if failure is not None:
            self._answered[index] = Result(index, item.id, error=failure)
            return
        message.id = str(index)
        size = self._budget.size(message)
        self._bytes += size
        self._waiting.append(_Pending(index, item.id, message, size))

    def end(self) -> None:
        """Nothing more is added."""
        self._ended = True

    def fail(self, failure: BaseException) -> None:
        """Ends it all; the first failure stands."""
        if self.failure is None:
            self.failure = failure

    def finished(self, link: Link) -> bool:
        """Whether the link's call gets no more messages."""
        return self.over or not link.open or link.refusal is not None

    def can_take(self, link: Link) -> bool:
        return link.ready and bool(self._waiting) and len(link.with_server) < self._max_items_of_link

    def take(self, link: Link) -> pb.EmbedStreamRequest:
        """The next message, after can_take."""
        request = pb.EmbedStreamRequest()
        room = min(self._budget.max_items, self._max_items_of_link - len(link.with_server))
        size = 0
        while self._waiting and room > 0:
            item = self._waiting[0]
            if size > 0 and size + item.size > self._budget.max_bytes:
                break
            self._waiting.popleft()
            item.sends += 1
            link.with_server[item.index] = item
            request.inputs.append(item.message)
            size += item.size
            room -= 1
        return request

    def answer(self, link: Link, response: pb.EmbedStreamResponse) -> None:
        if response.HasField("vector_space"):
            self._accept(link, response.vector_space)
        again = []
        for message in response.results:
            item = link.with_server.pop(int(message.id), None)
            if item is None:
                continue
            result = read_result(message, item.index, item.id, link.space)
            if result.error is not None and result.error.passing and item.sends < _MAX_SENDS:
                again.append(item)
                link.refusal = result.error
                continue
            self._finish(item, result)
            self._last_answer = time.monotonic()
        self._put_back(again)

    def broke(self, link: Link, failure: Failure) -> None:
        """The link's call ended."""
        link.open = False
        if self.over:
            return
        again = []
        for item in link.with_server.values():
            if item.sends < _MAX_SENDS:
                again.append(item)
                continue
            self._finish(item, Result(item.index, item.id, error=Failure(
                failure.code, f"{item.sends} streams broke with this input unanswered: {failure.message}")))
        link.with_server = {}
        self._put_back(again)
        patient = not self._owed or time.monotonic() - self._last_answer < self._retry.give_up_after_s
        if not failure.passing or not patient:
            self.fail(CallError(failure, link.address))

    def pop(self) -> list[Result]:
        """What may be given to the caller now."""
        results = []
        if self._in_order:
            while (result := self._answered.pop(self._popped, None)) is not None:
                results.append(result)
                self._popped += 1
        else:
            results.extend(self._answered.values())
            self._answered.clear()
            self._popped += len(results)
        return results

    def _accept(self, link: Link, space: pb.VectorSpace) -> None:
        link.ready = True
        link.space = VectorSpace(space.fingerprint, space.prompt_fingerprint)
        if self._space is None:
            self._space = link.address, space.fingerprint
        elif self._space[1] != space.fingerprint:
            address, fingerprint = self._space
            self.fail(VectorSpaceError(f"the stream began in the vector space {fingerprint} at {address}, but "
                                       f"{link.address} now has {space.fingerprint}"))

    def _finish(self, item: _Pending, result: Result) -> None:
        self._bytes -= item.size
        self._answered[item.index] = result

    def _put_back(self, items: Iterable[_Pending]) -> None:
        self._waiting.extendleft(sorted(items, key=lambda item: item.index, reverse=True))


def start_message(model: str, state: StreamState) -> pb.EmbedStreamRequest:
    return pb.EmbedStreamRequest(start=pb.EmbedStreamStart(model=model, options=state.options))


def end_of(link: Link) -> Failure:
    """Why a call ended that ended well."""
    return link.refusal or Failure(grpc.StatusCode.UNAVAILABLE, "the server ended the stream early")
