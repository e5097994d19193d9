"""What clients other than the official Python and TypeScript ones rely on, each test with the client that does.

The requests are written as these clients send them: paths, spelling of headers, bodies that nobody needs.
"""

from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.api.lives import dead_letters, fail, publish

JSON_TYPE = {"Content-Type": "application/json"}
FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}
URL = "https://example.com/hook"


async def json_of(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def published(client: httpx.AsyncClient, path: str, body: bytes = b"", **headers: str) -> dict[str, Any]:
    """The message that a publish to this path has stored."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.post(path, content=body, headers=named)
    assert answer.status_code == 200, answer.text
    return await json_of(client, f"/v2/messages/{answer.json()['messageId']}")


async def one_of_each(client: httpx.AsyncClient, store: Store) -> dict[str, Any]:
    """Every kind of object as the api shows it, with nothing set that need not be."""
    await client.post("/v2/topics/group/endpoints", json={"endpoints": [{"url": URL}]})
    await client.post("/v2/queues", json={"queueName": "orders"})
    await client.post(f"/v2/schedules/{URL}", headers={"Upstash-Cron": "1 1 1 1 1", "Upstash-Schedule-Id": "nightly"})
    await client.post("/v2/flowControl/key/pause")
    message_id = await publish(client)
    shown = await json_of(client, f"/v2/messages/{message_id}")
    await fail(store)
    [letter] = await dead_letters(client)
    return {
        "message": shown,
        "dead letter": letter,
        "events": await json_of(client, "/v2/events"),
        "schedule": await json_of(client, "/v2/schedules/nightly"),
        "group": await json_of(client, "/v2/topics/group"),
        "queue": await json_of(client, "/v2/queues/orders"),
        "key": await json_of(client, "/v2/flowControl/key"),
    }


def nulls_in(value: object, path: str) -> list[str]:
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return [found for name, one in fields.items() for found in nulls_in(one, f"{path}.{name}")]
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [found for at, one in enumerate(items) for found in nulls_in(one, f"{path}[{at}]")]
    return [path] if value is None else []


# Go: the official client.


@pytest.mark.parametrize("path", ["keys", "Schedules", "queues", "topics", "dlq", "events"])
async def test_go_puts_two_slashes_where_the_base_url_ends_in_one(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"http://api//v2/{path}")).status_code == 200


async def test_go_publishes_with_two_slashes_too(client: httpx.AsyncClient) -> None:
    assert (await published(client, f"http://api//v2/publish/{URL}?a=1"))["url"] == f"{URL}?a=1"


async def test_go_spells_schedules_with_a_capital_to_create_and_to_get(client: httpx.AsyncClient) -> None:
    created = await client.post(f"/v2/Schedules/{URL}", headers={"Upstash-Cron": "1 1 1 1 1"}, content=b"text")
    schedule = await json_of(client, f"/v2/Schedules/{created.json()['scheduleId']}")
    assert (schedule["destination"], schedule["body"], schedule["header"]) == (URL, "text", {})


@pytest.mark.parametrize("path", ["/v2/messages", "/v2/dlq"])
async def test_go_announces_json_and_sends_none_to_delete_all(client: httpx.AsyncClient, path: str) -> None:
    await publish(client)
    answer = await client.request("DELETE", path, headers=JSON_TYPE)
    assert answer.status_code == 200
    assert all(type(count) is int for count in answer.json().values()), "it reads a map of numbers"


async def test_go_sends_empty_strings_for_what_is_unset_in_a_batch(client: httpx.AsyncClient) -> None:
    item = {"destination": URL, "headers": {"Upstash-Method": ["PUT"]}, "body": "", "queue": ""}
    [result] = (await client.post("/v2/batch", json=[item])).json()
    message = await json_of(client, f"/v2/messages/{result['messageId']}")
    assert message["method"] == "PUT"
    assert not message.keys() & {"body", "bodyBase64", "queueName"}


async def test_go_looks_for_these_words(client: httpx.AsyncClient) -> None:
    for path, text in (
        ("/v2/publish/", "a non-empty destination must be provided"),
        ("/v2/enqueue/", "a non-empty destination must be provided"),
        ("/v2/enqueue/orders/", "a non-empty destination must be provided"),
        ("/v2/schedules/", "a non-empty destination must be provided"),
        ("/v2/publish/non_existing_url_group", "topic non_existing_url_group not found"),
    ):
        assert text in (await client.post(path)).json()["error"]


# Go: marksalpeter/go-qstash.


@pytest.mark.parametrize(("text", "delay_ms"), [("1s", 1000), ("1m0s", 60_000), ("1h0m0s", 3_600_000)])
async def test_go_prints_durations_with_all_smaller_units(client: httpx.AsyncClient, text: str, delay_ms: int) -> None:
    message = await published(client, f"/v2/publish/{URL}", Upstash_Delay=text)
    assert message["notBefore"] - message["createdAt"] == delay_ms


async def test_go_spells_the_deduplication_id_in_capitals(client: httpx.AsyncClient) -> None:
    headers = {"Upstash-Deduplication-ID": "ac9f6a5e-46f0-4a63-8f3c-1f1d9e8b7c6d", **JSON_TYPE}
    answers = [await client.post(f"/v2/publish/{URL}", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 202]
    assert len({answer.json()["messageId"] for answer in answers}) == 1


# Rust: mertakman/qstash-rs and DrSh4dow/qstash-rs.


@pytest.mark.parametrize(
    "path", ["/v2/queues/orders/", "/v2/queues/", "/v2/dlq/", "/v2/topics/group/", "/v2/schedules/nightly/"]
)
async def test_rust_reads_with_a_slash_at_the_end(client: httpx.AsyncClient, store: Store, path: str) -> None:
    await one_of_each(client, store)
    assert await json_of(client, path) == await json_of(client, path.removesuffix("/"))


async def test_rust_writes_queues_with_a_slash_at_the_end(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/queues/", json={"queueName": "orders", "parallelism": 3})
    assert answer.status_code == 200
    assert (await json_of(client, "/v2/queues/orders"))["parallelism"] == 3


async def test_rust_asks_a_wrong_path_to_delete_dead_letters_and_deletes_nothing(
    client: httpx.AsyncClient, store: Store
) -> None:
    """It sends the ids to `DELETE /v2/queues/`."""
    await one_of_each(client, store)
    answer = await client.request("DELETE", "/v2/queues/", json={"dlqIds": ["1-0"]})
    assert answer.status_code == 400
    assert len(await dead_letters(client)) == 1
    assert len(await json_of(client, "/v2/queues")) == 1


async def test_rust_cannot_read_null(client: httpx.AsyncClient, store: Store) -> None:
    assert nulls_in(await one_of_each(client, store), "") == []


async def test_rust_expects_an_array_of_a_group_with_one_endpoint(client: httpx.AsyncClient) -> None:
    await client.post("/v2/topics/group/endpoints", json={"endpoints": [{"url": URL}]})
    [result] = (await client.post("/v2/publish/group")).json()
    assert result["url"] == URL


async def test_rust_tells_limits_apart_by_their_headers(settings: Settings, store: Store) -> None:
    transport = httpx.ASGITransport(create_app(replace(settings, management_burst_limit=1), store))
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        answers = [await client.get("/v2/keys") for _ in range(10)]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "burst-ratelimit-limit" in refused.headers
    assert refused.headers["burst-ratelimit-reset"].isdigit()
    assert not refused.headers.keys() & {"ratelimit-limit", "x-ratelimit-limit-requests"}


# PHP: heyjorgedev/qstash-php, and Laravel on top of it.


async def test_php_makes_arguments_of_the_fields_of_a_queue(client: httpx.AsyncClient) -> None:
    """A field that it does not know is a fatal error there."""
    await client.post("/v2/queues", json={"queueName": "orders", "parallelism": 1}, headers=JSON_TYPE)
    fields = {"name", "parallelism", "lag", "paused", "createdAt", "updatedAt"}
    assert (await json_of(client, "/v2/queues/orders")).keys() == fields
    assert [queue.keys() for queue in await json_of(client, "/v2/queues")] == [fields]


async def test_php_knows_a_full_account_by_its_412(settings: Settings, store: Store) -> None:
    transport = httpx.ASGITransport(create_app(replace(settings, max_queues=1), store))
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        statuses = [
            (await client.post("/v2/queues", json={"queueName": name, "parallelism": 1})).status_code for name in "aba"
        ]
    assert statuses == [200, 412, 200]


async def test_php_sends_a_get_with_a_body(client: httpx.AsyncClient) -> None:
    headers = {"Upstash_Method": "GET", "Upstash_Forward_Content_Type": "application/json", **JSON_TYPE}
    message = await published(client, f"/v2/publish/{URL}", b"[]", **headers)
    assert (message["method"], message["body"], message["header"]) == (
        "GET",
        "[]",
        {"Content-Type": ["application/json"]},
    )


async def test_php_reads_an_object_or_an_array_from_every_answer(client: httpx.AsyncClient) -> None:
    message_id = await publish(client)
    for method, path in (
        ("DELETE", f"/v2/messages/{message_id}"),
        ("DELETE", f"/v2/messages/{message_id}"),
        ("DELETE", "/v2/queues/none"),
        ("GET", "/v2/queues/none"),
        ("POST", "/v2/queues"),
        ("PATCH", "/v2/queues"),
        ("GET", "/v2/nothing"),
    ):
        answer = await client.request(method, path)
        assert isinstance(answer.json(), dict | list), path


# Ruby: dvmonroe/qstash-ruby.


async def test_ruby_sends_an_empty_object_as_a_form_with_every_delete(client: httpx.AsyncClient, store: Store) -> None:
    first = await publish(client)
    await fail(store)
    [letter] = await dead_letters(client)
    second = await publish(client, Upstash_Delay="1d")
    for path in (f"/v2/dlq/{letter['dlqId']}", f"/v2/messages/{second}", "/v2/topics/group"):
        answer = await client.request("DELETE", path, content=b"{}", headers=FORM_TYPE)
        assert answer.status_code == 200, path
    assert first != second
    assert await dead_letters(client) == []


@pytest.mark.parametrize("path", ["/v2/messages/", "/v2/dlq/"])
async def test_ruby_deletes_without_an_id_and_must_not_delete_all(
    client: httpx.AsyncClient, store: Store, path: str
) -> None:
    """An empty list of ids becomes this path, with the body of a bulk operation without filters."""
    await publish(client)
    await fail(store)
    await publish(client, Upstash_Delay="1d")
    answer = await client.request("DELETE", path, content=b"{}", headers=FORM_TYPE)
    assert answer.status_code == 400
    assert len(await dead_letters(client)) == 1
    assert len((await json_of(client, "/v2/messages"))["messages"]) == 1


async def test_ruby_rotates_keys_with_a_body(client: httpx.AsyncClient) -> None:
    before = await json_of(client, "/v2/keys")
    answer = await client.post("/v2/keys/rotate", content=b"{}", headers=FORM_TYPE)
    assert answer.json()["current"] == before["next"]


async def test_ruby_forwards_names_in_camel_case(client: httpx.AsyncClient) -> None:
    message = await published(client, f"/v2/publish/{URL}", b"null", **{"Upstash-Forward-requestId": "7"})
    assert (message["header"], message["body"]) == ({"Requestid": ["7"]}, "null")


# Java: tdilber/upstash-qstash-spring-boot-starter.


async def test_java_announces_json_and_sends_no_body_for_a_schedule(client: httpx.AsyncClient) -> None:
    url = "https://example.com:8443/listener/schedule/nightly"
    answer = await client.post(
        f"/v2/schedules/{url}", headers={**JSON_TYPE, "Upstash-Cron": "0 0 * * *", "App-Schedule-Name": "nightly"}
    )
    assert answer.status_code == 200
    [schedule] = await json_of(client, "/v2/schedules")
    assert (schedule["destination"], schedule["header"]) == (url, {"Content-Type": ["application/json"]})
    assert "body" not in schedule


# Django: jmitchel3/django-qstash.


async def test_django_saves_a_schedule_again_under_its_id(client: httpx.AsyncClient) -> None:
    """Every save of its model is a creation with the same id, which then must be the one that is answered."""
    headers = {"Upstash-Cron": "*/5 * * * *", "Upstash-Timeout": "60s", "Upstash-Retries": "3", **JSON_TYPE}
    created = (await client.post(f"/v2/schedules/{URL}/", headers=headers, content=b"{}")).json()["scheduleId"]
    headers |= {"Upstash-Schedule-Id": created, "Upstash-Cron": "0 * * * *"}
    assert (await client.post(f"/v2/schedules/{URL}/", headers=headers, content=b"{}")).json()["scheduleId"] == created
    [schedule] = await json_of(client, "/v2/schedules")
    assert (schedule["cron"], schedule["timeout"], schedule["destination"]) == ("0 * * * *", 60, f"{URL}/")
    for change, is_paused in (("pause", True), ("resume", False)):
        assert (await client.patch(f"/v2/schedules/{created}/{change}")).status_code == 200
        assert (await json_of(client, f"/v2/schedules/{created}"))["isPaused"] is is_paused


# Dart, and older Rust clients: they know the first version of the protocol only.


@pytest.mark.parametrize("path", ["/v1/publish/https://example.com", "/v1/topics", "/v1/logs", "/v1/endpoints/ep_1"])
async def test_the_first_version_is_answered_with_an_error_they_can_read(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    assert answer.status_code == 404
    assert isinstance(answer.json()["error"], str)
