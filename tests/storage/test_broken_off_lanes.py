"""Steps of queues and flow-control keys that break off anywhere lose nothing and leak nothing; see test_broken_off."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from qstash_clone.domain.lanes import flow_control_lane, queue_lane
from qstash_clone.errors import StorageError
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from tests.storage.conftest import ENGINES, IS_LONG, AgeLeases, Look, MoveClock
from tests.storage.scenes import Begin, Scene, Step, drain
from tests.support.damage import damaged
from tests.support.lanes import KEY, QUEUE, enqueue, new_member, new_report, publish_keyed, put_queue
from tests.support.messages import claim_all, claim_one, delivered, failed, reported, retry
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session", params=ENGINES if IS_LONG else ENGINES[:1])
def redis_server(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """Many cases: on one engine, but for the long form."""
    return redis_servers(request.param)


def _publish(scene: Scene, **what: Any) -> tuple[MessageId, Step]:
    message = new_member(scene.store, **what)
    return message.id, lambda: scene.store.publishing.publish(message)


async def publish_member(scene: Scene) -> tuple[MessageId, Step]:
    return _publish(scene, queue=QUEUE)


async def publish_member_behind_another(scene: Scene) -> tuple[MessageId, Step]:
    await enqueue(scene.store)
    return _publish(scene, queue=QUEUE)


async def publish_with_a_key(scene: Scene) -> tuple[MessageId, Step]:
    return _publish(scene, key=KEY, rate=1, period_s=10)


async def publish_with_a_full_key(scene: Scene) -> tuple[MessageId, Step]:
    await publish_keyed(scene.store, rate=1, period_s=10)
    await claim_one(scene.store)
    return _publish(scene, key=KEY, rate=1, period_s=10)


async def publish_with_both(scene: Scene) -> tuple[MessageId, Step]:
    await publish_keyed(scene.store, parallelism=1)
    return _publish(scene, queue=QUEUE, key=KEY, parallelism=1)


async def publish_other_limits(scene: Scene) -> tuple[MessageId, Step]:
    await publish_keyed(scene.store, parallelism=1)
    message_id = await publish_keyed(scene.store, parallelism=1)
    return message_id, _publish(scene, key=KEY, parallelism=2)[1]


async def claim_member(scene: Scene) -> tuple[MessageId, Step]:
    return await enqueue(scene.store, key=KEY), lambda: claim_all(scene.store)


async def claim_under_a_rate(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish_keyed(scene.store, rate=1, period_s=10)
    await publish_keyed(scene.store, rate=1, period_s=10)
    return message_id, lambda: claim_all(scene.store)


async def claim_of_a_paused_key(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish_keyed(scene.store)
    await scene.store.flow_controls.set_flow_control_paused(KEY, True)
    return message_id, lambda: claim_all(scene.store)


async def claim_of_a_paused_queue(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store)
    await put_queue(scene.store, is_paused=True)
    return message_id, lambda: claim_all(scene.store)


async def claim_of_a_cancelled_member(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store, key=KEY)
    await enqueue(scene.store)
    await claim_one(scene.store)
    await scene.store.admin.cancel(message_id)
    await scene.age()
    return message_id, lambda: claim_all(scene.store, reclaim=True)


async def settle_member(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store, key=KEY)
    await enqueue(scene.store)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.settle(delivered(claim))


async def settle_member_for_later(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store, key=KEY)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.settle(retry(claim))


async def settle_with_a_callback(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store)
    await enqueue(scene.store)
    claim = await claim_one(scene.store)
    settlement = reported(failed(claim), new_report(scene.store, claim, key=KEY))
    return message_id, lambda: scene.store.delivery.settle(settlement)


async def settle_the_last_callback(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store)
    await enqueue(scene.store)
    claim = await claim_one(scene.store)
    await scene.store.delivery.settle(reported(delivered(claim), new_report(scene.store, claim)))
    callback = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.settle(delivered(callback))


async def settle_under_a_full_key(scene: Scene) -> tuple[MessageId, Step]:
    await publish_keyed(scene.store, parallelism=1)
    message_id = await publish_keyed(scene.store, parallelism=1)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.settle(delivered(claim))


async def promote_into_a_paused_queue(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store)
    await scene.store.delivery.settle(retry(await claim_one(scene.store)))
    await put_queue(scene.store, is_paused=True)
    await scene.move(1000)
    return message_id, lambda: scene.store.delivery.promote(0, 10)


async def promote_a_window(scene: Scene) -> tuple[MessageId, Step]:
    message_id, _ = await publish_with_a_full_key(scene)
    message_id = await publish_keyed(scene.store, rate=1, period_s=10)
    await scene.move(10_000)
    return message_id, lambda: scene.store.delivery.promote(0, 10)


async def hand_back(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store, key=KEY)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.release([claim])


async def cancel_a_holder(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store)
    await enqueue(scene.store)
    await scene.store.delivery.settle(retry(await claim_one(scene.store)))
    return message_id, lambda: scene.store.admin.cancel(message_id)


async def cancel_in_the_line_of_a_key(scene: Scene) -> tuple[MessageId, Step]:
    await publish_keyed(scene.store, parallelism=1)
    message_id = await enqueue(scene.store, key=KEY)
    return message_id, lambda: scene.store.admin.cancel(message_id)


async def resume_a_queue(scene: Scene) -> tuple[MessageId, Step]:
    await put_queue(scene.store, is_paused=True)
    message_id = await enqueue(scene.store, key=KEY)
    return message_id, lambda: put_queue(scene.store, is_paused=False)


async def delete_a_queue(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store, key=KEY)
    await enqueue(scene.store)
    return message_id, lambda: scene.store.queues.delete_queue(QUEUE)


async def resume_a_key(scene: Scene) -> tuple[MessageId, Step]:
    await scene.store.flow_controls.set_flow_control_paused(KEY, True)
    message_id = await publish_keyed(scene.store)
    return message_id, lambda: scene.store.flow_controls.set_flow_control_paused(KEY, False)


async def reset_a_key(scene: Scene) -> tuple[MessageId, Step]:
    await publish_keyed(scene.store, parallelism=1)
    await claim_one(scene.store)
    message_id = await publish_keyed(scene.store, parallelism=1)
    return message_id, lambda: scene.store.flow_controls.reset_flow_control(KEY, parallelism=True)


async def heartbeat(scene: Scene) -> tuple[MessageId, Step]:
    await scene.store.delivery.heartbeat("w1", 0)
    message_id = await enqueue(scene.store, key=KEY)
    await enqueue(scene.store, "other")
    return message_id, lambda: scene.store.delivery.heartbeat("w1", 10)


async def retry_dead_letter(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await enqueue(scene.store, key=KEY)
    await scene.store.delivery.settle(failed(await claim_one(scene.store)))
    [(dlq_id, _)] = scene.look().dlq
    return message_id, lambda: scene.store.admin.retry_dead_letter(dlq_id)


BEGINNINGS: list[Begin] = [
    publish_member,
    publish_member_behind_another,
    publish_with_a_key,
    publish_with_a_full_key,
    publish_with_both,
    publish_other_limits,
    claim_member,
    claim_under_a_rate,
    claim_of_a_paused_key,
    claim_of_a_paused_queue,
    claim_of_a_cancelled_member,
    settle_member,
    settle_member_for_later,
    settle_with_a_callback,
    settle_the_last_callback,
    settle_under_a_full_key,
    promote_into_a_paused_queue,
    promote_a_window,
    hand_back,
    cancel_a_holder,
    cancel_in_the_line_of_a_key,
    resume_a_queue,
    delete_a_queue,
    resume_a_key,
    reset_a_key,
    heartbeat,
    retry_dead_letter,
]
QUEUE_LANE, KEY_LANE = queue_lane(QUEUE), flow_control_lane(KEY)
FAILING: dict[str, Callable[[PartitionKeys, MessageId], bytes]] = {
    "ring": lambda keys, _: keys.ring,
    "parked": lambda keys, _: keys.parked,
    "blocked": lambda keys, _: keys.blocked,
    "windows": lambda keys, _: keys.windows,
    "queues": lambda keys, _: keys.queues,
    "flows": lambda keys, _: keys.flows,
    "limits of the queue": lambda keys, _: keys.limits(QUEUE_LANE),
    "limits of the key": lambda keys, _: keys.limits(KEY_LANE),
    "line of the queue": lambda keys, _: keys.lane(QUEUE_LANE),
    "line of the key": lambda keys, _: keys.lane(KEY_LANE),
    "places of the queue": lambda keys, _: keys.admitted(QUEUE_LANE),
    "places of the key": lambda keys, _: keys.admitted(KEY_LANE),
    "slots": lambda keys, _: keys.slots(QUEUE_LANE),
    "returning": lambda keys, _: keys.returning(QUEUE_LANE),
    "in flight": lambda keys, _: keys.in_flight(KEY_LANE),
    "callbacks": lambda keys, message_id: keys.callbacks(message_id),
    "record": lambda keys, message_id: keys.message(message_id),
}
CASES = [
    pytest.param(
        begin, failing, is_repeated, id=f"{begin.__name__}-{failing}-{'repeated' if is_repeated else 'given up'}"
    )
    for row, begin in enumerate(BEGINNINGS)
    for column, failing in enumerate(FAILING)
    for is_repeated in (True, False)
    if IS_LONG or is_repeated == ((row + column) % 2 == 0)
]
"""A chequered half of them, but for the long form."""


@pytest.mark.parametrize(("begin", "failing", "is_repeated"), CASES)
async def test_a_step_that_breaks_off(
    store: Store,
    settings: Settings,
    keys: PartitionKeys,
    redis_client: Any,
    age_leases: AgeLeases,
    move_clock: MoveClock,
    look: Look,
    begin: Begin,
    failing: str,
    is_repeated: bool,
) -> None:
    scene = Scene(store, settings, age_leases, move_clock, look)
    message_id, step = await begin(scene)
    was_done = False
    async with damaged(redis_client, FAILING[failing](keys, message_id)):
        with contextlib.suppress(StorageError):
            await step()
            was_done = True
    if is_repeated:
        with contextlib.suppress(StorageError):
            await step()
            was_done = True
    if QUEUE in look().queues:
        await put_queue(store, is_paused=False)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    await drain(scene)
    seen = look()
    assert [record.stored.state.name for record in seen.records.values() if not record.stored.state.is_final] == []
    # Only a publish that was never acknowledged may be forgotten.
    assert message_id in seen.records or not was_done
    assert (seen.entries, seen.timers, seen.lanes, seen.admitted) == ({}, {}, {}, {})
    assert (seen.slots, seen.returning, seen.in_flight, seen.callbacks) == ({}, {}, {}, {})
