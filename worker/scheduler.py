"""Fires the schedules that are due and sleeps until the next instant of one."""

import random

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.domain.schedules import Firing, StoredSchedule, plan_firing
from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.errors import StorageError, StorageFull, StorageUnavailable
from qstash_clone.storage.resources import FireResult, FiringStore, UrlGroupStore
from worker import telemetry
from worker.health import Health
from worker.loop import Loop

FIRE_BATCH = 100
"""Schedules per call: some milliseconds of planning here and about two in Redis, during which nobody else is served."""
SHORTEST_SLEEP_MS = 5
LONGEST_SLEEP_MS = 1_000
"""The worst lateness of an instant that came up earlier than the next one known, should its doorbell be lost."""
AGAIN_MS = 1_000
UNPLANNED_AGAIN_MS = 60_000
"""What cannot be planned will not be until a release that can, or until the schedule is replaced."""


class FireReport(msgspec.Struct, frozen=True, kw_only=True):
    fired: int
    """Schedules that this worker moved on to their next instant."""
    held: int
    """Schedules that wait until Redis has room for their messages."""
    sleep_ms: float
    """Until the next instant."""


class _Groups:
    """The URL groups that one pass needs, each read once; after one that was out of reach, none."""

    def __init__(self, store: UrlGroupStore) -> None:
        self._store = store
        self._found: dict[str, UrlGroup | None] = {}
        self._failure: StorageUnavailable | None = None

    async def get(self, name: str) -> UrlGroup | None:
        if name not in self._found:
            if self._failure is not None:
                raise self._failure
            try:
                self._found[name] = await self._store.get_url_group(name)
            except StorageUnavailable as error:
                self._failure = error
                raise
        return self._found[name]


class ScheduleLoop(Loop[FireReport]):
    """Fires one partition's schedules. Every worker does; a firing that another one was first with changes nothing.

    A schedule that cannot be fired is put off and holds up no other.
    """

    def __init__(
        self,
        *,
        store: FiringStore,
        url_groups: UrlGroupStore,
        partition: int,
        max_lateness_ms: int | None,
        clock: Clock,
        health: Health,
        rng: random.Random,
    ) -> None:
        super().__init__(f"schedules-{partition}", clock, health)
        self._store = store
        self._url_groups = url_groups
        self._partition = partition
        self._max_lateness_ms = max_lateness_ms
        self._rng = rng
        self._is_held = False

    async def step(self) -> FireReport:
        """Fire one batch."""
        due = await self._store.due_schedules(self._partition, FIRE_BATCH, self._rng.random())
        for fault in due.faults:
            telemetry.schedule_unreadable(fault)
        firings = await self._plan(due.schedules, due.now_ms)
        fired, held = await self._fire(firings, due.now_ms) if firings else (0, 0)
        if held:
            sleep_ms = AGAIN_MS
        elif due.next_fire_ms is None or (due.is_frozen and due.next_fire_ms > due.now_ms):
            # Whoever moves a clock that stands still rings the doorbell.
            sleep_ms = LONGEST_SLEEP_MS
        elif due.schedules or due.faults or due.next_fire_ms <= due.now_ms:
            # What is next is known only once these have moved on.
            sleep_ms = 0
        else:
            sleep_ms = min(max(due.next_fire_ms - due.now_ms, SHORTEST_SLEEP_MS), LONGEST_SLEEP_MS)
        return FireReport(fired=fired, held=held, sleep_ms=sleep_ms)

    async def _plan(self, schedules: list[StoredSchedule], now_ms: int) -> list[Firing]:
        groups = _Groups(self._url_groups)
        firings: list[Firing] = []
        for stored in schedules:
            name = stored.schedule.url_group
            try:
                firing = plan_firing(
                    stored,
                    None if name is None else await groups.get(name),
                    now_ms=now_ms,
                    max_lateness_ms=self._max_lateness_ms,
                    new_ids=self._store.new_firing_ids,
                )
            except StorageError as error:
                await self._put_off(stored, error, AGAIN_MS)
            except Exception as error:
                # Whatever one schedule does to its planner, the others are fired.
                await self._put_off(stored, error, UNPLANNED_AGAIN_MS)
            else:
                firings.append(firing)
        return firings

    async def _fire(self, firings: list[Firing], now_ms: int) -> tuple[int, int]:
        """How many were fired, and how many wait because Redis is full."""
        fired, held = 0, 0
        failure: StorageUnavailable | None = None
        for firing, result in zip(firings, await self._store.fire(firings), strict=True):
            match result:
                case FireResult.FIRED:
                    fired += 1
                    telemetry.schedule_fired(firing, now_ms)
                case FireResult.STALE:
                    pass
                case StorageUnavailable():
                    failure = result
                case StorageFull():
                    # Nothing is wrong with the schedule, nor with the store as long as messages leave it.
                    held += 1
                case StorageError():
                    await self._put_off(firing.stored, result, AGAIN_MS)
                case _:
                    await self._put_off(firing.stored, result, UNPLANNED_AGAIN_MS)
        self._tell_held(held)
        if failure is not None:
            raise failure
        return fired, held

    def _tell_held(self, held: int) -> None:
        if held and not self._is_held:
            telemetry.schedules_held(held)
        self._is_held = held > 0

    async def _put_off(self, stored: StoredSchedule, error: Exception, delay_ms: int) -> None:
        # If this fails, it was not the schedule's fault.
        await self._store.postpone(stored, delay_ms)
        telemetry.schedule_stuck(stored, error)

    def rest_ms(self, report: FireReport | None) -> float:
        return report.sleep_ms if report is not None else LONGEST_SLEEP_MS
