"""The client for ordinary code."""
from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Unpack

import grpc
import numpy as np

from ._pb import embed_pb2 as pb
from .core import Core, Send, Sleep, Steps, Together
from .errors import Failure
from .options import EmbedOptions, PromptOptions, write_options
from .requests import Content, Input, check_list
from .results import Result
from .retry import Deadline, Retry
from .servers import Servers, Tls, channel_arguments, credentials_of, metadata_of
from .stream import stream_results
from .stream_state import StreamState


class Client:
    """Talks to one or several servers of one model. Thread-safe; close it, or use it in a `with` statement.

    addresses: "HOST:PORT", or a list of such. Calls go to the server that has least to do. A name that stands for
        several machines is one address, whose calls go round them.
    api_key: sent with each call. Without `tls` it travels in the clear.
    tls: True to trust the system's authorities, the path of a file of authorities in PEM, or grpc.ChannelCredentials.
    tls_server_name: the name that the certificate must have, where it is not the address's.
    tenant: on whose behalf calls are made; tenants share the device fairly.
    model: the served model's name; "" for whichever is served.
    retry: how long to keep trying what is refused for now.

    Every `timeout` is in seconds, bounds the whole call with its retries, and is endless if None. What a call raises:
    CallError if it failed as a whole, VectorSpaceError if its servers do not agree, ValueError and TypeError for
    arguments that no server takes.
    """

    def __init__(self, addresses: str | Sequence[str], *, api_key: str | None = None, tls: Tls = False,
                 tls_server_name: str | None = None, tenant: str | None = None, model: str = "",
                 retry: Retry = Retry()):
        credentials, arguments = credentials_of(tls), channel_arguments(tls_server_name)

        def connect(address: str) -> grpc.Channel:
            if credentials is None:
                return grpc.insecure_channel(address, arguments)
            return grpc.secure_channel(address, credentials, arguments)

        self._metadata = metadata_of(api_key, tenant)
        self._core = Core(Servers(addresses, connect, retry), model, retry)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is under way, which then raises CallError."""
        self._core.servers.closed = True
        for server in self._core.servers.all:
            server.channel.close()

    def model_info(self, *, timeout: float | None = 60.0) -> pb.ModelInfo:
        """The contract's message about the model, its limits and its vector space."""
        return self._run(self._core.model_info(timeout))

    def embed(self, texts: Sequence[str], *, timeout: float | None = 60.0,
              **options: Unpack[EmbedOptions]) -> np.ndarray:
        """Vectors of texts: [n, d], float32 unless `output_type` says otherwise (see Result.vector).

        A list of any length: it is cut to the server's limits, and its parts run side by side. EmbedError if any
        text failed; it has the results of the others. int8 vectors are equal to values up to a factor of each, which
        `embed_results` gives.
        """
        return self._run(self._core.embed_vectors(check_list(texts, "texts"), timeout, options))

    def embed_ids(self, ids: Sequence[Sequence[int] | np.ndarray], *, timeout: float | None = 60.0,
                  **options: Unpack[EmbedOptions]) -> np.ndarray:
        """As `embed`, for token ids, which are run as given: no prompt or special tokens are added."""
        return self._run(self._core.embed_vectors(check_list(ids, "ids"), timeout, options))

    def embed_results(self, inputs: Sequence[Content | Input], *, timeout: float | None = 60.0,
                      **options: Unpack[EmbedOptions]) -> list[Result]:
        """A result for each text or list of token ids, in their order. An input that failed has Result.error; the
        others have their vectors."""
        return self._run(self._core.embed_results(inputs, timeout, options))

    def tokenize(self, texts: Sequence[str], *, timeout: float | None = 60.0,
                 **options: Unpack[PromptOptions]) -> list[np.ndarray]:
        """The token ids (uint32) that `embed` would run, prompt and special tokens included. EmbedError as there."""
        return self._run(self._core.tokenize(texts, timeout, options))

    def stream(self, inputs: Iterable[Content | Input], *, in_order: bool = False, max_in_flight: int = 4096,
               timeout: float | None = None, **options: Unpack[EmbedOptions]) -> Iterator[Result]:
        """Results of any number of inputs, as they complete or `in_order`, each input's exactly once.

        `inputs` is read on a thread of its own, no further than `max_in_flight` inputs, or 64 MiB of them, ahead of
        the results that were taken: neither side is ever held as a whole. Every server gets a stream, and takes what
        it can. What a broken stream has not answered is sent again, to whichever server is ready; CallError if none
        gives a result for Retry.give_up_after_s. What `inputs` raises is raised here. Closing the iterator ends the
        work.
        """
        state = StreamState(self._core.retry, len(self._core.servers.all), write_options(options), in_order,
                            max_in_flight)
        deadline = Deadline(timeout, self._core.retry)

        def run() -> Iterator[Result]:
            state.set_limits(self._run(self._core.limits(deadline)))
            yield from stream_results(self._core, state, inputs, deadline, self._metadata)

        return run()

    def _run(self, steps: Steps):
        outcome = None
        try:
            while True:
                outcome = self._do(steps.send(outcome))
        except StopIteration as end:
            return end.value

    def _do(self, step):
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        if isinstance(step, Together):
            with ThreadPoolExecutor(min(step.at_once, len(step.steps))) as pool:
                running = [pool.submit(self._run, steps) for steps in step.steps]
                try:
                    return [future.result() for future in running]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        assert isinstance(step, Send)
        try:
            return getattr(step.server.stub, step.method)(step.request, timeout=step.timeout_s,
                                                          metadata=self._metadata)
        except grpc.RpcError as error:
            return Failure.of_rpc(error)
