"""From the contract's messages to NumPy."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import numpy as np

from ._pb import embed_pb2 as pb
from .errors import Failure

_DTYPES = {pb.OUTPUT_TYPE_FLOAT32: "<f4", pb.OUTPUT_TYPE_FLOAT16: "<f2", pb.OUTPUT_TYPE_BFLOAT16: "<u2",
           pb.OUTPUT_TYPE_INT8: "i1", pb.OUTPUT_TYPE_BINARY: "u1"}


class VectorSpace(NamedTuple):
    """Vectors may be compared if and only if their fingerprints are equal. Queries and documents differ in
    `prompt_fingerprint`, which is empty without a prompt."""

    fingerprint: str
    prompt_fingerprint: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one input: `vector`, or `error`."""

    index: int
    """The input's position in the list, or in the stream."""
    id: Any = None
    """Input.id."""
    vector: np.ndarray | None = None
    """float32 [d], or what `output_type` says (bfloat16 is widened to float32, without loss): float16 [d], int8 [d],
    or for "binary" uint8 [ceil(d / 8)], to be read by numpy.unpackbits. Read-only."""
    scale: float = 1.0
    """Of an int8 vector: its values are scale * vector."""
    token_count: int = 0
    """Tokens that were run, prompt and special tokens included."""
    truncated: bool = False
    """Whether the input was cut to the model's limit."""
    space: VectorSpace | None = None
    error: Failure | None = None


def read_result(message: pb.EmbedResult, index: int, id: Any, space: VectorSpace | None) -> Result:
    if message.HasField("error"):
        return Result(index, id, space=space, error=Failure.of_status(message.error))
    embedding = message.embedding
    vector = _read_vector(embedding)
    if vector is None:
        return Result(index, id, space=space, error=Failure(
            grpc.StatusCode.DATA_LOSS, f"the server sent {len(embedding.data)} bytes for a vector of "
            f"{embedding.dimensions} dimensions of type {embedding.type}"))
    scale = embedding.scale if embedding.type == pb.OUTPUT_TYPE_INT8 else 1.0
    return Result(index, id, vector, scale, embedding.token_count, embedding.truncated, space)


def vector_length(dimensions: int, output_type: int) -> int:
    """Elements of the array of one vector."""
    return (dimensions + 7) // 8 if output_type == pb.OUTPUT_TYPE_BINARY else dimensions


def empty_vectors(dimensions: int, output_type: int) -> np.ndarray:
    """What embedding no inputs gives."""
    kind = output_type or pb.OUTPUT_TYPE_FLOAT32
    dtype = "<f4" if kind == pb.OUTPUT_TYPE_BFLOAT16 else _DTYPES[kind]
    return np.empty((0, vector_length(dimensions, kind)), dtype)


def _read_vector(embedding: pb.Embedding) -> np.ndarray | None:
    dtype = _DTYPES.get(embedding.type)
    count = vector_length(embedding.dimensions, embedding.type)
    if dtype is None or count == 0 or len(embedding.data) != count * np.dtype(dtype).itemsize:
        return None
    vector = np.frombuffer(embedding.data, dtype)
    if embedding.type == pb.OUTPUT_TYPE_BFLOAT16:
        vector = (vector.astype("<u4") << 16).view("<f4")
        vector.flags.writeable = False
    return vector
