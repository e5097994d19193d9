"""Requests about something that are refused: they name what is wrong, and everything stays as it was."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.raw_http import Answer
from tests.support.receiver import Receiver

MAX_JSON_BYTES = 1024 * 1024
TOO_MANY = ("Upstash-Retries", "1001")


class Scene:
    """One of everything that requests can be about."""

    def __init__(self, client: Client, receiver: Receiver) -> None:
        self.client = client
        self.name = f"scene-{receiver.port}"
        self.dlq_id = ""
        self._receiver = receiver
        self._targets: list[str] = []

    async def make(self) -> None:
        client, url, name = self.client, self._receiver.url, self.name
        waiting = await client.publish(url, headers=[("Upstash-Delay", "1h")])
        self._receiver.respond(404)
        failing = await client.publish(url, headers=[("Upstash-Retries", "0")])
        letter = await eventually(lambda: client.dead_letter_of(failing))
        assert letter is not None
        self.dlq_id = letter["dlqId"]
        await client.send("POST", "/v2/queues", {"queueName": name, "parallelism": 2, "paused": True})
        await client.send("POST", f"/v2/topics/{name}/endpoints", {"endpoints": [{"url": f"{url}/one"}]})
        await client.send("POST", f"/v2/flowControl/{name}/pause")
        cron = [("Upstash-Cron", "0 0 1 1 *"), ("Upstash-Schedule-Id", name)]
        assert (await client.call("POST", f"/v2/schedules/{url}", cron)).status == 200
        self._targets = [
            f"/v2/messages/{waiting}", f"/v2/dlq/{self.dlq_id}", f"/v2/queues/{name}", f"/v2/topics/{name}",
            f"/v2/flowControl/{name}", f"/v2/schedules/{name}",
        ]  # fmt: skip

    async def shown(self) -> list[Any]:
        return [await self.client.send("GET", target) for target in self._targets]

    async def refused(
        self, status: int, method: str, target: str, fields: object = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> str:
        """Ask for something, which must be refused like this; the sentence."""
        body = b"" if fields is None else json.dumps(fields).encode()
        answer = await self.client.call(method, target, headers, body)
        assert answer.status == status, (method, target, answer)
        return answer.error

    async def clear(self) -> None:
        await self.client.send("DELETE", f"/v2/messages?host={self._receiver.url.removeprefix('http://')}")
        await self.client.send("DELETE", f"/v2/dlq?dlqIds={self.dlq_id}")
        for kind in ("queues", "topics", "schedules"):
            await self.client.send("DELETE", f"/v2/{kind}/{self.name}")


@pytest.fixture
async def scene(client: Client, receiver: Receiver) -> AsyncIterator[Scene]:
    """Holds at the end that nothing has changed."""
    scene = Scene(client, receiver)
    await scene.make()
    before = await scene.shown()
    yield scene
    assert await scene.shown() == before
    await scene.clear()


async def test_malformed_names(scene: Scene) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        assert "queueName" in await scene.refused(400, method, f"/v2/queues/a%20b{path}")
    for action in ("pause", "resume", "pin?parallelism=1", "unpin?rate=true", "reset", "resetRate"):
        assert "flowControlKey" in await scene.refused(400, "POST", f"/v2/flowControl/a%2Cb/{action}")
    assert (await scene.client.call("GET", "/v2/flowControl/a%2Cb")).status == 404, "there can be none"


async def test_malformed_parameters(scene: Scene) -> None:
    for target in ("/v2/messages?lable=x", "/v2/logs?lable=x", "/v2/flowControl?lable=x"):
        assert "lable" in await scene.refused(400, "GET", target)
    for action, parameter in (
        ("pin?parallelism=0", "parallelism"),
        ("pin?rate=many", "rate"),
        ("pin?period=5", "period"),
        ("pin", "parallelism"),
        ("unpin?rate=perhaps", "rate"),
    ):
        assert parameter in await scene.refused(400, "POST", f"/v2/flowControl/{scene.name}/{action}")


async def test_malformed_bodies(scene: Scene) -> None:
    endpoints = f"/v2/topics/{scene.name}/endpoints"
    cases: list[tuple[str, str, object, str]] = [
        ("POST", "/v2/preview/cron", {"cron": "* * *"}, "cron"),
        ("POST", "/v2/preview/cron", {"cron": "* * * * *", "after": -1}, "after"),
        ("POST", "/v2/preview/retries", {"expression": "1 +"}, "expression"),
        ("POST", "/v2/preview/retries", {"count": 1001}, "count"),
        ("DELETE", endpoints, {"endpoints": [{}]}, "endpoints[0]"),
        ("DELETE", endpoints, {}, "endpoints"),
    ]
    for method, target, fields, named in cases:
        assert named in await scene.refused(400, method, target, fields)


async def test_malformed_options_of_a_retry(scene: Scene) -> None:
    for target in (f"/v2/dlq/retry/{scene.dlq_id}", f"/v2/dlq/retry?dlqIds={scene.dlq_id}"):
        for name, value, status in (("Upstash-Timeout", "0s", 400), ("Upstash-Callback", "x", 400), (*TOO_MANY, 412)):
            error = await scene.refused(status, "POST", target, headers=((name, value),))
            assert (name if name != "Upstash-Callback" else "invalid callback url") in error


async def test_what_does_not_exist(scene: Scene) -> None:
    unknown = f"{scene.name}-unknown"
    for action in ("pause", "resume"):
        assert unknown in await scene.refused(404, "POST", f"/v2/queues/{unknown}/{action}")
        for method in ("PATCH", "PUT", "POST"):
            assert unknown in await scene.refused(404, method, f"/v2/schedules/{unknown}/{action}")
    endpoints = {"endpoints": [{"url": "https://example.com"}]}
    assert unknown in await scene.refused(404, "DELETE", f"/v2/topics/{unknown}/endpoints", endpoints)
    cron = ("Upstash-Cron", "* * * * *"), ("Upstash-Schedule-Id", unknown)
    assert f"topic {unknown} not found" in await scene.refused(404, "POST", f"/v2/schedules/{unknown}", headers=cron)
    for kind in ("queues", "schedules", "topics"):
        await scene.refused(404, "GET", f"/v2/{kind}/{unknown}")


async def test_more_than_there_may_be(scene: Scene, receiver: Receiver) -> None:
    fresh, url = f"{scene.name}-new", receiver.url
    error = await scene.refused(412, "POST", f"/v2/enqueue/{fresh}/{url}", headers=(("Upstash-Delay", "9999d"),))
    assert "Upstash-Delay" in error
    schedule = ("Upstash-Cron", "* * * * *"), ("Upstash-Schedule-Id", fresh)
    assert TOO_MANY[0] in await scene.refused(412, "POST", f"/v2/schedules/{url}", headers=(*schedule, TOO_MANY))
    group = f"/v2/topics/{scene.name}"
    assert TOO_MANY[0] in await scene.refused(412, "PATCH", group, {"headers": dict([TOO_MANY])})
    endpoints = [{"url": f"{url}/{number}"} for number in range(scene.client.settings.max_group_endpoints)]
    error = await scene.refused(412, "POST", f"{group}/endpoints", {"endpoints": endpoints})
    assert str(scene.client.settings.max_group_endpoints) in error
    for kind in ("queues", "schedules"):
        await scene.refused(404, "GET", f"/v2/{kind}/{fresh}")


async def announce(client: Client, method: str, target: str, size_bytes: int, headers: str = "") -> Answer:
    """The answer to the head of a request whose body is to follow."""
    return await client.http.exchange(
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.settings.token}\r\n{headers}"
        f"Expect: 100-continue\r\nContent-Length: {size_bytes}\r\n\r\n".encode()
    )


async def test_a_body_over_its_limit_is_refused_before_it_is_sent(scene: Scene, receiver: Receiver) -> None:
    client, fresh = scene.client, f"{scene.name}-new"
    schedule = f"Upstash-Cron: * * * * *\r\nUpstash-Schedule-Id: {fresh}\r\n"
    limits = client.settings
    for method, target, limit, headers in (
        ("DELETE", "/v2/messages", MAX_JSON_BYTES, ""),
        ("DELETE", "/v2/dlq", MAX_JSON_BYTES, ""),
        ("POST", "/v2/dlq/retry", MAX_JSON_BYTES, ""),
        ("POST", "/v2/queues", MAX_JSON_BYTES, ""),
        ("PATCH", f"/v2/topics/{scene.name}", MAX_JSON_BYTES, ""),
        ("POST", f"/v2/topics/{scene.name}/endpoints", MAX_JSON_BYTES, ""),
        ("DELETE", f"/v2/topics/{scene.name}/endpoints", MAX_JSON_BYTES, ""),
        ("POST", "/v2/preview/cron", MAX_JSON_BYTES, ""),
        ("POST", "/v2/preview/retries", MAX_JSON_BYTES, ""),
        ("POST", f"/v2/enqueue/{fresh}/{receiver.url}", limits.max_message_bytes, ""),
        ("POST", f"/v2/schedules/{receiver.url}", limits.max_message_bytes, schedule),
        ("POST", "/v2/batch", limits.max_batch_bytes, ""),
    ):
        answer = await announce(client, method, target, limit + 1, headers)
        assert (answer.status, str(limit) in answer.error) == (413, True), (method, target, answer)
    for kind in ("queues", "schedules"):
        await scene.refused(404, "GET", f"/v2/{kind}/{fresh}")


async def test_more_items_than_a_batch_may_have(client: Client, receiver: Receiver) -> None:
    limit = client.settings.max_batch_items
    items = [{"destination": receiver.url}] * (limit + 1)
    answer = await client.call("POST", "/v2/batch", body=json.dumps(items).encode())
    assert (answer.status, str(limit) in answer.error) == (413, True)
    await client.pass_by(receiver)
    assert len(receiver.requests) == 1
