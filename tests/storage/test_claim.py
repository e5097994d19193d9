"""claim.lua: leases go to one worker at a time, under a new generation, and no reply that is lost loses a message."""

import asyncio
from typing import Any

import pytest

from qstash_clone.domain.message import Claim, State
from qstash_clone.domain.outcome import quarantine_record
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.settings import RULES, Settings
from qstash_clone.storage.codec import HEAD_BYTES, encode_message
from qstash_clone.storage.delivery_store import CLAIM_RECORD_BYTES
from qstash_clone.storage.grouping import MAX_BYTES
from qstash_clone.storage.interface import SettleResult
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store, open_store
from tests.storage.conftest import AgeLeases, Look, MoveClock
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import (
    LANE,
    claim_all,
    claim_one,
    delivered,
    failed,
    new_message,
    publish,
    retry,
)


async def test_a_claim_carries_the_message_as_published(store: Store) -> None:
    message = new_message(store, body=b"\x00\xff body")
    await store.publishing.publish(message)
    batch = await store.delivery.claim(0, "w1", 10)
    [claim] = batch.claims
    assert claim == Claim(
        partition=0,
        entry_id=claim.entry_id,
        id=message.id,
        generation=1,
        retried=0,
        claims=1,
        created_ms=claim.created_ms,
        due_ms=claim.created_ms,
        not_before_ms=claim.created_ms,
        message=message.message,
        body=message.body,
        body_bytes=7,
        lane=LANE,
    )
    assert 0 <= batch.now_ms - claim.created_ms < 60_000
    assert batch.signing_keys == await store.admin.get_signing_keys()
    assert (batch.dead_lettered, batch.rang) == ([], False)


async def test_a_claimed_message_goes_to_nobody_else(store: Store, look: Look) -> None:
    message_id = await publish(store)
    await claim_one(store)
    assert await claim_all(store, "w2", reclaim=True) == []
    record = look().records[message_id].stored
    assert (record.state, record.generation, record.claims) == (State.ACTIVE, 1, 1)
    assert look().letters(message_id) == "CA"


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)])
async def test_never_more_than_the_limit(store: Store, limit: int, expected: int) -> None:
    ids = [await publish(store) for _ in range(3)]
    assert [claim.id for claim in await claim_all(store, limit=limit)] == ids[:expected]


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_expired_leases_count_towards_the_limit(store: Store, age_leases: AgeLeases, limit: int) -> None:
    ids = [await publish(store) for _ in range(4)]
    await claim_all(store, limit=2)
    await age_leases()
    assert [claim.id for claim in await claim_all(store, "w2", limit=limit, reclaim=True)] == ids[:limit]


async def test_an_expired_lease_goes_to_another_worker_under_a_new_generation(
    store: Store, age_leases: AgeLeases, look: Look
) -> None:
    message_id = await publish(store)
    first = await claim_one(store)
    await age_leases()
    assert await claim_all(store, "w2") == [], "only a call that asks for expired leases gets them"
    second = await claim_one(store, "w2", reclaim=True)
    assert (second.id, second.entry_id, second.generation, second.claims) == (message_id, first.entry_id, 2, 2)
    assert await store.delivery.settle(delivered(first)) is SettleResult.STALE
    assert await store.delivery.settle(delivered(second)) is SettleResult.SETTLED
    assert look().letters(message_id) == "CAAD"


async def test_a_call_that_was_held_up_reclaims_nothing(store: Store, age_leases: AgeLeases) -> None:
    message_id = await publish(store)
    now_ms = (await store.delivery.claim(0, "w1", 1)).now_ms
    await age_leases()
    late = await store.delivery.claim(0, "w2", 1, reclaim=True, reclaim_until_ms=now_ms - 1)
    assert late.claims == []
    in_time = await store.delivery.claim(0, "w2", 1, reclaim=True, reclaim_until_ms=now_ms + 60_000)
    assert [claim.id for claim in in_time.claims] == [message_id]


async def test_a_worker_reclaims_what_it_has_forgotten_itself(store: Store, age_leases: AgeLeases) -> None:
    await publish(store)
    await claim_one(store)
    await age_leases()
    assert (await claim_one(store, "w1", reclaim=True)).generation == 2


async def test_a_live_lease_is_not_reclaimed(store: Store, age_leases: AgeLeases) -> None:
    first, second = [await publish(store) for _ in range(2)]
    claims = await claim_all(store)
    await age_leases(claims[:1])
    assert [claim.id for claim in await claim_all(store, "w2", reclaim=True)] == [first]
    assert [claim.id for claim in claims] == [first, second]


async def test_expired_leases_behind_many_live_ones_are_found(store: Store, age_leases: AgeLeases) -> None:
    await store.delivery.heartbeat("w1", 4000)
    await asyncio.gather(*(publish(store, body=b"") for _ in range(1500)))
    claims = [claim for _ in range(2) for claim in await claim_all(store)]
    assert len(claims) == 1500
    await age_leases(claims[-1:])
    assert [claim.id for claim in await claim_all(store, "w2", limit=1, reclaim=True)] == [claims[-1].id]


async def test_taken_entries_are_claimed_and_more_with_them(store: Store) -> None:
    ids = [await publish(store) for _ in range(3)]
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    assert len(taken) == 1
    batch = await store.delivery.claim(0, "w1", 2, taken=taken)
    assert [claim.id for claim in batch.claims] == ids[:2]


async def test_taken_entries_that_another_worker_got_meanwhile_are_left_alone(
    store: Store, age_leases: AgeLeases, look: Look
) -> None:
    message_id = await publish(store)
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    await age_leases()
    claim = await claim_one(store, "w2", reclaim=True)
    assert (await store.delivery.claim(0, "w1", 1, taken=taken)).claims == []
    assert look().records[message_id].stored.generation == claim.generation
    assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED


async def test_repeating_a_claim_of_taken_entries_changes_nothing_and_answers_the_same(
    store: Store, look: Look
) -> None:
    message_id = await publish(store)
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    first = await store.delivery.claim(0, "w1", 1, taken=taken)
    before = look()
    second = await store.delivery.claim(0, "w1", 1, taken=taken)
    assert second.claims == first.claims
    assert look() == before
    assert look().letters(message_id) == "CA"
    assert await store.delivery.settle(delivered(second.claims[0])) is SettleResult.SETTLED


async def test_a_lost_reply_does_not_lose_the_taken_entries(lossy_store: Store, proxy: LossyProxy) -> None:
    message_id = await publish(lossy_store)
    taken = await lossy_store.delivery.wait(0, "w1", 1, 1000)
    proxy.lose_reply(Script("claim").digest)
    [claim] = (await lossy_store.delivery.claim(0, "w1", 1, taken=taken)).claims
    assert (claim.id, claim.claims) == (message_id, 1)
    assert proxy.losses == 1


async def test_a_cancellation_wins_over_repeating_a_lost_claim(store: Store, look: Look) -> None:
    message_id = await publish(store)
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    await store.delivery.claim(0, "w1", 1, taken=taken)
    await store.admin.cancel(message_id)
    assert (await store.delivery.claim(0, "w1", 1, taken=taken)).claims == []
    assert look().letters(message_id) == "CAQX"


async def test_an_entry_taken_longer_than_a_lease_ago_is_claimed_once(store: Store, age_leases: AgeLeases) -> None:
    await publish(store)
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    await age_leases()
    batch = await store.delivery.claim(0, "w1", 5, taken=taken, reclaim=True)
    assert [claim.generation for claim in batch.claims] == [1]


async def test_a_lost_reply_leaves_new_messages_to_the_lease(
    lossy_store: Store, proxy: LossyProxy, age_leases: AgeLeases
) -> None:
    message_id = await publish(lossy_store)
    proxy.lose_reply(Script("claim").digest)
    assert await claim_all(lossy_store) == []
    await age_leases()
    claim = await claim_one(lossy_store, reclaim=True)
    assert (claim.id, claim.generation, claim.claims) == (message_id, 2, 2)


async def test_claims_are_counted_until_one_of_them_is_settled(
    store: Store, settings: Settings, age_leases: AgeLeases, look: Look
) -> None:
    """One claimed too often comes as well, for the worker to give it up."""
    message_id = await publish(store)
    before = await claim_one(store, "w1")
    for number in range(2, settings.max_claims + 2):
        await age_leases()
        claim = await claim_one(store, f"w{number}", reclaim=True)
        assert claim.claims == number
        assert await store.delivery.settle(failed(before)) is SettleResult.STALE
        before = claim
    assert await store.delivery.settle(failed(before)) is SettleResult.SETTLED
    assert look().letters(message_id) == "C" + "A" * (settings.max_claims + 1) + "EF"
    assert (look().entries, look().admitted) == ({}, {})


async def test_the_count_of_claims_ends_at_what_a_record_holds(
    store: Store, keys: PartitionKeys, age_leases: AgeLeases
) -> None:
    await publish(store)
    claim = await claim_one(store)
    await store.commands.ask("SETRANGE", keys.message(claim.id), 3, bytes([254]))
    for _ in range(3):
        await age_leases()
        claim = await claim_one(store, reclaim=True)
        assert claim.claims == 255
    await store.delivery.release([claim])
    assert (await claim_one(store)).claims == 255


async def test_one_that_nobody_can_read_goes_to_the_dead_letters(
    store: Store, settings: Settings, keys: PartitionKeys, age_leases: AgeLeases, look: Look
) -> None:
    message_id, other = await publish(store), await publish(store)
    sound = await store.commands.ask("GETRANGE", keys.message(message_id), HEAD_BYTES, HEAD_BYTES)
    await store.commands.ask("SETRANGE", keys.message(message_id), HEAD_BYTES, b"\xc1")
    for _ in range(settings.max_claims):
        batch = await store.delivery.claim(0, "w1", 10, reclaim=True)
        assert ([claim.id for claim in batch.claims], batch.dead_lettered) == ([other], [])
        await age_leases()
    batch = await store.delivery.claim(0, "w1", 10, reclaim=True)
    assert ([claim.id for claim in batch.claims], batch.dead_lettered) == ([other], [message_id])
    await store.commands.ask("SETRANGE", keys.message(message_id), HEAD_BYTES, sound)
    [entry] = (await store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)).entries
    assert entry.stored.last_attempt == quarantine_record(settings.max_claims)
    assert look().letters(message_id).endswith("AEF")


async def test_a_settled_attempt_starts_the_count_of_claims_again(
    store: Store, settings: Settings, age_leases: AgeLeases, move_clock: MoveClock
) -> None:
    await publish(store)
    claim = await claim_one(store)
    for _ in range(settings.max_claims - 1):
        await age_leases()
        claim = await claim_one(store, reclaim=True)
    await store.delivery.settle(retry(claim, delay_ms=1000))
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    assert (await claim_one(store)).claims == 1


async def test_a_message_cancelled_in_the_ready_stream_is_dropped_and_makes_room(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 2)
    first, second = await publish(store), await publish(store)
    assert look().lanes == {LANE: [second]}
    await store.admin.cancel(first)
    assert await claim_all(store) == []
    assert [claim.id for claim in await claim_all(store)] == [second]
    assert look().letters(first) == "CQX"


async def test_a_cancellation_wins_when_the_worker_is_lost(store: Store, age_leases: AgeLeases, look: Look) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    await store.admin.cancel(message_id)
    await age_leases()
    assert await claim_all(store, "w2", reclaim=True) == []
    assert look().records[message_id].stored.state is State.CANCELED
    assert look().letters(message_id) == "CAQX"
    assert look().entries == {}
    assert await store.delivery.settle(delivered(claim)) is SettleResult.CANCELED


async def test_a_doorbell_is_answered_once(store: Store, look: Look) -> None:
    await publish(store, delay_ms=5000)
    assert look().bells == 1
    assert (await store.delivery.claim(0, "w1", 5)).rang
    assert look().bells == 0
    assert not (await store.delivery.claim(0, "w1", 5)).rang


async def test_a_taken_doorbell_is_answered(store: Store, look: Look) -> None:
    await publish(store, delay_ms=5000)
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    assert (await store.delivery.claim(0, "w1", 5, taken=taken)).rang
    assert look().bells == 0


async def test_a_doorbell_in_a_lost_reply_is_still_heard(lossy_store: Store, proxy: LossyProxy) -> None:
    await publish(lossy_store, delay_ms=5000)
    proxy.lose_reply(Script("claim").digest)
    assert (await lossy_store.delivery.claim(0, "w1", 5)).rang


BODY_SIZES = [0, 1, CLAIM_RECORD_BYTES - 1000, CLAIM_RECORD_BYTES, CLAIM_RECORD_BYTES + 1, 1 << 20]


@pytest.mark.parametrize("size", BODY_SIZES)
async def test_a_large_body_is_fetched_for_the_delivery(store: Store, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    await publish(store, body=body)
    claim = await claim_one(store)
    assert claim.body_bytes == size
    assert len(claim.body) <= CLAIM_RECORD_BYTES
    if len(claim.body) < size:
        assert body.startswith(claim.body)
        assert await store.delivery.fetch_body(claim) == body
    else:
        assert claim.body == body
        assert size <= CLAIM_RECORD_BYTES


@pytest.mark.parametrize("offset", [-1, 0, 1])
async def test_the_edge_of_what_comes_along(store: Store, offset: int) -> None:
    fixed_bytes = HEAD_BYTES + len(encode_message(new_message(store).message))
    await publish(store, body=b"x" * (CLAIM_RECORD_BYTES - fixed_bytes + offset))
    claim = await claim_one(store)
    assert claim.body_bytes - len(claim.body) == max(0, offset)


async def test_the_body_of_a_retried_message_does_not_include_its_attempts(store: Store, move_clock: MoveClock) -> None:
    body = bytes(range(256)) * 400
    await publish(store, body=body)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=10))
    await move_clock(10)
    await store.delivery.promote(0, 10)
    assert await store.delivery.fetch_body(await claim_one(store)) == body


@pytest.mark.usefixtures("breaks_invariants")
async def test_a_body_that_goes_while_it_is_fetched_is_not_an_empty_one(
    store: Store, keys: PartitionKeys, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Redis is emptied at that moment; the place that the message held is all that is left here."""
    await publish(store, body=b"x" * 100_000)
    claim = await claim_one(store)
    ask = store.commands.ask

    async def ask_and_remove(*command: Any) -> Any:
        reply = await ask(*command)
        await redis_client.delete(keys.message(claim.id))
        return reply

    monkeypatch.setattr(store.commands, "ask", ask_and_remove)
    with pytest.raises(StorageUnavailable, match="gone"):
        await store.delivery.fetch_body(claim)


async def test_one_reply_carries_a_bounded_amount(store: Store) -> None:
    await store.delivery.heartbeat("w1", 1000)
    for _ in range(40):
        await publish(store, body=b"x" * 60_000)
    claims = await claim_all(store)
    assert len(claims) == 40
    assert sum(len(claim.body) for claim in claims) <= MAX_BYTES
    complete = [claim for claim in claims if len(claim.body) == claim.body_bytes]
    assert len(complete) == 17
    assert all(claim.body == b"" for claim in claims if claim not in complete)
    assert await store.delivery.fetch_body(claims[-1]) == b"x" * 60_000


async def test_a_damaged_record_stays_behind_and_the_others_are_claimed(
    store: Store, keys: PartitionKeys, redis_client: Any, age_leases: AgeLeases
) -> None:
    first, second, third = [await publish(store) for _ in range(3)]
    async with damaged(redis_client, keys.message(second)):
        assert [claim.id for claim in await claim_all(store)] == [first, third]
    await age_leases()
    assert second in {claim.id for claim in await claim_all(store, reclaim=True)}


async def test_a_record_that_cannot_be_decoded_does_not_take_others_along(store: Store, keys: PartitionKeys) -> None:
    first, second, third = [await publish(store) for _ in range(3)]
    sound = await store.commands.ask("GETRANGE", keys.message(second), HEAD_BYTES, HEAD_BYTES)
    await store.commands.ask("SETRANGE", keys.message(second), HEAD_BYTES, b"\xc1")
    assert [claim.id for claim in await claim_all(store)] == [first, third]
    await store.commands.ask("SETRANGE", keys.message(second), HEAD_BYTES, sound)


async def test_nothing_is_written_for_a_message_whose_places_are_damaged(
    store: Store, keys: PartitionKeys, redis_client: Any, age_leases: AgeLeases, look: Look
) -> None:
    message_id = await publish(store)
    await claim_all(store)
    await store.admin.cancel(message_id)
    await age_leases()
    before = look()
    async with damaged(redis_client, keys.admitted(LANE)):
        assert await claim_all(store, reclaim=True) == []
    assert look() == before
    await age_leases()
    assert await claim_all(store, reclaim=True) == []
    assert look().records[message_id].stored.state.is_final


async def test_an_entry_without_a_message_is_dropped(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    await redis_client.xadd(keys.ready, {"i": b"0" * 12})
    assert await claim_all(store) == []
    assert look().entries == {}


async def test_an_entry_deleted_while_pending_is_no_obstacle(
    store: Store,
    keys: PartitionKeys,
    redis_client: Any,
    age_leases: AgeLeases,
    breaks_invariants: None,
) -> None:
    """6.2 answers nil for it, 7.0 reports it apart."""
    first, second = [await publish(store) for _ in range(2)]
    claims = await claim_all(store)
    await age_leases()
    await redis_client.xdel(keys.ready, claims[0].entry_id)
    assert [claim.id for claim in await claim_all(store, "w2", reclaim=True)] == [second]
    assert first != second


async def test_reclaiming_survives_the_departure_of_the_worker(
    store: Store, age_leases: AgeLeases, redis_client: Any, keys: PartitionKeys
) -> None:
    message_id = await publish(store)
    await claim_one(store)
    await store.delivery.leave("w1")
    await age_leases()
    assert (await claim_one(store, "w2", reclaim=True)).id == message_id
    consumers = await redis_client.xinfo_consumers(keys.ready, CONSUMER_GROUP)
    assert len(consumers) == 2


async def test_two_workers_never_get_the_same_message(store: Store, lossy_store: Store) -> None:
    ids = {await publish(store, lane=f"h:{number}") for number in range(40)}
    batches = await asyncio.gather(
        *(one.delivery.claim(0, name, 7) for one, name in [(store, "w1"), (lossy_store, "w2")] * 3)
    )
    claimed = [claim.id for batch in batches for claim in batch.claims]
    assert len(claimed) == len(set(claimed)) == 40
    assert set(claimed) == ids


async def test_log_sequences_of_the_contract(store: Store, move_clock: MoveClock, look: Look) -> None:
    async def again(message_id: MessageId) -> Claim:
        await move_clock(1000)
        await store.delivery.promote(0, 10)
        return await claim_one(store)

    success = await publish(store)
    await store.delivery.settle(delivered(await claim_one(store)))
    assert look().letters(success) == "CAD"
    failure = await publish(store)
    await store.delivery.settle(failed(await claim_one(store)))
    assert look().letters(failure) == "CAEF"
    late_success = await publish(store)
    await store.delivery.settle(retry(await claim_one(store)))
    await store.delivery.settle(delivered(await again(late_success)))
    assert look().letters(late_success) == "CAERAD"
    late_failure = await publish(store)
    await store.delivery.settle(retry(await claim_one(store)))
    await store.delivery.settle(failed(await again(late_failure)))
    assert look().letters(late_failure) == "CAERAEF"
    canceled = await publish(store, delay_ms=60_000)
    await store.admin.cancel(canceled)
    assert look().letters(canceled) == "CQX"


async def test_the_most_claims_that_the_settings_allow_are_counted(
    settings: Settings, redis_client: Any, keys: PartitionKeys, age_leases: AgeLeases
) -> None:
    """Twice as many: a worker tries as often to report the message as others did to deliver it."""
    most = 2 * int(RULES["max_claims"].maximum or 0)
    store = await open_store(settings)
    try:
        await store.delivery.heartbeat("w1", 10)
        message_id = await publish(store)
        await claim_one(store)
        await redis_client.setrange(keys.message(message_id), 3, bytes([min(most, 255)]))
        await age_leases()
        assert (await claim_one(store, "w2", reclaim=True)).claims > most
    finally:
        await store.aclose()
