"""Dead letters by filter and many at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qstash_clone.domain.filters import Filter
from qstash_clone.domain.message import AttemptRecord, DeadLetter, Message, NewMessage
from qstash_clone.errors import InvalidRequest, StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.storage import selection
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import claim_all, dead_letter, delivered, failed, new_message, publish

ALL = Filter()


async def fail(
    store: Store, url: str = "https://receiver.example/", *, labels: tuple[str, ...] = (), status: int = 500
) -> MessageId:
    plain = new_message(store)
    message = NewMessage(id=plain.id, message=Message(url=url, labels=labels), body=b"body", lane=plain.lane)
    await store.publishing.publish(message)
    for partition in range(store.delivery.partitions):
        for claim in await claim_all(store, partition=partition):
            outcome = AttemptRecord(status=status, error="no", body=b"x" * 5_000)
            await store.delivery.settle(failed(claim, outcome))
    return message.id


async def pages(
    store: Store, chosen: Filter = ALL, *, count: int = 3, newest_first: bool = False
) -> AsyncIterator[list[DeadLetter]]:
    cursor: str | None = None
    while True:
        page = await store.admin.list_dead_letters(chosen, cursor=cursor, count=count, newest_first=newest_first)
        yield page.entries
        cursor = page.cursor
        if cursor is None:
            return


async def listed(store: Store, chosen: Filter = ALL, *, count: int = 3, newest_first: bool = False) -> list[DeadLetter]:
    found = pages(store, chosen, count=count, newest_first=newest_first)
    return [letter async for page in found for letter in page]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_filters(store: Store, *, newest_first: bool) -> None:
    one = await fail(store, "https://receiver.example/one", labels=("a", "b"), status=500)
    two = await fail(store, "https://receiver.example/two", labels=("b",), status=404)
    three = await fail(store, "https://other.example/", status=0)
    times = {letter.stored.id: int(letter.dlq_id.partition("-")[0]) for letter in await listed(store)}
    for chosen, expected in [
        (ALL, [one, two, three]),
        (Filter(message_ids=frozenset({two, store.publishing.new_message_id()})), [two]),
        (Filter(message_ids=frozenset()), []),
        (Filter(labels=frozenset({"b"})), [one, two]),
        (Filter(labels=frozenset({"b"}), response_statuses=frozenset({404, 999})), [two]),
        (Filter(response_statuses=frozenset({0})), [three]),
        (Filter(response_statuses=frozenset({999})), []),
        (Filter(urls=frozenset({"https://other.example/"})), [three]),
        (Filter(queue_names=frozenset({"queue"})), []),
        (Filter(from_ms=times[one], to_ms=times[three]), [one, two, three]),
        (Filter(to_ms=times[one] - 1), []),
        (Filter(from_ms=times[three] + 1), []),
    ]:
        for count in (1, 100):
            found = await listed(store, chosen, count=count, newest_first=newest_first)
            assert [letter.stored.id for letter in found] == (expected[::-1] if newest_first else expected), chosen


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_nothing_is_skipped_and_nothing_comes_twice_while_others_come_and_go(
    store: Store, partitions: int, *, newest_first: bool
) -> None:
    await store.delivery.heartbeat("w1", 100 * partitions)
    stays = [await fail(store) for _ in range(40)]
    is_over = asyncio.Event()

    async def traffic() -> None:
        while not is_over.is_set():
            gone = await fail(store, labels=("gone",))
            [letter] = await listed(store, Filter(message_ids=frozenset({gone})))
            await store.admin.delete_dead_letter(letter.dlq_id)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic())
        for _ in range(4):
            found = [one.stored.id for one in await listed(store, count=7, newest_first=newest_first)]
            assert len(found) == len(set(found))
            assert sorted(one for one in found if one in stays) == sorted(stays)
        is_over.set()


async def test_the_work_of_a_request_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_LOOKED_AT", 4)
    monkeypatch.setattr(selection, "READ_AT_ONCE", 2)
    for number in range(10):
        await fail(store, labels=("wanted",) if number == 5 else ())
    found = [page async for page in pages(store, Filter(labels=frozenset({"wanted"})))]
    assert [len(page) for page in found] == [0, 1, 0]


async def test_a_cursor_that_is_none(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await store.admin.list_dead_letters(ALL, cursor="x", count=1, newest_first=False)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_several_by_id_in_the_order_asked_for(store: Store, partitions: int) -> None:
    for _ in range(6):
        await fail(store)
    letters = await listed(store)
    ids = [letters[4].dlq_id, "1-1", letters[0].dlq_id, "x", letters[4].dlq_id]
    assert await store.admin.get_dead_letters(ids) == [letters[4], None, letters[0], None, letters[4]]
    assert await store.admin.get_dead_letters([]) == []
    assert await store.admin.get_dead_letters(["x"]) == [None]
    assert letters[0].stored.last_attempt is not None
    assert letters[0].stored.last_attempt.body == b"x" * 5_000, "attempts are shown whole"
    assert len({letter.dlq_id for letter in letters}) == 6
    assert partitions <= 3


@pytest.mark.parametrize("partitions", [1, 3])
async def test_deleting_many(store: Store, partitions: int, look: Look) -> None:
    await store.delivery.heartbeat("w1", 500 * partitions)
    await asyncio.gather(*(publish(store) for _ in range(230)))
    for partition in range(partitions):
        claims = await claim_all(store, partition=partition)
        await asyncio.gather(*(store.delivery.settle(failed(claim)) for claim in claims))
    ids = [letter.dlq_id for letter in await listed(store, count=100)]
    assert len(ids) == 230
    assert await store.admin.delete_dead_letter(ids[0])
    assert not await store.admin.delete_dead_letter(ids[0])
    assert await store.admin.delete_dead_letters([*ids[:220], "x", "1-1", *ids[:5]]) == 219
    assert await store.admin.delete_dead_letters([]) == 0
    assert [letter.dlq_id for letter in await listed(store)] == ids[220:]
    assert sum(len(look(partition).dlq) for partition in range(partitions)) == 10


async def test_a_lost_reply_counts_all_the_same(lossy_store: Store, proxy: LossyProxy) -> None:
    ids = [await dead_letter(lossy_store) for _ in range(3)]
    proxy.lose_reply(Script("delete_dead_letter").digest)
    assert await lossy_store.admin.delete_dead_letters(ids) == 3


async def test_one_that_cannot_be_deleted_does_not_keep_the_others(
    store: Store, keys: PartitionKeys, redis_client: Any
) -> None:
    for _ in range(3):
        await fail(store)
    first, second, third = await listed(store)
    async with damaged(redis_client, keys.message(second.stored.id)):
        with pytest.raises(StorageUnavailable):
            await store.admin.delete_dead_letters([first.dlq_id, second.dlq_id, third.dlq_id])
    assert await listed(store) == [second]


async def test_retrying_with_other_options_keeps_the_body(store: Store) -> None:
    for lane in ("h:receiver.example", "q:orders"):
        dlq_id = await dead_letter(store, body=b"as it was", lane=lane)
        letter = await store.admin.get_dead_letter(dlq_id)
        assert letter is not None
        other = Message(url=letter.stored.message.url, method="PUT", headers=(("X-Long", "y" * 300),), max_retries=0)
        new_id = await store.admin.retry_dead_letter_as(letter, other)
        assert new_id is not None
        stored = await store.admin.get_message(new_id)
        assert stored is not None
        assert (stored.message, stored.body, stored.lane, stored.retried) == (other, b"as it was", lane, 0)
        assert await store.admin.get_dead_letter(dlq_id) is None
        assert await store.admin.retry_dead_letter_as(letter, other) is None
        [claim] = await claim_all(store)
        assert (claim.id, claim.message, claim.body) == (new_id, other, b"as it was")
        await store.delivery.settle(delivered(claim))


async def test_a_lost_reply_retries_once_with_other_options(lossy_store: Store, proxy: LossyProxy) -> None:
    letter = await lossy_store.admin.get_dead_letter(await dead_letter(lossy_store))
    assert letter is not None
    other = Message(url=letter.stored.message.url, max_retries=9)
    proxy.lose_reply(Script("retry_dead_letter").digest)
    new_id = await lossy_store.admin.retry_dead_letter_as(letter, other)
    assert [claim.id for claim in await claim_all(lossy_store)] == [new_id]


async def test_each_is_either_retried_or_deleted(store: Store) -> None:
    """Two callers at once: nothing happens to both, nothing gets lost."""
    for _ in range(30):
        await fail(store)
    letters = await listed(store, count=100)

    async def retry_all() -> list[MessageId | None]:
        return [await store.admin.retry_dead_letter(letter.dlq_id) for letter in letters]

    retried, deleted = await asyncio.gather(
        retry_all(), store.admin.delete_dead_letters([letter.dlq_id for letter in reversed(letters)])
    )
    fresh = {message_id for message_id in retried if message_id is not None}
    assert len(fresh) + deleted == 30
    assert {claim.id for claim in await claim_all(store)} == fresh
    assert await listed(store) == []
