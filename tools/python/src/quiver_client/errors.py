"""What can go wrong, as values (`Failure`) and as exceptions."""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from .results import Result

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_DETAILS_KEY = "grpc-status-details-bin"
# The position in the request that a client of whole lists never sees.
_PLACE = re.compile(r"^inputs\[\d+\]\.?")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer, to one input or to a call."""

    code: grpc.StatusCode
    message: str
    field: str = ""
    """What was wrong, such as "text" or "options.dimensions"; empty if it was no field."""
    retry_after_s: float | None = None
    """The server's own hint of when it can take this; None if it gave none."""

    @property
    def passing(self) -> bool:
        """Whether the same may succeed later. A queue that is full says when; RESOURCE_EXHAUSTED without that is a
        limit. CANCELLED is how gRPC ends a call that arrives at a server which is closing: a caller's own
        cancellation does not come here."""
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.retry_after_s is not None
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

    def __str__(self) -> str:
        return f"{self.code.name}: {self.field + ': ' if self.field else ''}{self.message}"

    @classmethod
    def of_status(cls, status: status_pb2.Status) -> Failure:
        message, field, retry_after_s = status.message, "", None
        for detail in status.details:
            retry = error_details_pb2.RetryInfo()
            request = error_details_pb2.BadRequest()
            if detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
            elif detail.Unpack(request) and request.field_violations:
                violation = request.field_violations[0]
                field, message = _PLACE.sub("", violation.field), violation.description
        return cls(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), message, field, retry_after_s)

    @classmethod
    def of_rpc(cls, error: grpc.RpcError) -> Failure:
        """Of what a call of grpc or grpc.aio raised."""
        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS_KEY:
                return cls.of_status(status_pb2.Status.FromString(value))
        return cls(error.code(), error.details() or "")


class QuiverError(Exception):
    """Base of what this package raises for what happened outside of it."""


class CallError(QuiverError):
    """A call failed as a whole, after what retries there were."""

    def __init__(self, failure: Failure, server: str = ""):
        super().__init__(f"{server + ': ' if server else ''}{failure}")
        self.failure = failure
        self.server = server

    def __reduce__(self):
        """By its arguments, as it may cross processes."""
        return CallError, (self.failure, self.server)

    @property
    def code(self) -> grpc.StatusCode:
        return self.failure.code


class EmbedError(QuiverError):
    """Some inputs failed. `errors` has each one's Failure by its position; `results`, of a call that embeds, has all
    results, also those of the inputs that succeeded."""

    def __init__(self, errors: dict[int, Failure], results: Iterable[Result] = ()):
        first, failure = next(iter(errors.items()))
        rest = f" (and {len(errors) - 1} more failed)" if len(errors) > 1 else ""
        super().__init__(f"input {first}: {failure}{rest}")
        self.errors = errors
        self.results = list(results)

    def __reduce__(self):
        """By its arguments, as it may cross processes."""
        return EmbedError, (self.errors, self.results)


class VectorSpaceError(QuiverError):
    """Answers to one call came from different vector spaces: their vectors must not be compared."""
