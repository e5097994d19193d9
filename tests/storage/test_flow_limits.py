"""Limits of flow-control keys where attempts start: rate windows, parallelism, and the order of what they hold up."""

import pytest

from qstash_clone.domain.lanes import flow_control_lane
from qstash_clone.ids import MessageId
from qstash_clone.storage.delivery_store import FLOW_IDLE_MS
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock
from tests.support.lanes import KEY, QUEUE, claimed, publish_keyed, shown_key
from tests.support.messages import claim_all, claim_one, delivered, retry

LANE = flow_control_lane(KEY)


async def pin(store: Store, parallelism: int | None = None, rate: int | None = None, period_ms: int = 1000) -> None:
    await store.flow_controls.pin_flow_control(KEY, parallelism=parallelism, rate=rate, period_ms=period_ms)


async def settle_all(store: Store, consumer: str = "w1") -> list[MessageId]:
    """Claim and deliver until nothing more comes, in the order in which it comes."""
    done: list[MessageId] = []
    while claims := await claim_all(store, consumer):
        for claim in claims:
            await store.delivery.settle(delivered(claim))
            done.append(claim.id)
    return done


async def test_what_a_pause_holds_keeps_its_order(store: Store, look: Look) -> None:
    """Whoever looks at it meanwhile, and however little at a time."""
    ids = [await publish_keyed(store) for _ in range(12)]
    await store.flow_controls.set_flow_control_paused(KEY, True)
    ids.append(await publish_keyed(store))
    for limit, consumer in ((1, "w1"), (2, "w2"), (3, "w1"), (1, "w2"), (5, "w1")):
        assert await claimed(store, consumer, limit=limit) == []
    await pin(store, parallelism=1)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await settle_all(store) == ids
    assert "b" not in look().limits[LANE]


async def test_what_a_second_pause_holds_keeps_its_order(store: Store) -> None:
    ids = [await publish_keyed(store) for _ in range(6)]
    for limit in (3, 100):
        await store.flow_controls.set_flow_control_paused(KEY, True)
        for _ in range(3):
            assert await claimed(store, limit=limit) == []
        await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await settle_all(store) == ids


async def test_what_was_reset_and_handed_back_counts_again(store: Store, look: Look) -> None:
    ids = [await publish_keyed(store, parallelism=1) for _ in range(3)]
    claim = await claim_one(store)
    await store.flow_controls.reset_flow_control(KEY, parallelism=True)
    second = await claim_one(store)
    await store.delivery.release([claim])
    assert look().admitted == {LANE: set(ids[:2])}
    await store.delivery.settle(delivered(second))
    assert await settle_all(store) == [ids[0], ids[2]]


async def test_what_was_reset_and_handed_back_is_not_taken_for_waiting(store: Store) -> None:
    first = await publish_keyed(store, parallelism=1)
    claim = await claim_one(store)
    await store.flow_controls.reset_flow_control(KEY, parallelism=True)
    await store.delivery.release([claim])
    await publish_keyed(store, parallelism=1)
    await store.admin.cancel(first)
    await claim_all(store)
    await publish_keyed(store, parallelism=1)
    assert (await shown_key(store)).waiting == 1


async def test_what_was_reset_and_lost_counts_again(store: Store, age_leases: AgeLeases, look: Look) -> None:
    ids = [await publish_keyed(store, parallelism=1) for _ in range(3)]
    lost = await claim_one(store)
    await store.flow_controls.reset_flow_control(KEY, parallelism=True)
    await store.delivery.settle(delivered(await claim_one(store)))
    held = await claim_one(store)
    assert (lost.id, held.id) == (ids[0], ids[2])
    await age_leases([lost])
    assert await claim_all(store, "w2", reclaim=True) == []
    assert look().lanes == {LANE: [ids[0]]}
    await store.delivery.settle(delivered(held))
    assert await settle_all(store) == [ids[0]]


async def test_what_was_reset_and_lost_holds_its_place_once_it_is_claimed(
    store: Store, age_leases: AgeLeases, look: Look
) -> None:
    ids = [await publish_keyed(store, parallelism=1) for _ in range(2)]
    await claim_one(store)
    await store.flow_controls.set_flow_control_paused(KEY, True)
    await store.flow_controls.reset_flow_control(KEY, parallelism=True)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    await store.admin.cancel(ids[1])
    await claim_all(store)
    await age_leases()
    again = await claim_one(store, "w2", reclaim=True)
    assert again.id == ids[0]
    third = await publish_keyed(store, parallelism=1)
    assert look().admitted == {LANE: {ids[0]}}
    assert await claimed(store) == []
    await store.delivery.settle(delivered(again))
    assert await claimed(store) == [third]


async def test_never_more_starts_in_a_window_than_its_rate(store: Store, move_clock: MoveClock) -> None:
    ids = [await publish_keyed(store, rate=2, period_s=10) for _ in range(5)]
    assert await settle_all(store) == ids[:2]
    await move_clock(9_900)
    assert await settle_all(store) == []
    await move_clock(100)
    await store.delivery.promote(0, 10)
    assert await settle_all(store) == ids[2:4]
    await move_clock(10_000)
    await store.delivery.promote(0, 10)
    assert await settle_all(store) == ids[4:]


async def test_a_retry_starts_under_the_rate_too(store: Store, move_clock: MoveClock) -> None:
    ids = [await publish_keyed(store, rate=2, period_s=10) for _ in range(2)]
    claims = await claim_all(store)
    for claim in claims:
        await store.delivery.settle(retry(claim, delay_ms=1000))
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    assert await claimed(store) == []
    assert (await shown_key(store)).waiting == 2
    await move_clock(9000)
    await store.delivery.promote(0, 10)
    assert set(await claimed(store)) == set(ids)


@pytest.mark.parametrize("early_ms", [20, 1])
async def test_nothing_starts_in_the_last_moments_of_a_window(store: Store, early_ms: int, look: Look) -> None:
    await freeze(store, 1_800_000_000_000)
    first = await publish_keyed(store, rate=2, period_s=10)
    assert await settle_all(store) == [first]
    await freeze(store, 1_800_000_010_000 - early_ms)
    second = await publish_keyed(store, rate=2, period_s=10)
    assert await claimed(store) == []
    assert look().windows == {LANE: 1_800_000_010_000}
    await freeze(store, 1_800_000_010_000)
    await store.delivery.promote(0, 10)
    assert await claimed(store) == [second]


async def test_what_was_admitted_does_not_start_in_the_last_moments_either(store: Store) -> None:
    await freeze(store, 1_800_000_000_000)
    await publish_keyed(store, rate=3, period_s=10)
    assert len(await settle_all(store)) == 1
    ids = [await publish_keyed(store, rate=3, period_s=10) for _ in range(2)]
    await freeze(store, 1_800_000_010_000 - 20)
    assert await claimed(store) == []
    await freeze(store, 1_800_000_010_000)
    await store.delivery.promote(0, 10)
    assert await claimed(store) == ids
    assert (await shown_key(store)).rate_count == 2


async def test_things_start_until_shortly_before_the_end_of_a_window(store: Store) -> None:
    await freeze(store, 1_800_000_000_000)
    await publish_keyed(store, rate=2, period_s=10)
    assert len(await settle_all(store)) == 1
    await freeze(store, 1_800_000_010_000 - 21)
    second = await publish_keyed(store, rate=2, period_s=10)
    assert await claimed(store) == [second]


async def test_a_window_that_opens_behind_a_full_line_wakes_it_when_it_ends(store: Store, look: Look) -> None:
    """The line was blocked before there was a window, by messages that had not started yet."""
    await freeze(store, 1_800_000_000_000)
    ids = [await publish_keyed(store, rate=1, period_s=10) for _ in range(2)]
    assert (look().blocked, look().windows) == ({LANE}, {})
    await store.delivery.settle(delivered(await claim_one(store)))
    assert look().windows == {LANE: 1_800_000_010_000}
    assert look().bells == 1
    await freeze(store, 1_800_000_010_000)
    await store.delivery.promote(0, 10)
    assert await claimed(store) == ids[1:]


async def test_a_line_that_a_reset_lets_go_on_wakes_at_the_end_of_the_new_window(store: Store, look: Look) -> None:
    await freeze(store, 1_800_000_000_000)
    ids = [await publish_keyed(store, rate=1, period_s=10) for _ in range(3)]
    assert await settle_all(store) == ids[:1]
    await freeze(store, 1_800_000_005_000)
    await store.flow_controls.reset_flow_control(KEY, parallelism=False)
    assert await settle_all(store) == ids[1:2]
    assert look().windows == {LANE: 1_800_000_015_000}
    await freeze(store, 1_800_000_015_000)
    await store.delivery.promote(0, 10)
    assert await settle_all(store) == ids[2:]


async def test_a_clock_that_is_set_back_begins_a_new_window(store: Store, move_clock: MoveClock) -> None:
    ids = [await publish_keyed(store, rate=1, period_s=60) for _ in range(2)]
    assert await settle_all(store) == ids[:1]
    await move_clock(-86_400_000)
    await store.delivery.heartbeat("w1", 100)
    assert await settle_all(store) == ids[1:]


async def test_a_lower_rate_holds_what_was_admitted(store: Store, look: Look) -> None:
    ids = [await publish_keyed(store, rate=5, period_s=60) for _ in range(5)]
    await pin(store, rate=2, period_ms=60_000)
    assert await claimed(store, limit=3) == ids[:2]
    assert await claimed(store) == []
    assert look().lanes == {LANE: ids[2:]}
    assert (await shown_key(store)).rate_count == 2


async def test_a_lower_parallelism_holds_what_was_admitted(store: Store, look: Look) -> None:
    ids = [await publish_keyed(store, parallelism=5) for _ in range(5)]
    [claim] = await claim_all(store, limit=1)
    await pin(store, parallelism=2)
    assert await claimed(store) == ids[1:2]
    assert look().lanes == {LANE: ids[2:]}
    assert look().admitted == {LANE: set(ids[:2])}
    await store.delivery.settle(delivered(claim))
    assert await claimed(store) == ids[2:3]


async def test_a_message_that_lowers_the_limits_holds_those_before_it(store: Store) -> None:
    ids = [await publish_keyed(store, parallelism=5) for _ in range(4)]
    await publish_keyed(store, parallelism=1)
    assert await claimed(store) == ids[:1]


async def test_a_message_that_raises_the_limits_admits_those_before_it(store: Store) -> None:
    ids = [await publish_keyed(store, parallelism=1) for _ in range(3)]
    ids.append(await publish_keyed(store, parallelism=4))
    assert await claimed(store) == ids


async def test_a_lost_attempt_is_not_repeated_while_the_window_is_full(
    store: Store, age_leases: AgeLeases, move_clock: MoveClock, look: Look
) -> None:
    first, second = [await publish_keyed(store, rate=1, period_s=60) for _ in range(2)]
    await claim_one(store)
    await age_leases()
    assert await claim_all(store, "w2", reclaim=True) == []
    assert look().lanes == {LANE: [first, second]}
    assert look().in_flight == {}
    await move_clock(60_000)
    await store.delivery.promote(0, 10)
    again = await claim_one(store, "w2")
    assert (again.id, again.claims) == (first, 2)


async def test_a_lost_attempt_keeps_its_share_of_the_parallelism_until_it_is_claimed_again(
    store: Store, age_leases: AgeLeases
) -> None:
    first, _ = [await publish_keyed(store, parallelism=1) for _ in range(2)]
    await claim_one(store)
    await age_leases()
    assert await claimed(store) == []
    assert (await claim_one(store, "w2", reclaim=True)).id == first


async def test_cancelling_what_was_admitted_lets_the_next_go(store: Store) -> None:
    ids = [await publish_keyed(store, parallelism=1) for _ in range(2)]
    await store.admin.cancel(ids[0])
    assert await claimed(store) == ids[1:]
    assert (await shown_key(store)).waiting == 0


async def test_cancelled_messages_are_not_counted_as_waiting_while_their_ids_are_dropped(store: Store) -> None:
    ids = [await publish_keyed(store, parallelism=1) for _ in range(6)]
    for message_id in (ids[1], ids[2], ids[4]):
        await store.admin.cancel(message_id)
    for waiting in (2, 1, 0):
        assert (await shown_key(store)).waiting == waiting
        await store.delivery.settle(delivered(await claim_one(store)))
    assert (await shown_key(store)).waiting == 0


@pytest.mark.parametrize("queue", [None, QUEUE])
async def test_what_waits_in_a_queue_does_not_wait_for_its_key(store: Store, queue: str | None) -> None:
    ids = [await publish_keyed(store, queue=queue, parallelism=1) for _ in range(4)]
    expected = 3 if queue is None else 0
    assert (await shown_key(store)).waiting == expected
    await store.admin.cancel(ids[3])
    assert (await shown_key(store)).waiting == max(0, expected - 1)


async def test_a_key_never_takes_all_places(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 10)
    for _ in range(20):
        await publish_keyed(store)
    assert len(look().admitted[LANE]) == 5
    await store.delivery.heartbeat("w1", 20)
    assert len(look().admitted[LANE]) == 10
    assert look().parked == {LANE}


async def test_a_key_is_kept_while_it_is_used_or_set(store: Store, move_clock: MoveClock, look: Look) -> None:
    await publish_keyed(store, "delayed", delay_ms=86_400_000)
    await publish_keyed(store, "window", rate=1, period_s=86_400)
    await store.delivery.settle(delivered(await claim_one(store)))
    await publish_keyed(store, "idle")
    await store.delivery.settle(delivered(await claim_one(store)))
    await store.flow_controls.set_flow_control_paused("paused", True)
    await store.flow_controls.pin_flow_control("parallelism", parallelism=1, rate=None, period_ms=1000)
    await store.flow_controls.pin_flow_control("rate", parallelism=None, rate=1, period_ms=1000)
    await move_clock(FLOW_IDLE_MS - 60_000)
    await store.delivery.expire(0, 100)
    assert "idle" in look().flows
    for _ in range(2):
        await move_clock(FLOW_IDLE_MS + 1000)
        await store.delivery.expire(0, 100)
        assert look().flows.keys() == {"delayed", "window", "paused", "parallelism", "rate"}
        assert {lane[2:] for lane in look().limits} == look().flows.keys()


async def freeze(store: Store, now_ms: int) -> None:
    """Stop the clock of messages at a time."""
    await store.commands.send("HSET", store.admin._access.keys[0].meta, "fz", now_ms)  # pyright: ignore[reportPrivateUsage]
