"""Ray Data: rows get their vectors in actors, each of which keeps one client.

    import ray
    from quiver_client.ray import Embedder

    documents = ray.data.read_parquet("documents")
    vectors = documents.map_batches(Embedder, fn_constructor_kwargs={"addresses": "localhost:50051"}, batch_size=1024,
                                    compute=ray.data.ActorPoolStrategy(size=4), num_cpus=0.1)
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from .batches import BatchEmbedder, WorkerOptions


class Embedder:
    """For map_batches of a dataset, with batches of NumPy, which is their default.

    addresses: as of Client.
    column: has the texts, or token ids.
    output_column: gets the vectors: float32, or float16 if `output_type` says so.
    error_column: gets why a row has no vector, "" where it has one. Its vector is of NaN.
    options: see WorkerOptions. The API key is QUIVER_API_KEY of the actor's environment (`runtime_env`).
    """

    def __init__(self, addresses: str | Sequence[str], *, column: str = "text", output_column: str = "embedding",
                 error_column: str = "error", **options: Unpack[WorkerOptions]):
        self._column, self._output_column, self._error_column = column, output_column, error_column
        self._embedder = BatchEmbedder(addresses, options)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._column not in batch:
            raise ValueError(f"column must be one of {', '.join(batch)}, not {self._column!r}")
        vectors, errors = self._embedder.embed(batch[self._column])
        # Objects: Ray takes them for strings, also if all are empty.
        reasons = np.full(len(vectors), "", object)
        for row, failure in errors.items():
            reasons[row] = str(failure)
        return {**batch, self._output_column: vectors, self._error_column: reasons}
