"""Time as a dependency: what waits or measures receives a `Clock`, so that tests can move it."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time in ms for people, monotonic time in ms for durations, and waiting."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, by this machine."""
        ...

    def monotonic_ms(self) -> float:
        """Milliseconds of a clock that never jumps; only differences mean anything."""
        ...

    async def sleep(self, duration_ms: float) -> None:
        """Wait at least this long."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        return time.monotonic() * 1000

    async def sleep(self, duration_ms: float) -> None:
        await asyncio.sleep(duration_ms / 1000)
