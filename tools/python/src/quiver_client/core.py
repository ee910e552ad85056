"""What both clients do, without doing it: generators that yield a step (Send, Sleep, Together), are sent its outcome,
and return their result. A client drives them with threads or with asyncio."""
from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from ._pb import embed_pb2 as pb
from .errors import CallError, EmbedError, Failure, VectorSpaceError
from .options import EmbedOptions, PromptOptions, write_options
from .requests import Budget, Input, check_list, write_input
from .results import Result, VectorSpace, empty_vectors, read_result
from .retry import Deadline, Retry
from .servers import Server, Servers

Steps = Generator[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Send:
    """A unary call. Its outcome is the reply, or a Failure."""

    server: Server
    method: str
    request: Any
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Steps that may run side by side, so many at a time. Their outcome is the list of what they return."""

    steps: Sequence[Steps]
    at_once: int


class Core:
    def __init__(self, servers: Servers, model: str, retry: Retry):
        self.servers = servers
        self.model = model
        self.retry = retry
        self._limits: pb.Limits | None = None

    def model_info(self, timeout: float | None) -> Steps:
        return (yield from self._info(Deadline(timeout, self.retry)))

    def embed_vectors(self, inputs: Sequence, timeout: float | None, options: EmbedOptions) -> Steps:
        message = write_options(options)
        deadline = Deadline(timeout, self.retry)
        if not inputs:
            info = yield from self._info(deadline)
            return empty_vectors(message.dimensions or info.dimensions.default_value, message.output_type)
        results = yield from self._embed([Input(content) for content in inputs], message, deadline)
        raise_errors(results)
        return np.stack([result.vector for result in results])

    def embed_results(self, inputs: Sequence, timeout: float | None, options: EmbedOptions) -> Steps:
        inputs = [i if isinstance(i, Input) else Input(i) for i in check_list(inputs, "inputs")]
        return (yield from self._embed(inputs, write_options(options), Deadline(timeout, self.retry)))

    def tokenize(self, texts: Sequence[str], timeout: float | None, options: PromptOptions) -> Steps:
        message = write_options(options)
        texts = check_list(texts, "texts")
        deadline = Deadline(timeout, self.retry)
        ids: list[np.ndarray | None] = [None] * len(texts)
        errors: dict[int, Failure] = {}

        def one(part):
            request = pb.TokenizeRequest(model=self.model, options=message, inputs=[m for _, m in part])
            reply, _ = yield from self._call("Tokenize", request, len(part), deadline)
            for (place, _), result in zip(part, reply.results, strict=True):
                if result.HasField("error"):
                    errors[place] = Failure.of_status(result.error)
                else:
                    ids[place] = np.array(result.token_ids.ids, dtype=np.uint32)

        parts = yield from self._prepare(texts, message, errors, deadline)
        yield from self._together([one(part) for part in parts])
        if errors:
            raise EmbedError(dict(sorted(errors.items())))
        return ids

    def limits(self, deadline: Deadline) -> Steps:
        """Asked once; they hold for all servers."""
        if self._limits is None:
            yield from self._info(deadline)
        return self._limits

    def _info(self, deadline: Deadline) -> Steps:
        info, _ = yield from self._call("GetModelInfo", pb.GetModelInfoRequest(model=self.model), 0, deadline)
        self._limits = info.limits
        return info

    def _embed(self, inputs: list[Input], message: pb.EmbedOptions, deadline: Deadline) -> Steps:
        results: list[Result | None] = [None] * len(inputs)
        spaces: dict[str, str] = {}

        def one(part):
            refusal: CallError | None = None
            while part:
                request = pb.EmbedRequest(model=self.model, options=message, inputs=[m for _, m in part])
                try:
                    reply, server = yield from self._call("Embed", request, len(part), deadline, refusal)
                except CallError:
                    # Of inputs that were refused before, what the server said to each stands.
                    if refusal is None:
                        raise
                    return
                space = VectorSpace(reply.vector_space.fingerprint, reply.vector_space.prompt_fingerprint)
                spaces[space.fingerprint] = server.address
                refused = []
                for (place, sent), answer in zip(part, reply.results, strict=True):
                    result = read_result(answer, place, inputs[place].id, space)
                    results[place] = result
                    if result.error is not None and result.error.passing:
                        refused.append((place, sent))
                if refused:
                    longest = max((results[place].error for place, _ in refused),
                                  key=lambda error: error.retry_after_s or 0.0)
                    self.servers.failed(server, longest)
                    refusal = CallError(longest, server.address)
                part = refused

        errors: dict[int, Failure] = {}
        parts = yield from self._prepare([i.content for i in inputs], message, errors, deadline)
        for place, failure in errors.items():
            results[place] = Result(place, inputs[place].id, error=failure)
        yield from self._together([one(part) for part in parts])
        if len(spaces) > 1:
            raise VectorSpaceError("the servers do not serve one vector space: " + ", ".join(
                f"{address} has {fingerprint}" for fingerprint, address in spaces.items()))
        return results

    def _prepare(self, contents: list, options: pb.EmbedOptions, errors: dict[int, Failure],
                 deadline: Deadline) -> Steps:
        """The inputs in parts that a server takes; what no server could read goes to `errors`."""
        budget = Budget((yield from self.limits(deadline)), options)
        messages = []
        for place, content in enumerate(contents):
            message = write_input(content)
            failure = message if isinstance(message, Failure) else budget.check(message)
            if failure is None:
                messages.append((place, message))
            else:
                errors[place] = failure
        return budget.split(messages)

    def _together(self, steps: list[Steps]) -> Steps:
        if len(steps) == 1:
            yield from steps[0]
        elif steps:
            # A server has one part at work and the next at hand.
            yield Together(steps, 2 * len(self.servers.all))

    def _call(self, method: str, request: Any, inputs: int, deadline: Deadline,
              last: CallError | None = None) -> Steps:
        """The reply and who gave it, after as many tries as the deadline allows. `last` is how a try ended that went
        before; without it the first is made in any case, if need be before the server is ready."""
        while True:
            with self.servers.take(inputs) as (server, ready):
                now = time.monotonic()
                allowed = deadline.allows_try_at(max(ready, now))
                if last is not None and not allowed:
                    raise last
                if ready > now and allowed:
                    yield Sleep(ready - now)
                if self.servers.closed:
                    raise CallError(Failure(grpc.StatusCode.CANCELLED, "the client is closed"))
                reply = yield Send(server, method, request, deadline.remaining_s())
            if not isinstance(reply, Failure):
                self.servers.succeeded(server)
                return reply, server
            last = CallError(reply, server.address)
            if not reply.passing:
                raise last
            self.servers.failed(server, reply)


def raise_errors(results: Sequence[Result]) -> None:
    errors = {result.index: result.error for result in results if result.error is not None}
    if errors:
        raise EmbedError(errors, results)
