"""What a receiver saw of one flow-control key, to be held against the key's limits."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from redis.exceptions import RedisError

from tests.faults.inspection import Inspector
from tests.faults.recording import Exchange, Recording
from tests.support.tasks import end

_SAMPLED_EVERY_S = 0.005
"""Nothing is claimed in the last 20 ms of a window, so the last sample of a window has its final count."""
_NS_PER_MS = 1_000_000


class WindowWatch:
    """Notes the rate windows of a key as Redis opens them; a context manager."""

    def __init__(self, inspector: Inspector, key: str) -> None:
        self._inspector = inspector
        self._key = key
        self._task: asyncio.Task[None] | None = None
        self.counted: dict[int, int] = {}
        """Start of each window (unix ms, by the clock that the receiver has too), and the attempts that it counted."""
        self._samples: Counter[int] = Counter()
        self._idle: Counter[int] = Counter()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        await end(self._task)

    def idle_share(self, start: int) -> float:
        """The share of a window's time in which its rate was held back from workers that had places. Where a window is
        not used up, this tells a fault of the service from a machine that cannot deliver so many in time."""
        return self._idle[start] / self._samples[start]

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                window = await self._inspector.rate_window(self._key)
                if window is not None:
                    self.counted[window.started_ms] = window.counted
                    self._samples[window.started_ms] += 1
                    self._idle[window.started_ms] += window.is_idle
            await asyncio.sleep(_SAMPLED_EVERY_S)


def arrivals_in(exchanges: Sequence[Exchange], started_ms: int, period_ms: int) -> int:
    """How many requests arrived in a window; there is no tolerance, both clocks are one."""
    from_ns, until_ns = started_ms * _NS_PER_MS, (started_ms + period_ms) * _NS_PER_MS
    return sum(from_ns <= exchange.began_ns < until_ns for exchange in exchanges)


def most_at_once(recording: Recording, from_ns: int = 0, until_ns: int | None = None) -> int:
    """The most requests that were under way at once in a span of time."""
    most = at_start = 0
    for at_ns, count in recording.concurrency:
        if until_ns is not None and at_ns >= until_ns:
            break
        if at_ns < from_ns:
            at_start = count
        else:
            most = max(most, count)
    return max(most, at_start)


def mean_at_once(recording: Recording, from_ns: int, until_ns: int) -> float:
    """How many requests were under way on average over a span of time."""
    area = 0
    last_ns, last_count = from_ns, 0
    for at_ns, count in recording.concurrency:
        if at_ns >= until_ns:
            break
        if at_ns > from_ns:
            area += last_count * (at_ns - last_ns)
            last_ns = at_ns
        last_count = count
    area += last_count * (until_ns - last_ns)
    return area / (until_ns - from_ns)
