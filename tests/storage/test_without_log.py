"""With `message_log` off the same life goes on; nothing is written down of it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from qstash_clone.domain.message import State
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store, open_store
from tests.storage.conftest import AgeLeases, Look, MoveClock, Opened
from tests.support.messages import (
    claim_one,
    dead_letter,
    delivered,
    failed,
    new_callback,
    publish,
    reported,
    retry,
)

GRACE_MS = 90_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, message_log=False, message_grace_ms=GRACE_MS)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    store = await open_store(settings)
    await store.delivery.heartbeat("w1", 100)
    yield store
    await store.aclose()


async def test_a_whole_life(store: Store, settings: Settings, look: Look, move_clock: MoveClock) -> None:
    message_id = await publish(store, delay_ms=1_000)
    await move_clock(1_000)
    await store.delivery.promote(0, 10)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=0))
    await store.delivery.promote(0, 10)
    callback = new_callback(store)
    await store.delivery.settle(reported(delivered(await claim_one(store)), callback))
    await store.delivery.settle(failed(await claim_one(store)))
    partition = look()
    assert (partition.log, partition.finished_bytes) == ([], 0)
    assert partition.records[message_id].stored.state is State.DELIVERED
    assert GRACE_MS - 10_000 < partition.records[message_id].ttl_ms <= GRACE_MS
    dead = partition.records[callback.message.id]
    assert settings.dlq_retention_ms - 10_000 < dead.ttl_ms <= settings.dlq_retention_ms


async def test_cancellations(store: Store, look: Look, age_leases: AgeLeases) -> None:
    waiting, lost, failing = await publish(store, delay_ms=60_000), await publish(store), await publish(store)
    await store.admin.cancel(waiting)
    claims = (await store.delivery.claim(0, "w1", 10)).claims
    for claim in claims:
        await store.admin.cancel(claim.id)
    await store.delivery.settle(failed(next(claim for claim in claims if claim.id == failing)))
    await age_leases()
    await store.delivery.claim(0, "w2", 10, reclaim=True)
    partition = look()
    assert (partition.log, partition.finished_bytes) == ([], 0)
    for message_id in (waiting, lost, failing):
        record = partition.records[message_id]
        assert record.stored.state is State.CANCELED
        assert GRACE_MS - 10_000 < record.ttl_ms <= GRACE_MS


async def test_a_dead_letter_that_is_retried(store: Store, look: Look) -> None:
    new_id = await store.admin.retry_dead_letter(await dead_letter(store))
    partition = look()
    [old] = [record for message_id, record in partition.records.items() if message_id != new_id]
    assert GRACE_MS - 10_000 < old.ttl_ms <= GRACE_MS
    assert (partition.log, partition.finished_bytes, partition.dlq) == ([], 0, [])


async def test_records_stay_long_enough_for_a_call_that_is_repeated(
    opened: Opened, settings: Settings, look: Look
) -> None:
    store = await opened(replace(settings, message_grace_ms=0))
    await store.delivery.heartbeat("w1", 10)
    message_id = await publish(store)
    await store.delivery.settle(delivered(await claim_one(store)))
    assert look().records[message_id].ttl_ms > 30_000, "three tries of 10 s"
