"""A worker stops upstream to downstream, and nothing is lost on the way."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
import redis.asyncio

from qstash_clone.clock import SystemClock
from qstash_clone.domain.message import State
from qstash_clone.domain.schedules import Firing
from qstash_clone.errors import StoreIncompatible
from qstash_clone.observability import REDELIVERIES
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import CONSUMER_GROUP
from qstash_clone.storage.resources import FireResult
from qstash_clone.storage.store import Store, open_store
from tests.support.eventually import eventually
from tests.support.faulty_store import FaultyStore
from tests.support.schedules import HOUR_MS, new_schedule, stored_schedule
from tests.worker.rig import FakeTransport, Rig, build_rig, build_worker


@pytest.fixture
async def live(
    settings: Settings, store: Store, redis_client: "redis.asyncio.Redis"
) -> AsyncIterator["Callable[..., Live]"]:
    """Workers that run by the real clock, ended after the test."""
    started: list[Live] = []

    def start(**changes: object) -> Live:
        changed = dataclasses.replace(settings, **{"worker_concurrency": 10, **changes})  # pyright: ignore[reportArgumentType]
        live = Live(changed, store, redis_client)
        started.append(live)
        return live

    yield start
    for live in started:
        await live.end()


class Live:
    """A worker under its supervisor, by the real clock."""

    def __init__(self, settings: Settings, store: Store, raw: "redis.asyncio.Redis") -> None:
        self.rig: Rig = build_rig(settings, store, raw)
        self.store = FaultyStore(store.delivery)
        self.transport = FakeTransport()
        self.consumer = self.rig.consumer
        self.worker, self.health = build_worker(
            settings,
            self.store,
            self.transport,
            SystemClock(),
            self.consumer,
            self.rig.firings,
            self.rig.url_groups,
            store.topics,
        )
        self.task = asyncio.create_task(self.worker.supervisor.run())

    async def stop(self) -> None:
        self.worker.supervisor.request_stop()
        await self.task

    async def end(self) -> None:
        self.transport.may_answer.set()
        self.task.cancel()
        await asyncio.wait([self.task])
        for delivery in self.worker.holdings.all():
            assert delivery.task is not None
            delivery.task.cancel()
            await asyncio.wait([delivery.task])


StartLive = Callable[..., Live]
MoveClock = Callable[[int], Awaitable[None]]


async def test_messages_flow_until_the_worker_is_told_to_stop(live: StartLive) -> None:
    one = live()
    message_ids = [await one.rig.publish(b"%d" % number) for number in range(50)]
    await eventually(lambda: len(one.transport.requests) == 50)
    await one.stop()
    assert {await one.rig.state(message_id) for message_id in message_ids} == {State.DELIVERED}
    stats = await one.rig.real_store.admin.stats()
    assert (stats.workers, stats.capacity, stats.in_flight) == (0, 0, 0)


async def test_a_delayed_message_is_delivered_when_due(live: StartLive) -> None:
    one = live()
    message_id = await one.rig.publish(delay_ms=100)
    await eventually(lambda: one.transport.requests)
    await one.stop()
    assert await one.rig.state(message_id) is State.DELIVERED


async def test_a_schedule_is_fired_and_delivered_when_due(live: StartLive, move_clock: MoveClock) -> None:
    one = live()
    await one.rig.real_store.schedules.put_schedule(new_schedule())
    await move_clock(HOUR_MS)
    await eventually(lambda: one.transport.requests)
    await one.stop()
    assert dict(one.transport.requests[0].headers)["Upstash-Schedule-Id"] == "s"
    assert len(one.transport.requests) == 1


async def test_stopping_lets_a_firing_under_way_end_and_begins_no_other(live: StartLive, move_clock: MoveClock) -> None:
    one = live()
    is_firing = asyncio.Event()
    has_left_meanwhile: list[int] = []
    fire = one.rig.firings.fire

    async def fire_slowly(firings: Sequence[Firing]) -> list[FireResult | Exception]:
        is_firing.set()
        # Longer than anything else that a worker without messages waits for before it leaves.
        with contextlib.suppress(AssertionError):
            await eventually(lambda: one.store.calls["leave"], timeout=2)
        has_left_meanwhile.append(one.store.calls["leave"])
        return await fire(firings)

    one.rig.firings.fire = fire_slowly  # type: ignore[method-assign]
    await one.rig.real_store.schedules.put_schedule(new_schedule())
    await move_clock(HOUR_MS)
    await is_firing.wait()
    await one.stop()
    assert has_left_meanwhile == [0]
    [message_id] = (await stored_schedule(one.rig.real_store)).last_message_ids
    assert await one.rig.state(message_id) is State.QUEUED, "for another worker: claims have ended"
    await move_clock(HOUR_MS)
    two = live()
    await eventually(lambda: len(two.transport.requests) == 2)
    await two.stop()
    assert len(has_left_meanwhile) == 1


async def test_stopping_waits_for_the_attempts_under_way(live: StartLive) -> None:
    one = live()
    one.transport.may_answer.clear()
    message_id = await one.rig.publish()
    await eventually(lambda: one.transport.requests)
    one.worker.supervisor.request_stop()
    await eventually(lambda: one.health.is_stopping)
    late = await one.rig.publish(b"late")
    await eventually(lambda: one.worker.loops.claims[0].name not in one.health.stalled_loops())
    one.transport.may_answer.set()
    await one.task
    assert await one.rig.state(message_id) is State.DELIVERED
    two = live()
    await eventually(lambda: b"late" in one.transport.bodies + two.transport.bodies)
    await two.stop()
    assert await one.rig.state(late) is State.DELIVERED


async def test_what_does_not_end_in_time_is_handed_back_without_using_an_attempt(live: StartLive) -> None:
    one = live(shutdown_grace_ms=1_500)
    one.transport.may_answer.clear()
    message_id = await one.rig.publish()
    await eventually(lambda: one.transport.requests)
    before = REDELIVERIES.value
    await one.stop()
    assert one.transport.cancelled == 1
    assert await one.rig.state(message_id) is State.QUEUED
    two = live()
    await eventually(lambda: two.transport.requests)
    assert dict(two.transport.requests[0].headers)["Upstash-Retried"] == "0"
    await two.stop()
    assert await one.rig.state(message_id) is State.DELIVERED
    assert REDELIVERIES.value == before


async def test_stopping_ends_although_the_store_is_away(live: StartLive) -> None:
    one = live(shutdown_grace_ms=500)
    message_id = await one.rig.publish()
    one.store.fail_before("settle", times=1_000)
    await eventually(lambda: one.store.calls["settle"])
    one.store.is_down = True
    await one.stop()
    assert await one.rig.state(message_id) is State.ACTIVE
    assert len(one.worker.holdings) == 0


async def test_a_settlement_that_fails_while_draining_is_finished(live: StartLive) -> None:
    one = live()
    message_id = await one.rig.publish()
    one.store.fail_before("settle", times=4)
    await eventually(lambda: one.store.calls["settle"])
    await one.stop()
    assert await one.rig.state(message_id) is State.DELIVERED
    assert len(one.transport.requests) == 1


async def test_a_bug_in_a_loop_drains_the_worker_and_ends_it(live: StartLive, monkeypatch: pytest.MonkeyPatch) -> None:
    one = live()
    one.transport.may_answer.clear()
    message_id = await one.rig.publish()
    await eventually(lambda: one.transport.requests)

    async def explode() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(one.worker.loops.timers[0], "step", explode)
    one.worker.loops.timers[0].wake()
    await eventually(lambda: one.health.is_stopping)
    one.transport.may_answer.set()
    with pytest.raises(RuntimeError, match="a bug"):
        await one.task
    assert await one.rig.state(message_id) is State.DELIVERED


async def test_a_store_that_becomes_incompatible_ends_the_worker(live: StartLive) -> None:
    one = live()
    one.store.fail_before("promote", error=StoreIncompatible("The store has version 2."))  # pyright: ignore
    with pytest.raises(StoreIncompatible):
        await one.task


async def test_killed_connections_end_no_loop(live: StartLive) -> None:
    one = live()
    message_ids = [await one.rig.publish(b"before %d" % number) for number in range(20)]
    for _ in range(3):
        await one.rig.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # pyright: ignore
        message_ids.append(await one.rig.publish(b"between"))
    await eventually(lambda: one.health.unready_reason() is None)
    message_ids.append(await one.rig.publish(b"after"))
    await eventually(lambda: b"after" in one.transport.bodies)
    # What a lost reply had claimed comes back with its lease, to this worker or another one.
    await eventually(lambda: one.worker.loops.claims[0].rest_ms(None) == 0)
    await one.stop()
    await deliver_the_rest(one.rig)
    assert {await one.rig.state(message_id) for message_id in message_ids} == {State.DELIVERED}


async def test_a_paused_server_ends_no_loop(live: StartLive) -> None:
    one = live()
    await one.rig.raw.execute_command("CLIENT", "PAUSE", "1500", "ALL")  # pyright: ignore
    paused = time.monotonic()
    message_id = await one.rig.publish(b"after")
    await eventually(lambda: b"after" in one.transport.bodies)
    assert time.monotonic() > paused
    await one.stop()
    assert await one.rig.state(message_id) is State.DELIVERED


async def test_an_outage_ends_no_loop_and_reclaiming_waits(live: StartLive) -> None:
    one = live()
    one.transport.may_answer.clear()
    held = await one.rig.publish(url="http://one.example/")
    await eventually(lambda: one.transport.requests)
    one.store.is_down = True
    await eventually(lambda: not any(one.health.storage_answers(loop.name) for loop in one.worker.loops.claims))
    new = await one.rig.publish(url="http://two.example/")
    extends = one.store.calls["extend"]
    assert extends > 0, "a fault makes the leases loop look, long before its interval is over"
    one.store.is_down = False
    await eventually(lambda: len(one.transport.requests) == 2)
    await eventually(lambda: one.health.unready_reason() is None)
    assert one.store.calls["extend"] > extends
    assert not one.worker.gate.is_open
    assert one.store.calls["reclaim"] == 0
    one.transport.may_answer.set()
    await one.stop()
    assert {await one.rig.state(held), await one.rig.state(new)} == {State.DELIVERED}


async def test_two_workers_share_the_work_and_nothing_is_delivered_twice(live: StartLive) -> None:
    one, two = live(), live()
    for number in range(200):
        await one.rig.publish(b"%d" % number, url=f"http://host-{number % 10}.example/")
    await eventually(lambda: len(one.transport.requests) + len(two.transport.requests) >= 200)
    await one.stop()
    await two.stop()
    bodies = one.transport.bodies + two.transport.bodies
    assert len(bodies) == len(set(bodies)) == 200


async def test_the_worker_leaves_no_consumer_and_no_entry_behind(live: StartLive) -> None:
    one = live()
    await one.rig.publish()
    await eventually(lambda: one.transport.requests)
    await one.stop()
    ready = one.rig.keys.ready.decode()
    assert await one.rig.raw.xlen(ready) == 0  # pyright: ignore
    consumers = await one.rig.raw.xinfo_consumers(ready, CONSUMER_GROUP)  # pyright: ignore
    assert consumers == []


@pytest.mark.parametrize("seed", range(3))
async def test_no_message_is_lost_while_calls_and_replies_are(settings: Settings, redis_url: str, seed: int) -> None:
    """Each call to the store is lost, or its reply is, with a chance of one in five."""
    changed = dataclasses.replace(settings, lease_ms=300, max_claims=100, partitions=2, worker_concurrency=8)
    store = await open_store(changed)
    raw = redis.asyncio.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]
    workers = [Live(changed, store, raw) for _ in range(2)]
    try:
        for worker in workers:
            worker.store.rng.seed(seed)
            worker.store.fault_share = 0.1
        message_ids = [
            await workers[0].rig.publish(b"%d" % number, url=f"http://host-{number % 5}.example/")
            for number in range(60)
        ]

        async def are_delivered() -> bool:
            return {await workers[0].rig.state(message_id) for message_id in message_ids} == {State.DELIVERED}

        await eventually(are_delivered, timeout=30)
        for worker in workers:
            worker.store.fault_share = 0
            await worker.stop()
        stats = await store.admin.stats()
        assert (stats.ready, stats.in_flight, stats.dead_letters, stats.workers) == (0, 0, 0, 0)
    finally:
        for worker in workers:
            await worker.end()
        await store.aclose()
        await raw.aclose()


async def test_partitions_share_the_capacity(settings: Settings, redis_url: str) -> None:
    changed = dataclasses.replace(settings, partitions=4, worker_concurrency=2)
    store = await open_store(changed)
    raw = redis.asyncio.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]
    one = Live(changed, store, raw)
    held: list[int] = []
    one.store.on_call = lambda name: held.append(len(one.worker.holdings))
    try:
        for number in range(40):
            await one.rig.publish(b"%d" % number, url=f"http://host-{number}.example/")
        await eventually(lambda: len(one.transport.requests) == 40, timeout=30)
        await one.stop()
        assert max(held) <= 2
    finally:
        await one.end()
        await store.aclose()
        await raw.aclose()


async def deliver_the_rest(rig: Rig) -> None:
    """Another worker, a lease later."""
    await rig.start()
    rig.open_gate()
    while True:
        await rig.age_leases()
        rig.open_gate()
        report = await rig.claims.step()
        await rig.idle()
        assert report is not None
        if not report.claimed:
            return
