"""Records of topics in Redis Streams: appended in groups, read, found by time, dropped when they are old."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from qstash_clone.errors import StorageError
from qstash_clone.observability import TOPIC_LOG_DAMAGED, emit
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.grouping import MAX_BYTES, Grouper
from qstash_clone.storage.partitions import lane_partition
from qstash_clone.storage.publish_store import member_error
from qstash_clone.storage.scripts import REPLAY_WINDOW_MS
from qstash_clone.storage.topic_catalogue import TopicCatalogue
from qstash_clone.storage.topic_codec import decode_record, encode_record
from qstash_clone.storage.topic_watch import Log, TopicWatch
from qstash_clone.topics.interface import ReadFrom, TopicGone
from qstash_clone.topics.records import Appended, Bounds, Record, Slice, Topic, TopicConfig

MAX_UNIT_RECORDS: Final = 500
"""Appended in one step: a millisecond or two of Redis's time."""
_TRIM_BYTES: Final = 1_048_576
_TRIM_TOGETHER: Final = 20
"""Redis reads the first record of each, and those may be large."""
_RECORD_BYTES: Final = 24
"""What storing a record weighs besides its bytes."""


class _Unit(msgspec.Struct, frozen=True):
    """Records of one log that one step appends."""

    topic: Topic
    arguments: tuple[Argument, ...]
    timestamps_ms: tuple[int | None, ...]
    weight: int


@lru_cache(maxsize=10_000)
def log_partition(topic: str, number: int, partitions: int) -> int:
    """The partition of the store in which a partition of a topic is; kept, because every append asks for it."""
    return lane_partition(f"t:{topic}:{number}", partitions)


class RedisTopicLog:
    """`TopicLog` on Redis."""

    def __init__(self, access: StoreAccess, catalogue: TopicCatalogue) -> None:
        self._access = access
        self._catalogue = catalogue
        self._producer = secrets.token_bytes(8)
        self._calls = 0
        self._watch = TopicWatch(self._ask_ends)
        self._groupers = [
            Grouper[_Unit, Appended](self._caller(partition), lambda unit: unit.weight)
            for partition in range(access.partitions)
        ]

    async def list_topics(self) -> list[Topic]:
        return await self._catalogue.list_topics()

    async def get_topic(self, name: str) -> Topic | None:
        return await self._catalogue.get_topic(name)

    async def create_topic(self, name: str, config: TopicConfig) -> Topic:
        return await self._catalogue.create_topic(name, config)

    async def change_topic(self, name: str, config: TopicConfig) -> Topic:
        return await self._catalogue.change_topic(name, config)

    async def delete_topic(self, name: str) -> bool:
        return await self._catalogue.delete_topic(name)

    def append(self, topic: Topic, partition: int, records: Sequence[Record]) -> Awaitable[Appended]:
        grouper = self._groupers[self._partition(topic, partition)]
        outcomes = [grouper.submit(unit) for unit in _units_of(topic, partition, records)]
        return self._appended(topic, outcomes)

    async def _appended(self, topic: Topic, outcomes: Sequence[Awaitable[Appended]]) -> Appended:
        try:
            if len(outcomes) == 1:
                return await outcomes[0]
            parts = await asyncio.gather(*outcomes)
        except TopicGone:
            await self._explain_gone(topic)
            raise
        return Appended(
            tuple(offset for part in parts for offset in part.offsets),
            tuple(timestamp_ms for part in parts for timestamp_ms in part.timestamps_ms),
        )

    async def _explain_gone(self, topic: Topic) -> None:
        """Raise `StorageError` if the topic is there, and what is missing is its log."""
        self._catalogue.forget(topic.name)
        found = await self._catalogue.get_topic(topic.name)
        if found is not None and found.generation == topic.generation:
            raise StorageError(f"The store has lost a log of topic {topic.name}.")

    def _caller(self, partition: int) -> Callable[[Sequence[_Unit]], Awaitable[Sequence[Appended | Exception]]]:
        keys = [self._access.keys[partition].meta]

        async def call(group: Sequence[_Unit]) -> list[Appended | Exception]:
            self._calls += 1
            args: list[Argument] = [
                STORAGE_VERSION,
                self._producer,
                self._calls.to_bytes(8, "big"),
                REPLAY_WINDOW_MS,
            ]
            for unit in group:
                args.extend(unit.arguments)
            reply, _ = await self._access.runner.run("append_records", keys, args)
            words: Iterator[bytes] = iter(reply[1:])
            return [self._result(unit, next(words)) for unit in group]

        return call

    def _result(self, unit: _Unit, word: bytes) -> Appended | Exception:
        if word == b"gone":
            return TopicGone(f"topic {unit.topic.name} does not exist any more")
        if not word.startswith(b"appended "):
            return member_error(word)
        _, first, time_ms = word.split(b" ")
        first_offset, count = int(first), len(unit.timestamps_ms)
        self._watch.reached((unit.topic.name, int(unit.arguments[1])), first_offset + count)
        appended_ms = int(time_ms)
        return Appended(
            tuple(range(first_offset, first_offset + count)),
            tuple(appended_ms if given is None else given for given in unit.timestamps_ms),
        )

    async def read(self, wanted: Sequence[ReadFrom], *, max_records: int, max_bytes: int) -> list[Slice | None]:
        found: dict[int, Slice | None] = {}
        logs_left = len(wanted)
        for partition, places in self._by_partition([(one.topic, one.partition) for one in wanted]).items():
            # Those that are read later get their share too; what they leave is for the next call.
            most_records, most_bytes = (
                -(-max(0, left) * len(places) // logs_left) for left in (max_records, max_bytes)
            )
            logs_left -= len(places)
            args: list[Argument] = [STORAGE_VERSION, most_records, most_bytes]
            for at in places:
                one = wanted[at]
                args += (one.topic.name, one.partition, one.topic.generation, one.offset)
            reply, _ = await self._access.runner.run("read_records", [self._access.keys[partition].meta], args)
            for at, log in zip(places, reply[1:], strict=True):
                if len(log) == 1:
                    raise member_error(log[0])
                found[at] = _slice_of(log)
                if not log:
                    await self._explain_gone(wanted[at].topic)
                else:
                    max_records -= len(log[3])
                    max_bytes -= sum(map(len, log[3]))
        return [found[at] for at in range(len(wanted))]

    async def read_bounds(self, partitions: Sequence[tuple[Topic, int]]) -> list[Bounds | None]:
        slices = await self.read(
            [ReadFrom(topic, number, 0) for topic, number in partitions], max_records=0, max_bytes=0
        )
        return [None if one is None else one.bounds for one in slices]

    async def find_offset(self, topic: Topic, partition: int, timestamp_ms: int) -> int:
        keys = [self._access.keys[self._partition(topic, partition)].meta]
        from_offset = -1
        while True:
            args: list[Argument] = [STORAGE_VERSION, topic.name, partition, topic.generation, timestamp_ms, from_offset]
            reply, _ = await self._access.runner.run("find_offset", keys, args)
            match reply[1:]:
                case [b"found", offset]:
                    return int(offset)
                case [b"more", offset]:
                    from_offset = int(offset)
                case _:
                    await self._explain_gone(topic)
                    raise TopicGone(f"topic {topic.name} does not exist any more")

    async def wait_for_records(self, wanted: Sequence[ReadFrom], timeout_s: float) -> None:
        await self._watch.wait([((one.topic.name, one.partition), one.offset) for one in wanted], timeout_s)

    async def trim(self, wanted: Sequence[tuple[Topic, int]]) -> tuple[int, list[tuple[Topic, int]]]:
        """Drop old records of these partitions. Returns how many were dropped, and which may have more."""
        dropped = 0
        unfinished: list[tuple[Topic, int]] = []
        for partition, places in self._by_partition(wanted).items():
            for begin in range(0, len(places), _TRIM_TOGETHER):
                some = places[begin : begin + _TRIM_TOGETHER]
                args: list[Argument] = [STORAGE_VERSION, _TRIM_BYTES]
                for at in some:
                    topic, number = wanted[at]
                    config = topic.config
                    args += (topic.name, number, topic.generation, config.retention_ms, config.retention_bytes)
                reply, _ = await self._access.runner.run("trim_topic_logs", [self._access.keys[partition].meta], args)
                dropped += reply[1]
                unfinished += [wanted[some[place]] for place in reply[2]]
                for problem in reply[3:]:
                    emit(TOPIC_LOG_DAMAGED, level=logging.ERROR, error=problem.decode(errors="replace"))
        return dropped, unfinished

    async def _ask_ends(self, logs: Sequence[Log]) -> list[int | None]:
        commands: list[Sequence[Argument]] = []
        for topic, number in logs:
            keys = self._access.keys[log_partition(topic, number, self._access.partitions)]
            commands.append(("HGET", keys.topic_state(topic, number), "n"))
        ends: list[Any] = await self._access.commands.ask_all(commands)
        return [None if end is None else int(end) for end in ends]

    def _partition(self, topic: Topic, number: int) -> int:
        return log_partition(topic.name, number, self._access.partitions)

    def _by_partition(self, logs: Sequence[tuple[Topic, int]]) -> dict[int, list[int]]:
        """The places of logs, for each partition of the store."""
        places: dict[int, list[int]] = {}
        for at, (topic, number) in enumerate(logs):
            places.setdefault(self._partition(topic, number), []).append(at)
        return places


def _units_of(topic: Topic, partition: int, records: Sequence[Record]) -> list[_Unit]:
    is_own_time = topic.config.timestamp_type == "create"
    units: list[_Unit] = []
    arguments: list[Argument] = []
    timestamps_ms: list[int | None] = []
    weight = 0

    def end_unit() -> None:
        nonlocal weight
        head = (topic.name, partition, topic.generation, len(timestamps_ms))
        units.append(_Unit(topic, (*head, *arguments), tuple(timestamps_ms), weight))
        arguments.clear()
        timestamps_ms.clear()
        weight = 0

    for record in records:
        encoded = encode_record(record)
        if timestamps_ms and (len(timestamps_ms) >= MAX_UNIT_RECORDS or weight + len(encoded) > MAX_BYTES):
            end_unit()
        timestamp_ms = record.timestamp_ms if is_own_time else None
        arguments += ("" if timestamp_ms is None else timestamp_ms, encoded)
        timestamps_ms.append(timestamp_ms)
        weight += len(encoded) + _RECORD_BYTES
    end_unit()
    return units


def _slice_of(log: Sequence[Any]) -> Slice | None:
    if not log:
        return None
    start, end, first_offset, records = log
    decoded = tuple(decode_record(first_offset + place, record) for place, record in enumerate(records))
    return Slice(decoded, Bounds(start, end))
