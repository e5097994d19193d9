"""Slots of queues: taken before a member's first attempt, given up with its last callback, and never twice."""

from typing import Any

import pytest

from qstash_clone.domain.lanes import queue_lane
from qstash_clone.domain.message import State
from qstash_clone.errors import StorageError
from qstash_clone.storage.interface import SettleResult
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock, StopClock
from tests.support.damage import damaged
from tests.support.lanes import (
    KEY,
    QUEUE,
    claimed,
    enqueue,
    new_report,
    publish_keyed,
    put_queue,
    shown_key,
    shown_queue,
)
from tests.support.messages import claim_all, claim_one, delivered, failed, new_message, reported, retry

LANE = queue_lane(QUEUE)


async def test_members_go_one_after_the_other(store: Store) -> None:
    ids = [await enqueue(store) for _ in range(4)]
    for message_id in ids:
        claim = await claim_one(store)
        assert claim.id == message_id
        await store.delivery.settle(delivered(claim))


@pytest.mark.parametrize("partitions", [1, 3])
async def test_members_that_are_due_at_one_moment_go_in_the_order_in_which_they_were_accepted(
    store: Store, partitions: int, stop_clock: StopClock
) -> None:
    await stop_clock(1_900_000_000_000)
    ids = [await enqueue(store, delay_ms=1_000) for _ in range(10)]
    fan_out_ids = store.publishing.new_message_ids(10, None, [LANE])
    await store.publishing.fan_out([new_message(store, id=one, lane=LANE, delay_ms=1_000) for one in fan_out_ids])
    await stop_clock(1_900_000_001_000)
    partition = lane_partition(LANE, partitions)
    assert (await store.delivery.promote(partition, 100)).promoted == 20
    for message_id in ids + fan_out_ids:
        claim = await claim_one(store, partition=partition)
        assert claim.id == message_id
        await store.delivery.settle(delivered(claim))


async def test_a_slot_is_held_through_retries(store: Store, move_clock: MoveClock) -> None:
    first, second = await enqueue(store), await enqueue(store)
    for _ in range(3):
        claim = await claim_one(store)
        assert claim.id == first
        await store.delivery.settle(retry(claim, delay_ms=1000))
        assert await claimed(store) == []
        await move_clock(1000)
        await store.delivery.promote(0, 10)
    await store.delivery.settle(failed(await claim_one(store)))
    assert await claimed(store) == [second]


@pytest.mark.parametrize("end", [delivered, failed])
async def test_a_slot_is_held_until_the_last_callback_is_final(
    store: Store, end: Any, move_clock: MoveClock, look: Look
) -> None:
    first, second = await enqueue(store), await enqueue(store)
    claim = await claim_one(store)
    at_once, later = new_report(store, claim), new_report(store, claim, delay_ms=5000)
    await store.delivery.settle(reported(end(claim), at_once, later))
    assert look().callbacks == {first: {at_once.message.id, later.message.id}}
    claim = await claim_one(store)
    assert claim.id == at_once.message.id
    await store.delivery.settle(retry(claim, delay_ms=1000))
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    await store.delivery.settle(failed(await claim_one(store)))
    assert await claimed(store) == []
    await move_clock(4000)
    await store.delivery.promote(0, 10)
    claim = await claim_one(store)
    assert claim.id == later.message.id
    await store.delivery.settle(delivered(claim))
    assert look().callbacks == {}
    assert await claimed(store) == [second]


async def test_a_retry_does_not_wait_for_the_callback_of_the_attempt_before(store: Store) -> None:
    message_id = await enqueue(store)
    claim = await claim_one(store)
    await store.delivery.settle(reported(retry(claim, delay_ms=0), new_report(store, claim, delay_ms=60_000)))
    await store.delivery.promote(0, 10)
    assert await claimed(store) == [message_id]


async def test_a_callback_that_ends_while_its_member_retries_frees_nothing(store: Store, look: Look) -> None:
    message_id = await enqueue(store)
    await enqueue(store)
    claim = await claim_one(store)
    await store.delivery.settle(reported(retry(claim, delay_ms=60_000), new_report(store, claim)))
    await store.delivery.settle(delivered(await claim_one(store)))
    assert look().slots == {LANE: {message_id}}
    assert await claimed(store) == []


async def test_the_slot_of_a_cancelled_retry_goes_to_the_next_at_once(store: Store) -> None:
    first, second = await enqueue(store), await enqueue(store)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=60_000))
    await store.admin.cancel(first)
    assert await claimed(store) == [second]


async def test_the_slot_of_a_cancelled_callback_goes_to_the_next_at_once(store: Store) -> None:
    _, second = await enqueue(store), await enqueue(store)
    claim = await claim_one(store)
    callback = new_report(store, claim, delay_ms=60_000)
    await store.delivery.settle(reported(delivered(claim), callback))
    await store.admin.cancel(callback.message.id)
    assert await claimed(store) == [second]


async def test_the_slot_of_one_cancelled_before_its_attempt_goes_to_the_next_at_once(store: Store) -> None:
    first, second = await enqueue(store), await enqueue(store)
    await store.admin.cancel(first)
    assert await claimed(store) == [second]


async def test_a_cancelled_member_keeps_its_slot_for_its_callback(store: Store) -> None:
    first, second = await enqueue(store), await enqueue(store)
    claim = await claim_one(store)
    await store.delivery.settle(reported(retry(claim, delay_ms=60_000), new_report(store, claim)))
    await store.admin.cancel(first)
    await store.delivery.settle(delivered(await claim_one(store)))
    assert await claimed(store) == [second]


async def test_a_member_with_a_key_keeps_its_slot_while_the_key_holds_it(store: Store) -> None:
    await store.flow_controls.set_flow_control_paused(KEY, True)
    first, second = await enqueue(store, key=KEY), await enqueue(store)
    assert await claimed(store) == []
    assert (await shown_key(store)).waiting == 1
    await store.admin.cancel(first)
    assert (await shown_key(store)).waiting == 0
    assert await claimed(store) == [second]


async def test_a_member_that_waits_for_its_key_is_held_by_a_pause_of_the_queue(store: Store) -> None:
    await store.flow_controls.set_flow_control_paused(KEY, True)
    first, second = await enqueue(store, key=KEY), await enqueue(store)
    await put_queue(store, is_paused=True)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await claimed(store) == []
    await put_queue(store, is_paused=False)
    claim = await claim_one(store)
    assert claim.id == first
    await store.delivery.settle(delivered(claim))
    assert await claimed(store) == [second]


async def test_members_that_wait_for_a_key_end_with_their_queue(store: Store, look: Look) -> None:
    await store.flow_controls.set_flow_control_paused(KEY, True)
    ids = [await enqueue(store, key=KEY) for _ in range(3)]
    assert await store.queues.delete_queue(QUEUE)
    assert {look().records[message_id].stored.state for message_id in ids} == {State.CANCELED}
    assert (await shown_key(store)).waiting == 0
    await store.flow_controls.set_flow_control_paused(KEY, False)
    await store.delivery.heartbeat("w1", 100)
    assert look().lanes == {}
    assert look().slots == {}


async def test_a_lost_member_keeps_its_slot_until_its_repetition_ends(store: Store, age_leases: AgeLeases) -> None:
    first, second = await enqueue(store), await enqueue(store)
    await claim_one(store)
    await age_leases()
    assert await claimed(store) == []
    again = await claim_one(store, "w2", reclaim=True)
    assert again.id == first
    await store.delivery.settle(delivered(again))
    assert await claimed(store) == [second]


async def test_a_lost_member_of_a_paused_queue_is_not_attempted_again_before_it_is_resumed(
    store: Store, age_leases: AgeLeases, look: Look
) -> None:
    first, _ = await enqueue(store), await enqueue(store)
    lost = await claim_one(store)
    await put_queue(store, is_paused=True)
    await age_leases()
    assert await claim_all(store, "w2", reclaim=True) == []
    assert look().returning == {LANE: [first]}
    assert await store.delivery.settle(delivered(lost)) is SettleResult.STALE
    await put_queue(store, is_paused=False)
    assert await claimed(store) == [first]


async def test_a_handed_back_member_of_a_paused_queue_waits_ahead_of_the_others(store: Store, look: Look) -> None:
    first, second = await enqueue(store), await enqueue(store)
    claim = await claim_one(store)
    await put_queue(store, is_paused=True)
    await store.delivery.release([claim])
    assert await claimed(store) == []
    await put_queue(store, is_paused=False)
    claim = await claim_one(store)
    assert claim.id == first
    await store.delivery.settle(delivered(claim))
    assert await claimed(store) == [second]


async def test_nobody_overtakes_in_a_queue_without_capacity(store: Store) -> None:
    await store.delivery.heartbeat("w1", 0)
    ids = [await enqueue(store) for _ in range(3)]
    await put_queue(store, parallelism=2)
    ids.append(await enqueue(store))
    assert await claimed(store) == []
    await store.delivery.heartbeat("w1", 100)
    assert await claimed(store) == ids[:2]


async def test_a_dead_letter_of_a_deleted_queue_makes_it_anew(store: Store) -> None:
    await enqueue(store)
    await store.delivery.settle(failed(await claim_one(store)))
    assert await store.queues.delete_queue(QUEUE)
    [letter] = (await store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)).entries
    again = await store.admin.retry_dead_letter(letter.dlq_id)
    assert (await shown_queue(store)).lag == 1
    assert await claimed(store) == [again]


async def test_slot_holders_keep_their_order_through_a_pause(store: Store) -> None:
    """Whoever looks at them meanwhile, and however few at a time."""
    await put_queue(store, parallelism=5)
    ids = [await enqueue(store) for _ in range(7)]
    await put_queue(store, is_paused=True)
    for limit in (1, 2, 1, 1):
        assert await claimed(store, limit=limit) == []
    await put_queue(store, is_paused=False)
    assert await claimed(store) == ids[:5]


async def test_a_queue_that_was_paused_when_it_was_emptied_and_deleted_begins_anew(store: Store, look: Look) -> None:
    """Ids of cancelled members may still stand in its line."""
    for number in range(30):
        await put_queue(store, f"paused-{number}", is_paused=True)
        await enqueue(store, f"paused-{number}")
    await put_queue(store, is_paused=True)
    old = await enqueue(store)
    await store.admin.cancel(old)
    assert await store.queues.delete_queue(QUEUE)
    assert LANE not in look().blocked
    new = await enqueue(store)
    assert await claimed(store) == [new]


async def test_a_repeated_settlement_does_not_wait_again_for_a_callback_that_is_over(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look, move_clock: MoveClock
) -> None:
    """The settlement broke off behind its callback, which was delivered before it was repeated."""
    first, second = await enqueue(store), await enqueue(store)
    claim = await claim_one(store)
    callback = new_report(store, claim)
    settlement = reported(retry(claim, delay_ms=1000), callback)
    async with damaged(redis_client, keys.timers):
        with pytest.raises(StorageError):
            await store.delivery.settle(settlement)
    await store.delivery.settle(delivered(await claim_one(store)))
    await store.delivery.settle(settlement)
    assert look().callbacks == {}
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    claim = await claim_one(store)
    assert claim.id == first
    await store.delivery.settle(delivered(claim))
    assert await claimed(store) == [second]


async def test_members_after_a_deletion_are_due_by_a_clock_that_was_set_back(
    store: Store, move_clock: MoveClock
) -> None:
    await enqueue(store)
    claim = await claim_one(store)
    assert await store.queues.delete_queue(QUEUE)
    await move_clock(-86_400_000)
    delayed = await enqueue(store, delay_ms=1000)
    await store.delivery.settle(delivered(claim))
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    assert await claimed(store) == [delayed]


async def test_no_member_moves_on_while_its_queue_is_being_deleted(store: Store, look: Look) -> None:
    """What its key lets go on when the first is cancelled are not those behind it."""
    await store.flow_controls.pin_flow_control(KEY, parallelism=1, rate=None, period_ms=1000)
    ids = [await enqueue(store, key=KEY) for _ in range(3)]
    other = await publish_keyed(store)
    assert await store.queues.delete_queue(QUEUE)
    assert {look().records[message_id].stored.state for message_id in ids} == {State.CANCELED}
    assert await claimed(store) == [other]


async def test_a_deletion_means_members_from_before_the_clock_was_set_back(
    store: Store, move_clock: MoveClock, look: Look
) -> None:
    ids = [await enqueue(store), await enqueue(store, delay_ms=1000)]
    await move_clock(-60_000)
    assert await store.queues.delete_queue(QUEUE)
    assert {look().records[message_id].stored.state for message_id in ids} == {State.CANCELED}
    assert LANE not in look().limits


async def test_a_paused_queue_gives_no_slots(store: Store, look: Look) -> None:
    await put_queue(store, is_paused=True)
    await enqueue(store)
    assert (look().slots, look().entries, look().blocked) == ({}, {}, {LANE})


async def test_a_retry_that_is_due_without_capacity_goes_before_the_line(
    store: Store, move_clock: MoveClock, look: Look
) -> None:
    first, second = await enqueue(store), await enqueue(store)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=1000))
    await store.delivery.heartbeat("w1", 0)
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    assert look().returning == {LANE: [first]}
    assert look().ring == [LANE], "the full slots hold up only those who have none"
    await store.delivery.heartbeat("w1", 100)
    claim = await claim_one(store)
    assert claim.id == first
    await store.delivery.settle(delivered(claim))
    assert await claimed(store) == [second]


async def test_only_what_waits_for_its_key_is_counted_off_when_it_is_cancelled(
    store: Store, move_clock: MoveClock, look: Look
) -> None:
    """Not a member that waits for a slot, nor one that has a slot and waits for its queue."""
    holder, behind = await enqueue(store, key=KEY), await enqueue(store, key=KEY)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=1000))
    await put_queue(store, is_paused=True)
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    assert look().returning == {LANE: [holder]}
    await store.flow_controls.set_flow_control_paused(KEY, True)
    other = await publish_keyed(store)
    await store.admin.cancel(behind)
    await store.admin.cancel(holder)
    assert (await shown_key(store)).waiting == 1
    await store.admin.cancel(other)
    assert (await shown_key(store)).waiting == 0


async def test_a_member_with_a_key_does_not_overtake_one_that_waits_for_capacity(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 0)
    first, second = await enqueue(store), await enqueue(store, key=KEY)
    assert look().lanes == {LANE: [first, second]}
    await store.delivery.heartbeat("w1", 100)
    assert await claimed(store) == [first]
