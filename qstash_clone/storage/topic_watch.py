"""Waiting for records: those of this process are seen at once, those of others by asking a few times a second."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from qstash_clone.errors import StorageError

ASK_EVERY_S: Final = 0.025
"""While anybody waits. One question is for all who wait in this process."""
PAUSE_PER_LOG_S: Final = 0.0002
"""The more logs, the less often: to ask for one takes a tenth of that from this process, and as much from Redis. A
thousand, asked for forty times a second, would have both to themselves; they are asked for five times."""
ASK_TOGETHER: Final = 200
"""In between, others have their turn."""

Log = tuple[str, int]
"""Topic and partition."""


class TopicWatch:
    """Wakes those who wait for records. `ask` tells the next offset of logs, None for one that is gone."""

    def __init__(self, ask: Callable[[Sequence[Log]], Awaitable[Sequence[int | None]]]) -> None:
        self._ask = ask
        self._waiting: dict[Log, dict[asyncio.Future[None], int]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def wait(self, wanted: Sequence[tuple[Log, int]], timeout_s: float) -> None:
        """Return when a log has a record at its offset, or after this time. Raises what `ask` raises."""
        if not wanted:
            await asyncio.sleep(timeout_s)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for log, offset in wanted:
            self._waiting.setdefault(log, {})[woken] = offset
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_on())
        try:
            await asyncio.wait([woken], timeout=timeout_s)
            if woken.done():
                woken.result()
        finally:
            for log, _ in wanted:
                sleepers = self._waiting.get(log, {})
                sleepers.pop(woken, None)
                if not sleepers:
                    self._waiting.pop(log, None)

    def reached(self, log: Log, end: int | None) -> None:
        """A log ends here now; None if it is not there any more."""
        for woken, offset in self._waiting.get(log, {}).items():
            if (end is None or end > offset) and not woken.done():
                woken.set_result(None)

    async def _ask_on(self) -> None:
        try:
            while self._waiting:
                logs = list(self._waiting)
                try:
                    await self._ask_for(logs)
                except StorageError as error:
                    self._fail(error)
                await asyncio.sleep(max(ASK_EVERY_S, PAUSE_PER_LOG_S * len(logs)))
        finally:
            self._asking = None

    async def _ask_for(self, logs: Sequence[Log]) -> None:
        for begin in range(0, len(logs), ASK_TOGETHER):
            some = logs[begin : begin + ASK_TOGETHER]
            for log, end in zip(some, await self._ask(some), strict=True):
                self.reached(log, end)

    def _fail(self, error: StorageError) -> None:
        for sleepers in self._waiting.values():
            for woken in sleepers:
                if not woken.done():
                    woken.set_exception(error)
