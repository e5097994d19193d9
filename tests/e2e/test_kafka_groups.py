"""Consumer groups over two api processes, which know of each other through the store alone."""

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.processes import System
from tests.support.raw_http import Answer
from tests.support.redis_server import RedisServer

CONSUME = "/consume/g/a/orders?timeout="
_numbers = itertools.count()
EARLIEST = [("Kafka-Auto-Offset-Reset", "earliest")]


@pytest.fixture
def two_apis(e2e_redis: RedisServer) -> Iterator[System]:
    """With a store of each test's own."""
    with System(settings_for(e2e_redis.url, key_namespace=f"kg{next(_numbers)}"), apis=2, workers=1) as system:
        yield system


@pytest.fixture
def clients(two_apis: System) -> list[Client]:
    return [Client(api.url, two_apis.settings) for api in two_apis.apis]


def values(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return [record["value"] for record in answer.json()]


async def produce(client: Client, *records: str) -> None:
    await client.send("POST", "/produce/orders", [{"value": record, "partition": 0} for record in records])


async def test_an_instance_goes_on_with_another_api(clients: list[Client]) -> None:
    first, second = clients
    await produce(first, "a", "b")
    assert values(await first.call("GET", f"{CONSUME}0", EARLIEST)) == ["a", "b"]
    await produce(second, "c")
    assert values(await second.call("GET", f"{CONSUME}0", EARLIEST)) == ["c"]
    assert values(await first.call("GET", f"{CONSUME}0", EARLIEST)) == []


async def test_a_record_of_one_api_ends_a_wait_at_the_other(clients: list[Client]) -> None:
    first, second = clients
    await produce(first, "a")
    await second.call("GET", f"{CONSUME}0", EARLIEST)
    waiting = asyncio.ensure_future(second.call("GET", f"{CONSUME}30000", EARLIEST))
    await produce(first, "b")
    assert values(await waiting) == ["b"]


async def test_a_killed_api_takes_nothing_along(two_apis: System, clients: list[Client]) -> None:
    first, second = clients
    await produce(first, "a")
    assert values(await first.call("GET", f"{CONSUME}0", EARLIEST)) == ["a"]
    await first.send("POST", "/commit/g/a")
    two_apis.apis[0].kill()
    (group,) = await second.send("GET", "/consumers")
    assert group["instances"] == [{"name": "a", "topics": [{"topic": "orders", "partitions": [0, 1, 2, 3]}]}]
    await produce(second, "b")
    assert values(await second.call("GET", f"{CONSUME}0", EARLIEST)) == ["b"]
    place = {"topic": "orders", "partition": 0}
    assert await second.send("POST", "/committed/g/a", place) == [{**place, "offset": 1}]
