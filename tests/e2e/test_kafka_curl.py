"""The examples of Upstash's Kafka REST API with the only client they need; collected where there is a curl."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qstash_clone.storage.store import Store, open_store
from qstash_clone.topics.interface import ReadFrom
from qstash_clone.topics.partitioning import partition_of_key
from qstash_clone.topics.records import StoredRecord
from tests.support.processes import System

ONE_VALUE = """
{
    "value": "hello_kafka"
}"""
ONE_WITH_EVERYTHING = """
{
    "partition": 1,
    "key": "city",
    "value": "Istanbul",
    "headers": [ { "key": "expire", "value": "1637745834" } ]
}"""
THREE_VALUES = """
[
    { "value": "hello_kafka" },
    { "value": "hello_queue" },
    { "value": "hello_redis" }
]"""
THREE_WITH_TIMES_AND_A_TRAILING_COMMA = """
[
    {
        "partition": 1, "timestamp": 1637745834000, "key": "city", "value": "Istanbul",
        "headers": [ { "key": "expire", "value": "1637745834" } ]
    },
    { "partition": 2, "timestamp": 1637745835000, "key": "city", "value": "London" },
    { "partition": 3, "timestamp": 1637745836000, "key": "city", "value": "Tokyo" },
]"""
ONE_WITH_TOPIC = """
{
    "topic": "greetings",
    "value": "hello_kafka"
}"""
THREE_WITH_TOPIC = """
[
    { "topic": "greetings", "value": "hello_kafka" },
    { "topic": "greetings", "value": "hello_queue" },
    { "topic": "greetings", "value": "hello_redis" }
]"""
FIVE_OVER_TWO_TOPICS_AND_A_TRAILING_COMMA = """
[
    { "topic": "greetings", "value": "hello_world" },
    { "topic": "greetings", "value": "hello_kafka" },
    {
        "topic": "cities", "partition": 1, "key": "city", "value": "Istanbul",
        "headers": [ { "key": "expire", "value": "1637745834" } ]
    },
    { "topic": "cities", "partition": 2, "key": "city", "value": "London" },
    { "topic": "cities", "partition": 3, "key": "city", "value": "Tokyo" },
]"""
METHODS = pytest.mark.parametrize("method", [(), ("-X", "GET")], ids=["POST", "GET"])


@pytest.fixture
async def store(system: System) -> AsyncIterator[Store]:
    """What the system writes to."""
    store = await open_store(system.settings)
    yield store
    await store.aclose()


async def curl(system: System, path: str, *arguments: str) -> Any:
    """The answer, which must be a success in JSON."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", f"{system.url}{path}", "-u", f"anybody:{system.settings.token}", *arguments,
        "-w", "\n%{http_code} %{content_type}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    body, _, told = out.decode().rpartition("\n")
    assert told == "200 application/json; charset=utf-8", body
    return json.loads(body)


async def produced(system: System, store: Store, path: str, body: str, *method: str) -> list[tuple[Any, StoredRecord]]:
    """Where each message went, and what is stored there."""
    answer: list[dict[str, Any]] = await curl(system, path, *method, "-d", body)
    return [(one, await stored(store, one)) for one in answer]


async def stored(store: Store, metadata: dict[str, Any]) -> StoredRecord:
    """The record that an answer tells the place of."""
    assert list(metadata) == ["topic", "partition", "offset", "timestamp"]
    topic = await store.topics.get_topic(metadata["topic"])
    assert topic is not None
    wanted = [ReadFrom(topic, metadata["partition"], metadata["offset"])]
    [found] = await store.topics.read(wanted, max_records=1, max_bytes=1)
    assert found is not None
    [record] = found.records
    assert (record.offset, record.timestamp_ms) == (metadata["offset"], metadata["timestamp"])
    return record


def values(found: list[tuple[Any, StoredRecord]]) -> list[bytes | None]:
    return [record.value for _, record in found]


async def test_a_message_in_the_path(system: System, store: Store) -> None:
    metadata = await curl(system, "/produce/greetings/hello_kafka")
    assert metadata["topic"] == "greetings"
    record = await stored(store, metadata)
    assert (record.key, record.value, record.headers) == (None, b"hello_kafka", ())


async def test_a_key_in_the_query(system: System, store: Store) -> None:
    metadata = await curl(system, "/produce/cities/Istanbul?key=city")
    assert metadata["topic"] == "cities"
    assert metadata["partition"] == partition_of_key(b"city", 4) == 3
    record = await stored(store, metadata)
    assert (record.key, record.value) == (b"city", b"Istanbul")


@METHODS
async def test_one_message_to_a_topic(system: System, store: Store, method: tuple[str, ...]) -> None:
    [(metadata, record)] = await produced(system, store, "/produce/greetings", ONE_VALUE, *method)
    assert metadata["topic"] == "greetings"
    assert (record.key, record.value, record.headers) == (None, b"hello_kafka", ())


@METHODS
async def test_one_message_with_everything(system: System, store: Store, method: tuple[str, ...]) -> None:
    [(metadata, record)] = await produced(system, store, "/produce/cities", ONE_WITH_EVERYTHING, *method)
    assert (metadata["topic"], metadata["partition"]) == ("cities", 1)
    assert (record.key, record.value, record.headers) == (b"city", b"Istanbul", (("expire", b"1637745834"),))


@METHODS
async def test_three_messages_to_a_topic(system: System, store: Store, method: tuple[str, ...]) -> None:
    found = await produced(system, store, "/produce/greetings", THREE_VALUES, *method)
    assert values(found) == [b"hello_kafka", b"hello_queue", b"hello_redis"]
    assert len({metadata["partition"] for metadata, _ in found}) == 1
    first = found[0][0]["offset"]
    assert [metadata["offset"] for metadata, _ in found] == [first, first + 1, first + 2]


@METHODS
async def test_three_messages_with_times_and_a_trailing_comma(
    system: System, store: Store, method: tuple[str, ...]
) -> None:
    found = await produced(system, store, "/produce/cities", THREE_WITH_TIMES_AND_A_TRAILING_COMMA, *method)
    assert values(found) == [b"Istanbul", b"London", b"Tokyo"]
    places = [(metadata["partition"], metadata["timestamp"]) for metadata, _ in found]
    assert places == [(1, 1637745834000), (2, 1637745835000), (3, 1637745836000)]
    assert [record.headers for _, record in found] == [(("expire", b"1637745834"),), (), ()]
    assert {record.key for _, record in found} == {b"city"}


@METHODS
async def test_one_message_that_names_its_topic(system: System, store: Store, method: tuple[str, ...]) -> None:
    [(metadata, record)] = await produced(system, store, "/produce", ONE_WITH_TOPIC, *method)
    assert (metadata["topic"], record.value) == ("greetings", b"hello_kafka")


@METHODS
async def test_three_messages_that_name_their_topic(system: System, store: Store, method: tuple[str, ...]) -> None:
    found = await produced(system, store, "/produce", THREE_WITH_TOPIC, *method)
    assert values(found) == [b"hello_kafka", b"hello_queue", b"hello_redis"]
    assert [metadata["topic"] for metadata, _ in found] == ["greetings"] * 3


@METHODS
async def test_five_messages_over_two_topics_and_a_trailing_comma(
    system: System, store: Store, method: tuple[str, ...]
) -> None:
    found = await produced(system, store, "/produce", FIVE_OVER_TWO_TOPICS_AND_A_TRAILING_COMMA, *method)
    assert values(found) == [b"hello_world", b"hello_kafka", b"Istanbul", b"London", b"Tokyo"]
    assert [metadata["topic"] for metadata, _ in found] == ["greetings"] * 2 + ["cities"] * 3
    assert [metadata["partition"] for metadata, _ in found][2:] == [1, 2, 3]
    assert found[2][1].headers == (("expire", b"1637745834"),)


async def test_a_webhook(system: System, store: Store) -> None:
    [metadata] = await curl(
        system, "/webhook?topic=greetings", "-H", "X-Event: push", "-H", "Content-Type: text/plain", "-d", "{not json,}"
    )
    record = await stored(store, metadata)
    assert (record.key, record.value) == (None, b"{not json,}")
    # The tap before the api adds nothing.
    assert record.headers == (("x-event", b"push"),)
