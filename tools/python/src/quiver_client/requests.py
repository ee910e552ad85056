"""From what callers have to the contract's messages, within the server's limits."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from ._pb import embed_pb2 as pb
from .errors import Failure

Content = str | Sequence[int] | np.ndarray

# A larger request gains nothing, and many can run side by side.
_GOOD_ITEMS = 512
# Tags and lengths around one input, and around a message.
_INPUT_OVERHEAD = 16
_MESSAGE_OVERHEAD = 1024


@dataclass(frozen=True, slots=True)
class Input:
    """One input with a name of the caller's own."""

    content: Content
    """A text, or token ids that are run as given, without prompt and special tokens."""
    id: Any = None
    """Comes back as Result.id. It does not travel, so it may be anything."""


def write_input(content: Content) -> pb.Input | Failure:
    """What a server could not even read fails here."""
    try:
        if isinstance(content, str):
            return pb.Input(text=content)
        if isinstance(content, (Sequence, np.ndarray)) and not isinstance(content, (bytes, bytearray)):
            return pb.Input(token_ids=pb.TokenIds(ids=content))
    except UnicodeEncodeError as error:
        return Failure(grpc.StatusCode.INVALID_ARGUMENT, f"must be valid Unicode: {error.reason}", "text")
    except (TypeError, ValueError, OverflowError) as error:
        return Failure(grpc.StatusCode.INVALID_ARGUMENT, f"must be integers from 0 to 4294967295: {error}", "token_ids")
    return Failure(grpc.StatusCode.INVALID_ARGUMENT, f"must be a text or token ids, not {type(content).__name__}")


def check_list(inputs: Iterable, name: str) -> list:
    """One string is a list of letters by mistake."""
    if isinstance(inputs, (str, bytes)):
        raise TypeError(f"{name} must be a list, not one {type(inputs).__name__}")
    return list(inputs)


class Budget:
    """How much one message may hold, of a server's limits and beside a request's `options`."""

    def __init__(self, limits: pb.Limits, options: pb.EmbedOptions, good_items: int = _GOOD_ITEMS,
                 good_bytes: int | None = None):
        self.max_items = max(1, min(limits.max_items_per_request, good_items))
        # One input alone may have all of it.
        self.max_input_bytes = max(0, limits.max_message_bytes - options.ByteSize() - _MESSAGE_OVERHEAD)
        self.max_bytes = self.max_input_bytes if good_bytes is None else min(good_bytes, self.max_input_bytes)

    @staticmethod
    def size(message: pb.Input) -> int:
        return message.ByteSize() + _INPUT_OVERHEAD

    def check(self, message: pb.Input) -> Failure | None:
        """Why the input fits into no message."""
        size = self.size(message)
        if size <= self.max_input_bytes:
            return None
        return Failure(grpc.StatusCode.INVALID_ARGUMENT, f"must fit into one message of {self.max_input_bytes} bytes, has "
                       f"{size}", message.WhichOneof("content"))

    def split(self, messages: Iterable[tuple[int, pb.Input]]) -> list[list[tuple[int, pb.Input]]]:
        parts: list[list[tuple[int, pb.Input]]] = []
        used = 0
        for place, message in messages:
            size = self.size(message)
            if not parts or len(parts[-1]) == self.max_items or used + size > self.max_bytes:
                parts.append([])
                used = 0
            parts[-1].append((place, message))
            used += size
        return parts
