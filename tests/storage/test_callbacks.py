"""Callbacks in settle.lua: stored with the settlement that they report, by it alone, and never twice."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.message import CallbackMessage, Claim, Settlement, State
from qstash_clone.errors import StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.codec import MAX_LANE_BYTES
from qstash_clone.storage.grouping import MAX_BYTES
from qstash_clone.storage.interface import SettleResult
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import partition_of
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock, Opened
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import (
    CALLBACK_LANE,
    LANE,
    claim_all,
    claim_one,
    delivered,
    failed,
    new_callback,
    publish,
    reported,
    retry,
)

End = Callable[[Claim], Settlement]
ENDS: list[End] = [delivered, retry, failed]
LETTERS: dict[End, str] = {delivered: "CAD", retry: "CAER", failed: "CAEF"}
BODY = b'{"dlqId":"","status":500}'
DLQ_ID_AT = len(b'{"dlqId":"')


@pytest.mark.parametrize("end", ENDS)
async def test_a_callback_is_a_message_of_its_own(store: Store, look: Look, end: End) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    callback = new_callback(store, body=b"report")
    assert await store.delivery.settle(reported(end(claim), callback)) is SettleResult.SETTLED
    stored = look().records[callback.message.id].stored
    assert (stored.message, stored.body, stored.lane) == (callback.message.message, b"report", CALLBACK_LANE)
    assert (stored.state, stored.retried, stored.last_attempt) == (State.QUEUED, 0, None)
    assert stored.created_ms == stored.due_ms == stored.not_before_ms
    assert look().letters(callback.message.id) == "C"
    claimed = await claim_one(store)
    assert (claimed.id, claimed.body) == (callback.message.id, b"report")
    assert await store.delivery.settle(delivered(claimed)) is SettleResult.SETTLED
    assert look().letters(message_id) == LETTERS[end]


async def test_several_callbacks_of_one_attempt(store: Store, look: Look) -> None:
    await publish(store)
    claim = await claim_one(store)
    callbacks = [new_callback(store, body=b"%d" % number) for number in range(3)]
    await store.delivery.settle(reported(failed(claim), *callbacks))
    claimed = await claim_all(store)
    assert [(claim.id, claim.body) for claim in claimed] == [(one.message.id, one.message.body) for one in callbacks]


@pytest.mark.parametrize("places", [0, 2, 100])
async def test_callbacks_for_the_host_that_was_just_called(store: Store, look: Look, places: int) -> None:
    """They join the very lane whose place is given back; the sound store afterwards tells that it is kept straight."""
    await publish(store)
    claim = await claim_one(store)
    await store.delivery.heartbeat("w1", places)
    callbacks = [new_callback(store, lane=LANE) for _ in range(2)]
    await store.delivery.settle(reported(failed(claim), *callbacks))
    partition = look()
    held = {message_id for message_id in partition.entries.values() if message_id}
    assert held | set(partition.lanes.get(LANE, [])) == {one.message.id for one in callbacks}
    assert bool(held) == (places > 0)


async def test_a_delayed_callback_waits_and_rings(store: Store, look: Look, move_clock: MoveClock) -> None:
    await publish(store, delay_ms=60_000)
    await publish(store)
    claim = (await store.delivery.claim(0, "w1", 10)).claims[0]
    assert look().bells == 0
    late, soon = new_callback(store, delay_ms=90_000), new_callback(store, delay_ms=30_000)
    await store.delivery.settle(reported(delivered(claim), late, soon))
    partition = look()
    assert partition.bells == 1
    stored = partition.records[soon.message.id].stored
    assert (stored.state, partition.timers[soon.message.id]) == (State.DELAYED, stored.created_ms + 30_000)
    await move_clock(90_000)
    await store.delivery.promote(0, 10)
    assert {claim.id for claim in await claim_all(store)} >= {late.message.id, soon.message.id}


async def test_a_callback_due_after_the_earliest_timer_does_not_ring(store: Store, look: Look) -> None:
    await publish(store, delay_ms=10_000)
    await publish(store)
    claim = (await store.delivery.claim(0, "w1", 10)).claims[0]
    await store.delivery.settle(reported(delivered(claim), new_callback(store, delay_ms=30_000)))
    assert look().bells == 0


async def test_a_retry_rings_for_nobody_also_with_callbacks(store: Store, look: Look) -> None:
    """The worker that settles knows of the retry."""
    await publish(store)
    await store.delivery.settle(reported(retry(await claim_one(store)), new_callback(store)))
    assert look().bells == 0


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_failure_callback_names_the_dead_letter(opened: Opened, settings: Settings, partitions: int) -> None:
    store = await opened(settings)
    await store.delivery.heartbeat("w1", 90)
    for number in range(3 * partitions):
        await asyncio.gather(publish(store, body=b"%d" % number), publish(store, lane="h:other"))
    told: dict[bytes, str] = {}
    for partition in range(partitions):
        for claim in await claim_all(store, partition=partition):
            callback = new_callback(store, partition=partition, body=BODY, dlq_id_at=DLQ_ID_AT)
            assert partition_of(callback.message.id, partitions) == partition
            await store.delivery.settle(reported(failed(claim), callback))
            stored = await store.admin.get_message(callback.message.id)
            assert stored is not None
            report = msgspec.json.decode(stored.body)
            assert report["status"] == 500
            told[claim.id] = report["dlqId"]
    entries = (await store.admin.list_dead_letters(cursor=None, count=100, newest_first=True)).entries
    assert {entry.stored.id: entry.dlq_id for entry in entries} == told
    assert len(set(told.values())) == 6 * partitions


async def test_only_a_dead_letter_has_an_id_to_tell(store: Store) -> None:
    await publish(store)
    callback = new_callback(store, body=BODY, dlq_id_at=DLQ_ID_AT)
    await store.delivery.settle(reported(retry(await claim_one(store)), callback))
    assert (await claim_one(store)).body == BODY


@pytest.mark.parametrize("end", ENDS)
async def test_a_repeated_settlement_stores_nothing(store: Store, look: Look, end: End) -> None:
    await publish(store)
    settlement = reported(end(await claim_one(store)), new_callback(store))
    await store.delivery.settle(settlement)
    before = look()
    assert await store.delivery.settle(settlement) is SettleResult.SETTLED
    assert look() == before


@pytest.mark.parametrize("end", ENDS)
async def test_another_settlement_of_the_same_attempt_stores_nothing(store: Store, look: Look, end: End) -> None:
    await publish(store)
    claim = await claim_one(store)
    first, second = new_callback(store), new_callback(store)
    await asyncio.gather(
        store.delivery.settle(reported(delivered(claim), first)), store.delivery.settle(reported(end(claim), second))
    )
    assert set(look().records) == {claim.id, first.message.id}


@pytest.mark.parametrize("end", ENDS)
async def test_an_older_generation_stores_nothing(store: Store, age_leases: AgeLeases, look: Look, end: End) -> None:
    message_id = await publish(store)
    old = await claim_one(store)
    await age_leases()
    await claim_one(store, "w2", reclaim=True)
    assert await store.delivery.settle(reported(end(old), new_callback(store))) is SettleResult.STALE
    assert set(look().records) == {message_id}


@pytest.mark.parametrize("end", ENDS)
async def test_a_lost_reply_stores_them_once(lossy_store: Store, proxy: LossyProxy, look: Look, end: End) -> None:
    await publish(lossy_store)
    callback = new_callback(lossy_store, body=BODY, dlq_id_at=DLQ_ID_AT)
    settlement = reported(end(await claim_one(lossy_store)), callback)
    proxy.lose_request(Script("settle").digest)
    proxy.lose_reply(Script("settle").digest)
    assert await lossy_store.delivery.settle(settlement) is SettleResult.SETTLED
    assert proxy.losses == 2
    partition = look()
    assert partition.letters(callback.message.id) == "C"
    assert len(partition.dlq) == (1 if end is failed else 0)


@pytest.mark.parametrize("end", ENDS)
async def test_a_worker_that_dies_with_its_settlement_under_way(
    store: Store, lossy_store: Store, proxy: LossyProxy, age_leases: AgeLeases, look: Look, end: End
) -> None:
    """Attempt and callback stand or fall together, whether the script ran or not."""
    for run, lose in ((False, proxy.lose_request), (True, proxy.lose_reply)):
        await publish(lossy_store)
        settlement = reported(end(await claim_one(lossy_store)), new_callback(lossy_store))
        lose(Script("settle").digest, times=3)
        with pytest.raises(StorageUnavailable):
            await lossy_store.delivery.settle(settlement)
        [callback] = settlement.callbacks
        assert (callback.message.id in look().records) is run
        assert (look().records[settlement.claim.id].stored.state is not State.ACTIVE) is run
        await age_leases()
        for claim in await claim_all(store, "w2", reclaim=True):
            await store.delivery.settle(delivered(claim))


@pytest.mark.parametrize("end", [retry, failed])
async def test_a_cancelled_message_reports_nothing(store: Store, look: Look, end: End) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    await store.admin.cancel(message_id)
    settlement = reported(end(claim), new_callback(store, body=BODY, dlq_id_at=DLQ_ID_AT))
    assert await store.delivery.settle(settlement) is SettleResult.CANCELED
    assert set(look().records) == {message_id}
    assert look().dlq == []


async def test_a_delivery_is_reported_although_it_was_to_be_cancelled(store: Store, look: Look) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    await store.admin.cancel(message_id)
    callback = new_callback(store)
    assert await store.delivery.settle(reported(delivered(claim), callback)) is SettleResult.SETTLED
    assert set(look().records) == {message_id, callback.message.id}


async def test_settling_against_cancelling(store: Store, lossy_store: Store, look: Look) -> None:
    """Two connections: either the message ends cancelled and is not reported, or it is reported."""
    await store.delivery.heartbeat("w1", 1000)
    for _ in range(40):
        await publish(store)
    claims = await claim_all(store)
    settlements = {claim.id: reported(failed(claim), new_callback(store)) for claim in claims}
    results = await asyncio.gather(
        *(store.delivery.settle(settlement) for settlement in settlements.values()),
        *(lossy_store.admin.cancel(message_id) for message_id in settlements),
    )
    partition = look()
    for (message_id, settlement), result in zip(settlements.items(), results, strict=False):
        [callback] = settlement.callbacks
        is_canceled = partition.records[message_id].stored.state is State.CANCELED
        assert (result is SettleResult.CANCELED) == is_canceled
        assert (callback.message.id in partition.records) == (not is_canceled)


async def test_one_member_that_fails_fails_alone(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    for number in range(3):
        await publish(store, lane=f"h:{number}")
    claims = await claim_all(store)
    callbacks = [new_callback(store, lane=f"h:callback-{number}") for number in range(3)]
    settlements = [reported(failed(claim), one) for claim, one in zip(claims, callbacks, strict=True)]
    async with damaged(redis_client, keys.lane("h:callback-1")):
        results = await asyncio.gather(*map(store.delivery.settle, settlements), return_exceptions=True)
    assert [type(result) for result in results] == [SettleResult, StorageUnavailable, SettleResult]
    partition = look()
    assert partition.records[claims[1].id].stored.state is State.ACTIVE, "nothing was written for it"
    assert {message_id for _, message_id in partition.dlq} == {claims[0].id, claims[2].id}
    assert callbacks[1].message.id not in partition.records
    assert await store.delivery.settle(settlements[1]) is SettleResult.SETTLED
    assert callbacks[1].message.id in look().records


async def test_a_callback_whose_lane_does_not_fit_is_refused_before_anything_is_sent(store: Store, look: Look) -> None:
    await publish(store)
    claim = await claim_one(store)
    with pytest.raises(ValueError, match="lane"):
        await store.delivery.settle(reported(delivered(claim), new_callback(store, lane="x" * (MAX_LANE_BYTES + 1))))
    assert look().records[claim.id].stored.state is State.ACTIVE


async def test_large_reports_travel_alone(store: Store, redis_client: Any, look: Look) -> None:
    """Source and answer of 1 MiB each are 2.8 MiB in base 64: such a settlement holds no other one up."""
    await store.delivery.heartbeat("w1", 100)
    for _ in range(12):
        await publish(store)
    claims = await claim_all(store)
    large = [b"x" * int(2.8 * 1_048_576), b"y" * (MAX_BYTES // 2), b"z" * (MAX_BYTES // 2)]
    callbacks: list[CallbackMessage] = [new_callback(store, body=body) for body in large]
    callbacks += [new_callback(store) for _ in claims[len(large) :]]
    await publish(store)
    [other] = await claim_all(store)
    await redis_client.config_resetstat()
    results = await asyncio.gather(
        store.delivery.settle(delivered(other)),
        *(store.delivery.settle(reported(delivered(claim), one)) for claim, one in zip(claims, callbacks, strict=True)),
    )
    assert set(results) == {SettleResult.SETTLED}
    calls = (await redis_client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    # The first, then each of the large ones; the small ones join the last of them.
    assert calls == 4
    records = look().records
    assert [len(records[one.message.id].stored.body) for one in callbacks[:3]] == [len(body) for body in large]
