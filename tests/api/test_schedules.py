"""`/v2/schedules`: created, replaced, shown, paused and deleted, and what is refused without a trace."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import httpx
import pytest

from qstash_clone import observability
from qstash_clone.api.app import create_app
from qstash_clone.domain.message import AttemptRecord, SettlementKind
from qstash_clone.domain.schedules import StoredSchedule
from qstash_clone.errors import StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage import schedule_store
from qstash_clone.storage.store import Store
from tests.api.conftest import Events, RunningServer
from tests.api.lives import NOT_FOUND, claims, deliver, fire, settle

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
URL = "https://example.com/nightly"
HOURLY = {"Upstash-Cron": "0 * * * *"}
MINUTELY = {"Upstash-Cron": "* * * * *"}

MoveClock = Callable[[int], Awaitable[None]]


async def create(
    client: httpx.AsyncClient, target: str = URL, headers: dict[str, str] | None = None, content: bytes = b""
) -> str:
    answer = await client.post(f"/v2/schedules/{target}", headers=headers or HOURLY, content=content)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    [(name, schedule_id)] = answer.json().items()
    assert name == "scheduleId"
    return schedule_id


async def shown(client: httpx.AsyncClient, schedule_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v2/schedules/{schedule_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get("/v2/schedules")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


async def messages_of(client: httpx.AsyncClient, schedule_id: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/v2/messages?scheduleId={schedule_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()["messages"]


async def test_everything_comes_back(client: httpx.AsyncClient) -> None:
    headers = {
        "Upstash-Cron": " CRON_TZ=Europe/Berlin 0 4 * * * ",
        "Upstash-Method": "put",
        "Content-Type": "application/json",
        "Upstash-Forward-Test-header": "test-value",
        "Upstash-Forward-bypass-tunnel-reminder": "true",
        "Upstash-Telemetry-Sdk": "never shown",
        "Upstash-Retries": "7",
        "Upstash-Retry-Delay": "pow(retried, 2) * 1000",
        "Upstash-Delay": "10s",
        "Upstash-Timeout": "1m30s",
        "Upstash-Callback": "https://cb.example/?a=1",
        "Upstash-Callback-Forward-X-Cb": "1",
        "Upstash-Failure-Callback": "https://fcb.example",
        "Upstash-Failure-Callback-Forward-X-Fcb": "2",
        "Upstash-Queue-Name": "orders",
        "Upstash-Label": "eu, vip",
        "Upstash-Flow-Control-Key": "tenant-7",
        "Upstash-Flow-Control-Value": "rate=3, parallelism=2, period=1d",
    }
    began_ms = time.time_ns() // 1_000_000
    schedule_id = await create(client, URL + "?tenant=7", headers, b'{"n":1}')
    assert schedule_id.startswith("scd_")
    assert len(schedule_id) >= 24
    schedule = await shown(client, schedule_id)
    assert abs(schedule["createdAt"] - began_ms) < MINUTE_MS
    assert 0 < schedule["nextScheduleTime"] - began_ms <= 25 * HOUR_MS
    assert schedule["nextScheduleTime"] % HOUR_MS == 0
    assert schedule == {
        "scheduleId": schedule_id,
        "cron": "CRON_TZ=Europe/Berlin 0 4 * * *",
        "destination": URL + "?tenant=7",
        "method": "PUT",
        "createdAt": schedule["createdAt"],
        "nextScheduleTime": schedule["nextScheduleTime"],
        "isPaused": False,
        "header": {
            "Content-Type": ["application/json"],
            "Test-Header": ["test-value"],
            "Bypass-Tunnel-Reminder": ["true"],
        },
        "body": '{"n":1}',
        "retries": 7,
        "retryDelayExpression": "pow(retried, 2) * 1000",
        "delay": 10,
        "timeout": 90,
        "callback": "https://cb.example/?a=1",
        "callbackHeader": {"X-Cb": ["1"]},
        "failureCallback": "https://fcb.example",
        "failureCallbackHeader": {"X-Fcb": ["2"]},
        "queueName": "orders",
        "label": "eu",
        "labels": ["eu", "vip"],
        "flowControlKey": "tenant-7",
        "parallelism": 2,
        "rate": 3,
        "period": 86_400,
        "callerIP": "192.0.2.7",
        "callerIp": "192.0.2.7",
    }
    assert await listed(client) == [schedule]


async def test_what_is_unset_is_omitted(client: httpx.AsyncClient) -> None:
    schedule = await shown(client, await create(client))
    assert set(schedule) == {
        "scheduleId", "cron", "destination", "method", "header", "retries", "isPaused", "createdAt",
        "nextScheduleTime", "callerIP", "callerIp",
    }  # fmt: skip
    assert (schedule["isPaused"], schedule["retries"], schedule["method"]) == (False, 3, "POST")
    assert schedule["header"] == {}


async def test_a_timeout_is_shown_if_it_was_given(settings: Settings, store: Store) -> None:
    async with calling(replace(settings, default_timeout_ms=90_000), store) as client:
        given = await create(client, headers=HOURLY | {"Upstash-Timeout": "90"})
        default = await create(client)
        assert (await shown(client, given))["timeout"] == 90
        assert "timeout" not in await shown(client, default)


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("parallelism=2", {"parallelism": 2, "period": 1}),
        ("rate=4, period=1h30m3s", {"rate": 4, "period": 5403}),
    ],
)
async def test_flow_control_shows_what_was_given(client: httpx.AsyncClient, value: str, fields: dict[str, int]) -> None:
    headers = HOURLY | {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": value}
    schedule = await shown(client, await create(client, headers=headers))
    given = {name: schedule[name] for name in ("flowControlKey", "parallelism", "rate", "period") if name in schedule}
    assert given == {"flowControlKey": "k", **fields}


async def test_a_body_that_is_not_text_comes_back_in_base64(client: httpx.AsyncClient) -> None:
    schedule = await shown(client, await create(client, content=b"\xff\x00"))
    assert schedule["bodyBase64"] == "/wA="
    assert "body" not in schedule


async def test_redaction_hides_what_is_shown_and_nothing_else(
    client: httpx.AsyncClient, store: Store, move_clock: MoveClock
) -> None:
    headers = MINUTELY | {"Upstash-Forward-X-Key": "secret", "Upstash-Redact-Fields": "body, header[X-Key]"}
    schedule_id = await create(client, headers=headers, content=b"secret")
    hidden = f"REDACTED:{sha256(b'secret').hexdigest()}"
    schedule = await shown(client, schedule_id)
    assert (schedule["body"], schedule["header"]) == (hidden, {"X-Key": [hidden]})
    assert "secret" not in (await client.get("/v2/schedules")).text
    await move_clock(MINUTE_MS)
    assert await fire(store) == 1
    [claim] = await claims(store)
    assert (claim.body, claim.message.headers) == (b"secret", (("X-Key", "secret"),))


async def test_configuration_may_come_by_the_query(settings: Settings, client: httpx.AsyncClient) -> None:
    target = f"{URL}?a=1&upstash-cron=5+4+*+*+*&upstash-schedule-id=by-query&qstash_token={settings.token}&b=2"
    answer = await client.post(f"/v2/schedules/{target}", headers={"Authorization": "Bearer for-nobody"})
    assert answer.json() == {"scheduleId": "by-query"}
    schedule = await shown(client, "by-query")
    assert (schedule["cron"], schedule["destination"]) == ("5 4 * * *", f"{URL}?a=1&b=2")


async def test_a_token_in_the_query_makes_authorization_payload(settings: Settings, client: httpx.AsyncClient) -> None:
    schedule_id = await create(
        client,
        f"{URL}?qstash_token={settings.token}",
        HOURLY | {"Authorization": "Bearer for-the-destination", "Upstash-Header-Forward": "true"},
    )
    assert (await shown(client, schedule_id))["header"]["Authorization"] == ["Bearer for-the-destination"]


@pytest.mark.parametrize(
    ("raw", "destination"),
    [
        ("/v2/schedules/https://e.com/pause", "https://e.com/pause"),
        ("/v2/schedules/https://e.com/a/resume?x=1", "https://e.com/a/resume?x=1"),
        ("/v2/schedules/https%3A%2F%2Fe.com%2Fp%3Fq%3D1", "https://e.com/p?q=1"),
        ("/v2/schedules/https%3A%2F%2Fe.com/pause", "https://e.com/pause"),
        ("/v2/schedules/https:/e.com/resume", "https://e.com/resume"),
        ("/v2/schedules/https:/pause", "https://pause"),
        ("/V2/Schedules/https://e.com//a//b/", "https://e.com//a//b/"),
        ("//v2/schedules/https://e.com/a%2Fb%20c", "https://e.com/a%2Fb%20c"),
        ("/v2/schedules/http://[::1]:3000/p", "http://[::1]:3000/p"),
    ],
)
async def test_destinations_are_taken_from_the_raw_path(client: httpx.AsyncClient, raw: str, destination: str) -> None:
    answer = await client.post(httpx.URL("http://api", raw_path=raw.encode()), headers=HOURLY)
    assert answer.status_code == 200, answer.text
    assert (await shown(client, answer.json()["scheduleId"]))["destination"] == destination


@pytest.mark.parametrize(
    ("target", "headers", "status", "text"),
    [
        ("", HOURLY, 400, "a non-empty destination must be provided"),
        ("ftp://e.com", HOURLY, 400, "invalid destination url: endpoint has invalid scheme"),
        ("a%20b/pause", HOURLY, 400, "invalid destination url: endpoint has invalid scheme"),
        ("name/pausing", HOURLY, 400, "invalid destination url: endpoint has invalid scheme"),
        ("my-group", HOURLY, 404, "topic my-group not found"),
        ("api/llm", HOURLY, 400, "api/llm: no LLM upstream is configured"),
        (URL, {}, 400, "Upstash-Cron: missing"),
        (URL, {"Upstash-Cron": ""}, 400, "Upstash-Cron: "),
        (URL, {"Upstash-Cron": "* * * *"}, 400, "Upstash-Cron: "),
        (URL, {"Upstash-Cron": "0 * * * * *"}, 400, "seconds and years are not supported"),
        (URL, {"Upstash-Cron": "CRON_TZ=Mars/Olympus 0 4 * * *"}, 400, "Upstash-Cron: "),
        (URL, HOURLY | {"Upstash-Schedule-Id": "a b"}, 400, 'Upstash-Schedule-Id: invalid name "a b"'),
        (URL, HOURLY | {"Upstash-Schedule-Id": ""}, 400, "Upstash-Schedule-Id: invalid name"),
        (URL, HOURLY | {"Upstash-Queue-Name": "a/b"}, 400, "Upstash-Queue-Name: invalid name"),
        (URL, HOURLY | {"Upstash-Not-Before": "1700000000"}, 400, "Upstash-Not-Before: not possible together with"),
        (URL, HOURLY | {"Upstash-Delay": "5x"}, 400, "Upstash-Delay: invalid duration"),
        (URL, HOURLY | {"Upstash-Delay": "366d"}, 412, "Upstash-Delay"),
        (URL, HOURLY | {"Upstash-Retries": "1001"}, 412, "Upstash-Retries"),
        (URL, HOURLY | {"Upstash-Callback": "nowhere"}, 400, "invalid callback url"),
    ],
)  # fmt: skip
async def test_bad_input_is_named_and_stores_nothing(
    client: httpx.AsyncClient, target: str, headers: dict[str, str], status: int, text: str
) -> None:
    answer = await client.post(f"/v2/schedules/{target}", headers=headers, content=b"body")
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert text in answer.json()["error"]
    assert await listed(client) == []


async def test_no_destination_at_all(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/schedules", headers=HOURLY)
    assert (answer.status_code, answer.json()) == (400, {"error": "a non-empty destination must be provided"})


async def test_private_addresses_are_refused(settings: Settings, store: Store) -> None:
    async with calling(replace(settings, allow_private_destinations=False), store) as client:
        answer = await client.post("/v2/schedules/http://169.254.169.254/latest", headers=HOURLY)
        assert (answer.status_code, "is not allowed" in answer.json()["error"]) == (400, True)
        headers = HOURLY | {"Upstash-Failure-Callback": "http://10.0.0.1"}
        answer = await client.post(f"/v2/schedules/{URL}", headers=headers)
        assert (answer.status_code, "is not allowed" in answer.json()["error"]) == (400, True)


async def test_a_body_over_the_limit_is_refused(settings: Settings, store: Store) -> None:
    async with calling(replace(settings, max_message_bytes=100), store) as client:
        await create(client, content=b"x" * 100)
        answer = await client.post(f"/v2/schedules/{URL}", headers=HOURLY, content=b"x" * 101)
        assert answer.status_code == 413
        assert len(await listed(client)) == 1


async def test_more_schedules_than_there_may_be(settings: Settings, store: Store) -> None:
    limited = replace(settings, max_schedules=2)
    async with calling(limited, limited_to(limited, store)) as client:
        first = await create(client, headers=HOURLY | {"Upstash-Schedule-Id": "one"})
        await create(client)
        answer = await client.post(f"/v2/schedules/{URL}", headers=HOURLY)
        assert answer.status_code == 412
        assert answer.json()["error"] == "there are 2 schedules already, no more are allowed"
        assert await create(client, "https://e.com", HOURLY | {"Upstash-Schedule-Id": "one"}) == first
        assert (await shown(client, "one"))["destination"] == "https://e.com"
        await client.delete("/v2/schedules/one")
        await create(client)


async def test_an_overwrite_replaces_everything(client: httpx.AsyncClient, store: Store, move_clock: MoveClock) -> None:
    named = {"Upstash-Schedule-Id": "nightly.1_x-Y"}
    headers = MINUTELY | named | {
        "Upstash-Label": "a", "Upstash-Queue-Name": "q", "Upstash-Retries": "1", "Upstash-Timeout": "5",
        "Upstash-Delay": "3", "Upstash-Callback": "https://cb.example",
    }  # fmt: skip
    assert await create(client, headers=headers, content=b"old") == "nightly.1_x-Y"
    await move_clock(MINUTE_MS)
    assert await fire(store) == 1
    await client.patch("/v2/schedules/nightly.1_x-Y/pause")
    before = await shown(client, "nightly.1_x-Y")
    assert before["isPaused"] is True
    await move_clock(5)
    assert await create(client, "https://e.com/new", HOURLY | named) == "nightly.1_x-Y"
    [after] = await listed(client)
    assert set(after) == {
        "scheduleId", "cron", "destination", "method", "header", "retries", "isPaused", "createdAt",
        "nextScheduleTime", "callerIP", "callerIp",
    }  # fmt: skip
    assert (after["destination"], after["isPaused"], after["retries"]) == ("https://e.com/new", False, 3)
    assert after["createdAt"] > before["createdAt"]
    [message] = await messages_of(client, "nightly.1_x-Y")
    assert (message["url"], message["body"]) == (URL, "old"), "messages already produced are untouched"


async def test_lists_are_in_the_order_of_creation(
    client: httpx.AsyncClient, move_clock: MoveClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_store, "READ_TOGETHER", 2)
    assert (await client.get("/v2/schedules/")).json() == await listed(client) == []
    created: list[str] = []
    for _ in range(5):
        created.append(await create(client))
        await move_clock(1)
    assert [schedule["scheduleId"] for schedule in await listed(client)] == created
    assert (await client.get("/v2/schedules/")).json() == await listed(client)


@pytest.mark.parametrize("fails_at", [0, 1])
async def test_a_list_that_cannot_be_read_to_its_end_is_not_taken_for_complete(
    client: httpx.AsyncClient, server: RunningServer, settings: Settings, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    await create(client)
    await create(client)
    reads = 0

    def fail_at_last(schedule_ids: Sequence[str], records: Sequence[bytes | None]) -> list[StoredSchedule]:
        nonlocal reads
        if reads == fails_at:
            raise StorageUnavailable("away")
        reads += 1
        return readable(schedule_ids, records)

    readable = schedule_store._readable  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(schedule_store, "READ_TOGETHER", 1)
    monkeypatch.setattr(schedule_store, "_readable", fail_at_last)
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as reader:
        if fails_at == 0:
            assert (await reader.get("/v2/schedules")).status_code == 503
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                await reader.get("/v2/schedules")


async def test_a_schedule_that_cannot_be_read_hides_no_other(client: httpx.AsyncClient, store: Store) -> None:
    kept, broken = await create(client), await create(client)
    key = store.schedules._record(broken)  # pyright: ignore[reportPrivateUsage]
    await store.commands.ask("SETRANGE", key, 0, b"\xff")
    assert [schedule["scheduleId"] for schedule in await listed(client)] == [kept]
    assert (await client.get(f"/v2/schedules/{broken}")).status_code == 503


async def test_unknown_schedules(client: httpx.AsyncClient) -> None:
    for method, path in (
        ("GET", ""), ("PATCH", "/pause"), ("POST", "/pause"), ("PUT", "/pause"), ("PATCH", "/resume"),
        ("POST", "/resume"), ("PUT", "/resume"),
    ):  # fmt: skip
        answer = await client.request(method, f"/v2/schedules/scd_none{path}")
        assert answer.status_code == 404, (method, path)
        assert answer.json() == {"error": 'schedule "scd_none" not found'}
    answer = await client.delete("/v2/schedules/scd_none")
    assert (answer.status_code, answer.json()) == (200, {})


async def test_an_id_that_is_no_name_is_unknown(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v2/schedules/a%20b")).status_code == 404
    assert (await client.patch("/v2/schedules/a%20b/pause")).status_code == 404
    assert (await client.delete("/v2/schedules/a%20b")).status_code == 200


async def test_a_deleted_schedule_is_gone(client: httpx.AsyncClient, store: Store, move_clock: MoveClock) -> None:
    schedule_id, other = await create(client, headers=MINUTELY), await create(client)
    answer = await client.delete(f"/v2/schedules/{schedule_id}", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await client.get(f"/v2/schedules/{schedule_id}")).status_code == 404
    assert [schedule["scheduleId"] for schedule in await listed(client)] == [other]
    await move_clock(MINUTE_MS)
    await fire(store)
    assert await messages_of(client, schedule_id) == []


async def test_a_forgotten_id_is_not_everything(client: httpx.AsyncClient) -> None:
    schedule_id = await create(client)
    assert (await client.delete("/v2/schedules/")).status_code == 400
    assert (await client.delete("/v2/schedules")).status_code == 405
    assert [schedule["scheduleId"] for schedule in await listed(client)] == [schedule_id]


@pytest.mark.parametrize("method", ["PATCH", "POST", "PUT"])
async def test_pause_and_resume(client: httpx.AsyncClient, store: Store, move_clock: MoveClock, method: str) -> None:
    schedule_id = await create(client)
    for _ in range(2):
        answer = await client.request(method, f"/v2/schedules/{schedule_id}/pause")
        assert (answer.status_code, answer.json()) == (200, {})
        paused = await shown(client, schedule_id)
        assert paused["isPaused"] is True
        assert "nextScheduleTime" not in paused
        assert await listed(client) == [paused]
    await move_clock(3 * HOUR_MS)
    assert await fire(store) == 0
    for _ in range(2):
        answer = await client.request(method, f"/V2/SCHEDULES/{schedule_id}/Resume")
        assert (answer.status_code, answer.json()) == (200, {})
        resumed = await shown(client, schedule_id)
        assert resumed["isPaused"] is False
        assert resumed["nextScheduleTime"] > resumed["createdAt"] + 2 * HOUR_MS
    assert await fire(store) == 0, "no backlog gathered"


async def test_created_paused(client: httpx.AsyncClient, store: Store, move_clock: MoveClock) -> None:
    paused = HOURLY | {"Upstash-Schedule-Id": "s", "Upstash-Schedule-Paused": "true"}
    for before in (HOURLY | {"Upstash-Schedule-Id": "s"}, paused):
        await create(client, headers=before)
        await create(client, headers=paused)
        stored = await shown(client, "s")
        assert (stored["isPaused"], "nextScheduleTime" in stored) == (True, False)
    await move_clock(3 * HOUR_MS)
    assert await fire(store) == 0
    await client.patch("/v2/schedules/s/resume")
    await move_clock(HOUR_MS)
    assert await fire(store) == 1


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v2/schedules", "GET, HEAD, POST"),
        ("GET", "/v2/schedules/s/pause", "PATCH, POST, PUT"),
        ("DELETE", "/v2/schedules/s/resume", "PATCH, POST, PUT"),
        ("PATCH", "/v2/schedules/s", "DELETE, GET, HEAD, POST"),
    ],
)
async def test_wrong_methods(client: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


async def test_a_firing_publishes_and_shows(client: httpx.AsyncClient, store: Store, move_clock: MoveClock) -> None:
    headers = MINUTELY | {"Upstash-Delay": "10s", "Upstash-Forward-X-A": "1", "Upstash-Label": "eu"}
    schedule_id = await create(client, headers=headers, content=b"payload")
    schedule = await shown(client, schedule_id)
    planned = schedule["nextScheduleTime"]
    assert await messages_of(client, schedule_id) == []
    await move_clock(planned - schedule["createdAt"])
    assert await fire(store) == 1
    [message] = await messages_of(client, schedule_id)
    assert (message["scheduleId"], message["body"], message["url"]) == (schedule_id, "payload", URL)
    assert (message["header"], message["label"], message["callerIP"]) == ({"X-A": ["1"]}, "eu", "192.0.2.7")
    assert message["notBefore"] == planned + 10_000
    schedule = await shown(client, schedule_id)
    assert schedule["lastScheduleTime"] == planned
    assert schedule["nextScheduleTime"] > planned
    assert schedule["lastScheduleStates"] == {message["messageId"]: "IN_PROGRESS"}
    assert await listed(client) == [schedule]


async def last_states(client: httpx.AsyncClient, schedule_id: str) -> list[str] | None:
    states = (await shown(client, schedule_id)).get("lastScheduleStates")
    return None if states is None else list(states.values())


async def test_states_of_the_last_firing(client: httpx.AsyncClient, store: Store, move_clock: MoveClock) -> None:
    schedule_id = await create(client, headers=MINUTELY)
    assert await last_states(client, schedule_id) is None
    for end, state in (("deliver", "SUCCESS"), ("fail", "FAIL"), ("cancel", "FAIL"), ("retry", "IN_PROGRESS")):
        await move_clock(MINUTE_MS)
        assert await fire(store) == 1
        [claim] = await claims(store)
        assert await last_states(client, schedule_id) == ["IN_PROGRESS"]
        if end == "cancel":
            await settle(store, claim, SettlementKind.RETRY, NOT_FOUND, delay_ms=HOUR_MS)
            assert (await client.delete(f"/v2/messages?scheduleId={schedule_id}")).json() == {"cancelled": 1}
        elif end == "retry":
            await settle(store, claim, SettlementKind.RETRY, NOT_FOUND, delay_ms=HOUR_MS)
        elif end == "fail":
            await settle(store, claim, SettlementKind.FAILED, NOT_FOUND)
        else:
            await settle(store, claim, SettlementKind.DELIVERED)
        assert await last_states(client, schedule_id) == [state], end


async def test_a_message_that_is_gone_has_no_state(
    client: httpx.AsyncClient, store: Store, move_clock: MoveClock
) -> None:
    schedule_id = await create(client, headers=MINUTELY)
    await move_clock(MINUTE_MS)
    await fire(store)
    [claim] = await claims(store)
    await settle(store, claim, SettlementKind.FAILED, AttemptRecord(status=500, error="no"))
    [letter] = (await client.get("/v2/dlq")).json()["messages"]
    assert await last_states(client, schedule_id) == ["FAIL"]
    await store.commands.ask("DEL", store.schedules._access.keys[0].message(claim.id))  # pyright: ignore[reportPrivateUsage]
    assert letter["scheduleId"] == schedule_id
    schedule = await shown(client, schedule_id)
    assert "lastScheduleStates" not in schedule
    assert "lastScheduleTime" in schedule


async def test_a_group_is_resolved_when_it_fires(
    client: httpx.AsyncClient, store: Store, move_clock: MoveClock
) -> None:
    first, second = {"url": "https://a.example", "name": "one"}, {"url": "https://b.example"}
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [first]})
    await client.patch("/v2/topics/g", json={"headers": {"Upstash-Retries": "1", "Upstash-Cron": "1 1 1 1 1"}})
    schedule_id = await create(client, "g?dropped=1", MINUTELY | {"Upstash-Forward-X-A": "1"}, b"payload")
    schedule = await shown(client, schedule_id)
    assert (schedule["destination"], schedule["retries"], schedule["cron"]) == ("g", 1, "* * * * *")
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [second]})
    await move_clock(MINUTE_MS)
    assert await fire(store) == 1
    messages = await messages_of(client, schedule_id)
    assert {(message["url"], message.get("endpointName"), message["topicName"]) for message in messages} == {
        ("https://a.example", "one", "g"), ("https://b.example", None, "g"),
    }  # fmt: skip
    assert await last_states(client, schedule_id) == ["IN_PROGRESS"] * 2
    await deliver(store)
    assert await last_states(client, schedule_id) == ["SUCCESS"] * 2


async def test_a_firing_without_a_group_says_why(
    client: httpx.AsyncClient, store: Store, move_clock: MoveClock
) -> None:
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": "https://a.example"}]})
    schedule_id = await create(client, "g", MINUTELY)
    await client.delete("/v2/topics/g")
    await move_clock(MINUTE_MS)
    assert await fire(store) == 1
    schedule = await shown(client, schedule_id)
    assert schedule["error"] == "topic g not found"
    assert "lastScheduleTime" in schedule
    assert "lastScheduleStates" not in schedule
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": "https://a.example"}]})
    await move_clock(MINUTE_MS)
    assert await fire(store) == 1
    schedule = await shown(client, schedule_id)
    assert "error" not in schedule
    assert list(schedule["lastScheduleStates"].values()) == ["IN_PROGRESS"]


async def test_a_queue_is_made_by_the_first_firing(
    client: httpx.AsyncClient, store: Store, move_clock: MoveClock
) -> None:
    schedule_id = await create(client, headers=MINUTELY | {"Upstash-Queue-Name": "orders"})
    assert (await client.get("/v2/queues")).json() == []
    await move_clock(MINUTE_MS)
    await fire(store)
    assert (await client.get("/v2/queues/orders")).json()["lag"] == 1
    [message] = await messages_of(client, schedule_id)
    assert message["queueName"] == "orders"
    await client.post("/v2/queues", json={"queueName": "orders", "parallelism": 5})
    await move_clock(MINUTE_MS)
    await fire(store)
    assert (await client.get("/v2/queues/orders")).json()["parallelism"] == 5


async def test_a_repeat_of_a_creation_is_recognised(client: httpx.AsyncClient) -> None:
    headers = HOURLY | {"Upstash-Deduplication-Id": "once"}
    schedule_id = await create(client, headers=headers)
    answer = await client.post(f"/v2/schedules/{URL}?again", headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"scheduleId": schedule_id, "deduplicated": True})
    assert [schedule["destination"] for schedule in await listed(client)] == [URL]


async def test_a_creation_is_one_event(client: httpx.AsyncClient, events: Events) -> None:
    headers = HOURLY | {"Upstash-Deduplication-Id": "once"}
    answer = await client.post(f"/v2/schedules/{URL}?key=private", headers=headers, content=b"12345")
    await client.post(f"/v2/schedules/{URL}?key=private", headers=headers)
    created, repeated = (
        event for event in events()
        if event["event"] in (observability.SCHEDULE_CREATED, observability.SCHEDULE_DEDUPLICATED)
    )  # fmt: skip
    assert (created["event"], repeated["event"]) == ("schedule.created", "schedule.deduplicated")
    assert created["schedule_id"] == repeated["schedule_id"] == answer.json()["scheduleId"]
    assert (created["cron"], created["body_bytes"]) == ("0 * * * *", 5)
    assert created["request_id"] == answer.headers["x-request-id"]
    assert "private" not in str(events())


def calling(settings: Settings, store: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(settings, store)),
        base_url="http://api",
        headers={"authorization": f"Bearer {settings.token}"},
    )


def limited_to(settings: Settings, store: Store) -> Store:
    """The same store with the limits of these settings."""
    access, publishing = store.schedules._access, store.publishing  # pyright: ignore[reportPrivateUsage]
    limited = schedule_store.RedisScheduleStore(access, publishing, max_schedules=settings.max_schedules)
    return replace(store, schedules=limited)


async def test_a_schedule_for_the_llm_upstream(settings: Settings, store: Store, move_clock: MoveClock) -> None:
    settings = replace(settings, llm_base_url="https://llm.example", llm_api_key="k3y-0123456789")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(settings, store)),
        base_url="http://api",
        headers={"authorization": f"Bearer {settings.token}"},
    ) as client:
        answer = await client.post("/v2/schedules/api/llm", headers=MINUTELY)
        assert (answer.status_code, answer.json()) == (
            400,
            {"error": "api/llm: Upstash-Callback is missing, it is where the answer goes"},
        )
        schedule_id = await create(client, "api/llm", MINUTELY | {"Upstash-Callback": "https://cb.example"})
        assert (await shown(client, schedule_id))["destination"] == "api/llm"
        await move_clock(MINUTE_MS)
        await fire(store)
        [message] = await messages_of(client, schedule_id)
    assert (message["api"], message["url"]) == ("llm", "https://llm.example/v1/chat/completions")
