"""The examples of Upstash's Kafka REST API with the only client they need; collected where there is a curl."""

import asyncio
import json
from typing import Any

import pytest

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
EXPIRE = [{"key": "expire", "value": "1637745834"}]
METHODS = pytest.mark.parametrize("method", [(), ("-X", "GET")], ids=["POST", "GET"])


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


async def fetched(system: System, metadata: dict[str, Any]) -> dict[str, Any]:
    """What comes back from the place that an answer tells."""
    assert list(metadata) == ["topic", "partition", "offset", "timestamp"]
    wanted = {name: metadata[name] for name in ("topic", "partition", "offset")}
    record: dict[str, Any] = (await curl(system, "/fetch", "-d", json.dumps(wanted)))[0]
    assert {name: record[name] for name in metadata} == metadata
    return record


async def produced(system: System, path: str, body: str, *method: str) -> list[dict[str, Any]]:
    """What a request has stored."""
    answer: list[dict[str, Any]] = await curl(system, path, *method, "-d", body)
    return [await fetched(system, metadata) for metadata in answer]


def content(record: dict[str, Any]) -> tuple[str, str, list[dict[str, str]]]:
    return record["key"], record["value"], record["headers"]


def all_of(name: str, records: list[dict[str, Any]]) -> list[Any]:
    return [record[name] for record in records]


async def test_a_message_in_the_path(system: System) -> None:
    record = await fetched(system, await curl(system, "/produce/greetings/hello_kafka"))
    assert record["topic"] == "greetings"
    assert content(record) == ("", "hello_kafka", [])


async def test_a_key_in_the_query(system: System) -> None:
    record = await fetched(system, await curl(system, "/produce/cities/Istanbul?key=city"))
    assert (record["topic"], record["partition"]) == ("cities", 3)
    assert content(record) == ("city", "Istanbul", [])


@METHODS
async def test_one_message_to_a_topic(system: System, method: tuple[str, ...]) -> None:
    [record] = await produced(system, "/produce/greetings", ONE_VALUE, *method)
    assert record["topic"] == "greetings"
    assert content(record) == ("", "hello_kafka", [])


@METHODS
async def test_one_message_with_everything(system: System, method: tuple[str, ...]) -> None:
    [record] = await produced(system, "/produce/cities", ONE_WITH_EVERYTHING, *method)
    assert (record["topic"], record["partition"]) == ("cities", 1)
    assert content(record) == ("city", "Istanbul", EXPIRE)


@METHODS
async def test_three_messages_to_a_topic(system: System, method: tuple[str, ...]) -> None:
    records = await produced(system, "/produce/greetings", THREE_VALUES, *method)
    assert all_of("value", records) == ["hello_kafka", "hello_queue", "hello_redis"]
    assert len(set(all_of("partition", records))) == 1
    first = records[0]["offset"]
    assert all_of("offset", records) == [first, first + 1, first + 2]


@METHODS
async def test_three_messages_with_times_and_a_trailing_comma(system: System, method: tuple[str, ...]) -> None:
    records = await produced(system, "/produce/cities", THREE_WITH_TIMES_AND_A_TRAILING_COMMA, *method)
    assert all_of("partition", records) == [1, 2, 3]
    assert all_of("timestamp", records) == [1637745834000, 1637745835000, 1637745836000]
    assert [content(record) for record in records] == [
        ("city", "Istanbul", EXPIRE),
        ("city", "London", []),
        ("city", "Tokyo", []),
    ]


@METHODS
async def test_one_message_that_names_its_topic(system: System, method: tuple[str, ...]) -> None:
    [record] = await produced(system, "/produce", ONE_WITH_TOPIC, *method)
    assert (record["topic"], record["value"]) == ("greetings", "hello_kafka")


@METHODS
async def test_three_messages_that_name_their_topic(system: System, method: tuple[str, ...]) -> None:
    records = await produced(system, "/produce", THREE_WITH_TOPIC, *method)
    assert all_of("value", records) == ["hello_kafka", "hello_queue", "hello_redis"]
    assert all_of("topic", records) == ["greetings"] * 3


@METHODS
async def test_five_messages_over_two_topics_and_a_trailing_comma(system: System, method: tuple[str, ...]) -> None:
    records = await produced(system, "/produce", FIVE_OVER_TWO_TOPICS_AND_A_TRAILING_COMMA, *method)
    assert all_of("value", records) == ["hello_world", "hello_kafka", "Istanbul", "London", "Tokyo"]
    assert all_of("topic", records) == ["greetings"] * 2 + ["cities"] * 3
    assert all_of("partition", records)[2:] == [1, 2, 3]
    assert all_of("headers", records) == [[], [], EXPIRE, [], []]


async def test_a_webhook(system: System) -> None:
    [metadata] = await curl(
        system, "/webhook?topic=greetings", "-H", "X-Event: push", "-H", "Content-Type: text/plain", "-d", "{not json,}"
    )
    # The tap before the api adds nothing.
    assert content(await fetched(system, metadata)) == ("", "{not json,}", [{"key": "x-event", "value": "push"}])
