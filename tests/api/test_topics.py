"""Topics as a resource, and who may do what with them."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store, open_store

DEFAULTS = {"partitions": 4, "retentionMs": 604_800_000, "retentionBytes": -1, "timestampType": "create"}


def configuration(topic: dict[str, Any]) -> dict[str, Any]:
    return {field: topic[field] for field in DEFAULTS}


async def test_a_topic_lives(client: httpx.AsyncClient) -> None:
    made = await client.post("/topics/orders", json={"partitions": 2, "retentionMs": 60_000})
    assert made.status_code == 200
    assert made.headers["content-type"] == "application/json; charset=utf-8"
    topic = made.json()
    assert topic["name"] == "orders"
    assert configuration(topic) == DEFAULTS | {"partitions": 2, "retentionMs": 60_000}
    assert topic["logs"] == [{"partition": number, "start": 0, "end": 0} for number in range(2)]
    await client.post("/produce/orders", json={"value": "a", "partition": 1})
    grown = await client.patch("/topics/orders", json={"partitions": 3, "retentionBytes": 1000})
    assert configuration(grown.json()) == DEFAULTS | {"partitions": 3, "retentionMs": 60_000, "retentionBytes": 1000}
    assert [log["end"] for log in grown.json()["logs"]] == [0, 1, 0]
    assert (await client.get("/topics/orders")).json() == grown.json()
    gone = await client.delete("/topics/orders")
    assert gone.json() == {"result": "Success", "status": 200}
    for method in ("GET", "DELETE", "PATCH"):
        answer = await client.request(method, "/topics/orders")
        assert (answer.status_code, answer.json()["status"]) == (404, 404)
    assert (await client.get("/topics")).json() == {}


async def test_without_a_body_it_has_the_defaults_and_again_is_no_mistake(client: httpx.AsyncClient) -> None:
    made = await client.post("/topics/orders")
    assert configuration(made.json()) == DEFAULTS
    assert (await client.post("/topics/orders", json=DEFAULTS)).json() == made.json()
    other = await client.post("/topics/orders", json={"partitions": 5})
    assert other.status_code == 400
    assert other.json()["error"] == "topic orders exists with another configuration"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('{"partitions": 0}', "partitions"),
        ('{"partitions": 1001}', "partitions"),
        ('{"partitions": "4"}', "partitions"),
        ('{"partitions": 1.5}', "partitions"),
        ('{"retentionMs": -2}', "retentionMs"),
        ('{"timestampType": "never"}', "`$.timestampType`: create or append"),
        ('{"cleanupPolicy": "compact"}', "cleanupPolicy"),
        ("[]", "object"),
        ("{", "not JSON"),
    ],
)
async def test_a_bad_configuration_makes_nothing(client: httpx.AsyncClient, body: str, complaint: str) -> None:
    answer = await client.post("/topics/orders", content=body)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]
    assert (await client.get("/topics")).json() == {}


async def test_a_topic_cannot_shrink(client: httpx.AsyncClient) -> None:
    await client.post("/topics/orders")
    answer = await client.patch("/topics/orders", json={"partitions": 3})
    assert (answer.status_code, "fewer" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize("name", ["a%20b", "a%2Fb", "x" * 250, "%C3%BC"])
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_bad_names(client: httpx.AsyncClient, method: str, name: str) -> None:
    answer = await client.request(method, f"/topics/{name}")
    assert answer.status_code == 400, answer.text


async def test_a_body_that_is_too_large(client: httpx.AsyncClient) -> None:
    assert (await client.post("/topics/orders", content=b" " * 65_537)).status_code == 413


async def test_one_topic_too_many(settings: Settings) -> None:
    store = await open_store(replace(settings, max_topics=1))
    transport = httpx.ASGITransport(create_app(settings, store))
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        statuses = [(await client.post(f"/topics/{name}")).status_code for name in ("a", "b", "a")]
        assert (await client.post("/topics/a", headers={"authorization": "Bearer no"})).status_code == 401
    await store.aclose()
    assert statuses == [200, 429, 200]


async def test_rights(settings: Settings, store: Store) -> None:
    settings = replace(
        settings,
        publish_only_tokens=("pub",),
        read_only_tokens=("read",),
        topic_credentials=("full:ord*:all", "consume-only:orders:con", "produce-only:*:pro"),
    )
    transport = httpx.ASGITransport(create_app(settings, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:

        async def status(token: str, method: str, path: str) -> int:
            return (await client.request(method, path, headers={"authorization": f"Bearer {token}"})).status_code

        for token in ("pub", "read", "all", "con", "pro"):
            for method in ("POST", "PATCH", "DELETE"):
                assert await status(token, method, "/topics/orders") == 403, (token, method)
        for name in ("orders", "ordinary", "other"):
            assert await status(settings.token, "POST", f"/topics/{name}") == 200
        allowed = {
            token: [
                name for name in ("orders", "ordinary", "other") if await status(token, "GET", f"/topics/{name}") == 200
            ]
            for token in ("pub", "read", "all", "con", "pro")
        }
    assert allowed == {
        "pub": [],
        "read": ["orders", "ordinary", "other"],
        "all": ["orders", "ordinary"],
        "con": ["orders"],
        "pro": [],
    }
