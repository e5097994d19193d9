"""settle.lua: an attempt ends once, for the generation that was claimed, and frees its place."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.message import AttemptRecord, Claim, Settlement, State
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import SettleResult
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock, Opened
from tests.support.damage import damaged
from tests.support.eventually import eventually
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import FAILURE, LANE, claim_all, claim_one, delivered, failed, publish, retry

End = Callable[[Claim], Settlement]
ENDS: list[End] = [delivered, retry, failed]
STATES: dict[End, State] = {delivered: State.DELIVERED, retry: State.DELAYED, failed: State.FAILED}
LETTERS: dict[End, str] = {delivered: "CAD", retry: "CAER", failed: "CAEF"}


@pytest.mark.parametrize("end", ENDS)
async def test_what_each_end_leaves_behind(store: Store, settings: Settings, look: Look, end: End) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    assert await store.delivery.settle(end(claim)) is SettleResult.SETTLED
    partition = look()
    record = partition.records[message_id]
    stored = record.stored
    assert (stored.state, stored.retried, stored.claims, stored.generation) == (STATES[end], 1, 0, 1)
    assert partition.letters(message_id) == LETTERS[end]
    assert (partition.entries, partition.pending, partition.admitted) == ({}, {}, {})
    assert stored.last_attempt == (None if end is delivered else FAILURE)
    if end is delivered:
        assert settings.log_retention_ms - 10_000 < record.ttl_ms <= settings.log_retention_ms
    elif end is retry:
        assert record.ttl_ms == -1
        assert partition.timers == {message_id: stored.due_ms}
    else:
        assert settings.dlq_retention_ms - 10_000 < record.ttl_ms <= settings.dlq_retention_ms
        assert [of for _, of in partition.dlq] == [message_id]


async def test_the_log_says_which_attempt_failed_and_when_the_next_is_due(store: Store, look: Look) -> None:
    message_id = await publish(store)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=90_000))
    details = {letter: value for letter, _, value in look().log}
    assert details["E"] == (1).to_bytes(4, "big")
    assert int.from_bytes(details["R"], "big") == look().timers[message_id]


async def test_a_retry_is_due_after_its_delay(store: Store, look: Look) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    before_ms = (await store.delivery.promote(0, 0)).now_ms
    await store.delivery.settle(retry(claim, delay_ms=90_000))
    after_ms = (await store.delivery.promote(0, 0)).now_ms
    assert before_ms <= look().timers[message_id] - 90_000 <= after_ms


async def test_a_retry_without_delay_is_due_at_once(store: Store) -> None:
    await publish(store)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=0))
    assert (await store.delivery.promote(0, 10)).promoted == 1
    assert (await claim_one(store)).retried == 1


@pytest.mark.parametrize("end", ENDS)
async def test_repeating_a_settlement_changes_nothing(store: Store, look: Look, end: End) -> None:
    await publish(store)
    claim = await claim_one(store)
    await store.delivery.settle(end(claim))
    before = look()
    assert await store.delivery.settle(end(claim)) is SettleResult.SETTLED
    assert look() == before


@pytest.mark.parametrize("end", ENDS)
async def test_a_lost_reply_settles_once(lossy_store: Store, proxy: LossyProxy, look: Look, end: End) -> None:
    message_id = await publish(lossy_store)
    claim = await claim_one(lossy_store)
    proxy.lose_reply(Script("settle").digest, times=2)
    assert await lossy_store.delivery.settle(end(claim)) is SettleResult.SETTLED
    assert look().letters(message_id) == LETTERS[end]


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
async def test_the_first_end_of_a_generation_stands(store: Store, look: Look, first: End, second: End) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    results = await asyncio.gather(store.delivery.settle(first(claim)), store.delivery.settle(second(claim)))
    assert results == [SettleResult.SETTLED] * 2
    assert look().letters(message_id) == LETTERS[first]


@pytest.mark.parametrize("end", ENDS)
async def test_an_older_generation_changes_nothing(store: Store, age_leases: AgeLeases, look: Look, end: End) -> None:
    await publish(store)
    old = await claim_one(store)
    await age_leases()
    new = await claim_one(store, "w2", reclaim=True)
    before = look()
    assert await store.delivery.settle(end(old)) is SettleResult.STALE
    assert look() == before
    assert await store.delivery.settle(delivered(new)) is SettleResult.SETTLED


async def test_an_older_generation_cannot_end_a_later_attempt(store: Store, move_clock: MoveClock) -> None:
    await publish(store)
    old = await claim_one(store)
    await store.delivery.settle(retry(old, delay_ms=1000))
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    new = await claim_one(store)
    assert await store.delivery.settle(delivered(old)) is SettleResult.STALE
    assert await store.delivery.settle(delivered(new)) is SettleResult.SETTLED


async def test_a_settlement_while_the_retry_is_queued_again_changes_nothing(
    store: Store, move_clock: MoveClock, look: Look
) -> None:
    """The generation is the same until the next claim: only the state tells."""
    await publish(store)
    claim = await claim_one(store)
    await store.delivery.settle(retry(claim, delay_ms=1000))
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    before = look()
    assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED
    assert look() == before
    assert (await claim_one(store)).retried == 1


async def test_settling_what_nobody_knows_is_stale(store: Store, keys: PartitionKeys) -> None:
    await publish(store)
    claim = await claim_one(store)
    unknown = msgspec.structs.replace(claim, id=store.publishing.new_message_id())
    assert await store.delivery.settle(delivered(unknown)) is SettleResult.STALE


@pytest.mark.parametrize(
    ("end", "result", "letters"),
    [
        (delivered, SettleResult.SETTLED, "CAQD"),
        (retry, SettleResult.CANCELED, "CAQEX"),
        (failed, SettleResult.CANCELED, "CAQEX"),
    ],
)
async def test_the_end_of_a_message_whose_cancellation_was_requested(
    store: Store, look: Look, end: End, result: SettleResult, letters: str
) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    await store.admin.cancel(message_id)
    assert await store.delivery.settle(end(claim)) is result
    assert await store.delivery.settle(end(claim)) is result
    partition = look()
    assert partition.letters(message_id) == letters
    assert (partition.timers, partition.dlq, partition.entries, partition.admitted) == ({}, [], {}, {})
    assert partition.records[message_id].ttl_ms > 0


async def test_an_end_makes_room_for_the_next(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 2)
    first, second, third = [await publish(store) for _ in range(3)]
    claim = await claim_one(store)
    assert claim.id == first
    assert look().parked | set(look().ring) == {LANE}
    await store.delivery.settle(delivered(claim))
    assert [claim.id for claim in await claim_all(store)] == [second]
    assert look().lanes == {LANE: [third]}


async def test_an_end_returns_a_parked_lane_to_the_ring(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 4)
    for _ in range(6):
        await publish(store)
    claims = await claim_all(store)
    await store.delivery.settle(retry(claims[0]))
    partition = look()
    # It got a turn and was parked again behind the message that came in.
    assert len(partition.admitted[LANE]) == 2
    assert len(partition.lanes[LANE]) == 3


async def test_one_call_admits_as_many_as_end(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 100)
    for number in range(400):
        await publish(store, lane=f"h:{number % 4}")
    claims = await claim_all(store)
    assert len(claims) == 80
    await asyncio.gather(*(store.delivery.settle(delivered(claim)) for claim in claims))
    assert len(look().entries) == 80


async def test_attempts_of_any_size_are_kept(store: Store, move_clock: MoveClock) -> None:
    message_id = await publish(store, body=b"x" * 1000)
    last: AttemptRecord | None = None
    for number, size in enumerate([0, 1, 4096, 1 << 20], start=1):
        last = AttemptRecord(status=500 + number, error=f"attempt {number}", body=b"\xff" * size, duration_ms=number)
        await store.delivery.settle(retry(await claim_one(store), 10, last))
        await move_clock(10)
        await store.delivery.promote(0, 10)
        stored = await store.admin.get_message(message_id)
        assert stored is not None
        assert (stored.last_attempt, stored.retried, stored.body) == (last, number, b"x" * 1000)


async def test_a_kept_attempt_does_not_double_what_the_message_occupies(store: Store, keys: PartitionKeys) -> None:
    """As it would with APPEND: Redis reserves room for more of them."""
    message_id = await publish(store, body=b"x" * 400)
    await store.delivery.settle(retry(await claim_one(store), 0))
    record_bytes = await store.commands.ask("STRLEN", keys.message(message_id))
    used_bytes = await store.commands.ask("MEMORY", "USAGE", keys.message(message_id))
    assert used_bytes < 1.5 * record_bytes + 100


async def test_one_member_that_fails_fails_alone(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    for number in range(4):
        await publish(store, lane=f"h:{number}")
    claims = await claim_all(store)
    async with damaged(redis_client, keys.message(claims[1].id)), damaged(redis_client, keys.admitted("h:2")):
        results = await asyncio.gather(
            *(store.delivery.settle(delivered(claim)) for claim in claims), return_exceptions=True
        )
    settled, gone, misplaced, last = results
    assert (settled, last) == (SettleResult.SETTLED, SettleResult.SETTLED)
    assert isinstance(gone, StorageUnavailable)
    assert isinstance(misplaced, StorageUnavailable)
    for claim in claims[1:3]:
        assert look().records[claim.id].stored.state is State.ACTIVE, "nothing was written for it"
        assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED


async def test_a_lane_that_cannot_be_read_does_not_stop_the_others(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    await store.delivery.heartbeat("w1", 2)
    for lane in ("h:0", "h:1", "h:1", "h:2"):
        await publish(store, lane=lane)
    claims = await claim_all(store)
    async with damaged(redis_client, keys.lane("h:1")):
        for _ in range(3):
            for claim in claims:
                assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED
            claims = await claim_all(store)
    await store.delivery.heartbeat("w1", 2)
    for _ in range(4):
        for claim in await claim_all(store):
            await store.delivery.settle(delivered(claim))
    assert {record.stored.state for record in look().records.values()} == {State.DELIVERED}


async def test_a_settlement_after_redis_was_emptied_is_stale(store: Store, keys: PartitionKeys) -> None:
    await publish(store)
    claim = await claim_one(store)
    await store.commands.ask("FLUSHALL")
    assert await store.delivery.settle(delivered(claim)) is SettleResult.STALE
    await publish(store)
    await store.delivery.heartbeat("w1", 10)
    await claim_one(store)


@pytest.mark.parametrize("partitions", [3])
async def test_settlements_of_several_partitions_go_their_ways(opened: Opened, settings: Settings) -> None:
    store = await opened(settings)
    await store.delivery.heartbeat("w1", 90)
    await asyncio.gather(*(publish(store, lane=f"h:{number}") for number in range(10)))
    await asyncio.gather(*(publish(store, lane=f"h:{number}") for number in range(10)))
    claims: list[Claim] = []
    for partition in range(3):
        claims += await claim_all(store, partition=partition)
    assert len(claims) == 20
    settlements: list[Settlement] = [delivered(claim) for claim in claims]
    results = await asyncio.gather(*map(store.delivery.settle, settlements))
    assert set(results) == {SettleResult.SETTLED}
    assert (await store.admin.stats()).in_flight == 0


async def test_a_message_delivered_without_grace_stays_for_the_replay(opened: Opened, settings: Settings) -> None:
    store = await opened(replace(settings, message_grace_ms=0))
    await store.delivery.heartbeat("w1", 10)
    message_id = await publish(store)
    claim = await claim_one(store)
    assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED
    assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED, "and not stale"
    await eventually(lambda: _is_gone(store, message_id))


async def _is_gone(store: Store, message_id: MessageId) -> bool:
    return await store.admin.get_message(message_id) is None
