"""A script that breaks off anywhere loses nothing and leaks nothing: each key fails during each step, then works again.

That is what a slot on its way to another master looks like to a script: single commands fail.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from qstash_clone.domain.message import Deduplication
from qstash_clone.domain.overrides import Delay
from qstash_clone.errors import StorageError
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from tests.storage.conftest import ENGINES, IS_LONG, AgeLeases, Look, MoveClock
from tests.storage.scenes import Begin, Scene, Step, drain
from tests.support.damage import damaged
from tests.support.messages import (
    CALLBACK_LANE,
    LANE,
    claim_all,
    claim_one,
    delivered,
    failed,
    new_callback,
    new_message,
    publish,
    reported,
    retry,
)
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session", params=ENGINES if IS_LONG else ENGINES[:1])
def redis_server(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """Eight hundred cases: on one engine, but for the long form."""
    return redis_servers(request.param)


async def publish_due(scene: Scene) -> tuple[MessageId, Step]:
    message = new_message(scene.store)
    return message.id, lambda: scene.store.publishing.publish(message)


async def publish_into_a_full_lane(scene: Scene) -> tuple[MessageId, Step]:
    await scene.store.delivery.heartbeat("w1", 2)
    await publish(scene.store)
    return await publish_due(scene)


async def publish_for_later(scene: Scene) -> tuple[MessageId, Step]:
    message = new_message(scene.store, delay_ms=1000)
    return message.id, lambda: scene.store.publishing.publish(message)


async def claim_new(scene: Scene) -> tuple[MessageId, Step]:
    return await publish(scene.store), lambda: claim_all(scene.store)


async def claim_taken(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    taken = await scene.store.delivery.wait(0, "w1", 1, 1000)
    return message_id, lambda: scene.store.delivery.claim(0, "w1", 1, taken=taken)


async def claim_expired(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    await claim_one(scene.store)
    await scene.age()
    return message_id, lambda: claim_all(scene.store, reclaim=True)


async def claim_after_cancellation(scene: Scene) -> tuple[MessageId, Step]:
    message_id, step = await claim_expired(scene)
    await scene.store.admin.cancel(message_id)
    return message_id, step


async def claim_cancelled_while_ready(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    await scene.store.admin.cancel(message_id)
    return message_id, lambda: claim_all(scene.store)


async def publish_once(scene: Scene) -> tuple[MessageId, Step]:
    message = new_message(scene.store, deduplication=Deduplication(digest=DIGEST, window_ms=60_000))
    return message.id, lambda: scene.store.publishing.publish(message)


async def settle_delivered(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.settle(delivered(claim))


async def settle_retry(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.settle(retry(claim))


async def settle_failed(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.settle(failed(claim))


async def settle_with_a_callback(scene: Scene) -> tuple[MessageId, Step]:
    await publish(scene.store)
    callback = new_callback(scene.store, delay_ms=500)
    settlement = reported(failed(await claim_one(scene.store)), callback)
    return callback.message.id, lambda: scene.store.delivery.settle(settlement)


async def settle_with_a_callback_to_the_same_host(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    callback = new_callback(scene.store, lane=LANE)
    settlement = reported(delivered(await claim_one(scene.store)), callback)
    return message_id, lambda: scene.store.delivery.settle(settlement)


async def settle_cancelled(scene: Scene) -> tuple[MessageId, Step]:
    message_id, step = await settle_retry(scene)
    await scene.store.admin.cancel(message_id)
    return message_id, step


async def settle_and_admit(scene: Scene) -> tuple[MessageId, Step]:
    await scene.store.delivery.heartbeat("w1", 2)
    await publish(scene.store)
    claim = await claim_one(scene.store)
    message_id = await publish(scene.store)
    return message_id, lambda: scene.store.delivery.settle(delivered(claim))


async def settle_and_unpark(scene: Scene) -> tuple[MessageId, Step]:
    message_id, step = await settle_and_admit(scene)
    await scene.store.delivery.heartbeat("w1", 2)
    assert scene.look().parked == {LANE}
    return message_id, step


async def release(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.release([claim])


async def extend(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    claim = await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.extend(0, "w1", [claim])


async def promote(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store, delay_ms=1000)
    await scene.move(1000)
    return message_id, lambda: scene.store.delivery.promote(0, 10)


async def promote_into_a_full_lane(scene: Scene) -> tuple[MessageId, Step]:
    await scene.store.delivery.heartbeat("w1", 2)
    await publish(scene.store)
    return await promote(scene)


async def cancel_delayed(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store, delay_ms=1000)
    return message_id, lambda: scene.store.admin.cancel(message_id)


async def cancel_ready(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    return message_id, lambda: scene.store.admin.cancel(message_id)


async def cancel_and_unpark(scene: Scene) -> tuple[MessageId, Step]:
    await scene.store.delivery.heartbeat("w1", 2)
    message_id = await publish(scene.store)
    await publish(scene.store)
    await scene.store.delivery.heartbeat("w1", 2)
    return message_id, lambda: scene.store.admin.cancel(message_id)


async def cancel_active(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    await claim_one(scene.store)
    return message_id, lambda: scene.store.admin.cancel(message_id)


async def retry_dead_letter(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    await scene.store.delivery.settle(failed(await claim_one(scene.store)))
    [(dlq_id, _)] = scene.look().dlq
    return message_id, lambda: scene.store.admin.retry_dead_letter(dlq_id)


async def retry_dead_letter_later(scene: Scene) -> tuple[MessageId, Step]:
    message_id, _ = await retry_dead_letter(scene)
    [letter] = (await scene.store.admin.list_dead_letters(cursor=None, count=1, newest_first=True)).entries
    delay = Delay(delay_ms=500)
    return message_id, lambda: scene.store.admin.retry_dead_letter_as(letter, letter.stored.message, delay)


async def heartbeat(scene: Scene) -> tuple[MessageId, Step]:
    await scene.store.delivery.heartbeat("w1", 0)
    message_id = await publish(scene.store)
    return message_id, lambda: scene.store.delivery.heartbeat("w1", 10)


async def heartbeat_and_unpark(scene: Scene) -> tuple[MessageId, Step]:
    await scene.store.delivery.heartbeat("w1", 2)
    await publish(scene.store)
    message_id = await publish(scene.store)
    await scene.store.delivery.heartbeat("w1", 2)
    return message_id, lambda: scene.store.delivery.heartbeat("w1", 10)


async def leave(scene: Scene) -> tuple[MessageId, Step]:
    message_id = await publish(scene.store)
    await claim_one(scene.store)
    return message_id, lambda: scene.store.delivery.leave("w1")


async def expire(scene: Scene) -> tuple[MessageId, Step]:
    return await publish(scene.store), lambda: scene.store.delivery.expire(0, 500)


BEGINNINGS: list[Begin] = [
    publish_due,
    publish_into_a_full_lane,
    publish_for_later,
    publish_once,
    claim_new,
    claim_taken,
    claim_expired,
    claim_after_cancellation,
    claim_cancelled_while_ready,
    settle_delivered,
    settle_retry,
    settle_failed,
    settle_with_a_callback,
    settle_with_a_callback_to_the_same_host,
    settle_cancelled,
    settle_and_admit,
    settle_and_unpark,
    release,
    extend,
    promote,
    promote_into_a_full_lane,
    cancel_delayed,
    cancel_ready,
    cancel_and_unpark,
    cancel_active,
    retry_dead_letter,
    retry_dead_letter_later,
    heartbeat,
    heartbeat_and_unpark,
    leave,
    expire,
]
KEYS = [
    "ready", "timers", "ring", "parked", "log", "dlq", "dedup", "workers", "capacity",
    "record", "lane", "places", "callbacks' lane", "digest",
]  # fmt: skip
DIGEST = bytes(range(16))


@pytest.mark.parametrize("is_repeated", [True, False], ids=["repeated", "given up"])
@pytest.mark.parametrize("failing", KEYS)
@pytest.mark.parametrize("begin", BEGINNINGS)
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
    key = {
        "record": keys.message(message_id),
        "lane": keys.lane(LANE),
        "places": keys.admitted(LANE),
        "callbacks' lane": keys.lane(CALLBACK_LANE),
        "digest": keys.deduplication(DIGEST),
    }.get(failing)
    was_done = False
    async with damaged(redis_client, key or getattr(keys, failing)):
        with contextlib.suppress(StorageError):
            await step()
            was_done = True
    if is_repeated:
        with contextlib.suppress(StorageError):
            await step()
            was_done = True
    await drain(scene)
    partition = look()
    assert [record.stored.state.name for record in partition.records.values() if not record.stored.state.is_final] == []
    # Only a publish that was never acknowledged may be forgotten.
    assert message_id in partition.records or not was_done
    assert (partition.entries, partition.timers, partition.lanes, partition.admitted) == ({}, {}, {}, {})
