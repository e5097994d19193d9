"""What requests want produced: resolved before the first append, placed as Kafka does, and answered in their order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from qstash_clone.errors import BodyTooLarge, InvalidRequest, NotFound, QuotaExceeded, StorageError, StorageUnavailable
from qstash_clone.observability import RECORDS_PRODUCED
from qstash_clone.storage.store import Store
from qstash_clone.storage.topic_log import RedisTopicLog
from qstash_clone.topics.interface import ReadFrom, TopicGone
from qstash_clone.topics.partitioning import SLICE_BYTES, partition_of_key
from qstash_clone.topics.producing import NotConfirmed, Produced, Producer, ToProduce, size_bytes
from qstash_clone.topics.records import Appended, Record, StoredRecord, Topic, TopicConfig

Append = Callable[[Topic, int, Sequence[Record]], Awaitable[Appended]]


def producer(store: Store, *, creates: bool = True, partitions: int = 4, max_record_bytes: int = 1000) -> Producer:
    return Producer(store, auto_create_topics=creates, default_partitions=partitions, max_record_bytes=max_record_bytes)


def want(topic: str, value: bytes, **fields: object) -> ToProduce:
    partition = fields.pop("partition", None)
    assert partition is None or isinstance(partition, int)
    return ToProduce(topic, Record(value, **fields), partition)  # pyright: ignore[reportArgumentType]


async def stored(store: Store, name: str) -> list[list[StoredRecord]]:
    """The records of each partition."""
    topic = await store.topics.get_topic(name)
    assert topic is not None
    wanted = [ReadFrom(topic, number, 0) for number in range(topic.config.partitions)]
    slices = await store.topics.read(wanted, max_records=10_000, max_bytes=10_000_000)
    return [[] if one is None else list(one.records) for one in slices]


@pytest.fixture
def append(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[Append], None]:
    """Replaces the append of the log."""

    def replace(other: Append) -> None:
        def method(_: RedisTopicLog, topic: Topic, partition: int, records: Sequence[Record]) -> Awaitable[Appended]:
            return other(topic, partition, records)

        monkeypatch.setattr(RedisTopicLog, "append", method)

    return replace


async def test_the_first_record_creates_the_topic(store: Store) -> None:
    [produced] = await producer(store).produce([want("new", b"v", timestamp_ms=5)])
    topic = await store.topics.get_topic("new")
    assert topic is not None
    assert topic.config == TopicConfig(partitions=4)
    assert produced == Produced("new", produced.partition, 0, 5)
    assert (await stored(store, "new"))[produced.partition] == [StoredRecord(0, 5, None, b"v", ())]


async def test_a_topic_must_exist_if_none_is_created(store: Store) -> None:
    with pytest.raises(NotFound, match="topic new does not exist"):
        await producer(store, creates=False).produce([want("new", b"v")])
    assert await store.topics.list_topics() == []


async def test_a_partition_that_is_named_counts_more_than_the_key(store: Store) -> None:
    wanted = [want("t", b"v", key=b"city", partition=1), want("t", b"w", key=b"city"), want("t", b"x", key=b"")]
    before = RECORDS_PRODUCED.value
    produced = await producer(store).produce(wanted)
    assert RECORDS_PRODUCED.value - before == 3
    assert [one.partition for one in produced] == [1, 3, 1]
    assert [one.offset for one in produced] == [0, 0, 1]


async def test_what_has_no_key_stays_together_within_a_request_and_moves_on_between_them(store: Store) -> None:
    one = producer(store)
    places: list[int] = []
    for _ in range(8):
        produced = await one.produce([want("t", b"1"), want("u", b"2"), want("t", b"3", key=b"k"), want("t", b"4")])
        assert produced[0].partition == produced[3].partition
        assert produced[0].offset < produced[3].offset
        places.append(produced[0].partition)
    # Two topics take turns, so every second partition is the turn of `t`.
    assert len(set(places)) == 2


async def test_requests_of_one_record_go_round(store: Store) -> None:
    one = producer(store)
    places = [(await one.produce([want("t", b"1")]))[0].partition for _ in range(8)]
    assert sorted(places) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_the_answer_is_in_the_order_of_the_request(store: Store) -> None:
    wanted = [want(name, b"%d" % at, key=b"k%d" % (at % 5)) for at in range(40) for name in ("a", "b")]
    produced = await producer(store).produce(wanted)
    for name in ("a", "b"):
        logs = await stored(store, name)
        mine = [(one, place) for one, place in zip(wanted, produced, strict=True) if one.topic == name]
        for one, place in mine:
            assert one.record.key is not None
            assert place.partition == await partition_of_key(one.record.key, 4)
            assert logs[place.partition][place.offset].value == one.record.value
        for log in logs:
            values = [int(record.value or b"") for record in log]
            assert values == sorted(values)


async def test_concurrent_requests_get_dense_offsets(store: Store) -> None:
    async def produce(number: int) -> list[tuple[int, bytes]]:
        offsets: list[tuple[int, bytes]] = []
        for at in range(40):
            value = b"%d-%d" % (number, at)
            [one] = await shared.produce([want("t", value, partition=2)])
            offsets.append((one.offset, value))
        return offsets

    shared = producer(store)
    answers = await asyncio.gather(*[produce(number) for number in range(25)])
    assert sorted(offset for answer in answers for offset, _ in answer) == list(range(1000))
    log = (await stored(store, "t"))[2]
    for answer in answers:
        assert [offset for offset, _ in answer] == sorted(offset for offset, _ in answer)
        assert all(log[offset].value == value for offset, value in answer)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (want("u", b"v", partition=4), InvalidRequest, "message 2: topic u has the partitions 0 to 3, not 4"),
        (want("t", b"v", partition=-1), InvalidRequest, "message 2: topic t has the partitions 0 to 3, not -1"),
        (want("a b", b"v"), InvalidRequest, "topic: 'a b' is no name of a topic"),
        (want("..", b"v"), InvalidRequest, "is no name of a topic"),
        (want("x" * 250, b"v"), InvalidRequest, "is no name of a topic"),
        (want("t", b"v" * 931), BodyTooLarge, "message 2: a record of 1001 bytes"),
    ],
)
async def test_a_refusal_leaves_no_trace(store: Store, bad: ToProduce, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        await producer(store).produce([want("t", b"1"), want("u", b"2"), bad])
    assert await store.topics.list_topics() == []


async def test_one_topic_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> Topic:
        raise QuotaExceeded("too many")

    monkeypatch.setattr(RedisTopicLog, "create_topic", refuse)
    with pytest.raises(QuotaExceeded):
        await producer(store).produce([want("t", b"1")])


@pytest.mark.parametrize(
    ("record", "size"),
    [
        (Record(b""), 70),
        (Record(None), 70),
        (Record(b"abc", b"k"), 74),
        (Record(b"abc", headers=(("é", b"12"), ("n", None))), 73 + 10 + 2 + 2 + 10 + 1),
    ],
)
def test_the_size_of_a_record(record: Record, size: int) -> None:
    assert size_bytes(record) == size


async def test_a_record_of_exactly_the_limit(store: Store) -> None:
    await producer(store).produce([want("t", b"v" * 930)])
    with pytest.raises(BodyTooLarge):
        await producer(store).produce([want("t", b"v" * 931)])


async def test_a_topic_that_somebody_else_creates_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = RedisTopicLog.create_topic

    async def create_late(log: RedisTopicLog, name: str, config: TopicConfig) -> Topic:
        await create(log, name, TopicConfig(partitions=2))
        return await create(log, name, config)

    monkeypatch.setattr(RedisTopicLog, "create_topic", create_late)
    with pytest.raises(InvalidRequest, match="partitions 0 to 1, not 3"):
        await producer(store).produce([want("t", b"1", partition=3)])
    [produced] = await producer(store).produce([want("t", b"1", partition=1)])
    assert (produced.partition, produced.offset) == (1, 0)


async def test_a_topic_that_was_created_anew_starts_again(store: Store) -> None:
    one = producer(store)
    await one.produce([want("t", b"1", partition=0)])
    known = await store.topics.get_topic("t")
    assert known is not None
    await store.topics.delete_topic("t")
    [produced] = await one.produce([want("t", b"2", partition=0)])
    assert produced.offset == 0


async def test_a_topic_that_is_gone_at_the_append_is_looked_up_again(
    store: Store, append: Callable[[Append], None]
) -> None:
    real = store.topics.append
    calls: list[int] = []

    async def gone_at_first(topic: Topic, partition: int, records: Sequence[Record]) -> Appended:
        calls.append(partition)
        if len(calls) <= 2:
            raise TopicGone("topic t does not exist any more")
        return await real(topic, partition, records)

    append(gone_at_first)
    produced = await producer(store).produce([want("t", b"1", partition=0), want("t", b"2", partition=1)])
    assert [one.offset for one in produced] == [0, 0]
    assert calls == [0, 1, 0, 1]


async def test_what_was_appended_is_not_appended_again(store: Store, append: Callable[[Append], None]) -> None:
    real = store.topics.append

    async def second_gone(topic: Topic, partition: int, records: Sequence[Record]) -> Appended:
        if topic.name == "u":
            raise TopicGone("topic u does not exist any more")
        return await real(topic, partition, records)

    append(second_gone)
    with pytest.raises(NotConfirmed, match="message 1 is not confirmed, others may be stored") as caught:
        await producer(store).produce([want("t", b"1", partition=0), want("u", b"2"), want("t", b"3", partition=0)])
    assert caught.value.index == 1
    assert [record.value for record in (await stored(store, "t"))[0]] == [b"1", b"3"]


async def test_the_first_record_without_confirmation_is_named(store: Store, append: Callable[[Append], None]) -> None:
    real = store.topics.append

    async def broken(topic: Topic, partition: int, records: Sequence[Record]) -> Appended:
        if partition:
            raise StorageUnavailable("Lost on the way.")
        return await real(topic, partition, records)

    append(broken)
    wanted = [want("t", b"0", partition=0), want("t", b"1", partition=2), want("t", b"2", partition=1)]
    with pytest.raises(NotConfirmed) as caught:
        await producer(store).produce(wanted)
    assert (caught.value.index, type(caught.value.cause)) == (1, StorageUnavailable)
    with pytest.raises(StorageUnavailable):
        await producer(store).produce(wanted[1:2])
    assert issubclass(NotConfirmed, StorageError)


async def test_others_have_their_turn_between_the_keys_of_a_large_request(
    store: Store, append: Callable[[Append], None]
) -> None:
    turns, turns_before_append = 0, 0
    await store.topics.create_topic("t", TopicConfig(partitions=1))

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def appended(records: Sequence[Record]) -> Appended:
        return Appended(tuple(range(len(records))), (5,) * len(records))

    def note(_topic: Topic, _partition: int, records: Sequence[Record]) -> Awaitable[Appended]:
        nonlocal turns_before_append
        turns_before_append = turns
        return appended(records)

    append(note)
    others = asyncio.create_task(take_turns())
    wanted = [want("t", b"v", key=bytes(SLICE_BYTES // 2)) for _ in range(40)]
    await producer(store, max_record_bytes=100_000).produce(wanted)
    others.cancel()
    assert turns_before_append >= 20
