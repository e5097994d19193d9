"""What this worker holds in memory: places for deliveries, and the deliveries that occupy them."""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import groupby
from operator import attrgetter

from qstash_clone.domain.message import Claim


class Delivery:
    """A claim on its way from `claim` to `settle`."""

    __slots__ = ("claim", "is_lost", "is_settling", "lease_until_ms", "signing_key", "start_until_ms", "task")

    def __init__(self, claim: Claim, signing_key: str, lease_until_ms: float, start_until_ms: float) -> None:
        self.claim = claim
        self.signing_key = signing_key
        self.lease_until_ms = lease_until_ms
        """Monotonic, and early: counted from before the call that took or renewed the lease."""
        self.start_until_ms = start_until_ms
        """Monotonic, and early likewise: the rate window in which the attempt is counted ends soon after."""
        self.is_settling = False
        """From here on the task is not cancelled: the attempt has ended, only its record is missing."""
        self.is_lost = False
        """The store said that another worker has the message."""
        self.task: asyncio.Task[None] | None = None

    def abort(self) -> bool:
        """End the attempt if it still runs; returns whether it did."""
        if self.is_settling or self.task is None:
            return False
        return self.task.cancel()


class Slots:
    """The deliveries this worker may hold at once, shared by the claim loops of all partitions.

    A freed slot goes to whoever has waited longest: while anybody is in the line, no slot is free for others.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self._line: deque[Callable[[], None]] = deque()

    def take(self, most: int) -> int:
        """Occupy up to `most` free slots; returns how many, 0 if none is free."""
        taken = min(most, self.free)
        self.free -= taken
        return taken

    def give_back(self, count: int = 1) -> None:
        """Free slots; the first ones are handed to those in the line."""
        self.free += count
        while self._line and self.free > 0:
            self.free -= 1
            self._line.popleft()()

    def line_up(self, hand_over: Callable[[], None]) -> None:
        """Be called, once, with a slot that was occupied for the caller; a second place in the line is not given."""
        if hand_over not in self._line:
            self._line.append(hand_over)


class Holdings:
    """The deliveries under way."""

    def __init__(self) -> None:
        self._deliveries: set[Delivery] = set()
        self._on_empty: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._deliveries)

    def add(self, delivery: Delivery) -> None:
        self._deliveries.add(delivery)

    def remove(self, delivery: Delivery) -> None:
        self._deliveries.discard(delivery)
        if not self._deliveries and self._on_empty is not None and not self._on_empty.done():
            self._on_empty.set_result(None)

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery in self._deliveries

    def all(self) -> list[Delivery]:
        return list(self._deliveries)

    def by_partition(self) -> list[tuple[int, list[Delivery]]]:
        """A snapshot, one list per partition that has any."""
        ordered = sorted(self._deliveries, key=_partition_of)
        return [(partition, list(group)) for partition, group in groupby(ordered, key=_partition_of)]

    async def empty(self) -> None:
        """Wait until nothing is under way; called by the supervisor alone."""
        if self._deliveries:
            self._on_empty = asyncio.get_running_loop().create_future()
            await self._on_empty


_partition_of = attrgetter("claim.partition")
