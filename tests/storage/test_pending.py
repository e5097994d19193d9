"""Pending messages by filter: wherever one waits it is found once, and cancelling all of them comes to an end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qstash_clone.domain.filters import Filter
from qstash_clone.domain.message import Claim, NewMessage, Settlement, State
from qstash_clone.errors import InvalidRequest, StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage import pending_store, selection
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.pending_walk import Position, Stage
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, MoveClock
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import claim_all, delivered, failed, new_message, publish, retry

ALL = Filter()


async def pages(store: Store, chosen: Filter = ALL, *, count: int = 3) -> AsyncIterator[list[MessageId]]:
    cursor: str | None = None
    while True:
        page = await store.admin.list_pending(chosen, cursor=cursor, count=count)
        yield [stored.id for stored in page.messages]
        cursor = page.cursor
        if cursor is None:
            return


async def listed(store: Store, chosen: Filter = ALL, *, count: int = 3) -> list[MessageId]:
    return [message_id async for page in pages(store, chosen, count=count) for message_id in page]


async def publish_to(store: Store, url: str, *, labels: tuple[str, ...] = (), delay_ms: int = 0) -> MessageId:
    plain = new_message(store, url=url, delay_ms=delay_ms)
    message = NewMessage(
        id=plain.id,
        message=type(plain.message)(url=url, labels=labels, caller_ip="192.0.2.1"),
        body=b"",
        lane=plain.lane,
        delay_ms=delay_ms,
    )
    await store.publishing.publish(message)
    return message.id


def later(claim: Claim) -> Settlement:
    return retry(claim, delay_ms=60_000)


async def everywhere(store: Store, partitions: int = 1) -> dict[MessageId, State]:
    """Messages in every place where one can be pending, and some that are not."""
    await store.delivery.heartbeat("w1", 8 * partitions)
    lanes = [f"h:{number}" for number in range(9)]
    ids = [await publish(store, lane=lanes[number % 9]) for number in range(60)]
    for partition in range(partitions):
        claims = await claim_all(store, limit=6, partition=partition)
        for claim, end in zip(claims, (later, later, delivered, failed), strict=False):
            await store.delivery.settle(end(claim))
    ids += [await publish(store, delay_ms=60_000 + number % 2) for number in range(8)]
    for message_id in ids[::7]:
        await store.admin.cancel(message_id)
    found = {message_id: await store.admin.get_message(message_id) for message_id in ids}
    states = {message_id: stored.state for message_id, stored in found.items() if stored is not None}
    return {message_id: state for message_id, state in states.items() if not state.is_final}


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 7, 1000])
async def test_whatever_is_pending_is_listed_once(store: Store, partitions: int, count: int) -> None:
    expected = await everywhere(store, partitions)
    assert set(expected.values()) == {State.DELAYED, State.QUEUED, State.ACTIVE}
    found = await listed(store, count=count)
    assert len(found) == len(set(found))
    assert set(found) == set(expected)


async def test_the_oldest_come_first_in_each_place(store: Store) -> None:
    await store.delivery.heartbeat("w1", 0)
    later = [await publish(store, delay_ms=60_000 - 1000 * number) for number in range(4)]
    waiting = [await publish(store) for _ in range(4)]
    assert await listed(store) == [*reversed(later), *waiting]


async def test_a_page_says_when_nothing_follows(store: Store) -> None:
    ids = [await publish(store) for _ in range(4)]
    page = await store.admin.list_pending(ALL, cursor=None, count=4)
    assert ([stored.id for stored in page.messages], page.cursor) == (ids, None)
    assert (await store.admin.list_pending(ALL, cursor=None, count=3)).cursor is not None


async def test_messages_of_one_moment_in_the_timers(store: Store) -> None:
    """Their order is that of their ids, and the one a page ended with may be gone when the next page is asked for."""
    ids = sorted([(await at_moment(store)) for _ in range(30)])
    first = await store.admin.list_pending(ALL, cursor=None, count=10)
    assert [stored.id for stored in first.messages] == ids[:10]
    for message_id in (ids[9], ids[3], ids[12]):
        await store.admin.cancel(message_id)
    rest = await store.admin.list_pending(ALL, cursor=first.cursor, count=100)
    assert [stored.id for stored in rest.messages] == [*ids[10:12], *ids[13:]]


async def at_moment(store: Store) -> MessageId:
    return await publish(store, not_before_ms=4_000_000_000_000)


async def test_a_line_that_moves_on_between_pages(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 0)
    ids = [await publish(store) for _ in range(30)]
    first = await store.admin.list_pending(ALL, cursor=None, count=10)
    await store.delivery.heartbeat("w1", 12)
    assert len(look().entries) == 6
    second = await store.admin.list_pending(ALL, cursor=first.cursor, count=5)
    assert [stored.id for stored in second.messages] == ids[10:15]
    await store.delivery.heartbeat("w1", 40)
    assert len(look().entries) == 20, "the message that the page ended with is not in the line any more"
    third = await store.admin.list_pending(ALL, cursor=second.cursor, count=1000)
    assert set(ids[15:]) <= {stored.id for stored in third.messages}


async def test_many_lanes(store: Store) -> None:
    await store.delivery.heartbeat("w1", 0)
    ids = [await publish(store, lane=f"h:{number % 400:03}") for number in range(600)]
    found = await listed(store, count=90)
    assert sorted(found) == sorted(ids)


@pytest.mark.parametrize("count", [1, 5, 100])
async def test_what_moves_during_the_walk_is_not_missed(store: Store, move_clock: MoveClock, count: int) -> None:
    """Timers come due, lines advance, attempts begin; only what ended meanwhile may be left out."""
    await store.delivery.heartbeat("w1", 10)
    ids = [await publish(store, lane=f"h:{n % 3}", delay_ms=n % 5 * 1000) for n in range(100)]
    seen: set[MessageId] = set()
    ended: set[MessageId] = set()
    turns = 0
    async for page in pages(store, count=count):
        seen.update(page)
        turns += 1
        if turns % 4 == 0:
            await move_clock(500)
            await store.delivery.promote(0, 7)
        if turns % 6 == 0:
            for claim in await claim_all(store, limit=2):
                await store.delivery.settle(delivered(claim))
                ended.add(claim.id)
        if turns % 9 == 0:
            await store.delivery.heartbeat("w1", 10 + turns % 7 * 4)
    assert set(ids) - ended <= seen


@pytest.mark.parametrize("partitions", [1, 3])
async def test_what_stays_is_listed_once_while_others_come_and_go(store: Store, partitions: int) -> None:
    await store.delivery.heartbeat("w1", 60)
    stays = {await publish(store, lane=f"h:{n % 4}", delay_ms=3_600_000) for n in range(200)}
    is_over = asyncio.Event()

    async def traffic() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            await asyncio.gather(*(publish(store, lane=f"h:{number % 5}") for _ in range(5)))
            for partition in range(partitions):
                for claim in await claim_all(store, limit=5, partition=partition):
                    await store.delivery.settle(delivered(claim))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic())
        for _ in range(3):
            found = [message_id for message_id in await listed(store, count=17) if message_id in stays]
            assert sorted(found) == sorted(stays)
        is_over.set()


async def test_filters(store: Store) -> None:
    await store.delivery.heartbeat("w1", 0)
    one = await publish_to(store, "https://receiver.example/one", labels=("a", "b"))
    two = await publish_to(store, "https://receiver.example/two", labels=("b",), delay_ms=60_000)
    three = await publish_to(store, "https://other.example/two")
    created = await store.admin.get_message(one)
    assert created is not None
    for chosen, expected in [
        (Filter(urls=frozenset({"https://receiver.example/one"})), {one}),
        (Filter(labels=frozenset({"b", "z"})), {one, two}),
        (Filter(labels=frozenset({"b"}), paths=frozenset({"/two"})), {two}),
        (Filter(hosts=frozenset({"other.example"})), {three}),
        (Filter(caller_ips=frozenset({"192.0.2.1"})), {one, two, three}),
        (Filter(caller_ips=frozenset({"192.0.2.2"})), set[MessageId]()),
        (Filter(message_ids=frozenset({one, three, store.publishing.new_message_id()})), {one, three}),
        (Filter(message_ids=frozenset()), set[MessageId]()),
        (Filter(from_ms=created.created_ms, to_ms=created.created_ms + 60_000), {one, two, three}),
        (Filter(to_ms=created.created_ms - 1), set[MessageId]()),
        (Filter(from_ms=created.created_ms + 60_000), set[MessageId]()),
    ]:
        assert set(await listed(store, chosen, count=1)) == expected
        assert set(await listed(store, chosen, count=100)) == expected


@pytest.mark.parametrize("partitions", [1, 3])
async def test_named_messages_are_paged_too(store: Store, partitions: int) -> None:
    expected = await everywhere(store, partitions)
    over = await publish(store)
    await store.admin.cancel(over)
    assert await listed(store, Filter(message_ids=frozenset({*expected, over})), count=4) == sorted(expected)


async def test_a_page_holds_no_more_than_an_answer_can(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_store, "PAGE_BYTES", 25_000)
    ids = [await publish(store, body=b"x" * 10_000) for _ in range(5)]
    found = [page async for page in pages(store, count=100)]
    assert [len(page) for page in found] == [2, 2, 1]
    assert [message_id for page in found for message_id in page] == ids


async def test_large_bodies_are_shown_whole(store: Store) -> None:
    await publish(store, body=b"x" * 300_000)
    [stored] = (await store.admin.list_pending(ALL, cursor=None, count=10)).messages
    assert stored.body == b"x" * 300_000


async def test_the_work_of_a_request_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_LOOKED_AT", 20)
    monkeypatch.setattr(pending_store, "READ_AT_ONCE", 10)
    await store.delivery.heartbeat("w1", 0)
    for _ in range(50):
        await publish(store)
    wanted = await publish_to(store, "https://receiver.example/wanted")
    found = [page async for page in pages(store, Filter(paths=frozenset({"/wanted"})), count=5)]
    assert found == [[], [], [wanted]]


@pytest.mark.parametrize("delay_ms", [0, 3_600_000])
async def test_a_page_costs_the_same_with_any_number_waiting(store: Store, redis_client: Any, delay_ms: int) -> None:
    await store.delivery.heartbeat("w1", 0)

    async def cost() -> dict[str, int]:
        middle = await store.admin.list_pending(ALL, cursor=None, count=300)
        assert middle.cursor is not None
        await redis_client.config_resetstat()
        for cursor in (None, middle.cursor):
            await store.admin.list_pending(ALL, cursor=cursor, count=50)
        stats = await redis_client.info("commandstats")
        return {name: entry["calls"] for name, entry in stats.items()}

    async def wait(count: int) -> None:
        for _ in range(0, count, 500):
            await asyncio.gather(*(publish(store, body=b"", delay_ms=delay_ms) for _ in range(500)))

    await wait(1_000)
    few = await cost()
    await wait(9_000)
    assert await cost() == few


@pytest.mark.parametrize("cursor", ["", "x", "5-1", "=", "lgChcqCgxAAAoA", "lgGhcqCgxAAAoA==", "ä", "kgCheA"])
async def test_a_cursor_that_is_none(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await store.admin.list_pending(ALL, cursor=cursor, count=1)


@pytest.mark.parametrize(
    "position",
    [
        Position(partition=1),
        Position(partition=-1),
        Position(until="+"),
        Position(entry="1-1 COUNT"),
        Position(stage=Stage.TIMERS, id=b"short"),
        Position(stage=Stage.TIMERS, number=-1),
        Position(stage=Stage.LANES, number=1 << 60),
    ],
)
async def test_a_cursor_that_no_walk_has_given_out(store: Store, position: Position) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await store.admin.list_pending(ALL, cursor=position.cursor(), count=1)
    assert Position.parse(Position().cursor(), 1) == Position()


@pytest.mark.parametrize("partitions", [1, 3])
async def test_cancelling_all(store: Store, partitions: int, look: Look) -> None:
    pending = [await store.admin.get_message(message_id) for message_id in await everywhere(store, partitions)]
    expected = [stored.id for stored in pending if stored is not None and not stored.cancel_requested]
    assert await store.admin.cancel_matching(ALL, limit=None) == len(expected)
    assert await store.admin.cancel_matching(ALL, limit=None) == 0, "requested ones are not counted again"
    left = [record.stored for at in range(partitions) for record in look(at).records.values()]
    assert all(one.state.is_final or (one.state is State.ACTIVE and one.cancel_requested) for one in left)


async def test_cancelling_a_few_takes_the_oldest(store: Store) -> None:
    await store.delivery.heartbeat("w1", 0)
    ids = [await publish(store) for _ in range(250)]
    assert await store.admin.cancel_matching(ALL, limit=120) == 120
    assert await listed(store, count=1000) == ids[120:]
    assert await store.admin.cancel_matching(ALL, limit=200) == 130
    assert await store.admin.cancel_matching(ALL, limit=200) == 0


async def test_cancelling_by_filter(store: Store) -> None:
    kept = await publish_to(store, "https://receiver.example/kept", labels=("x",))
    for delay_ms in (0, 60_000):
        await publish_to(store, "https://receiver.example/gone", labels=("x",), delay_ms=delay_ms)
    chosen = Filter(paths=frozenset({"/gone"}), labels=frozenset({"x"}))
    assert await store.admin.cancel_matching(chosen, limit=None) == 2
    assert await listed(store) == [kept]


async def test_a_loop_that_ends_at_zero_reaches_what_is_far_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MAX_LOOKED_AT", 20)
    monkeypatch.setattr(pending_store, "READ_AT_ONCE", 10)
    await store.delivery.heartbeat("w1", 0)
    for _ in range(50):
        await publish(store)
    for _ in range(30):
        await publish_to(store, "https://receiver.example/wanted")
    chosen = Filter(paths=frozenset({"/wanted"}))
    answers: list[int] = []
    while not answers or answers[-1]:
        answers.append(await store.admin.cancel_matching(chosen, limit=100))
    assert sum(answers) == 30
    assert len(answers) > 2, "each call stopped when it had done enough"
    assert len(await listed(store, count=1000)) == 50


async def test_cancelling_without_a_limit_pauses_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_store, "MAX_CANCELLING_S", 0)
    monkeypatch.setattr(pending_store, "READ_AT_ONCE", 10)
    for _ in range(25):
        await publish(store, delay_ms=60_000)
    assert [await store.admin.cancel_matching(ALL, limit=None) for _ in range(4)] == [10, 10, 5, 0]


@pytest.mark.parametrize("partitions", [1, 3])
async def test_cancelling_many_by_id(store: Store, partitions: int) -> None:
    await store.delivery.heartbeat("w1", 3)
    waiting = [await publish(store, delay_ms=1000) for _ in range(230)]
    active = [await publish(store) for _ in range(3)]
    for partition in range(partitions):
        await claim_all(store, partition=partition)
    unknown = [store.publishing.new_message_id() for _ in range(5)]
    await store.admin.cancel(waiting[0])
    ids = [*waiting, *unknown, *active, *waiting[:9]]
    assert await store.admin.cancel_many(ids) == len(waiting) - 1 + len(active)
    assert await store.admin.cancel_many(ids) == 0
    assert await store.admin.cancel_many([]) == 0


async def test_a_lost_reply_counts_all_the_same(lossy_store: Store, proxy: LossyProxy) -> None:
    ids = [await publish(lossy_store, delay_ms=1000) for _ in range(5)]
    proxy.lose_reply(Script("cancel").digest)
    assert await lossy_store.admin.cancel_many(ids) == 5


async def test_one_that_cannot_be_cancelled_does_not_keep_the_others(
    store: Store, keys: PartitionKeys, redis_client: Any
) -> None:
    ids = [await publish(store, delay_ms=1000) for _ in range(3)]
    async with damaged(redis_client, keys.message(ids[1])):
        with pytest.raises(StorageUnavailable):
            await store.admin.cancel_many(ids)
    assert await listed(store) == [ids[1]]


async def test_cancelling_races_with_workers(store: Store, look: Look) -> None:
    """Each message ends once, delivered or cancelled, and the numbers add up."""
    await store.delivery.heartbeat("w1", 20)
    ids = [await publish(store, lane=f"h:{n % 3}") for n in range(300)]
    delivered_ids: list[MessageId] = []
    is_over = asyncio.Event()

    async def work() -> None:
        while not is_over.is_set():
            claims = await claim_all(store, limit=10)
            await asyncio.gather(*(store.delivery.settle(delivered(claim)) for claim in claims))
            delivered_ids.extend(claim.id for claim in claims)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())
        cancelled = 0
        while count := await store.admin.cancel_matching(ALL, limit=40):
            cancelled += count
        is_over.set()
    partition = look()
    states = [partition.records[message_id].stored.state for message_id in ids]
    assert set(states) <= {State.DELIVERED, State.CANCELED}
    assert states.count(State.DELIVERED) == len(delivered_ids)
    logged = [partition.letters(message_id) for message_id in ids]
    assert sum("Q" in letters for letters in logged) == cancelled
    assert all(("X" in letters) != ("D" in letters) for letters in logged)


async def test_where_a_message_is(store: Store) -> None:
    await store.delivery.heartbeat("w1", 4)
    first, *_, last = [await publish(store) for _ in range(4)]
    found = await store.admin.locate(last)
    assert found is not None
    assert (found.stored.id, found.is_admitted, found.lane_waiting, found.lane_admitted) == (last, False, 2, 2)
    assert (found.free_places, found.workers, found.capacity, found.is_lane_parked) == (2, 1, 4, False)
    await store.delivery.heartbeat("w1", 4)
    found = await store.admin.locate(first)
    assert found is not None
    assert found.is_admitted
    assert found.is_lane_parked
    assert found.now_ms - found.stored.created_ms < 60_000


async def test_where_nothing_is(store: Store, settings: Settings, move_clock: MoveClock) -> None:
    assert await store.admin.locate(store.publishing.new_message_id()) is None
    cancelled = await publish(store, delay_ms=1000)
    await store.admin.cancel(cancelled)
    assert await store.admin.locate(cancelled) is None
    over = await publish(store)
    [claim] = await claim_all(store)
    await store.delivery.settle(delivered(claim))
    assert await store.admin.locate(over) is not None
    await move_clock(settings.message_grace_ms + 1000)
    assert await store.admin.locate(over) is None
