"""`/v2/topics`: groups filled, emptied, shown and deleted, and the default headers of what is published to them."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store

A, B, C = "https://a.example/hook?x=1", "https://a.example/hook?x=2", "https://c.example"


async def add(client: httpx.AsyncClient, name: str, *endpoints: dict[str, Any]) -> None:
    answer = await client.post(f"/v2/topics/{name}/endpoints", json={"endpoints": endpoints})
    assert (answer.status_code, answer.json()) == (200, {})


async def shown(client: httpx.AsyncClient, name: str = "g") -> dict[str, Any]:
    answer = await client.get(f"/v2/topics/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_group_is_made_by_its_first_endpoint(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A, "name": "first one"}, {"url": B})
    group = await shown(client)
    assert group == {
        "name": "g",
        "createdAt": group["createdAt"],
        "updatedAt": group["createdAt"],
        "endpoints": [{"url": A, "name": "first one"}, {"url": B}],
    }
    assert type(group["createdAt"]) is int


async def test_endpoints_are_updated_by_url_and_then_by_name(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A, "name": "x"}, {"url": B})
    created = (await shown(client))["createdAt"]
    await add(client, "g", {"url": B, "name": "y"}, {"url": C, "name": "x"}, {"url": C})
    group = await shown(client)
    assert group["endpoints"] == [{"url": C, "name": "x"}, {"url": B, "name": "y"}]
    assert group["createdAt"] == created
    assert group["updatedAt"] >= created


async def test_lists_are_in_the_order_of_creation(client: httpx.AsyncClient) -> None:
    for path in ("/v2/topics", "/v2/topics/", "/V2/Topics"):
        assert (await client.get(path)).json() == []
    for name in ("z", "a", "m.1_x-Y"):
        await add(client, name, {"url": A})
    listed = (await client.get("/v2/topics")).json()
    assert listed == sorted(listed, key=lambda group: (group["createdAt"], group["name"]))
    assert {group["name"]: group for group in listed} == {
        name: await shown(client, name) for name in ("z", "a", "m.1_x-Y")
    }


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", None])
async def test_bodies_are_json_whatever_their_type(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await client.post(
        "/v2/topics/g/endpoints", content=b'{"endpoints": [{"url": "https://c.example"}]}', headers=headers
    )
    assert answer.status_code == 200
    assert (await shown(client))["endpoints"] == [{"url": C}]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "endpoints: "),
        (b"{", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b"{}", "endpoints: "),
        (b'{"endpoints": []}', "endpoints: "),
        (b'{"endpoints": [{"name": "x"}]}', "endpoints[0]: the url is missing"),
        (b'{"endpoints": [{"url": "https://b.example"}, {"url": "b.example"}]}', "endpoint has invalid scheme"),
        (b'{"endpoints": [{"url": "https://b.example"}, {"url": "https://u:p@b.example"}]}', "a user before the host"),
    ],
)
async def test_all_endpoints_are_checked_before_any_is_added(
    client: httpx.AsyncClient, content: bytes, complaint: str
) -> None:
    await add(client, "g", {"url": A})
    before = await shown(client)
    for name in ("g", "other"):
        answer = await client.post(f"/v2/topics/{name}/endpoints", content=content)
        assert answer.status_code == 400
        assert complaint in answer.json()["error"]
    assert await shown(client) == before
    assert (await client.get("/v2/topics/other")).status_code == 404


@pytest.mark.parametrize("name", ["a%20b", "a%2Fb", "ä", "a" * 257, "a:b"])
async def test_names_are_checked_when_a_group_is_made(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post(f"/v2/topics/{name}/endpoints", json={"endpoints": [{"url": A}]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("topic: invalid name")
    assert (await client.get(f"/v2/topics/{name}")).status_code == 404
    assert (await client.patch(f"/v2/topics/{name}", json={"headers": {}})).status_code == 404
    assert (await client.delete(f"/v2/topics/{name}")).status_code == 200
    assert (await client.get("/v2/topics")).json() == []


async def test_a_percent_encoded_name_is_the_same(client: httpx.AsyncClient) -> None:
    await add(client, "g%31", {"url": A})
    assert (await shown(client, "g1"))["name"] == "g1"


async def test_private_addresses_are_refused(settings: Settings, store: Store) -> None:
    async with strict(settings, store) as client:
        answer = await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": "http://10.0.0.1/"}]})
        assert answer.status_code == 400
        assert answer.json()["error"] == 'invalid url of endpoints[0]: address "10.0.0.1" is not allowed'
        await add(client, "g", {"url": "http://1.1.1.1/"})
        answer = await client.patch("/v2/topics/g", json={"headers": {"Upstash-Callback": "http://127.0.0.1"}})
        assert answer.status_code == 400
        assert answer.json()["error"] == 'invalid callback url: address "127.0.0.1" is not allowed'


async def test_a_group_has_a_limit(settings: Settings, store: Store) -> None:
    async with strict(replace(settings, max_group_endpoints=2), store) as client:
        await add(client, "g", {"url": A}, {"url": B, "name": "b"})
        answer = await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": A, "name": "a"}, {"url": C}]})
        assert answer.status_code == 412
        assert answer.json()["error"] == "endpoints: a URL group has at most 2 of them"
        assert (await shown(client))["endpoints"] == [{"url": A}, {"url": B, "name": "b"}]
        await add(client, "g", {"url": C, "name": "b"})
        assert (await shown(client))["endpoints"] == [{"url": A}, {"url": C, "name": "b"}]


@pytest.mark.parametrize(
    ("item", "left"),
    [
        ({"url": A}, [{"url": B, "name": "x"}, {"url": C}]),
        ({"name": "x"}, [{"url": C}]),
        ({"url": A, "name": "x"}, [{"url": B, "name": "x"}, {"url": C}]),
        ({"url": C, "name": "x"}, [{"url": A, "name": "x"}, {"url": B, "name": "x"}, {"url": C}]),
        ({"url": "nothing like it"}, [{"url": A, "name": "x"}, {"url": B, "name": "x"}, {"url": C}]),
    ],
)
async def test_endpoints_are_removed_by_what_is_given(
    client: httpx.AsyncClient, item: dict[str, str], left: list[dict[str, str]]
) -> None:
    await add(client, "g", {"url": A, "name": "x"}, {"url": B}, {"url": C})
    await add(client, "g", {"url": B, "name": "x"})
    answer = await client.request("DELETE", "/v2/topics/g/endpoints", json={"endpoints": [item]})
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await shown(client))["endpoints"] == left


async def test_the_last_endpoint_takes_the_group_along(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A}, {"url": B})
    gone = {"endpoints": [{"url": A}, {"url": B}]}
    assert (await client.request("DELETE", "/v2/topics/g/endpoints", json=gone)).status_code == 200
    assert (await client.get("/v2/topics/g")).status_code == 404
    assert (await client.get("/v2/topics")).json() == []


async def test_a_removal_that_cannot_be_understood(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A})
    for content in (b"", b'{"endpoints": []}', b'{"endpoints": [{"url": "https://c.example"}, {}]}'):
        answer = await client.request("DELETE", "/v2/topics/g/endpoints", content=content)
        assert answer.status_code == 400
        assert "endpoints" in answer.json()["error"]
    assert (await shown(client))["endpoints"] == [{"url": A}]


async def test_unknown_groups(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/v2/topics/none"),
        await client.patch("/v2/topics/none", json={"headers": {"Upstash-Retries": "1"}}),
        await client.request("DELETE", "/v2/topics/none/endpoints", json={"endpoints": [{"url": A}]}),
    ):
        assert (answer.status_code, answer.json()) == (404, {"error": "topic none not found"})
    answer = await client.delete("/v2/topics/none")
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await client.get("/v2/topics")).json() == []


async def test_a_deleted_group_is_gone_and_its_messages_are_not(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A})
    [published] = (await client.post("/v2/publish/g")).json()
    assert (await client.delete("/v2/topics/g", headers={"Content-Type": "application/json"})).status_code == 200
    assert (await client.get("/v2/topics/g")).status_code == 404
    message = (await client.get(f"/v2/messages/{published['messageId']}")).json()
    assert (message["topicName"], message["urlGroup"], message["url"]) == ("g", "g", A)
    answer = await client.post("/v2/publish/g")
    assert (answer.status_code, answer.json()) == (404, {"error": "topic g not found"})


async def test_a_forgotten_name_is_not_everything(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A})
    assert (await client.delete("/v2/topics/")).status_code == 400
    assert (await client.delete("/v2/topics")).status_code == 405
    assert len((await client.get("/v2/topics")).json()) == 1


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v2/topics/g", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/v2/topics/g/endpoints", "DELETE, POST"),
        ("POST", "/v2/topics", "GET, HEAD"),
    ],
)
async def test_wrong_methods(client: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


async def test_default_headers_are_shown_and_replaced(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A})
    headers = {"upstash-retries": "1", "Upstash-Forward-x-a": ["1", "2"], "Content-Type": "text/plain"}
    answer = await client.patch("/v2/topics/g", json={"headers": headers})
    assert (answer.status_code, answer.json()) == (200, {})
    group = await shown(client)
    assert group["headers"] == {
        "Upstash-Retries": ["1"],
        "Upstash-Forward-X-A": ["1", "2"],
        "Content-Type": ["text/plain"],
    }
    assert (await client.get("/v2/topics")).json() == [group]
    await client.patch("/v2/topics/g", content=b'{"headers": {"Upstash-Delay": "1s"}}')
    assert (await shown(client))["headers"] == {"Upstash-Delay": ["1s"]}
    await client.patch("/v2/topics/g", json={"headers": {}})
    assert "headers" not in await shown(client)


async def test_default_headers_have_the_lowest_precedence(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A})
    defaults = {"Upstash-Retries": "1", "Upstash-Forward-X-A": "d", "Upstash-Forward-X-B": "d", "Upstash-Label": "d"}
    await client.patch("/v2/topics/g", json={"headers": defaults | {"Content-Type": "text/plain"}})
    answer = await client.post(
        "/v2/publish/g?upstash-label=query&upstash-forward-x-b=query", headers={"Upstash-Forward-X-A": "own"}
    )
    message = (await client.get(f"/v2/messages/{answer.json()[0]['messageId']}")).json()
    assert message["header"] == {"Content-Type": ["text/plain"], "X-A": ["own"], "X-B": ["query"]}
    assert (message["maxRetries"], message["labels"]) == (1, ["query"])
    answer = await client.post("/v2/publish/https://example.com")
    assert (await client.get(f"/v2/messages/{answer.json()['messageId']}")).json()["maxRetries"] == 3


async def test_default_headers_survive_a_change_of_endpoints(client: httpx.AsyncClient) -> None:
    await add(client, "g", {"url": A})
    await client.patch("/v2/topics/g", json={"headers": {"Upstash-Retries": "1"}})
    await add(client, "g", {"url": B})
    await client.request("DELETE", "/v2/topics/g/endpoints", json={"endpoints": [{"url": A}]})
    group = await shown(client)
    assert (group["endpoints"], group["headers"]) == ([{"url": B}], {"Upstash-Retries": ["1"]})


@pytest.mark.parametrize(
    ("content", "status", "complaint"),
    [
        (b"", 400, "headers: "),
        (b"{}", 400, "headers: "),
        (b'{"headers": []}', 400, "headers: "),
        (b'{"headers": {"X-Own": "1"}}', 400, "X-Own"),
        (b'{"headers": {"Upstash-Retries": "x"}}', 400, "Upstash-Retries"),
        (b'{"headers": {"Upstash-Retries": 1}}', 400, "Upstash-Retries"),
        (b'{"headers": {"Upstash-Callback-Timeout": "x"}}', 400, "Upstash-Callback-Timeout"),
        (b'{"headers": {"Upstash-Retries": "100000"}}', 412, "Upstash-Retries"),
    ],
)
async def test_bad_default_headers_change_nothing(
    client: httpx.AsyncClient, content: bytes, status: int, complaint: str
) -> None:
    await add(client, "g", {"url": A})
    before = await shown(client)
    answer = await client.patch("/v2/topics/g", content=content)
    assert answer.status_code == status
    assert complaint in answer.json()["error"]
    assert await shown(client) == before


async def test_changes_at_once_are_all_made(client: httpx.AsyncClient) -> None:
    urls = [f"https://e{number}.example/" for number in range(20)]
    await asyncio.gather(*(add(client, "g", {"url": url}) for url in urls))
    assert sorted(endpoint["url"] for endpoint in (await shown(client))["endpoints"]) == sorted(urls)


def strict(settings: Settings, store: Store) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(replace(settings, allow_private_destinations=False), store)),
        base_url="http://api",
        headers={"authorization": f"Bearer {settings.token}"},
    )
