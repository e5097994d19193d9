"""From what a request wants produced to appended records: everything is resolved before the first append."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from qstash_clone.errors import BodyTooLarge, InvalidRequest, NotFound, StorageError
from qstash_clone.topics.interface import TopicGone, TopicStores
from qstash_clone.topics.partitioning import partition_of_key
from qstash_clone.topics.records import Appended, Record, Topic, TopicConfig, is_topic_name

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
        if not is_topic_name(name):
            raise InvalidRequest(f"topic: {name[:100]!r} is no name of a topic: use 1 to 249 of A-Z a-z 0-9 . _ -")
        topic = await self._stores.topics.get_topic(name)
        if topic is not None:
            return topic
        if not self._auto_create_topics:
            raise NotFound(f"topic {name} does not exist")
        return await self._stores.topics.create_topic(name, self._new_topic)

    async def produce(self, wanted: Sequence[ToProduce]) -> list[Produced]:
        """Append all; the answer is in the order of the request.

        Raises `InvalidRequest`, `NotFound`, `BodyTooLarge`, `QuotaExceeded` before anything was appended, and a
        `StorageError` that names the first record for which there is no confirmation: earlier ones may be stored, and
        it as well.
        """
        for at, one in enumerate(wanted):
            self._check_size(at, one.record)
        topics = {name: await self.find_topic(name) for name in dict.fromkeys(one.topic for one in wanted)}
        try:
            return await self._append(topics, wanted)
        except TopicGone:
            # Deleted between looking it up and the append, or known here from before it was created anew.
            topics = {name: await self.find_topic(name) for name in topics}
            return await self._append(topics, wanted)

    def _check_size(self, at: int, record: Record) -> None:
        size = size_bytes(record)
        if size > self._max_record_bytes:
            raise BodyTooLarge(
                f"message {at}: a record of {size} bytes is larger than the limit of {self._max_record_bytes}"
            )

    async def _append(self, topics: dict[str, Topic], wanted: Sequence[ToProduce]) -> list[Produced]:
        groups: dict[tuple[str, int], list[int]] = {}
        without_key: dict[str, int] = {}
        for at, one in enumerate(wanted):
            groups.setdefault((one.topic, self._partition(topics[one.topic], at, one, without_key)), []).append(at)
        appends = [
            asyncio.ensure_future(
                self._stores.topics.append(topics[name], partition, [wanted[at].record for at in members])
            )
            for (name, partition), members in groups.items()
        ]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        produced: dict[int, Produced] = {}
        failed: dict[int, BaseException] = {}
        for ((name, partition), members), outcome in zip(groups.items(), outcomes, strict=True):
            if isinstance(outcome, Appended):
                for at, offset, timestamp_ms in zip(members, outcome.offsets, outcome.timestamps_ms, strict=True):
                    produced[at] = Produced(name, partition, offset, timestamp_ms)
            else:
                failed[members[0]] = outcome
        if failed:
            first = min(failed)
            error = failed[first]
            if isinstance(error, TopicGone) and produced:
                # Trying again would append the others twice.
                error = StorageError("its topic was deleted meanwhile")
            if isinstance(error, StorageError) and len(wanted) > 1:
                raise type(error)(f"message {first} is not confirmed, others may be stored: {error}") from error
            raise error
        return [produced[at] for at in range(len(wanted))]

    def _partition(self, topic: Topic, at: int, one: ToProduce, without_key: dict[str, int]) -> int:
        count = topic.config.partitions
        if one.partition is not None:
            if not 0 <= one.partition < count:
                raise InvalidRequest(
                    f"message {at}: topic {topic.name} has the partitions 0 to {count - 1}, not {one.partition}"
                )
            return one.partition
        if one.record.key is not None:
            return partition_of_key(one.record.key, count)
        if topic.name not in without_key:
            without_key[topic.name] = self._next_partition % count
            self._next_partition += 1
        return without_key[topic.name]


def size_bytes(record: Record) -> int:
    """What Kafka would count of a record, at most."""
    size = _RECORD_BYTES + len(record.value or b"") + len(record.key or b"")
    return size + sum(_HEADER_BYTES + len(name.encode()) + len(value or b"") for name, value in record.headers)
