"""The official Python SDK, synchronous and asynchronous: queues, batches, flow control, URL groups and schedules."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import pytest
from qstash import AsyncQStash, QStash
from qstash.errors import QStashError
from qstash.log import LogState
from qstash.message import BatchResponse, EnqueueResponse, FlowControlProperties
from qstash.url_group import Endpoint

from tests.e2e.conftest import connected
from tests.support.eventually import eventually
from tests.support.gates import Gates
from tests.support.processes import System
from tests.support.receiver import ReceivedRequest, Receiver

Signed = Callable[[ReceivedRequest], dict[str, object]]
T = TypeVar("T")


class InThreads:
    """An object whose methods are awaited while they run in a thread: a synchronous client as an asynchronous one."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found: Any = getattr(self._target, name)
        if not callable(found):
            return InThreads(found)

        def call(*arguments: Any, **options: Any) -> Awaitable[Any]:
            return asyncio.to_thread(found, *arguments, **options)

        return call


@pytest.fixture(params=["asynchronous", "synchronous"])
async def qstash(system: System, request: pytest.FixtureRequest) -> AsyncIterator[AsyncQStash]:
    if request.param == "asynchronous":
        async with connected(system.url, system.settings.token) as client:
            yield client
    else:
        client = QStash(system.settings.token, base_url=system.url)
        yield cast(AsyncQStash, InThreads(client))
        client.http._client.close()  # pyright: ignore[reportPrivateUsage]  (there is no public way)


def one(result: T | list[Any]) -> T:
    """What is not the answer of a URL group."""
    assert not isinstance(result, list)
    return result


async def delivered(qstash: AsyncQStash, message_id: str) -> None:
    async def has_ended() -> bool:
        page = await qstash.log.list(filter={"message_id": message_id, "state": LogState.DELIVERED})
        return len(page.logs) == 1

    await eventually(has_ended)


async def test_queues(qstash: AsyncQStash, receiver: Receiver, gates: Gates, signed: Signed) -> None:
    name = f"python-{receiver.port}"
    await qstash.queue.upsert(name)
    created = await qstash.queue.get(name)
    assert (created.name, created.parallelism, created.lag, created.paused) == (name, 1, 0, False)
    await qstash.queue.upsert(name, parallelism=2, paused=True)
    updated = await qstash.queue.get(name)
    assert (updated.parallelism, updated.paused, updated.created_at) == (2, True, created.created_at)
    assert name in [queue.name for queue in await qstash.queue.list()]

    first = one(
        await qstash.message.enqueue_json(
            queue=name, url=f"{receiver.url}/1", body={"n": 1}, deduplication_id=name, label="enqueued", retries=1
        )
    )
    again = one(await qstash.message.enqueue_json(queue=name, url=receiver.url, body={}, deduplication_id=name))
    assert again == EnqueueResponse(message_id=first.message_id, deduplicated=True)
    for number in (2, 3):
        await qstash.message.enqueue(queue=name, url=f"{receiver.url}/{number}", body="plain", method="PUT")
    message = await qstash.message.get(first.message_id)
    assert (message.queue, message.label, message.max_retries) == (name, "enqueued", 1)
    assert (await qstash.queue.get(name)).lag == 3
    assert receiver.requests == []

    await qstash.queue.resume(name)
    await gates.wait_for(2)
    await qstash.queue.pause(name)
    assert (await qstash.queue.get(name)).paused
    gates.open("/1", "/2")
    await delivered(qstash, first.message_id)
    assert sorted(gates.paths) == ["/1", "/2"]
    await qstash.queue.upsert(name, parallelism=1)
    assert await gates.wait_for(3)
    assert not (await qstash.queue.get(name)).paused, "the SDK always sends paused"
    signed(receiver.requests[0])
    gates.open("/3")
    page = await qstash.log.list(filter={"queue": name, "state": LogState.CREATED})
    assert [log.queue for log in page.logs] == [name] * 3
    await qstash.queue.delete(name)
    with pytest.raises(QStashError, match="not found"):
        await qstash.queue.get(name)
    assert name not in [queue.name for queue in await qstash.queue.list()]
    await qstash.queue.delete(name)


async def test_batches(qstash: AsyncQStash, receiver: Receiver, signed: Signed) -> None:
    queue = f"python-batch-{receiver.port}"
    flow_control: Any = {"key": queue, "rate": 100, "period": "1h30m3s"}
    results = await qstash.message.batch(
        [
            {"url": f"{receiver.url}/plain", "body": "body", "headers": {"x-mine": "1"}, "method": "PUT"},
            {"url": f"{receiver.url}/empty", "queue": queue, "deduplication_id": queue},
            {"url": f"{receiver.url}/repeat", "deduplication_id": queue},
            {"url": f"{receiver.url}/limited", "flow_control": flow_control, "label": "batched"},
        ]
    )
    results += await qstash.message.batch_json(
        [
            {"url": f"{receiver.url}/json", "body": {"a": 1}, "queue": queue, "callback": f"{receiver.url}/callback"},
            {"url": f"{receiver.url}/later", "body": [], "delay": "1h"},
        ]
    )
    plain, empty, repeat, limited, json, later = [one(result) for result in results]
    assert repeat == BatchResponse(message_id=empty.message_id, deduplicated=True)
    requests = {request.path: request for request in await receiver.wait_for(5)}
    for request in requests.values():
        signed(request)
    assert {
        path: request.header("Upstash-Message-Id") for path, request in requests.items() if path != "/callback"
    } == {
        "/plain": plain.message_id,
        "/empty": empty.message_id,
        "/limited": limited.message_id,
        "/json": json.message_id,
    }
    assert (requests["/plain"].method, requests["/plain"].values("X-Mine")) == ("PUT", ["1"])
    assert (requests["/json"].body, requests["/json"].values("Content-Type")) == (b'{"a": 1}', ["application/json"])
    message = await qstash.message.get(limited.message_id)
    assert message.flow_control == FlowControlProperties(key=queue, parallelism=None, rate=100, period=5403)
    assert (await qstash.message.get(json.message_id)).queue == queue
    assert await qstash.message.cancel_many([later.message_id, plain.message_id]) == 1
    with pytest.raises(KeyError):  # the SDK does not look for errors of single items
        await qstash.message.batch([{"url": "ftp://x"}])


async def test_flow_control(qstash: AsyncQStash, receiver: Receiver, gates: Gates) -> None:
    key = f"python-{receiver.port}"
    limits: Any = {"key": key, "parallelism": 1, "rate": 50, "period": "1m"}
    ids = [
        one(await qstash.message.publish(url=f"{receiver.url}/{number}", flow_control=limits)).message_id
        for number in range(3)
    ]
    message = await qstash.message.get(ids[0])
    assert message.flow_control == FlowControlProperties(key=key, parallelism=1, rate=50, period=60)
    await gates.wait_for(1)
    info = await qstash.flow_control.get(key)
    assert (info.key, info.wait_list_size, info.parallelism_max, info.parallelism_count) == (key, 2, 1, 1)
    assert (info.rate_max, info.rate_count, info.rate_period, info.is_paused) == (50, 1, 60, False)
    assert info.rate_period_start > 1_600_000_000
    everybody = await qstash.flow_control.get_global_parallelism()
    assert 1 <= everybody.parallelism_count <= everybody.parallelism_max

    await qstash.flow_control.pause(key)
    assert (await qstash.flow_control.get(key)).is_paused
    await qstash.flow_control.pin(key, {"parallelism": 3, "rate": 20, "period": 120})
    info = await qstash.flow_control.get(key)
    assert (info.parallelism_max, info.rate_max, info.rate_period) == (3, 20, 120)
    assert (info.is_pinned_parallelism, info.is_pinned_rate, info.rate_count) == (True, True, 0)
    await qstash.flow_control.unpin(key, {"parallelism": True})
    info = await qstash.flow_control.get(key)
    assert (info.is_pinned_parallelism, info.is_pinned_rate) == (False, True)
    await qstash.flow_control.unpin(key, {"parallelism": True, "rate": True})
    assert not (await qstash.flow_control.get(key)).is_pinned_rate
    assert gates.paths == ["/0"]
    await qstash.flow_control.resume(key)
    await gates.wait_for(3)
    assert (await qstash.flow_control.get(key)).rate_count == 2
    await qstash.flow_control.reset_rate(key)
    assert (await qstash.flow_control.get(key)).rate_count == 0
    gates.open_all()
    with pytest.raises(QStashError, match="not found"):
        await qstash.flow_control.get("no-such-key")


async def test_url_groups(qstash: AsyncQStash, receiver: Receiver, signed: Signed) -> None:
    name = f"python-{receiver.port}"
    await qstash.url_group.delete(name)
    await qstash.url_group.upsert_endpoints(
        name, [{"url": f"{receiver.url}/one"}, {"url": f"{receiver.url}/two", "name": "the second"}]
    )
    group = await qstash.url_group.get(name)
    assert group.endpoints == [
        Endpoint(url=f"{receiver.url}/one", name=None),
        Endpoint(url=f"{receiver.url}/two", name="the second"),
    ]
    assert 0 < group.created_at <= group.updated_at
    assert group in await qstash.url_group.list()

    results = await qstash.message.publish_json(url_group=name, body={"n": 1}, deduplication_id=name)
    assert isinstance(results, list)
    assert [result.url for result in results] == [endpoint.url for endpoint in group.endpoints]
    for request in await receiver.wait_for(2):
        signed(request)
    ids = {request.header("Upstash-Message-Id") for request in receiver.requests}
    assert ids == {result.message_id for result in results}
    again = await qstash.message.publish_json(url_group=name, body={"n": 1}, deduplication_id=name)
    assert isinstance(again, list)
    assert [(each.message_id, each.url, each.deduplicated) for each in again] == [
        (result.message_id, result.url, True) for result in results
    ]
    message = await qstash.message.get(results[1].message_id)
    assert (message.url_group, message.endpoint) == (name, "the second")

    enqueued = await qstash.message.enqueue(queue=name, url_group=name)
    [batched, single] = await qstash.message.batch([{"url_group": name}, {"url": f"{receiver.url}/three"}])
    assert isinstance(enqueued, list)
    assert isinstance(batched, list)
    assert [each.url for each in enqueued] == [each.url for each in batched]
    await receiver.wait_for(7)
    await delivered(qstash, one(single).message_id)
    await qstash.queue.delete(name)

    await qstash.url_group.remove_endpoints(name, [{"name": "the second"}])
    assert [endpoint.url for endpoint in (await qstash.url_group.get(name)).endpoints] == [f"{receiver.url}/one"]
    await qstash.url_group.remove_endpoints(name, [{"url": f"{receiver.url}/one"}])
    with pytest.raises(QStashError, match="not found"):
        await qstash.url_group.get(name)
    with pytest.raises(QStashError, match=f"topic {name} not found"):
        await qstash.message.publish(url_group=name)


async def test_schedules(qstash: AsyncQStash, receiver: Receiver) -> None:
    name = f"python-{receiver.port}"
    flow_control: Any = {"key": name, "parallelism": 2}
    schedule_id = await qstash.schedule.create_json(
        schedule_id=name,
        destination=receiver.url,
        cron="CRON_TZ=Asia/Tokyo 1 1 1 1 1",
        body={"a": 1},
        headers={"x-mine": "1"},
        method="PUT",
        retries=5,
        retry_delay="7000 * retried",
        callback=f"{receiver.url}/callback",
        callback_headers={"Forward-X-Cb": "2"},
        failure_callback=f"{receiver.url}/failure",
        delay="1h",
        timeout=30,
        queue=name,
        flow_control=flow_control,
        label="scheduled",
    )
    assert schedule_id == name
    schedule = await qstash.schedule.get(name)
    assert (schedule.destination, schedule.cron) == (receiver.url, "CRON_TZ=Asia/Tokyo 1 1 1 1 1")
    assert (schedule.body, schedule.body_base64, schedule.method) == ('{"a": 1}', None, "PUT")
    assert schedule.headers == {"Content-Type": ["application/json"], "X-Mine": ["1"]}
    assert (schedule.retries, schedule.retry_delay_expression) == (5, "7000 * retried")
    assert (schedule.callback, schedule.failure_callback) == (f"{receiver.url}/callback", f"{receiver.url}/failure")
    assert schedule.callback_headers == {"X-Cb": ["2"]}
    assert (schedule.delay, schedule.timeout, schedule.queue, schedule.label) == (3600, 30, name, "scheduled")
    assert schedule.flow_control == FlowControlProperties(key=name, parallelism=2, rate=None, period=1)
    assert (schedule.paused, schedule.caller_ip) == (False, "127.0.0.1")
    assert (schedule.last_schedule_time, schedule.last_schedule_states, schedule.error) == (None, None, None)
    assert schedule.next_schedule_time is not None
    assert schedule.next_schedule_time > schedule.created_at

    await qstash.schedule.pause(name)
    assert (await qstash.schedule.get(name)).paused
    await qstash.schedule.resume(name)
    assert not (await qstash.schedule.get(name)).paused
    replacing = await qstash.schedule.create(schedule_id=name, destination=f"{receiver.url}/new", cron="1 1 1 1 1")
    schedule = await qstash.schedule.get(replacing)
    assert (schedule.destination, schedule.body, schedule.queue) == (f"{receiver.url}/new", None, None)
    unnamed = await qstash.schedule.create(destination=receiver.url, cron="1 1 1 1 1")
    assert unnamed.startswith("scd_")
    listed = [each.schedule_id for each in await qstash.schedule.list()]
    assert (listed.count(name), listed.count(unnamed)) == (1, 1)
    for each in (name, unnamed, unnamed):
        await qstash.schedule.delete(each)
    with pytest.raises(QStashError, match="not found"):
        await qstash.schedule.get(name)
    with pytest.raises(QStashError, match="Upstash-Cron"):
        await qstash.schedule.create(destination=receiver.url, cron="every day")
    assert receiver.requests == []
