"""`/v2/flowControl` and `/v2/globalParallelism`: keys shown, paused, pinned and reset."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.domain.message import SettlementKind
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.api.lives import NOT_FOUND, claims, settle

URL = "https://example.com/hook"
UNSET = {
    "waitListSize": 0,
    "parallelismMax": 0,
    "parallelismCount": 0,
    "rateMax": 0,
    "rateCount": 0,
    "ratePeriod": 0,
    "ratePeriodStart": 0,
    "isPaused": False,
    "isPinnedParallelism": False,
    "isPinnedRate": False,
}


async def publish(client: httpx.AsyncClient, value: str, key: str = "tenant-7", **headers: str) -> str:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    limits = {"Upstash-Flow-Control-Key": key, "Upstash-Flow-Control-Value": value}
    answer = await client.post(f"/v2/publish/{URL}", headers=named | limits)
    assert answer.status_code == 200, answer.text
    return answer.json()["messageId"]


async def shown(client: httpx.AsyncClient, key: str = "tenant-7") -> dict[str, Any]:
    answer = await client.get(f"/v2/flowControl/{key}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def post(client: httpx.AsyncClient, action: str, key: str = "tenant-7") -> None:
    answer = await client.post(f"/v2/flowControl/{key}/{action}")
    assert (answer.status_code, answer.json()) == (200, {}), action


async def test_a_key_is_there_with_its_first_message(client: httpx.AsyncClient, store: Store) -> None:
    await store.delivery.heartbeat("test", 10)
    assert (await client.get("/v2/flowControl/tenant-7")).status_code == 404
    await publish(client, "parallelism=3, rate=4, period=2s")
    key = await shown(client)
    assert key == UNSET | {"flowControlKey": "tenant-7", "parallelismMax": 3, "rateMax": 4, "ratePeriod": 2}
    assert all(type(value) in (str, int, bool) for value in key.values())
    assert (await client.get("/v2/flowControl")).json() == [key]


@pytest.mark.parametrize(
    ("value", "fields", "limits"),
    [
        ("parallelism=3,rate=4,period=2s", {"parallelism": 3, "rate": 4, "period": 2}, (3, 4, 2)),
        ("period=1h30m3s, rate=1", {"rate": 1, "period": 5403}, (0, 1, 5403)),
        ("parallelism = 1", {"parallelism": 1, "period": 1}, (1, 0, 1)),
        ("rate=5,period=1d", {"rate": 5, "period": 86_400}, (0, 5, 86_400)),
    ],
)
async def test_a_message_reports_what_was_given(
    client: httpx.AsyncClient, value: str, fields: dict[str, int], limits: tuple[int, int, int]
) -> None:
    message_id = await publish(client, value)
    message = (await client.get(f"/v2/messages/{message_id}")).json()
    names = ("flowControlKey", "parallelism", "rate", "period")
    assert {name: message[name] for name in names if name in message} == {"flowControlKey": "tenant-7", **fields}
    key = await shown(client)
    assert (key["parallelismMax"], key["rateMax"], key["ratePeriod"]) == limits


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Upstash-Flow-Control-Key": "k"}, "Upstash-Flow-Control-Key: it needs limits"),
        ({"Upstash-Flow-Control-Value": "rate=1"}, "Upstash-Flow-Control-Value: it needs a key"),
        ({"Upstash-Flow-Control-Key": "a b", "Upstash-Flow-Control-Value": "rate=1"}, "invalid key"),
        ({"Upstash-Flow-Control-Key": "a/b", "Upstash-Flow-Control-Value": "rate=1"}, "invalid key"),
        ({"Upstash-Flow-Control-Key": "", "Upstash-Flow-Control-Value": "rate=1"}, "invalid key"),
        ({"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": ""}, "is not a limit"),
        ({"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=0"}, "invalid rate"),
        ({"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=1,rate=2"}, "rate is given twice"),
        ({"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "period=1s"}, "neither parallelism nor rate"),
        ({"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=1,period=8d"}, "invalid period"),
        ({"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=1,burst=2"}, "is not a limit"),
    ],
)
async def test_malformed_limits_make_no_key(client: httpx.AsyncClient, headers: dict[str, str], text: str) -> None:
    answer = await client.post(f"/v2/publish/{URL}", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Upstash-Flow-Control-")
    assert text in answer.json()["error"]
    assert (await client.get("/v2/flowControl")).json() == []


async def test_lists_may_be_searched(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v2/flowControl")).json() == []
    for key in ("tenant-2", "tenant-1", "other"):
        await publish(client, "rate=1", key)
    for query, found in (
        ("", ["other", "tenant-1", "tenant-2"]),
        ("?search=tenant", ["tenant-1", "tenant-2"]),
        ("?search=t-1", ["tenant-1"]),
        ("?search=TENANT", []),
        ("?search=%2D2", ["tenant-2"]),
        ("?search=", ["other", "tenant-1", "tenant-2"]),
    ):
        listed = (await client.get(f"/v2/flowControl{query}")).json()
        assert [key["flowControlKey"] for key in listed] == found, query
    answer = await client.get("/v2/flowControl?serach=x")
    assert (answer.status_code, '"serach"' in answer.json()["error"]) == (400, True)


async def test_unknown_keys(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v2/flowControl/none")
    assert (answer.status_code, answer.json()) == (404, {"error": 'flow-control key "none" not found'})
    for action in ("resume", "unpin", "unpin?parallelism=true&rate=true", "resetRate", "reset"):
        await post(client, action, "none")
        assert (await client.get("/v2/flowControl")).json() == []


@pytest.mark.parametrize("path", ["/v2/flowControl/", "/V2/FLOWCONTROL/"])
async def test_an_empty_key_is_not_all_of_them(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 400
    for action in ("pause", "resume", "pin", "unpin", "resetRate", "reset"):
        answer = await client.post(f"{path}/{action}?parallelism=1")
        assert answer.status_code == 400
        assert "the flow-control key is empty" in answer.json()["error"]


@pytest.mark.parametrize("action", ["pause", "resume", "pin?rate=1", "unpin", "resetRate", "reset"])
async def test_a_key_that_no_message_can_have(client: httpx.AsyncClient, action: str) -> None:
    answer = await client.post(f"/v2/flowControl/a%2Fb/{action}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith('flowControlKey: invalid key "a/b"')
    assert (await client.get("/v2/flowControl/a%2Fb")).status_code == 404


async def test_a_key_is_decoded_once(client: httpx.AsyncClient) -> None:
    await publish(client, "rate=1", "a:b@c")
    assert (await shown(client, "a%3Ab@c"))["flowControlKey"] == "a:b@c"


async def test_a_pause_makes_a_key_and_holds_its_messages(client: httpx.AsyncClient, store: Store) -> None:
    await post(client, "pause")
    assert await shown(client) == UNSET | {"flowControlKey": "tenant-7", "isPaused": True}
    await publish(client, "parallelism=5")
    assert await claims(store) == []
    key = await shown(client)
    assert (key["waitListSize"], key["parallelismMax"], key["isPaused"]) == (1, 5, True)
    await post(client, "pause")
    await post(client, "Resume")
    assert (await shown(client))["isPaused"] is False
    [claim] = await claims(store)
    key = await shown(client)
    assert (key["waitListSize"], key["parallelismCount"]) == (0, 1)
    await settle(store, claim, SettlementKind.DELIVERED)
    assert (await shown(client))["parallelismCount"] == 0


async def test_limits_hold_messages_back(client: httpx.AsyncClient, store: Store) -> None:
    for _ in range(4):
        await publish(client, "parallelism=2, rate=3, period=1h")
    first = await claims(store)
    assert len(first) == 2
    key = await shown(client)
    assert (key["parallelismCount"], key["waitListSize"], key["rateCount"]) == (2, 2, 2)
    assert key["ratePeriodStart"] > 1_700_000_000
    await settle(store, first[0], SettlementKind.RETRY, NOT_FOUND, delay_ms=1_000_000)
    assert len(await claims(store)) == 1
    key = await shown(client)
    assert (key["parallelismCount"], key["waitListSize"], key["rateCount"]) == (2, 1, 3)
    await settle(store, first[1], SettlementKind.DELIVERED)
    assert await claims(store) == [], "the window is full"
    await post(client, "resetRate")
    assert (await shown(client))["rateCount"] == 0
    assert len(await claims(store)) == 1


async def test_reset_counts_attempts_under_way_no_longer(client: httpx.AsyncClient, store: Store) -> None:
    for _ in range(2):
        await publish(client, "parallelism=1, rate=9, period=1h")
    [first] = await claims(store)
    await post(client, "reset")
    key = await shown(client)
    assert (key["parallelismCount"], key["rateCount"], key["parallelismMax"], key["rateMax"]) == (0, 0, 1, 9)
    assert len(await claims(store)) == 1
    await settle(store, first, SettlementKind.DELIVERED)
    assert (await shown(client))["parallelismCount"] == 1


async def test_the_latest_message_sets_the_limits(client: httpx.AsyncClient) -> None:
    await publish(client, "parallelism=3, rate=4, period=2")
    await publish(client, "rate=5")
    key = await shown(client)
    assert (key["parallelismMax"], key["rateMax"], key["ratePeriod"]) == (0, 5, 1)


async def test_pins_win_over_messages(client: httpx.AsyncClient, store: Store) -> None:
    await store.delivery.heartbeat("test", 10)
    await post(client, "pin?parallelism=3&rate=20&period=120")
    key = await shown(client)
    assert key == UNSET | {
        "flowControlKey": "tenant-7", "parallelismMax": 3, "rateMax": 20, "ratePeriod": 120,
        "isPinnedParallelism": True, "isPinnedRate": True,
    }  # fmt: skip
    message_id = await publish(client, "parallelism=9, rate=9, period=9")
    message = (await client.get(f"/v2/messages/{message_id}")).json()
    assert (message["parallelism"], message["rate"], message["period"]) == (9, 9, 9)
    assert await shown(client) == key
    await post(client, "unpin?rate=True&parallelism=false")
    key = await shown(client)
    assert (key["isPinnedParallelism"], key["isPinnedRate"]) == (True, False)
    assert (key["parallelismMax"], key["rateMax"], key["ratePeriod"]) == (3, 20, 120), "until the next message"
    await publish(client, "parallelism=9, rate=9, period=9")
    key = await shown(client)
    assert (key["parallelismMax"], key["rateMax"], key["ratePeriod"]) == (3, 9, 9)
    await post(client, "unpin")
    assert (await shown(client))["isPinnedParallelism"] is True, "neither was named"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "there is nothing to pin"),
        ("period=5", "period: it needs a rate"),
        ("parallelism=1&period=5", "period: it needs a rate"),
        ("parallelism=0", "parallelism: invalid number"),
        ("parallelism=1.5", "parallelism: invalid number"),
        ("rate=-1", "rate: invalid number"),
        ("rate=", "rate: invalid number"),
        ("rate=1&period=604801", "period: invalid number"),
        ("rate=1&period=1d", "period: invalid number"),
        ("rate=1&rate=2", '"rate" is given twice'),
        ("paralellism=1", '"paralellism" is not a parameter here'),
    ],
)
async def test_pins_that_cannot_be_understood(client: httpx.AsyncClient, query: str, text: str) -> None:
    answer = await client.post(f"/v2/flowControl/tenant-7/pin?{query}")
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert (await client.get("/v2/flowControl")).json() == []


async def test_a_rate_without_a_period_is_pinned_for_a_second(client: httpx.AsyncClient) -> None:
    await post(client, "pin?rate=5")
    key = await shown(client)
    assert (key["rateMax"], key["ratePeriod"], key["isPinnedRate"], key["isPinnedParallelism"]) == (5, 1, True, False)


@pytest.mark.parametrize("query", ["rate=maybe", "parallelism=", "period=true", "rate=true&rate=false"])
async def test_unpins_that_cannot_be_understood(client: httpx.AsyncClient, query: str) -> None:
    await post(client, "pin?rate=5&parallelism=1")
    assert (await client.post(f"/v2/flowControl/tenant-7/unpin?{query}")).status_code == 400
    key = await shown(client)
    assert (key["isPinnedRate"], key["isPinnedParallelism"]) == (True, True)


async def test_a_key_is_forgotten_when_it_is_idle(
    client: httpx.AsyncClient, store: Store, move_clock: Callable[[int], Any]
) -> None:
    await publish(client, "parallelism=1", "idle")
    await post(client, "pause", "paused")
    await post(client, "pin?rate=1", "pinned")
    [claim] = await claims(store)
    await settle(store, claim, SettlementKind.DELIVERED)
    await move_clock(12 * 60_000)
    await store.delivery.expire(0, 100)
    listed = (await client.get("/v2/flowControl")).json()
    assert [key["flowControlKey"] for key in listed] == ["paused", "pinned"]


async def test_global_parallelism(client: httpx.AsyncClient, store: Store) -> None:
    answer = await client.get("/v2/globalParallelism")
    assert (answer.status_code, answer.json()) == (200, {"parallelismMax": 0, "parallelismCount": 0})
    await client.post(f"/v2/publish/{URL}")
    await claims(store)
    assert (await client.get("/V2/GlobalParallelism")).json() == {"parallelismMax": 10, "parallelismCount": 1}


async def test_global_parallelism_as_it_is_set(settings: Settings, store: Store) -> None:
    app = create_app(replace(settings, global_parallelism=7), store)
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", headers=headers) as client:
        answer = await client.get("/v2/globalParallelism")
        assert answer.json() == {"parallelismMax": 7, "parallelismCount": 0}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v2/flowControl", "GET, HEAD"),
        ("DELETE", "/v2/flowControl/k", "GET, HEAD"),
        ("GET", "/v2/flowControl/k/pause", "POST"),
        ("POST", "/v2/globalParallelism", "GET, HEAD"),
    ],
)
async def test_wrong_methods(client: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
