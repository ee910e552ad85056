"""What adapters to engines that spread work over machines share: a worker's own client, to which batches of inputs go."""
from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from .client import Client
from .errors import CallError, EmbedError, Failure, VectorSpaceError
from .options import EmbedOptions, write_options
from .results import VectorSpace
from .retry import Retry

# Keys do not travel with the work: each worker has its own environment's.
API_KEY_VARIABLE = "QUIVER_API_KEY"


class WorkerOptions(EmbedOptions, total=False):
    """Options of the adapters: those of a call that embeds, of the client, and of a batch. Of output types, "int8" and
    "binary" are not among them."""

    tls: bool | str
    """As of Client. A path is one on the workers."""
    tls_server_name: str
    tenant: str
    model: str
    timeout: float
    """Seconds that a batch may take, with all its retries; 600 where absent."""
    retry_for: float
    """Seconds for which servers may give no result until the batch fails; 300 where absent."""
    raise_errors: bool
    """Raise EmbedError if an input failed, which fails the batch, instead of saying so in the row."""
    vector_space: str
    """The fingerprint that all vectors must have (Result.space, or the meta.json of `quiver index`). Without it a worker
    holds to that of its first vector."""


class BatchEmbedder:
    """Embeds batches over one client, which it keeps as long as the worker lives."""

    def __init__(self, addresses: str | Sequence[str], options: WorkerOptions):
        self._options = embed_options(options)
        self._timeout = options.get("timeout", 600.0)
        self._raise_errors = options.get("raise_errors", False)
        self._space = options.get("vector_space")
        self._dtype = np.float16 if options.get("output_type") == "float16" else np.float32
        more = {name: options[name] for name in ("tls", "tls_server_name", "tenant", "model") if name in options}
        self._client = Client(addresses, api_key=os.environ.get(API_KEY_VARIABLE),
                              retry=Retry(give_up_after_s=options.get("retry_for", 300.0)), **more)
        self._dimensions = options.get("dimensions") or self._client.model_info(
            timeout=self._timeout).dimensions.default_value

    def embed(self, inputs: Sequence) -> tuple[np.ndarray, dict[int, Failure]]:
        """Vectors [n, d], and why there is none, by position: such a row is of NaN. What may succeed later is no
        property of an input: it raises CallError, after the retries that there were."""
        vectors = np.full((len(inputs), self._dimensions), np.nan, self._dtype)
        errors = {}
        for result in self._client.stream(inputs, timeout=self._timeout, **self._options):
            if result.error is None:
                self._check_space(result.space)
                vectors[result.index] = result.vector
            elif result.error.passing:
                raise CallError(result.error)
            else:
                errors[result.index] = result.error
        if errors and self._raise_errors:
            raise EmbedError(dict(sorted(errors.items())))
        return vectors, errors

    def _check_space(self, space: VectorSpace) -> None:
        if self._space is None:
            self._space = space.fingerprint
        elif self._space != space.fingerprint:
            raise VectorSpaceError(f"vectors must be of the space {self._space}, but the server has {space.fingerprint}")


def embed_options(options: WorkerOptions) -> EmbedOptions:
    """Those of the call. TypeError and ValueError for what no worker could take, before work is handed out."""
    own = WorkerOptions.__annotations__.keys() - EmbedOptions.__annotations__.keys()
    chosen = {name: value for name, value in options.items() if name not in own}
    write_options(chosen)
    if options.get("output_type") in ("int8", "binary"):
        raise ValueError(f"output_type must be 'float32', 'float16' or 'bfloat16', not {options['output_type']!r}")
    for name in ("timeout", "retry_for"):
        if not options.get(name, 1.0) > 0:
            raise ValueError(f"{name} must be more than 0 seconds, not {options[name]!r}")
    return chosen
