"""The official Python SDK, unchanged, against this service."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from qstash import AsyncQStash, QStash
from qstash.errors import QStashError

from tests.conftest import CURRENT_KEY, NEXT_KEY
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import ReceivedRequest, Receiver

Signed = Callable[[ReceivedRequest], dict[str, object]]


@pytest.fixture
def qstash(system: System) -> Iterator[QStash]:
    client = QStash(system.settings.token, base_url=system.url)
    yield client
    client.http._client.close()  # pyright: ignore[reportPrivateUsage]  (there is no public way)


@asynccontextmanager
async def connected(system: System, token: str) -> AsyncGenerator[AsyncQStash]:
    client = AsyncQStash(token, base_url=system.url)
    yield client
    await client.http._client.aclose()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
async def async_qstash(system: System) -> AsyncIterator[AsyncQStash]:
    async with connected(system, system.settings.token) as client:
        yield client


async def test_publish_json(qstash: QStash, receiver: Receiver, signed: Signed) -> None:
    result = await asyncio.to_thread(
        qstash.message.publish_json,
        url=f"{receiver.url}/json?a=b",
        body={"hello": "world"},
        headers={"test-header": "test-value"},
        method="PUT",
        retries=2,
        timeout=90,
        label="from-python",
    )
    (request,) = await receiver.wait_for(1)
    signed(request)
    assert (request.method, request.target, request.body) == ("PUT", "/json?a=b", b'{"hello": "world"}')
    assert request.values("Content-Type") == ["application/json"]
    assert request.values("Test-Header") == ["test-value"]
    assert not isinstance(result, list)
    message = await asyncio.to_thread(qstash.message.get, result.message_id)
    assert message.url == f"{receiver.url}/json?a=b"
    assert message.body == '{"hello": "world"}'
    assert message.max_retries == 2
    assert message.label == "from-python"
    assert message.headers == {"Content-Type": ["application/json"], "Test-Header": ["test-value"]}


async def test_publish_raw(qstash: QStash, receiver: Receiver, signed: Signed) -> None:
    await asyncio.to_thread(
        qstash.message.publish, url=f"{receiver.url}/raw", body="plain", content_type="text/plain", method="GET"
    )
    (request,) = await receiver.wait_for(1)
    signed(request)
    assert (request.method, request.body) == ("GET", b"plain")


async def test_the_asynchronous_client(async_qstash: AsyncQStash, receiver: Receiver, signed: Signed) -> None:
    results = await asyncio.gather(
        *(async_qstash.message.publish_json(url=f"{receiver.url}/{n}", body={"n": n}) for n in range(20))
    )
    for request in await receiver.wait_for(20):
        signed(request)
    assert {request.header("Upstash-Message-Id") for request in receiver.requests} == {
        result.message_id for result in results if not isinstance(result, list)
    }


async def test_delay_and_cancel(async_qstash: AsyncQStash, receiver: Receiver) -> None:
    result = await async_qstash.message.publish_json(
        url=receiver.url, body={}, delay="10d", retry_delay="7000 * retried"
    )
    assert not isinstance(result, list)
    message = await async_qstash.message.get(result.message_id)
    assert message.not_before == message.created_at + 10 * 24 * 3600 * 1000
    assert message.retry_delay_expression == "7000 * retried"
    await async_qstash.message.cancel(result.message_id)
    with pytest.raises(QStashError, match="not found"):
        await async_qstash.message.get(result.message_id)


async def test_dead_letters(async_qstash: AsyncQStash, receiver: Receiver) -> None:
    receiver.respond(404, body=b"404 Not Found")
    result = await async_qstash.message.publish_json(url=receiver.url, body={}, retries=0, retry_delay="7000 * retried")
    assert not isinstance(result, list)

    async def dlq_id() -> str | None:
        cursor = None
        while True:
            page = await async_qstash.dlq.list(cursor=cursor)
            for letter in page.messages:
                if letter.message_id == result.message_id:
                    return letter.dlq_id
            cursor = page.cursor
            if cursor is None:
                return None

    found = await eventually(dlq_id)
    assert found is not None
    letter = await async_qstash.dlq.get(found)
    assert letter.response_status == 404
    assert letter.response_body == "404 Not Found"
    assert letter.retry_delay_expression == "7000 * retried"
    await async_qstash.dlq.delete(found)
    with pytest.raises(QStashError, match="not found"):
        await async_qstash.dlq.get(found)


async def test_signing_keys(async_qstash: AsyncQStash) -> None:
    keys = await async_qstash.signing_key.get()
    assert (keys.current, keys.next) == (CURRENT_KEY, NEXT_KEY)


async def test_errors_of_the_service_reach_the_caller(
    system: System, async_qstash: AsyncQStash, receiver: Receiver
) -> None:
    async with connected(system, "wrong") as intruder:
        with pytest.raises(QStashError, match="401"):
            await intruder.message.publish(url=receiver.url)
    with pytest.raises(QStashError, match="topic no-group not found"):
        await async_qstash.message.publish(url_group="no-group")
