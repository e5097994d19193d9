"""Builders for schedules, and what a worker does about those that are due."""

from collections.abc import Sequence
from hashlib import sha256

from qstash_clone.domain.message import Extras, FlowControl, Message
from qstash_clone.domain.schedules import Firing, Schedule, StoredSchedule, plan_firing
from qstash_clone.ids import MessageId
from qstash_clone.storage.partitions import partition_of
from qstash_clone.storage.resources import FireResult
from qstash_clone.storage.store import Store

NOON_MS = 1_900_756_800_000
"""2030-03-26T12:00Z."""
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
URL = "https://receiver.example/path"


def new_schedule(
    schedule_id: str = "s",
    *,
    cron: str = "0 * * * *",
    body: bytes = b"body",
    delay_ms: int = 0,
    queue: str | None = None,
    key: str | None = None,
    group: str | None = None,
) -> Schedule:
    """Fires on the hour, unless told otherwise; `key` is a flow-control key with parallelism 3."""
    extras = Extras(
        schedule_id=schedule_id,
        url_group=group,
        flow_control=None if key is None else FlowControl(key=key, parallelism=3),
    )
    message = Message(url="" if group else URL, headers=(("X-Test", "1"),), extras=extras)
    return Schedule(id=schedule_id, cron=cron, message=message, body=body, delay_ms=delay_ms, queue=queue)


async def stored_schedule(store: Store, schedule_id: str = "s") -> StoredSchedule:
    """One that is there."""
    found = await store.schedules.get_schedule(schedule_id)
    assert found is not None
    return found


async def plan_due(
    store: Store, *, partition: int = 0, limit: int = 100, max_lateness_ms: int | None = None
) -> list[Firing]:
    """What a worker would do about the due schedules of a partition."""
    due = await store.schedules.due_schedules(partition, limit, 0)
    assert due.faults == []
    firings: list[Firing] = []
    for stored in due.schedules:
        name = stored.schedule.url_group
        firings.append(
            plan_firing(
                stored,
                None if name is None else await store.url_groups.get_url_group(name),
                now_ms=due.now_ms,
                max_lateness_ms=max_lateness_ms,
                new_ids=store.schedules.new_firing_ids,
            )
        )
    return firings


async def plan_one(store: Store, *, partition: int = 0, max_lateness_ms: int | None = None) -> Firing:
    """Of the only schedule that is due."""
    [firing] = await plan_due(store, partition=partition, max_lateness_ms=max_lateness_ms)
    return firing


async def fire_due(store: Store, *, partition: int = 0, limit: int = 100) -> Sequence[FireResult | Exception]:
    """Plan and fire."""
    return await store.schedules.fire(await plan_due(store, partition=partition, limit=limit))


def partition_of_schedule(schedule_id: str, partitions: int) -> int:
    """Where its record is."""
    return partition_of(MessageId(sha256(schedule_id.encode()).digest()), partitions)
