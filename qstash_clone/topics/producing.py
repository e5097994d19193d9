"""From what a request wants produced to appended records: everything is resolved before the first append."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from qstash_clone.errors import BodyTooLarge, InvalidRequest, NotFound, StorageError
from qstash_clone.observability import RECORDS_PRODUCED
from qstash_clone.topics.interface import TopicGone, TopicStores
from qstash_clone.topics.partitioning import SLICE_BYTES, partition_of_key
from qstash_clone.topics.records import NAME_RULE, Record, Topic, TopicConfig, is_topic_name

_HEADER_BYTES: Final = 10
_RECORD_BYTES: Final = 70
"""What Kafka adds at most to the bytes of a header and of a record, for the comparison with its limit."""


class ToProduce(msgspec.Struct, frozen=True):
    """One record for one topic."""

    topic: str
    record: Record
    partition: int | None = None
    """None: that of the key; without a key any, the same for all of a request."""


class Produced(msgspec.Struct, frozen=True):
    """Where a record is."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class NotConfirmed(StorageError):
    """There is no confirmation for one of several records: it may be stored, and others may be."""

    def __init__(self, index: int, cause: StorageError) -> None:
        super().__init__(f"message {index} is not confirmed, others may be stored: {cause}")
        self.index = index
        """Of the first such record."""
        self.cause = cause


class Producer:
    """Appends what requests want produced."""

    def __init__(
        self, stores: TopicStores, *, auto_create_topics: bool, default_partitions: int, max_record_bytes: int
    ) -> None:
        self._stores = stores
        self._auto_create_topics = auto_create_topics
        self._new_topic = TopicConfig(partitions=default_partitions)
        self._max_record_bytes = max_record_bytes
        self._next_partition = 0

    async def find_topic(self, name: str) -> Topic:
        """The topic of this name, made with the default configuration if that is allowed.

        Raises `InvalidRequest` for a name that Kafka would refuse, `NotFound`, `QuotaExceeded`.
        """
        return await self._look_up(name) or await self._create(name)

    async def check_topic(self, name: str) -> None:
        """Raise `NotFound` if producing to it would; nothing is created."""
        await self._look_up(name)

    async def produce(self, wanted: Sequence[ToProduce]) -> list[Produced]:
        """Append all; the answer is in the order of the request.

        Raises `InvalidRequest`, `NotFound`, `BodyTooLarge`, `QuotaExceeded` before anything was appended, the first
        three before a topic was created, and a `StorageError` if there is no confirmation: `NotConfirmed` for one of
        several.
        """
        for at, one in enumerate(wanted):
            self._check_size(at, one.record)
        try:
            produced = await self._produce(wanted)
        except TopicGone:
            # Deleted between looking it up and the append, or known here from before it was created anew.
            produced = await self._produce(wanted)
        RECORDS_PRODUCED.inc(len(produced))
        return produced

    async def _produce(self, wanted: Sequence[ToProduce]) -> list[Produced]:
        if len(wanted) == 1:
            return [await self._produce_one(wanted[0])]
        found = {name: await self._look_up(name) for name in dict.fromkeys([one.topic for one in wanted])}
        for at, one in enumerate(wanted):
            topic = found[one.topic]
            self._check_partition(at, one, (self._new_topic if topic is None else topic.config).partitions)
        topics = {name: topic or await self._create(name) for name, topic in found.items()}
        return await self._append(topics, wanted)

    async def _produce_one(self, one: ToProduce) -> Produced:
        """As `_produce`: what most requests want, in half the time."""
        topic = await self._look_up(one.topic)
        self._check_partition(0, one, (self._new_topic if topic is None else topic.config).partitions)
        if topic is None:
            topic = await self._create(one.topic)
        partition = await self._partition(topic, 0, one, {})
        appended = await self._stores.topics.append(topic, partition, (one.record,))
        return Produced(topic.name, partition, appended.offsets[0], appended.timestamps_ms[0])

    async def _look_up(self, name: str) -> Topic | None:
        """None: it may be created."""
        if not is_topic_name(name):
            raise InvalidRequest(f"topic: {name[:100]!r} is no name of a topic: {NAME_RULE}")
        topic = await self._stores.topics.get_topic(name)
        if topic is None and not self._auto_create_topics:
            raise NotFound(f"topic {name} does not exist")
        return topic

    async def _create(self, name: str) -> Topic:
        try:
            return await self._stores.topics.create_topic(name, self._new_topic)
        except InvalidRequest:
            # Somebody else has created it meanwhile, with another configuration.
            topic = await self._stores.topics.get_topic(name)
            if topic is None:
                raise
            return topic

    def _check_size(self, at: int, record: Record) -> None:
        size = size_bytes(record)
        if size > self._max_record_bytes:
            raise BodyTooLarge(
                f"message {at}: a record of {size} bytes is larger than the limit of {self._max_record_bytes}"
            )

    async def _append(self, topics: dict[str, Topic], wanted: Sequence[ToProduce]) -> list[Produced]:
        groups: dict[tuple[str, int], list[int]] = {}
        without_key: dict[str, int] = {}
        hashed_bytes = 0
        for at, one in enumerate(wanted):
            partition = await self._partition(topics[one.topic], at, one, without_key)
            groups.setdefault((one.topic, partition), []).append(at)
            hashed_bytes += len(one.record.key or b"")
            if hashed_bytes >= SLICE_BYTES:
                hashed_bytes = 0
                await asyncio.sleep(0)
        appends = [
            self._stores.topics.append(topics[name], partition, [wanted[at].record for at in members])
            for (name, partition), members in groups.items()
        ]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        produced: dict[int, Produced] = {}
        failed: dict[int, BaseException] = {}
        for ((name, partition), members), outcome in zip(groups.items(), outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failed[members[0]] = outcome
                continue
            for at, offset, timestamp_ms in zip(members, outcome.offsets, outcome.timestamps_ms, strict=True):
                produced[at] = Produced(name, partition, offset, timestamp_ms)
        if failed:
            first = min(failed)
            error = failed[first]
            if isinstance(error, TopicGone) and not all(isinstance(one, TopicGone) for one in outcomes):
                # Trying again would append the others twice.
                error = StorageError(f"topic {wanted[first].topic} was deleted meanwhile")
            raise NotConfirmed(first, error) if isinstance(error, StorageError) else error
        return [produced[at] for at in range(len(wanted))]

    def _check_partition(self, at: int, one: ToProduce, count: int) -> None:
        if one.partition is not None and not 0 <= one.partition < count:
            raise InvalidRequest(
                f"message {at}: topic {one.topic} has the partitions 0 to {count - 1}, not {one.partition}"
            )

    async def _partition(self, topic: Topic, at: int, one: ToProduce, without_key: dict[str, int]) -> int:
        count = topic.config.partitions
        if one.partition is not None:
            # Again: it may have been created by somebody else, with fewer of them.
            self._check_partition(at, one, count)
            return one.partition
        if one.record.key is not None:
            return await partition_of_key(one.record.key, count)
        if topic.name not in without_key:
            without_key[topic.name] = self._next_partition % count
            self._next_partition += 1
        return without_key[topic.name]


def size_bytes(record: Record) -> int:
    """What Kafka would count of a record, at most."""
    size = _RECORD_BYTES + len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += _HEADER_BYTES + len(name.encode()) + len(value or b"")
    return size
