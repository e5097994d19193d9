"""Concurrent calls joined into one: what arrives while a call is under way goes together in the next one.

With `appendfsync always` a call costs mostly the disk and the round trip, whatever it carries: groups of 50 store
fifteen times the messages per second of single calls, and a lone call waits for nobody.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

MAX_ITEMS: Final = 100
MAX_BYTES: Final = 1_048_576
"""A hundred bodies of 1 MiB in one script would hold every other client of Redis up for a second."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Grouper(Generic[ItemT, ResultT]):
    """Feeds items to `call` in order of arrival, one call at a time.

    `call` gets at most `MAX_ITEMS` items of together at most `MAX_BYTES` (or a single larger one) and returns one
    result per item; a result that is an exception is raised to that item's caller alone, an exception it raises goes
    to every item of the group.
    """

    def __init__(
        self,
        call: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT | Exception]]],
        weigh: Callable[[ItemT], int],
        on_group: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._call = call
        self._weigh = weigh
        self._on_group = on_group
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._feeder: asyncio.Task[None] | None = None

    def submit(self, item: ItemT) -> "asyncio.Future[ResultT]":
        """A future for this item's result. Cancelling it does not take the item back."""
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._feeder is None:
            self._feeder = asyncio.create_task(self._feed())
        return future

    def _next_group(self) -> list[tuple[ItemT, "asyncio.Future[ResultT]"]]:
        waiting, total_bytes = self._waiting, 0
        group: list[tuple[ItemT, asyncio.Future[ResultT]]] = []
        while waiting and len(group) < MAX_ITEMS:
            total_bytes += self._weigh(waiting[0][0])
            if group and total_bytes > MAX_BYTES:
                break
            group.append(waiting.popleft())
        return group

    async def _feed(self) -> None:
        try:
            while group := self._next_group():
                try:
                    await self._pass_on(group)
                finally:
                    # Only if this task is cancelled: nobody is left who would answer.
                    for _, future in group:
                        future.cancel()
        finally:
            self._feeder = None
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()

    async def _pass_on(self, group: Sequence[tuple[ItemT, "asyncio.Future[ResultT]"]]) -> None:
        self._on_group(len(group))
        results: Sequence[ResultT | Exception]
        try:
            results = await self._call([item for item, _ in group])
        except Exception as error:
            results = [error] * len(group)
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
