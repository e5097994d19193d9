"""Repeats of a publish: how they are answered, and the records by which they are known."""

import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from qstash_clone.storage.store import Store
from tests.api.lives import deliver, fail, log_of, publish

PATH = "/v2/publish/https://example.com/hook"


async def test_a_repeat_gets_the_first_id_and_stores_nothing(client: httpx.AsyncClient) -> None:
    first = await publish(client, Upstash_Deduplication_Id="order-1")
    for path in (PATH, "/v2/publish/https://other.example"):
        answer = await client.post(path, headers={"Upstash-Deduplication-Id": "order-1"}, content=b"whatever")
        assert answer.status_code == 202
        assert answer.json() == {"messageId": first, "deduplicated": True}
    assert len(await log_of(client)) == 1
    assert await publish(client, Upstash_Deduplication_Id="order-2") != first


@pytest.mark.parametrize("end", [deliver, fail])
async def test_a_repeat_of_what_ended_is_one_too(
    client: httpx.AsyncClient, store: Store, end: Callable[[Store], Awaitable[None]]
) -> None:
    first = await publish(client, Upstash_Deduplication_Id="x")
    await end(store)
    answer = await client.post(PATH, headers={"Upstash-Deduplication-Id": "x"})
    assert (answer.status_code, answer.json()["messageId"]) == (202, first)


async def test_a_repeat_of_what_was_cancelled_is_one_too(client: httpx.AsyncClient) -> None:
    first = await publish(client, Upstash_Deduplication_Id="x", Upstash_Delay="1h")
    await client.delete(f"/v2/messages/{first}")
    answer = await client.post(PATH, headers={"Upstash-Deduplication-Id": "x"})
    assert (answer.status_code, answer.json()["messageId"]) == (202, first)


async def test_the_content_decides_if_asked_to(client: httpx.AsyncClient) -> None:
    headers = {"Upstash-Content-Based-Deduplication": "true", "Upstash-Forward-X": "1"}
    first = (await client.post(PATH, headers=headers, content=b"a")).json()["messageId"]
    for path, more, body, status in (
        (PATH, {}, b"a", 202),
        (PATH, {"Upstash-Telemetry-Sdk": "x"}, b"a", 202),
        (PATH, {}, b"b", 200),
        (PATH + "?x", {}, b"a", 200),
        (PATH, {"Upstash-Forward-X": "2"}, b"a", 200),
        (PATH, {"Upstash-Retries": "1"}, b"a", 200),
        (PATH, {"Upstash-Content-Based-Deduplication": "false"}, b"a", 200),
    ):
        answer = await client.post(path, headers=headers | more, content=body)
        assert (answer.status_code, answer.json()["messageId"] == first) == (status, status == 202), (more, body)


async def test_an_explicit_id_wins_over_the_content(client: httpx.AsyncClient) -> None:
    headers = {"Upstash-Content-Based-Deduplication": "true", "Upstash-Deduplication-Id": "one"}
    await client.post(PATH, headers=headers, content=b"a")
    assert (await client.post(PATH, headers=headers, content=b"b")).status_code == 202
    headers["Upstash-Deduplication-Id"] = "two"
    assert (await client.post(PATH, headers=headers, content=b"a")).status_code == 200


async def test_a_record_is_shown_and_cleared(client: httpx.AsyncClient) -> None:
    first = await publish(client, Upstash_Deduplication_Id="a/b c?".replace(" ", "-"))
    path = "/v2/deduplication/a%2Fb-c%3F"
    record = (await client.get(path)).json()
    in_90_days = time.time() * 1000 + 90 * 86_400_000
    assert record == {"deduplicationId": "a/b-c?", "messageId": first, "expiresAt": record["expiresAt"]}
    assert abs(record["expiresAt"] - in_90_days) < 60_000
    answer = await client.delete(path)
    assert (answer.status_code, answer.json()) == (200, {})
    for method in ("GET", "DELETE"):
        answer = await client.request(method, path)
        assert answer.status_code == 404
        assert '"a/b-c?" not found' in answer.json()["error"]
    assert await publish(client, Upstash_Deduplication_Id="a/b-c?") != first


async def test_a_window_of_its_own(client: httpx.AsyncClient, move_clock: Callable[[int], Awaitable[None]]) -> None:
    headers = {"Upstash-Deduplication-Id": "x", "Upstash-Deduplication-Window": "10s"}
    first = (await client.post(PATH, headers=headers)).json()["messageId"]
    await move_clock(9_000)
    assert (await client.post(PATH, headers=headers)).status_code == 202
    await move_clock(2_000)
    again = await client.post(PATH, headers=headers)
    assert again.status_code == 200
    assert again.json()["messageId"] != first


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_forgotten_id_is_refused(client: httpx.AsyncClient, method: str) -> None:
    assert (await client.request(method, "/v2/deduplication/")).status_code == 400


async def test_repeats_are_counted_and_logged_apart(
    client: httpx.AsyncClient, events: Callable[[], list[dict[str, object]]]
) -> None:
    first = await publish(client, Upstash_Deduplication_Id="x")
    await client.post(PATH, headers={"Upstash-Deduplication-Id": "x"})
    told = [(event["event"], event["message_id"]) for event in events()]
    assert told == [("message.published", first), ("message.deduplicated", first)]
