"""Queues: created, changed and deleted; what waits there follows at once."""

import asyncio

import pytest

from qstash_clone.domain.lanes import Route, queue_lane
from qstash_clone.domain.limited_lanes import Queue
from qstash_clone.domain.message import Claim, State
from qstash_clone.ids import MessageId
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, MoveClock
from tests.support.messages import claim_all, claim_one, delivered, new_message, retry

NAME = "orders"
LANE = queue_lane(NAME)


async def enqueue(store: Store, name: str = NAME, *, key: str | None = None, delay_ms: int = 0) -> MessageId:
    """Publish one member."""
    lane = Route(queue=name, flow_control_key=key)
    message = new_message(
        store, id=store.publishing.new_message_id(None, lane.limited_lanes), lane=lane.text, delay_ms=delay_ms
    )
    await store.publishing.publish(message)
    return message.id


async def put(store: Store, name: str = NAME, parallelism: int | None = None, is_paused: bool | None = None) -> None:
    """Create or change a queue."""
    assert await store.queues.put_queue(name, parallelism=parallelism, is_paused=is_paused, max_queues=10)


async def queue(store: Store, name: str = NAME) -> Queue:
    found = await store.queues.get_queue(name)
    assert found is not None
    return found


async def claimed(store: Store) -> list[MessageId]:
    return [claim.id for claim in await claim_all(store)]


async def claimed_at_last(store: Store) -> list[MessageId]:
    """What comes after the members of a deleted queue, some of which had been admitted."""
    for _ in range(10):
        await store.delivery.heartbeat("w1", 100)
        if ids := await claimed(store):
            return ids
    return []


async def test_a_new_queue_has_defaults(store: Store) -> None:
    assert await store.queues.get_queue(NAME) is None
    await put(store)
    found = await queue(store)
    assert (found.name, found.parallelism, found.is_paused, found.lag) == (NAME, 1, False, 0)
    assert found.created_ms == found.updated_ms > 0


async def test_what_is_not_named_stays(store: Store, move_clock: MoveClock) -> None:
    await put(store, parallelism=3, is_paused=True)
    created = await queue(store)
    assert (created.parallelism, created.is_paused) == (3, True)
    await move_clock(1000)
    await put(store, parallelism=5)
    assert (await queue(store)).is_paused
    await put(store, is_paused=False)
    found = await queue(store)
    assert (found.parallelism, found.is_paused, found.created_ms) == (5, False, created.created_ms)
    assert found.updated_ms >= created.updated_ms + 1000


async def test_a_change_that_changes_nothing_is_no_update(store: Store, move_clock: MoveClock) -> None:
    await put(store, parallelism=2, is_paused=True)
    before = await queue(store)
    await move_clock(1000)
    await put(store, parallelism=2, is_paused=True)
    assert await store.queues.set_queue_paused(NAME, True)
    assert await queue(store) == before


async def test_queues_are_listed_in_the_order_of_their_creation(store: Store, move_clock: MoveClock) -> None:
    for name in ("b", "c", "a"):
        await put(store, name)
        await move_clock(10)
    await enqueue(store, "d")
    assert [found.name for found in await store.queues.list_queues()] == ["b", "c", "a", "d"]


@pytest.mark.parametrize("partitions", [1, 5])
async def test_the_number_of_queues_is_limited(store: Store) -> None:
    for number in range(3):
        assert await store.queues.put_queue(f"q{number}", parallelism=None, is_paused=None, max_queues=3)
    assert not await store.queues.put_queue("q3", parallelism=None, is_paused=None, max_queues=3)
    assert await store.queues.get_queue("q3") is None
    assert await store.queues.put_queue("q1", parallelism=7, is_paused=None, max_queues=3)
    assert await store.queues.put_queue("q1", parallelism=8, is_paused=None, max_queues=1)
    assert len(await store.queues.list_queues()) == 3
    assert await store.queues.delete_queue("q0")
    assert await store.queues.put_queue("q3", parallelism=None, is_paused=None, max_queues=3)


async def test_many_queues_are_listed(store: Store) -> None:
    names = [f"q{number:04}" for number in range(1200)]
    await asyncio.gather(*(enqueue(store, name) for name in names))
    found = await store.queues.list_queues()
    assert sorted(one.name for one in found) == names
    assert {one.lag for one in found} == {1}


async def test_only_a_queue_that_exists_can_be_paused(store: Store) -> None:
    assert not await store.queues.set_queue_paused(NAME, True)
    assert not await store.queues.set_queue_paused(NAME, False)
    assert await store.queues.list_queues() == []


async def test_a_paused_queue_holds_what_waits_until_it_is_resumed(store: Store) -> None:
    await put(store, parallelism=2, is_paused=True)
    ids = [await enqueue(store) for _ in range(3)]
    assert await claimed(store) == []
    assert (await queue(store)).lag == 3
    assert await store.queues.set_queue_paused(NAME, False)
    assert await claimed(store) == ids[:2]


async def test_a_pause_holds_what_was_admitted_already(store: Store, look: Look) -> None:
    ids = [await enqueue(store) for _ in range(2)]
    assert await store.queues.set_queue_paused(NAME, True)
    assert await claimed(store) == []
    assert look().returning == {LANE: [ids[0]]}
    assert await store.queues.set_queue_paused(NAME, False)
    claim = await claim_one(store)
    assert claim.id == ids[0]
    await store.delivery.settle(delivered(claim))
    assert await claimed(store) == ids[1:]


async def test_a_paused_queue_holds_retries_in_their_order(store: Store, move_clock: MoveClock) -> None:
    ids = [await enqueue(store) for _ in range(2)]
    await store.delivery.settle(retry(await claim_one(store), delay_ms=100))
    assert await store.queues.set_queue_paused(NAME, True)
    await move_clock(200)
    await store.delivery.promote(0, 10)
    assert await claimed(store) == []
    await put(store, is_paused=False)
    assert await claimed(store) == ids[:1]


async def test_a_cancelled_retry_lets_the_next_member_go_at_once(store: Store) -> None:
    ids = [await enqueue(store) for _ in range(2)]
    await store.delivery.settle(retry(await claim_one(store), delay_ms=60_000))
    assert await claimed(store) == []
    await store.admin.cancel(ids[0])
    assert await claimed(store) == ids[1:]


async def test_more_parallelism_admits_at_once(store: Store) -> None:
    ids = [await enqueue(store) for _ in range(5)]
    assert await claimed(store) == ids[:1]
    await put(store, parallelism=3)
    assert await claimed(store) == ids[1:3]


async def test_less_parallelism_lets_those_under_way_end(store: Store) -> None:
    await put(store, parallelism=3)
    ids = [await enqueue(store) for _ in range(5)]
    claims = await claim_all(store)
    assert [claim.id for claim in claims] == ids[:3]
    await put(store, parallelism=1)
    for claim in claims[:2]:
        await store.delivery.settle(delivered(claim))
        assert await claimed(store) == []
    await store.delivery.settle(delivered(claims[2]))
    assert await claimed(store) == ids[3:4]


async def everywhere(store: Store, move_clock: MoveClock) -> tuple[list[MessageId], Claim, MessageId]:
    """Members that wait in every place there is, one in flight, and a delayed message of nobody's queue."""
    await put(store, parallelism=3)
    retrying, flying, ready = [await enqueue(store) for _ in range(3)]
    claims = await claim_all(store, limit=2)
    await store.delivery.settle(retry(claims[0], delay_ms=3_600_000))
    waiting = [
        ready,
        retrying,
        await enqueue(store),
        await enqueue(store, key="k"),
        await enqueue(store, delay_ms=9000),
    ]
    other = new_message(store, delay_ms=9000)
    await store.publishing.publish(other)
    await enqueue(store, "elsewhere", delay_ms=9000)
    assert claims[1].id == flying
    return waiting, claims[1], other.id


async def test_a_deletion_cancels_what_waits_and_lets_go_on_what_is_under_way(
    store: Store, look: Look, move_clock: MoveClock
) -> None:
    waiting, claim, other = await everywhere(store, move_clock)
    assert await store.queues.delete_queue(NAME)
    assert await store.queues.get_queue(NAME) is None
    assert [found.name for found in await store.queues.list_queues()] == ["elsewhere"]
    seen = look()
    for message_id in waiting:
        assert seen.records[message_id].stored.state is State.CANCELED
        assert seen.letters(message_id).endswith("QX")
    assert seen.records[claim.id].stored.state is State.ACTIVE
    assert seen.records[other].stored.state is State.DELAYED
    assert await claimed(store) == []
    await store.delivery.settle(delivered(claim))
    assert look().letters(claim.id) == "CAD"
    assert LANE not in look().limits
    await store.delivery.heartbeat("w1", 100)
    assert look().lanes == {}


async def test_deleting_what_is_not_there(store: Store) -> None:
    assert not await store.queues.delete_queue(NAME)
    await put(store)
    assert await store.queues.delete_queue(NAME)
    assert not await store.queues.delete_queue(NAME)


async def test_a_member_of_a_deleted_queue_is_not_attempted_again(
    store: Store, look: Look, move_clock: MoveClock
) -> None:
    message_id = await enqueue(store)
    claim = await claim_one(store)
    await store.queues.delete_queue(NAME)
    await store.delivery.settle(retry(claim, delay_ms=100))
    await move_clock(200)
    await store.delivery.promote(0, 10)
    assert await claimed(store) == []
    assert look().letters(message_id) == "CAERQX"
    assert look().limits == {}


async def test_a_deletion_that_broke_off_is_finished_by_the_next(store: Store, look: Look) -> None:
    waiting = [await enqueue(store) for _ in range(3)]
    await begin_deletion(store)
    assert look().records[waiting[2]].stored.state is State.QUEUED
    assert not await store.queues.delete_queue(NAME)
    assert {look().records[message_id].stored.state for message_id in waiting} == {State.CANCELED}


async def begin_deletion(store: Store) -> None:
    """What a process does that ends before it has cancelled anything."""
    keys = store.admin._access.keys[0]  # pyright: ignore[reportPrivateUsage]
    await store.admin._access.runner.run("delete_queue", [keys.meta], [STORAGE_VERSION, NAME])  # pyright: ignore[reportPrivateUsage]


async def test_a_deletion_under_way_passes_over_members_that_join_meanwhile(store: Store, look: Look) -> None:
    old = await enqueue(store)
    await begin_deletion(store)
    deleted_ms = int(look().limits[LANE]["dt"])
    new = await enqueue(store)
    access = store.admin._access  # pyright: ignore[reportPrivateUsage]
    arguments = [STORAGE_VERSION, 1, 60_000, NAME, deleted_ms, 0, old, new]
    reply, _ = await access.runner.run("cancel_members", [access.keys[0].meta, access.keys[0].log], arguments)
    assert reply == [b"ok", 1, 0, 1]
    assert look().records[new].stored.state is State.QUEUED


async def test_a_deletion_that_nobody_finishes_finishes_itself(store: Store, look: Look, move_clock: MoveClock) -> None:
    await put(store, is_paused=True)
    waiting = [await enqueue(store), await enqueue(store), await enqueue(store, delay_ms=1000)]
    await begin_deletion(store)
    await move_clock(2000)
    for _ in range(4):
        await store.delivery.promote(0, 10)
        await store.delivery.heartbeat("w1", 100)
        assert await claimed(store) == []
    assert {look().records[message_id].stored.state for message_id in waiting} == {State.CANCELED}
    assert look().limits == {}


async def test_a_deleted_queue_begins_anew_with_its_next_member(store: Store, look: Look) -> None:
    await put(store, parallelism=4, is_paused=True)
    old = [await enqueue(store) for _ in range(3)]
    await begin_deletion(store)
    new = await enqueue(store)
    found = await queue(store)
    assert (found.parallelism, found.is_paused) == (1, False)
    assert await claimed_at_last(store) == [new]
    assert {look().records[message_id].stored.state for message_id in old} == {State.CANCELED}
    assert (await queue(store)).lag == 1


async def test_members_of_the_queue_that_came_after_a_deletion_are_safe(store: Store, look: Look) -> None:
    """Also when all of it happens in one millisecond."""
    keys = store.admin._access.keys[0]  # pyright: ignore[reportPrivateUsage]
    await store.commands.send("HSET", keys.meta, "fz", 1_800_000_000_000)
    new = await enqueue(store)
    for _ in range(3):
        old = new
        assert await store.queues.delete_queue(NAME)
        new = await enqueue(store)
        assert look().records[old].stored.state is State.CANCELED
        assert look().records[new].stored.state is State.QUEUED
    assert await claimed(store) == [new]


async def test_a_queue_is_created_again_with_values_of_its_own(store: Store, look: Look) -> None:
    await put(store, parallelism=4, is_paused=True)
    old = await enqueue(store)
    await begin_deletion(store)
    await put(store, parallelism=2)
    found = await queue(store)
    assert (found.parallelism, found.is_paused) == (2, False)
    assert await claimed_at_last(store) == []
    assert look().records[old].stored.state is State.CANCELED


async def test_a_long_line_is_cancelled_whole(store: Store, look: Look) -> None:
    await put(store, is_paused=True)
    ids = await asyncio.gather(*(enqueue(store, delay_ms=1000 * (n % 2)) for n in range(700)))
    assert await store.queues.delete_queue(NAME)
    seen = look()
    assert {seen.records[message_id].stored.state for message_id in ids} == {State.CANCELED}


async def test_deletions_of_two_callers_and_new_members_at_once(store: Store, look: Look) -> None:
    for _ in range(5):
        await asyncio.gather(
            *(enqueue(store) for _ in range(20)),
            *(store.queues.delete_queue(NAME) for _ in range(2)),
            *(put(store, parallelism=n) for n in range(1, 4)),
        )
    await store.queues.delete_queue(NAME)
    after = await enqueue(store)
    assert look().records[after].stored.state is State.QUEUED
    assert (await queue(store)).lag == 1
