"""Messages to `api/llm`: from publish, enqueue and batch to the upstream, and its answer to the callback."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer

KEY = "llm-key-0123456789abcdef"
CHAT = b'{"model":"any","messages":[{"role":"user","content":"hello"}]}'
ANSWER = b'{"choices":[{"message":{"content":"hi"}}]}'
JSON = ("Content-Type", "application/json")


@pytest.fixture
async def upstream() -> AsyncIterator[Receiver]:
    async with Receiver() as upstream:
        upstream.respond(headers=(JSON,), body=ANSWER, times=None)
        yield upstream


@pytest.fixture
async def llm_system(e2e_redis: RedisServer, upstream: Receiver) -> AsyncIterator[System]:
    """With an upstream; the base has a path, as those of gateways have."""
    settings = settings_for(e2e_redis.url, key_namespace="llm", llm_base_url=f"{upstream.url}/openai/", llm_api_key=KEY)
    with System(settings) as system:
        yield system


async def test_an_answer_comes_by_the_callback(llm_system: System, upstream: Receiver, receiver: Receiver) -> None:
    client = Client(llm_system.url, llm_system.settings)
    callback = ("Upstash-Callback", f"{receiver.url}/answers")
    published = await client.publish("api/llm", CHAT, [callback, JSON, ("Upstash-Forward-Authorization", "mine")])
    answer = await client.call("POST", "/v2/enqueue/chats/api/llm", [callback, JSON], CHAT)
    assert answer.status == 200, answer
    enqueued = answer.json()["messageId"]
    item = {"destination": "api/llm", "body": CHAT.decode(), "headers": {callback[0]: callback[1]}}
    answer = await client.call("POST", "/v2/batch", [JSON], json.dumps([item, {**item, "headers": {}}]).encode())
    [batched, refused] = answer.json()
    assert refused == {"error": "api/llm: Upstash-Callback is missing, it is where the answer goes"}

    requests = await upstream.wait_for(3, path="/openai/v1/chat/completions")
    assert {request.body for request in requests} == {CHAT}
    assert {tuple(request.values("Authorization")) for request in requests} == {(f"Bearer {KEY}",)}

    callbacks: list[dict[str, Any]] = [json.loads(request.body) for request in await receiver.wait_for(3)]
    assert {fields["sourceMessageId"] for fields in callbacks} == {published, enqueued, batched["messageId"]}
    assert {b64decode(fields["body"]) for fields in callbacks} == {ANSWER}
    assert len(upstream.requests) == 3

    message = await client.message(published)
    assert message is not None
    assert (message["api"], message["url"]) == ("llm", f"{upstream.url}/openai/v1/chat/completions")
    assert message["header"] == {"Authorization": ["mine"], "Content-Type": ["application/json"]}
    events = await client.call("GET", "/v2/events")
    shown = [events.body, *(request.body for request in receiver.requests), json.dumps(message).encode()]
    shown += [process.log_text().encode() for process in llm_system.processes]
    assert not [text for text in shown if KEY.encode() in text]


async def test_without_a_callback_nobody_would_get_the_answer(llm_system: System) -> None:
    answer = await Client(llm_system.url, llm_system.settings).call("POST", "/v2/publish/api/llm", [JSON], CHAT)
    assert (answer.status, answer.error) == (400, "api/llm: Upstash-Callback is missing, it is where the answer goes")


async def test_without_an_upstream_it_is_refused(client: Client) -> None:
    answer = await client.call("POST", "/v2/publish/api/llm", [("Upstash-Callback", "https://e.com")], CHAT)
    assert answer.status == 400
    assert answer.error == "api/llm: no LLM upstream is configured (QSTASH_CLONE_LLM_BASE_URL)"
