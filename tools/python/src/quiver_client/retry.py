"""When to try again."""
from __future__ import annotations

import random
import time
from dataclasses import dataclass

from .errors import Failure


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to keep trying what servers do not take now (`Failure.passing`). A server's own hint sets the wait; the
    backoff, doubled from try to try, is for where there is none."""

    give_up_after_s: float = 60.0
    """Of a call, from its begin; of a stream, without any result. 0 tries once. A call's timeout bounds it too."""
    first_backoff_s: float = 0.1
    max_backoff_s: float = 5.0

    def delay_s(self, failure: Failure, failed_tries: int) -> float:
        """How long to leave a server alone whose last `failed_tries` (>= 1) answers failed, the last with `failure`:
        never less than it asked for, and a little at random, so that clients do not come back all at once."""
        if failure.retry_after_s is not None:
            return failure.retry_after_s * random.uniform(1.0, 1.1)
        backoff = min(self.max_backoff_s, self.first_backoff_s * 2.0 ** min(failed_tries - 1, 30))
        return backoff * random.uniform(0.5, 1.0)


class Deadline:
    """When a call has to end, and until when it may try again."""

    def __init__(self, timeout_s: float | None, retry: Retry):
        now = time.monotonic()
        self._end = None if timeout_s is None else now + timeout_s
        self._last_try = now + retry.give_up_after_s

    def remaining_s(self) -> float | None:
        """None where there is no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def allows_try_at(self, when: float) -> bool:
        return when < self._last_try and (self._end is None or when < self._end)
