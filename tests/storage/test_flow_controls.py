"""Flow-control keys: paused, pinned and reset; what waits follows at once, and the numbers are those of the moment."""

import asyncio
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.lanes import Route, flow_control_lane
from qstash_clone.domain.limited_lanes import FlowControlKey
from qstash_clone.domain.message import Extras, FlowControl
from qstash_clone.ids import MessageId
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, MoveClock
from tests.support.messages import claim_all, delivered, new_message, retry

KEY = "tenant-7"
LANE = flow_control_lane(KEY)


async def publish(
    store: Store, key: str = KEY, *, queue: str | None = None, delay_ms: int = 0, **limits: Any
) -> MessageId:
    """Publish one message with these limits for the key."""
    route = Route(queue=queue, flow_control_key=key)
    message = new_message(
        store, id=store.publishing.new_message_id(None, route.limited_lanes), lane=route.text, delay_ms=delay_ms
    )
    flow_control = FlowControl(key=key, **(limits or {"parallelism": 100}))
    inner = msgspec.structs.replace(message.message, extras=Extras(flow_control=flow_control))
    await store.publishing.publish(msgspec.structs.replace(message, message=inner))
    return message.id


async def shown(store: Store, key: str = KEY) -> FlowControlKey:
    found = await store.flow_controls.get_flow_control_key(key)
    assert found is not None
    return found


async def claimed(store: Store) -> list[MessageId]:
    return [claim.id for claim in await claim_all(store)]


async def pin(
    store: Store, parallelism: int | None = None, rate: int | None = None, period_ms: int = 1000
) -> FlowControlKey:
    await store.flow_controls.pin_flow_control(KEY, parallelism=parallelism, rate=rate, period_ms=period_ms)
    return await shown(store)


async def test_a_key_is_there_with_the_first_message_that_names_it(store: Store) -> None:
    assert await store.flow_controls.get_flow_control_key(KEY) is None
    await publish(store, parallelism=3, rate=4, period_s=2)
    assert await shown(store) == FlowControlKey(
        key=KEY, waiting=0, parallelism=3, in_flight=0, rate=4, rate_count=0, period_ms=2000, window_started_ms=0,
        is_paused=False, is_parallelism_pinned=False, is_rate_pinned=False,
    )  # fmt: skip


async def test_the_numbers_are_those_of_the_moment(store: Store, move_clock: MoveClock) -> None:
    for _ in range(5):
        await publish(store, parallelism=2, rate=10, period_s=60)
    claims = await claim_all(store)
    found = await shown(store)
    assert (found.waiting, found.in_flight, found.rate_count) == (3, 2, 2)
    assert found.window_started_ms > 0
    await store.delivery.settle(delivered(claims[0]))
    await store.delivery.settle(retry(claims[1], delay_ms=3_600_000))
    await claim_all(store)
    found = await shown(store)
    assert (found.waiting, found.in_flight, found.rate_count) == (1, 2, 4)
    await move_clock(61_000)
    found = await shown(store)
    assert (found.in_flight, found.rate_count, found.window_started_ms) == (2, 0, 0)


async def test_delayed_and_cancelled_messages_do_not_wait(store: Store) -> None:
    await pin(store, parallelism=1)
    ids = [await publish(store) for _ in range(4)]
    await publish(store, delay_ms=60_000)
    assert (await shown(store)).waiting == 3
    await store.admin.cancel(ids[2])
    assert (await shown(store)).waiting == 2


async def test_keys_are_found_by_a_part_of_their_name(store: Store) -> None:
    for key in ("b-tenant", "a-tenant", "c", "*"):
        await publish(store, key)

    async def found(search: str) -> list[str]:
        return [one.key for one in await store.flow_controls.list_flow_control_keys(search)]

    assert await found("") == ["*", "a-tenant", "b-tenant", "c"]
    assert await found("tenant") == ["a-tenant", "b-tenant"]
    assert await found("*") == ["*"]
    assert await found("nothing") == []


@pytest.mark.parametrize("partitions", [4])
async def test_keys_of_all_partitions_are_listed(store: Store) -> None:
    names = [f"k{number:03}" for number in range(700)]
    await asyncio.gather(*(publish(store, key) for key in names))
    assert [one.key for one in await store.flow_controls.list_flow_control_keys("k")] == names
    assert (await shown(store, "k123")).key == "k123"


async def test_a_pause_makes_the_key_and_holds_its_messages(store: Store) -> None:
    await store.flow_controls.set_flow_control_paused(KEY, True)
    assert (await shown(store)).is_paused
    ids = [await publish(store, parallelism=2) for _ in range(3)]
    assert await claimed(store) == []
    assert (await shown(store)).waiting == 3
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert not (await shown(store)).is_paused
    assert await claimed(store) == ids[:2]


async def test_a_pause_holds_what_was_admitted_and_lets_end_what_is_under_way(store: Store) -> None:
    first = await publish(store)
    [claim] = await claim_all(store)
    second = await publish(store)
    await store.flow_controls.set_flow_control_paused(KEY, True)
    assert await claimed(store) == []
    await store.delivery.settle(delivered(claim))
    found = await shown(store)
    assert (first, found.waiting, found.in_flight) == (claim.id, 1, 0)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await claimed(store) == [second]


async def test_the_window_goes_on_during_a_pause(store: Store) -> None:
    for _ in range(2):
        await publish(store, rate=2, period_s=60)
    await claim_all(store)
    before = await shown(store)
    await store.flow_controls.set_flow_control_paused(KEY, True)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await shown(store) == before
    await publish(store, rate=2, period_s=60)
    assert await claimed(store) == []


async def test_what_is_unknown_is_only_made_by_a_pause_and_a_pin(store: Store, look: Look) -> None:
    await store.flow_controls.set_flow_control_paused(KEY, False)
    await store.flow_controls.unpin_flow_control(KEY, parallelism=True, rate=True)
    await store.flow_controls.reset_flow_control(KEY, parallelism=True)
    assert look().flows == {}
    assert look().limits == {}
    await pin(store, parallelism=1)
    assert look().flows.keys() == {KEY}


async def test_what_is_pinned_is_not_changed_by_messages(store: Store) -> None:
    found = await pin(store, parallelism=3, rate=20, period_ms=120_000)
    assert (found.parallelism, found.rate, found.period_ms) == (3, 20, 120_000)
    assert (found.is_parallelism_pinned, found.is_rate_pinned) == (True, True)
    await publish(store, parallelism=9, rate=9, period_s=9)
    assert await shown(store) == found


async def test_a_part_is_pinned_and_unpinned_alone(store: Store) -> None:
    await pin(store, parallelism=3)
    found = await pin(store, rate=20, period_ms=5000)
    assert (found.parallelism, found.is_parallelism_pinned, found.rate, found.is_rate_pinned) == (3, True, 20, True)
    await store.flow_controls.unpin_flow_control(KEY, parallelism=True, rate=False)
    found = await shown(store)
    assert (found.parallelism, found.is_parallelism_pinned, found.rate, found.is_rate_pinned) == (3, False, 20, True)
    await publish(store, rate=7, period_s=7)
    found = await shown(store)
    assert (found.parallelism, found.rate, found.period_ms) == (0, 20, 5000)
    await store.flow_controls.unpin_flow_control(KEY, parallelism=False, rate=True)
    await store.flow_controls.unpin_flow_control(KEY, parallelism=False, rate=False)
    await publish(store, rate=7, period_s=7)
    assert ((await shown(store)).rate, (await shown(store)).period_ms) == (7, 7000)


async def test_more_parallelism_admits_at_once(store: Store) -> None:
    ids = [await publish(store, parallelism=1) for _ in range(4)]
    assert await claimed(store) == ids[:1]
    await pin(store, parallelism=3)
    assert await claimed(store) == ids[1:3]


async def test_a_pinned_rate_begins_with_a_window_of_its_own(store: Store) -> None:
    ids = [await publish(store, rate=2, period_s=60) for _ in range(5)]
    assert await claimed(store) == ids[:2]
    found = await pin(store, rate=1, period_ms=60_000)
    assert (found.rate, found.rate_count, found.window_started_ms) == (1, 0, 0)
    assert await claimed(store) == ids[2:3]
    assert (await shown(store)).rate_count == 1


async def test_a_pinned_parallelism_leaves_the_window_alone(store: Store) -> None:
    await publish(store, rate=2, period_s=60)
    await claim_all(store)
    before = await shown(store)
    found = await pin(store, parallelism=5)
    assert (found.rate_count, found.window_started_ms) == (1, before.window_started_ms)


async def test_a_reset_of_the_rate_begins_a_new_window(store: Store, move_clock: MoveClock) -> None:
    ids = [await publish(store, rate=2, period_s=60) for _ in range(4)]
    assert await claimed(store) == ids[:2]
    before = await shown(store)
    await store.flow_controls.set_flow_control_paused(KEY, True)
    await move_clock(1000)
    await store.flow_controls.reset_flow_control(KEY, parallelism=False)
    found = await shown(store)
    assert (found.rate_count, found.in_flight) == (0, 2)
    assert found.window_started_ms >= before.window_started_ms + 1000
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await claimed(store) == ids[2:]


async def test_a_reset_forgets_what_is_in_flight_until_it_ends(store: Store, look: Look) -> None:
    ids = [await publish(store, parallelism=2) for _ in range(6)]
    old = await claim_all(store)
    assert [claim.id for claim in old] == ids[:2]
    await store.flow_controls.reset_flow_control(KEY, parallelism=True)
    assert (await shown(store)).in_flight == 0
    new = await claim_all(store)
    assert [claim.id for claim in new] == ids[2:4]
    for claim in old:
        await store.delivery.settle(delivered(claim))
    assert await claimed(store) == []
    found = await shown(store)
    assert (found.in_flight, found.waiting) == (2, 2)
    for claim in new:
        await store.delivery.settle(delivered(claim))
    assert await claimed(store) == ids[4:]
    assert look().admitted == {LANE: set(ids[4:])}


async def test_what_was_reset_may_be_handed_back_and_taken_again(store: Store, look: Look) -> None:
    ids = [await publish(store, parallelism=1, rate=5, period_s=60) for _ in range(2)]
    [claim] = await claim_all(store)
    await store.flow_controls.reset_flow_control(KEY, parallelism=True)
    await store.delivery.release([claim])
    claims = await claim_all(store)
    for one in claims:
        await store.delivery.settle(delivered(one))
    for one in await claim_all(store):
        await store.delivery.settle(delivered(one))
    assert [look().letters(message_id)[-1] for message_id in ids] == ["D", "D"]
    found = await shown(store)
    assert (found.in_flight, found.waiting) == (0, 0)
    assert LANE not in look().admitted


async def test_a_member_of_a_queue_keeps_its_slot_over_a_reset(store: Store) -> None:
    ids = [await publish(store, queue="q") for _ in range(2)]
    [claim] = await claim_all(store)
    await store.flow_controls.reset_flow_control(KEY, parallelism=True)
    assert await claimed(store) == []
    await store.delivery.settle(delivered(claim))
    assert await claimed(store) == ids[1:]


async def test_changes_may_be_repeated(store: Store, keys: PartitionKeys, look: Look) -> None:
    for _ in range(2):
        await pin(store, parallelism=2, rate=3)
        await store.flow_controls.set_flow_control_paused(KEY, True)
        await store.flow_controls.reset_flow_control(KEY, parallelism=True)
        await store.flow_controls.unpin_flow_control(KEY, parallelism=True, rate=False)
    found = await shown(store)
    assert (found.is_paused, found.is_parallelism_pinned, found.is_rate_pinned) == (True, False, True)
    assert (found.parallelism, found.rate, found.rate_count) == (2, 3, 0)
    assert look().flows.keys() == {KEY}


async def test_a_key_that_was_just_changed_is_not_forgotten(store: Store, move_clock: MoveClock) -> None:
    await pin(store, parallelism=2)
    await move_clock(3_600_000)
    await store.flow_controls.unpin_flow_control(KEY, parallelism=True, rate=True)
    await store.delivery.expire(0, 100)
    assert (await shown(store)).parallelism == 2
    await move_clock(3_600_000)
    await store.delivery.expire(0, 100)
    assert await store.flow_controls.get_flow_control_key(KEY) is None
