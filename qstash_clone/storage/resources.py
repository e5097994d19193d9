"""What the api and the workers ask of the store about queues, flow-control keys, URL groups and schedules.

As for the rest of the store, see `storage.interface`: every method is one atomic step and safe to repeat.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from qstash_clone.domain.limited_lanes import FlowControlKey, Queue
from qstash_clone.domain.message import Deduplication, State
from qstash_clone.domain.schedules import Firing, Schedule, StoredSchedule
from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.domain.virtual_clock import ClockMove, VirtualClock
from qstash_clone.ids import MessageId


class QueueStore(Protocol):
    """Queues; a queue lives in the partition of its name, with all its messages."""

    async def list_queues(self) -> list[Queue]:
        """All, in the order of their creation."""
        ...

    async def get_queue(self, name: str) -> Queue | None: ...

    async def put_queue(self, name: str, *, parallelism: int | None, is_paused: bool | None, max_queues: int) -> bool:
        """Create or change one; None leaves a value as it is, or gives a new queue parallelism 1 and no pause.

        Returns False, with nothing changed, for a new queue where there are `max_queues`.
        """
        ...

    async def set_queue_paused(self, name: str, is_paused: bool) -> bool:
        """Whether there is such a queue."""
        ...

    async def delete_queue(self, name: str) -> bool:
        """Cancel its waiting messages and forget it; an attempt in flight ends as usual. Whether there was one."""
        ...


class FlowControlStore(Protocol):
    """Flow-control keys; one lives in the partition of its name, with all its messages."""

    async def list_flow_control_keys(self, search: str) -> list[FlowControlKey]:
        """Those whose key contains `search`, in the order of their keys."""
        ...

    async def get_flow_control_key(self, key: str) -> FlowControlKey | None: ...

    async def set_flow_control_paused(self, key: str, is_paused: bool) -> None:
        """A pause makes a new key; a resume of an unknown one does nothing."""
        ...

    async def pin_flow_control(self, key: str, *, parallelism: int | None, rate: int | None, period_ms: int) -> None:
        """Fix these parts: later messages do not change them. Count and window of a pinned rate start afresh."""
        ...

    async def unpin_flow_control(self, key: str, *, parallelism: bool, rate: bool) -> None: ...

    async def reset_flow_control(self, key: str, *, parallelism: bool) -> None:
        """End the current window with its count, and with `parallelism` forget what is in flight."""
        ...


class UrlGroupStore(Protocol):
    """URL groups; they live beside the partitions."""

    async def list_url_groups(self) -> list[UrlGroup]:
        """All, in the order of their creation."""
        ...

    async def get_url_group(self, name: str) -> UrlGroup | None: ...

    async def change_url_group(
        self, name: str, change: Callable[[UrlGroup | None, int], UrlGroup | None]
    ) -> UrlGroup | None:
        """Replace a group by what `change(group or None, now in ms)` makes of it; None deletes it.

        `change` is called again when another process changed the group meanwhile. What it raises changes nothing.
        """
        ...


class ScheduleCreation(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request for a schedule."""

    schedule_id: str
    """Of the schedule stored, or of the one from the earlier request that this one repeats."""
    is_duplicate: bool


class ScheduleStore(Protocol):
    """Schedules; one lives in the partition of its id."""

    async def create_schedule(
        self, schedule: Schedule, deduplication: Deduplication | None, *, is_paused: bool = False
    ) -> ScheduleCreation:
        """As `put_schedule`, unless this repeats an earlier creation with that digest, within its window."""
        ...

    async def put_schedule(self, schedule: Schedule, *, is_paused: bool = False) -> StoredSchedule:
        """Create one, or replace the one with this id entirely: history and pause of the old one are gone.

        Paused from the start, it does not fire before it is resumed.

        Raises `QuotaExceeded` for a new one where there are as many as there may be, and `InvalidRequest` if the lanes
        of its messages live apart or its cron expression has no future instant.
        """
        ...

    async def get_schedule(self, schedule_id: str) -> StoredSchedule | None: ...

    def list_schedules(self) -> AsyncIterator[list[StoredSchedule]]:
        """All, in the order of their creation, in slices; what is created or deleted meanwhile may be among them."""
        ...

    async def set_schedule_paused(self, schedule_id: str, is_paused: bool) -> bool:
        """Whether there is such a schedule. A paused one ignores its instants, a resumed one continues with the next
        future instant; what is so already stays as it is."""
        ...

    async def delete_schedule(self, schedule_id: str) -> bool:
        """End all future firings. Whether there was such a schedule."""
        ...

    async def read_states(self, message_ids: Sequence[MessageId]) -> dict[MessageId, State]:
        """The states of these messages, as far as they are known."""
        ...


class FireResult(StrEnum):
    """What became of a firing."""

    FIRED = "fired"
    STALE = "stale"
    """Another worker has fired the schedule, or it was changed meanwhile; nothing was changed."""


class DueSchedules(msgspec.Struct, frozen=True, kw_only=True):
    """Schedules of one partition whose next fire time has come."""

    schedules: list[StoredSchedule]
    faults: list[str]
    """Of those that cannot be read: which one and why. They are looked at again later."""
    now_ms: int
    """The store's clock."""
    next_fire_ms: int | None
    """The earliest fire time there is; not later than now if more are due than were returned."""
    is_frozen: bool
    """The store's clock stands still: nothing becomes due by waiting."""


class FiringStore(Protocol):
    """Used by the workers."""

    async def due_schedules(self, partition: int, limit: int, spread: float) -> DueSchedules:
        """Up to `limit` due schedules. Of more than that it depends on `spread`, from 0 to 1, which ones: several
        workers with different ones seldom get the same."""
        ...

    def new_firing_ids(self, stored: StoredSchedule, instant_ms: int, urls: Sequence[str]) -> Sequence[MessageId]:
        """The ids that this instant's messages to these URLs always have, on the partition where they have to be."""
        ...

    async def fire(self, firings: Sequence[Firing]) -> list[FireResult | Exception]:
        """Publish the messages of schedules of one partition and set their next fire times, each in one step and only
        if the schedule is still what its firing was planned for; a result for each.

        `StorageUnavailable` means that the partition was out of reach, `StorageFull` that Redis is; any other exception
        is a trouble of that one firing.
        """
        ...

    async def postpone(self, stored: StoredSchedule, delay_ms: int) -> None:
        """Look at a due schedule again later, because it cannot be fired now; its instant is kept."""
        ...


class VirtualClockStore(Protocol):
    """The clock that delays, retries, schedules, windows and retention go by; served by `dev` only."""

    async def read_clock(self) -> VirtualClock: ...

    async def move_clock(self, move: ClockMove) -> VirtualClock:
        """The clock after the move, which workers follow at once. Raises `InvalidRequest` for a move back."""
        ...
