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
    sleep_ms: float
    """Until the next instant."""


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

    async def step(self) -> FireReport:
        """Fire one batch."""
        due = await self._store.due_schedules(self._partition, FIRE_BATCH, self._rng.random())
        for fault in due.faults:
            telemetry.schedule_unreadable(fault)
        firings = await self._plan(due.schedules, due.now_ms)
        fired = await self._fire(firings, due.now_ms) if firings else 0
        if due.next_fire_ms is None or (due.is_frozen and due.next_fire_ms > due.now_ms):
            # Whoever moves a clock that stands still rings the doorbell.
            sleep_ms = LONGEST_SLEEP_MS
        elif due.schedules or due.faults or due.next_fire_ms <= due.now_ms:
            # What is next is known only once these have moved on.
            sleep_ms = 0
        else:
            sleep_ms = min(max(due.next_fire_ms - due.now_ms, SHORTEST_SLEEP_MS), LONGEST_SLEEP_MS)
        return FireReport(fired=fired, sleep_ms=sleep_ms)

    async def _plan(self, schedules: list[StoredSchedule], now_ms: int) -> list[Firing]:
        groups: dict[str, UrlGroup | None] = {}
        firings: list[Firing] = []
        for stored in schedules:
            name = stored.schedule.url_group
            try:
                if name is not None and name not in groups:
                    groups[name] = await self._url_groups.get_url_group(name)
                firing = plan_firing(
                    stored,
                    None if name is None else groups[name],
                    now_ms=now_ms,
                    max_lateness_ms=self._max_lateness_ms,
                    new_ids=self._store.new_firing_ids,
                )
            except StorageUnavailable:
                raise
            except Exception as error:
                # Whatever one schedule does to its planner, the others are fired.
                await self._put_off(stored, error, UNPLANNED_AGAIN_MS)
            else:
                firings.append(firing)
        return firings

    async def _fire(self, firings: list[Firing], now_ms: int) -> int:
        fired, failure = 0, None
        for firing, result in zip(firings, await self._store.fire(firings), strict=True):
            if result is FireResult.FIRED:
                fired += 1
                telemetry.schedule_fired(firing, now_ms)
            elif isinstance(result, StorageUnavailable | StorageFull):
                # Nothing is wrong with the schedule: its instant waits until Redis takes it.
                failure = result
            elif isinstance(result, StorageError):
                await self._put_off(firing.stored, result, AGAIN_MS)
            elif isinstance(result, Exception):
                raise result
        if failure is not None:
            raise failure
        return fired

    async def _put_off(self, stored: StoredSchedule, error: Exception, delay_ms: int) -> None:
        telemetry.schedule_stuck(stored, error)
        await self._store.postpone(stored, delay_ms)

    def rest_ms(self, report: FireReport | None) -> float:
        return report.sleep_ms if report is not None else LONGEST_SLEEP_MS
