"""A limit on requests, those other than publishing for one: so many in each second of the clock, per process."""

from qstash_clone.api.errors import Header, TooManyRequests
from qstash_clone.clock import Clock

_SECOND_MS = 1000


class BurstLimit:
    """Counts requests; see docs/protocol/transport.md."""

    def __init__(self, per_second: int, clock: Clock) -> None:
        self._per_second = per_second
        self._clock = clock
        self._second = 0
        self._count = 0

    def take(self) -> tuple[Header, ...]:
        """Count one request and return what its answer says about the limit; nothing where there is none.

        Raises `TooManyRequests` for one too many.
        """
        if not self._per_second:
            return ()
        second = self._clock.now_ms() // _SECOND_MS
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        headers = (
            (b"burst-ratelimit-limit", b"%d" % self._per_second),
            (b"burst-ratelimit-remaining", b"%d" % max(0, self._per_second - self._count)),
            (b"burst-ratelimit-reset", b"%d" % (second + 1)),
        )
        if self._count > self._per_second:
            raise TooManyRequests(
                f"more than {self._per_second} requests in this second, try again in the next", headers
            )
        return headers
