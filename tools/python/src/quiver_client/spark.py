"""Spark: rows get their vectors in the Python workers of the executors, each of which keeps one client.

    from quiver_client.spark import embed_udf, with_embeddings

    vectors = with_embeddings(documents, "localhost:50051")          # all columns, and embedding, error
    embed = embed_udf("localhost:50051")
    vectors = documents.select("id", embed("text").alias("v")).select("id", "v.embedding", "v.error")

`embedding` is an array<float>, null where `error` says why there is none. The API key is QUIVER_API_KEY of the workers'
environment (`spark.executorEnv.QUIVER_API_KEY`). Options are those of quiver_client.batches.WorkerOptions.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Unpack

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType, StringType, StructType

from .batches import BatchEmbedder, WorkerOptions, embed_options


def embed_udf(addresses: str | Sequence[str], *, batch_size: int = 1024, **options: Unpack[WorkerOptions]) -> Callable:
    """A pandas_udf from a column of texts, or of token ids, to struct<embedding: array<float>, error: string>. So many
    rows go to the servers at a time."""
    worker = _Worker(addresses, batch_size, options)

    @pandas_udf(_with_vector(StructType(), "embedding", "error"))
    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            for part in worker.parts(batch):
                vectors, errors = worker.embed(part)
                yield pd.DataFrame({"embedding": vectors, "error": errors})

    return embed


def embed_frames(addresses: str | Sequence[str], *, column: str = "text", output_column: str = "embedding",
                 error_column: str = "error", batch_size: int = 1024,
                 **options: Unpack[WorkerOptions]) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """A function for DataFrame.mapInPandas: rows as they come, with two columns more."""
    worker = _Worker(addresses, batch_size, options)

    def embed(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for frame in frames:
            for part in worker.parts(frame):
                vectors, errors = worker.embed(part[column])
                yield part.assign(**{output_column: vectors, error_column: errors})

    return embed


def with_embeddings(documents: DataFrame, addresses: str | Sequence[str], *, column: str = "text",
                    output_column: str = "embedding", error_column: str = "error", batch_size: int = 1024,
                    **options: Unpack[WorkerOptions]) -> DataFrame:
    """`documents` with two columns more, by mapInPandas(embed_frames(...))."""
    if column not in documents.columns:
        raise ValueError(f"column must be one of {', '.join(documents.columns)}, not {column!r}")
    embed = embed_frames(addresses, column=column, output_column=output_column, error_column=error_column,
                         batch_size=batch_size, **options)
    return documents.mapInPandas(embed, _with_vector(documents.schema, output_column, error_column))


class _Worker:
    """What travels to the Python workers: no client, and no key."""

    def __init__(self, addresses: str | Sequence[str], batch_size: int, options: WorkerOptions):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        embed_options(options)
        self._addresses = addresses if isinstance(addresses, str) else tuple(addresses)
        self._batch_size = batch_size
        self._options = tuple(sorted(options.items()))

    def parts(self, rows):
        """Spark's own batches are made for arithmetic: 10,000 rows, whatever they weigh."""
        return (rows.iloc[begin:begin + self._batch_size] for begin in range(0, len(rows), self._batch_size))

    def embed(self, inputs: pd.Series) -> tuple[list[np.ndarray | None], list[str | None]]:
        vectors, errors = _embedder(self._addresses, self._options).embed(inputs)
        rows = [None if row in errors else vector for row, vector in enumerate(vectors.astype(np.float32, copy=False))]
        return rows, [str(errors[row]) if row in errors else None for row in range(len(rows))]


@functools.cache
def _embedder(addresses: str | tuple[str, ...], options: tuple) -> BatchEmbedder:
    """One for all tasks of a Python worker."""
    return BatchEmbedder(addresses, dict(options))


def _with_vector(schema: StructType, output_column: str, error_column: str) -> StructType:
    """Columns of these names are replaced, as pandas does it."""
    others = StructType([field for field in schema.fields if field.name not in (output_column, error_column)])
    return others.add(output_column, ArrayType(FloatType(), False)).add(error_column, StringType())
