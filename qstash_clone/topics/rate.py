"""A limit on how often something may happen in a second."""

import time
from collections.abc import Callable

from qstash_clone.errors import RateLimited


class TokenBucket:
    """Lets so many happen in a second on average, and as many at once after a second of silence; 0 is no limit.

    It counts in one process: the limit of a service is that of its processes together.
    """

    def __init__(self, per_second: int, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._monotonic_s = monotonic_s
        self._tokens = float(per_second)
        self._filled_s = monotonic_s()

    def take(self) -> None:
        """Count one. Raises `RateLimited` for one too many, which is not counted."""
        if not self._per_second:
            return
        now_s = self._monotonic_s()
        self._tokens = min(self._per_second, self._tokens + (now_s - self._filled_s) * self._per_second)
        self._filled_s = now_s
        if self._tokens < 1:
            raise RateLimited(f"more than {self._per_second} requests to produce in a second, try again in the next")
        self._tokens -= 1
