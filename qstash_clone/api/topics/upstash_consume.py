"""Upstash's Kafka REST API: fetch, consumer groups and offsets; see docs/protocol/kafka-upstash-consume.md."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from qstash_clone.api.topics.calls import Answer, Call, json_answer
from qstash_clone.api.topics.credentials import Right
from qstash_clone.api.topics.queries import decode, first_value
from qstash_clone.api.topics.table import TopicRow
from qstash_clone.api.topics.upstash import UpstashApi
from qstash_clone.api.topics.upstash_places import (
    DEFAULT_LOOKUP_TIMEOUT_MS,
    DEFAULT_READ_TIMEOUT_MS,
    check_name,
    check_topic_name,
    parse_consume,
    parse_fetch,
    parse_offsets,
    parse_places,
    parse_settings,
    parse_timeout,
    parse_when,
)
from qstash_clone.errors import StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.topics.consuming import ConsumeCall, Consumer
from qstash_clone.topics.interface import TopicStores
from qstash_clone.topics.reading import Found, Reader, TopicOffset

_MAX_BODY_BYTES: Final = 1024 * 1024
_LEAST_PATIENCE_MS: Final = 1_000
"""Looking something up is not given up earlier: there is nothing to wait for but the store."""
_SUCCESS: Final = json_answer({"result": "Success", "status": 200})
_T = TypeVar("_T")


class _Header(msgspec.Struct):
    key: str
    value: str


class _Message(msgspec.Struct):
    """What is read of a record; a key or value that is missing looks like one that is empty."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: str
    value: str
    headers: list[_Header]


class _Offset(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class UpstashConsume:
    """The routes that read."""

    def __init__(self, settings: Settings, stores: TopicStores, upstash: UpstashApi) -> None:
        self._upstash = upstash
        self._max_wait_ms = settings.max_read_wait_ms
        self._reader = Reader(stores, max_records=settings.max_read_records, max_bytes=settings.max_read_bytes)
        self._consumer = Consumer(stores, self._reader)

    def rows(self) -> list[TopicRow]:
        """For the table."""
        api = self._upstash.api
        return [
            TopicRow("GET POST", "/fetch", self.fetch, api, "fetch"),
            TopicRow("GET POST", "/consume/{group}/{instance}/{topic}", self.consume_topic, api, "consume"),
            TopicRow("GET POST", "/consume/{group}/{instance}", self.consume, api, "consume"),
            TopicRow("GET POST", "/commit/{group}/{instance}", self.commit, api, "commit"),
            TopicRow("POST DELETE", "/delete-consumer/{group}/{instance}", self.delete, api, "delete_consumer"),
            TopicRow("GET", "/consumers", self.consumers, api, "consumers"),
            TopicRow("GET POST", "/committed/{group}/{instance}", self.committed, api, "committed"),
            TopicRow("GET POST", "/offsets/{when}", self.offsets, api, "offsets"),
        ]

    async def fetch(self, call: Call) -> Answer:
        """Records from the offsets that the body names, without a group."""
        wanted, timeout_ms = parse_fetch(await call.decoded_body(_MAX_BODY_BYTES))
        for topic in {one.topic for one in wanted}:
            call.grant.check(Right.READ, topic)
        async with _departure(call) as departed:
            found = await self._reader.fetch(wanted, min(timeout_ms, self._max_wait_ms), departed)
        return _messages(found)

    async def consume_topic(self, call: Call) -> Answer:
        """The next records of one topic, named by the path; whatever the body is."""
        group, instance, raw_topic = call.segments
        topic = decode(raw_topic, "topic")
        check_topic_name(topic)
        timeout_ms = parse_timeout(first_value(call.head.query, "timeout"), DEFAULT_READ_TIMEOUT_MS)
        return await self._consume(call, group, instance, (topic,), timeout_ms)

    async def consume(self, call: Call) -> Answer:
        """The next records of the topics that the body names."""
        group, instance = call.segments
        topics, timeout_ms = parse_consume(await call.decoded_body(_MAX_BODY_BYTES))
        return await self._consume(call, group, instance, topics, timeout_ms)

    async def _consume(
        self, call: Call, raw_group: str, raw_instance: str, topics: tuple[str, ...], timeout_ms: int
    ) -> Answer:
        group, instance = _names(raw_group, raw_instance)
        settings = parse_settings(call.head.first)
        for topic in topics:
            call.grant.check(Right.CONSUME, topic)
        wanted = ConsumeCall(
            group=group,
            instance=instance,
            topics=topics,
            settings=settings,
            timeout_ms=min(timeout_ms, self._max_wait_ms),
        )
        async with _departure(call) as departed:
            found = await self._consumer.consume(wanted, departed)
        return _messages(found)

    async def commit(self, call: Call) -> Answer:
        """The offsets that the body names, or all that was handed out to the instance."""
        group, instance = _names(*call.segments)
        offsets = parse_offsets(await call.decoded_body(_MAX_BODY_BYTES))
        call.grant.check(Right.CONSUME)
        await self._consumer.commit(group, instance, offsets, partial(call.grant.check, Right.CONSUME))
        return _SUCCESS

    async def delete(self, call: Call) -> Answer:
        """Close an instance."""
        group, instance = _names(*call.segments)
        call.grant.check(Right.CONSUME)
        await self._consumer.delete(group, instance, partial(call.grant.check, Right.CONSUME))
        return _SUCCESS

    async def consumers(self, call: Call) -> Answer:
        """The live instances of all groups, as far as they subscribe to topics that the credential is for."""
        call.grant.check(Right.READ)
        groups: dict[str, list[dict[str, object]]] = {}
        for member in await self._consumer.list_members():
            if any(map(call.grant.covers, member.topics)):
                topics = [
                    {"topic": topic, "partitions": partitions}
                    for topic, partitions in member.owned.items()
                    if call.grant.covers(topic)
                ]
                groups.setdefault(member.group, []).append({"name": member.name, "topics": topics})
        return json_answer([{"name": name, "instances": instances} for name, instances in groups.items()])

    async def committed(self, call: Call) -> Answer:
        """What a group has committed for the partitions that the body names."""
        group, instance = _names(*call.segments)
        timeout_ms = parse_timeout(first_value(call.head.query, "timeout"), DEFAULT_LOOKUP_TIMEOUT_MS)
        places = parse_places(await call.decoded_body(_MAX_BODY_BYTES))
        for topic in {place.topic for place in places}:
            call.grant.check(Right.READ, topic)
        return _offsets(await self._within(timeout_ms, self._consumer.committed(group, instance, places)))

    async def offsets(self, call: Call) -> Answer:
        """First or next offsets of partitions, or those from a time on."""
        when = parse_when(decode(call.segments[0], "offsets"))
        timeout_ms = parse_timeout(first_value(call.head.query, "timeout"), DEFAULT_LOOKUP_TIMEOUT_MS)
        places = parse_places(await call.decoded_body(_MAX_BODY_BYTES))
        for topic in {place.topic for place in places}:
            call.grant.check(Right.READ, topic)
        return _offsets(await self._within(timeout_ms, self._reader.find_offsets(when, places)))

    async def _within(self, timeout_ms: int, looking: Coroutine[Any, Any, _T]) -> _T:
        """What is looked up, unless the store takes longer."""
        patience_ms = max(_LEAST_PATIENCE_MS, min(timeout_ms, self._max_wait_ms))
        task = asyncio.ensure_future(looking)
        try:
            await asyncio.wait((task,), timeout=patience_ms / 1000)
            if not task.done():
                raise StorageUnavailable(f"The store did not answer within {patience_ms} ms.")
            return task.result()
        finally:
            task.cancel()


@asynccontextmanager
async def _departure(call: Call) -> AsyncGenerator[asyncio.Event]:
    """An event that is set when the client ends its side of the connection: it must not be handed any records then."""
    departed = asyncio.Event()

    async def watch() -> None:
        while (await call.receive())["type"] != "http.disconnect":
            pass
        departed.set()

    watching = asyncio.ensure_future(watch())
    try:
        yield departed
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _names(raw_group: str, raw_instance: str) -> tuple[str, str]:
    group, instance = decode(raw_group, "group"), decode(raw_instance, "instance")
    check_name(group, "group")
    check_name(instance, "instance")
    return group, instance


def _messages(found: Iterable[Found]) -> Answer:
    return json_answer(
        [
            _Message(
                topic,
                partition,
                record.offset,
                record.timestamp_ms,
                _text(record.key),
                _text(record.value),
                [_Header(name, _text(value)) for name, value in record.headers],
            )
            for (topic, partition), record in found
        ]
    )


def _text(stored: bytes | None) -> str:
    return "" if stored is None else stored.decode("utf-8", "replace")


def _offsets(offsets: Iterable[TopicOffset]) -> Answer:
    return json_answer([_Offset(*one) for one in offsets])
