"""Tokens that may do everything, only publish, or only look; several of each."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store

FULL = ("full-1", "full-2", "full-3")
PUBLISH_ONLY = ("publish-1", "publish-2")
READ_ONLY = ("read-1", "read-2")

Caller = Callable[[str], httpx.AsyncClient]

PUBLISHING = [
    ("POST", "/v2/publish/https://example.com"),
    ("POST", "/v2/enqueue/q/https://example.com"),
    ("POST", "/V2/Batch"),
]
LOOKING = [
    ("GET", "/v2/messages"),
    ("GET", "/v2/messages/msg_1"),
    ("HEAD", "/v2/dlq"),
    ("GET", "/v2/events"),
    ("GET", "/v2/keys"),
    ("GET", "/v2/nothing"),
]
CHANGING = [
    ("DELETE", "/v2/messages"),
    ("DELETE", "/v2/messages/msg_1"),
    ("POST", "/v2/dlq/retry"),
    ("DELETE", "/v2/dlq/1-0"),
    ("POST", "/v2/keys/rotate"),
    ("DELETE", "/v2/deduplication/x"),
    ("POST", "/v2/preview/retries"),
    ("POST", "/v2/publishers"),
]


@pytest.fixture
async def calling(settings: Settings, store: Store) -> AsyncIterator[Caller]:
    tokens = replace(
        settings, token=FULL[0], tokens=FULL[1:], publish_only_tokens=PUBLISH_ONLY, read_only_tokens=READ_ONLY
    )
    app = create_app(tokens, store)
    clients: list[httpx.AsyncClient] = []

    def caller(token: str) -> httpx.AsyncClient:
        clients.append(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://api",
                headers={"authorization": f"Bearer {token}"} if token else {},
            )
        )
        return clients[-1]

    yield caller
    for client in clients:
        await client.aclose()


@pytest.mark.parametrize("token", FULL)
async def test_every_full_token_may_do_everything(calling: Caller, token: str) -> None:
    client = calling(token)
    for method, path in (*PUBLISHING, *LOOKING, *CHANGING):
        assert (await client.request(method, path)).status_code not in (401, 403), (method, path)


@pytest.mark.parametrize("token", PUBLISH_ONLY)
async def test_a_publish_only_token_may_publish(calling: Caller, token: str) -> None:
    client = calling(token)
    for method, path in PUBLISHING:
        assert (await client.request(method, path)).status_code not in (401, 403), (method, path)
    for method, path in (*LOOKING, *CHANGING, ("GET", "/v2/publish/https://example.com")):
        answer = await client.request(method, path)
        assert answer.status_code == 403, (method, path)
        assert method == "HEAD" or "publish-only" in answer.json()["error"]


@pytest.mark.parametrize("token", READ_ONLY)
async def test_a_read_only_token_may_look(calling: Caller, token: str) -> None:
    client = calling(token)
    for method, path in LOOKING:
        assert (await client.request(method, path)).status_code not in (401, 403), (method, path)
    for method, path in (*PUBLISHING, *CHANGING):
        answer = await client.request(method, path)
        assert answer.status_code == 403, (method, path)
        assert "read-only" in answer.json()["error"]


async def test_roles_hold_for_tokens_in_the_query_too(calling: Caller) -> None:
    client = calling("")
    for token, status in (("full-3", 200), ("read-1", 403), ("publish-1", 200), ("nobody", 401)):
        answer = await client.post(f"/v2/publish/https://example.com?qstash_token={token}")
        assert answer.status_code == status, token
    assert (await client.get("/v2/keys?qstash_token=read-2")).status_code == 200


@pytest.mark.parametrize("token", ["full", "full-1 ", "full-12", "publish", "read-1,read-2", "", "full-1,full-2"])
async def test_a_part_of_a_token_is_none(calling: Caller, token: str) -> None:
    answer = await calling(token.strip() or "x").get("/v2/keys")
    assert answer.status_code == (200 if token.strip() in FULL else 401)


async def test_probes_need_no_token_of_any_role(calling: Caller) -> None:
    assert (await calling("").get("/livez")).status_code == 200


@asynccontextmanager
async def serving(settings: Settings, store: Store) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(settings, store)), base_url="http://api"
    ) as client:
        yield client


async def test_a_rotation_passes_through_states_that_accept_both(settings: Settings, store: Store) -> None:
    steps = [
        (replace(settings, token="old"), {"old": 200, "new": 401}),
        (replace(settings, token="old", tokens=("new",)), {"old": 200, "new": 200}),
        (replace(settings, token="new", tokens=("old",)), {"old": 200, "new": 200}),
        (replace(settings, token="new"), {"old": 401, "new": 200}),
    ]
    for step, expected in steps:
        async with serving(step, store) as client:
            for token, status in expected.items():
                answer = await client.get("/v2/keys", headers={"authorization": f"Bearer {token}"})
                assert answer.status_code == status
