"""`POST /v2/publish/<destination>`: what is stored, what is answered, and what is refused without a trace."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone import observability
from qstash_clone.api.app import create_app
from qstash_clone.domain.message import NewMessage
from qstash_clone.errors import StorageFull, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import AdminStore, Published, PublishStore
from qstash_clone.storage.store import Store


async def read_back(client: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    shown = await client.get(f"/v2/messages/{answer.json()['messageId']}")
    assert shown.status_code == 200
    return shown.json()


async def stored_messages(store: Store) -> int:
    stats = await store.admin.stats()
    return stats.ready + stats.waiting_timers + stats.lanes_waiting


async def test_answers_with_the_id_and_the_url(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/publish/https://example.com/hook?x=1", content=b"hello")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    result = answer.json()
    assert result == {"messageId": result["messageId"], "url": "https://example.com/hook?x=1"}
    assert len(result["messageId"]) == 24


async def test_the_message_can_be_read_in_the_next_request(client: httpx.AsyncClient) -> None:
    headers = {
        "Content-Type": "text/plain",
        "Upstash-Forward-X-API-key": "k",
        "Upstash-Method": "put",
        "Upstash-Retries": "7",
        "Upstash-Retry-Delay": "1000 * (1 + retried)",
        "Upstash-Label": "a, b",
        "Upstash-Telemetry-Sdk": "ignored",
    }
    answer = await client.post("/v2/publish/https://example.com/hook", content=b"hello", headers=headers)
    message = await read_back(client, answer)
    assert abs(message["createdAt"] - time.time() * 1000) < 60_000
    assert message == {
        "messageId": answer.json()["messageId"],
        "url": "https://example.com/hook",
        "method": "PUT",
        "header": {"Content-Type": ["text/plain"], "X-Api-Key": ["k"]},
        "body": "hello",
        "maxRetries": 7,
        "retryDelayExpression": "1000 * (1 + retried)",
        "label": "a",
        "labels": ["a", "b"],
        "notBefore": message["createdAt"],
        "createdAt": message["createdAt"],
        "callerIP": "192.0.2.7",
        "callerIp": "192.0.2.7",
    }


async def test_what_is_unset_is_omitted(client: httpx.AsyncClient) -> None:
    message = await read_back(client, await client.post("/v2/publish/https://example.com"))
    assert set(message) == {
        "messageId", "url", "method", "header", "maxRetries", "notBefore", "createdAt", "callerIP", "callerIp",
    }  # fmt: skip
    assert message["header"] == {}
    assert message["maxRetries"] == 3


async def test_a_delay_shows_in_not_before(client: httpx.AsyncClient) -> None:
    message = await read_back(
        client, await client.post("/v2/publish/https://example.com", headers={"Upstash-Delay": "10d"})
    )
    assert message["notBefore"] == message["createdAt"] + 10 * 86_400_000


async def test_a_body_that_is_not_text_comes_back_in_base64(client: httpx.AsyncClient) -> None:
    message = await read_back(client, await client.post("/v2/publish/https://example.com", content=b"\xff\x00"))
    assert message["bodyBase64"] == "/wA="
    assert "body" not in message


async def test_several_lines_of_one_header_become_several_values(client: httpx.AsyncClient) -> None:
    lines = [("Upstash-Forward-X-A", "1, 2"), ("Upstash-Forward-X-A", "3"), ("Upstash-Forward-X-B", "ü".encode())]
    answer = await client.post("/v2/publish/https://example.com", headers=httpx.Headers(lines))  # pyright: ignore[reportArgumentType]
    assert (await read_back(client, answer))["header"] == {"X-A": ["1, 2", "3"], "X-B": ["ü"]}


async def test_a_header_value_in_latin_1_is_shown_as_such(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/publish/https://example.com", headers=[(b"upstash-forward-x-a", b"\xfc")])  # pyright: ignore[reportArgumentType]
    assert (await read_back(client, answer))["header"] == {"X-A": ["ü"]}


async def test_configuration_may_come_by_the_query(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/publish/https://example.com/p?a=1&upstash-retries=5&b=2")
    message = await read_back(client, answer)
    assert message["url"] == "https://example.com/p?a=1&b=2"
    assert message["maxRetries"] == 5


async def test_a_token_in_the_query_makes_authorization_payload(settings: Settings, client: httpx.AsyncClient) -> None:
    answer = await client.post(
        f"/v2/publish/https://example.com/p?qstash_token={settings.token}",
        headers={"Authorization": "Bearer for-the-destination", "Upstash-Header-Forward": "true"},
    )
    message = await read_back(client, answer)
    assert message["url"] == "https://example.com/p"
    assert message["header"]["Authorization"] == ["Bearer for-the-destination"]


async def test_the_credential_is_not_forwarded(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/publish/https://example.com", headers={"Upstash-Header-Forward": "true"})
    assert "Authorization" not in (await read_back(client, answer))["header"]


@pytest.mark.parametrize("prefix", ["/v2/publish/", "/V2/Publish/", "//v2/publish/"])
async def test_fixed_segments_match_in_any_case(client: httpx.AsyncClient, prefix: str) -> None:
    answer = await client.post(httpx.URL("http://api", raw_path=f"{prefix}https://example.com/CaSe".encode()))
    assert answer.json()["url"] == "https://example.com/CaSe"


REFUSED: list[tuple[str, dict[str, str], int, str]] = [
    ("/v2/publish/", {}, 400, "a non-empty destination must be provided"),
    ("/v2/publish", {}, 400, "a non-empty destination must be provided"),
    ("/v2/publish/ftp://e.com", {}, 400, "invalid destination url: endpoint has invalid scheme, add http:// or https://"),
    ("/v2/publish/my-group", {}, 404, "topic my-group not found"),
    ("/v2/publish/api/llm", {}, 400, "api/llm: no LLM upstream is configured"),
    ("/v2/publish/https://e.com", {"Upstash-Delay": "5x"}, 400, 'Upstash-Delay: invalid duration "5x"'),
    ("/v2/publish/https://e.com", {"Upstash-Retries": "-1"}, 400, "Upstash-Retries"),
    ("/v2/publish/https://e.com", {"Upstash-Retries": "1001"}, 412, "Upstash-Retries"),
    ("/v2/publish/https://e.com", {"Upstash-Delay": "366d"}, 412, "Upstash-Delay"),
    ("/v2/publish/https://e.com", {"Upstash-Not-Before": "99999999999"}, 412, "Upstash-Not-Before"),
    ("/v2/publish/https://e.com", {"Upstash-Callback": "e.com"}, 400, "invalid callback url: endpoint has invalid"),
    ("/v2/publish/https://e.com", {"Upstash-Failure-Callback": "e.com"}, 400, "invalid failure callback url: "),
    ("/v2/publish/https://e.com", {"Upstash-Deduplication-Id": "a:b"}, 400, "Upstash-Deduplication-Id: "),
    ("/v2/publish/https://e.com", {"Upstash-Redact-Fields": "url"}, 400, "Upstash-Redact-Fields: "),
    ("/v2/publish/https://e.com", {"Upstash-Cron": "* * * *"}, 400, "Upstash-Cron: "),
    ("/v2/publish/https://e.com?upstash-delay=abc", {}, 400, "Upstash-Delay"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "headers", "status", "text"), REFUSED)
async def test_bad_input_is_named_and_stores_nothing(
    client: httpx.AsyncClient, store: Store, target: str, headers: dict[str, str], status: int, text: str
) -> None:
    answer = await client.post(target, headers=headers, content=b"body")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert text in answer.json()["error"]
    assert await stored_messages(store) == 0


async def test_a_private_address_is_refused(settings: Settings, store: Store) -> None:
    strict = replace(settings, allow_private_destinations=False)
    async with asgi_client(strict, store) as client:
        answer = await client.post("/v2/publish/http://169.254.169.254/latest")
        assert answer.status_code == 400
        assert "invalid destination url" in answer.json()["error"]
        assert (await client.post("/v2/publish/https://93.184.216.34/")).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused(settings: Settings, store: Store, announced: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 60
        yield b"x" * 41

    async with asgi_client(replace(settings, max_message_bytes=100), store) as client:
        assert (await client.post("/v2/publish/https://e.com", content=b"x" * 100)).status_code == 200
        stored = await stored_messages(store)
        answer = await client.post("/v2/publish/https://e.com", content=b"x" * 101 if announced else chunks())
        assert answer.status_code == 413
        assert answer.json() == {"error": "the body is larger than the limit of 100 bytes"}
        assert await stored_messages(store) == stored


async def test_only_post_publishes(client: httpx.AsyncClient) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        answer = await client.request(method, "/v2/publish/https://example.com")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert method == "HEAD" or "error" in answer.json()


@pytest.mark.parametrize(
    ("error", "retry_after", "text"),
    [
        (StorageUnavailable("redis://user:secret@host is away"), "1", "the store does not answer"),
        (StorageFull("used 10 of 10"), "10", "the store is full"),
    ],
)
async def test_a_store_that_fails_is_a_503(
    settings: Settings, store: Store, error: Exception, retry_after: str, text: str
) -> None:
    async with asgi_client(settings, BrokenStores(store, error)) as client:
        answer = await client.post("/v2/publish/https://example.com")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == retry_after
        assert text in answer.json()["error"]
        assert "secret" not in answer.text


async def test_a_defect_shows_no_traceback(
    settings: Settings, store: Store, events: Callable[[], list[dict[str, Any]]]
) -> None:
    async with asgi_client(settings, BrokenStores(store, ZeroDivisionError("inside"))) as client:
        answer = await client.post("/v2/publish/https://example.com", headers={"X-Request-Id": "find-me"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error, request id find-me"}
    failed = next(event for event in events() if event["event"] == observability.REQUEST_FAILED)
    assert "ZeroDivisionError: inside" in failed["traceback"]
    assert failed["request_id"] == "find-me"


async def test_a_publish_is_one_event(client: httpx.AsyncClient, events: Callable[[], list[dict[str, Any]]]) -> None:
    answer = await client.post("/v2/publish/https://example.com:8443/x?key=private", content=b"12345")
    [event] = [event for event in events() if event["event"] == observability.MESSAGE_PUBLISHED]
    assert event["message_id"] == answer.json()["messageId"]
    assert event["request_id"] == answer.headers["x-request-id"]
    assert event["lane"] == "h:example.com:8443"
    assert event["body_bytes"] == 5
    assert event["duration_ms"] > 0
    assert "private" not in str(event)


async def test_a_publish_is_counted(client: httpx.AsyncClient) -> None:
    published, observed = observability.MESSAGES_PUBLISHED.value, observability.PUBLISH_DURATION.count
    refused = observability.REQUESTS.value("publish", "4xx")
    await client.post("/v2/publish/https://example.com")
    await client.post("/v2/publish/nothing at all")
    assert observability.MESSAGES_PUBLISHED.value == published + 1
    assert observability.PUBLISH_DURATION.count == observed + 1
    assert observability.REQUESTS.value("publish", "4xx") == refused + 1


class BrokenStores:
    """The real store, whose publishes fail."""

    def __init__(self, store: Store, error: Exception) -> None:
        self._store = store
        self._error = error

    @property
    def publishing(self) -> PublishStore:
        return BrokenPublishStore(self._store.publishing, self._error)

    @property
    def admin(self) -> AdminStore:
        return self._store.admin


class BrokenPublishStore:
    def __init__(self, inner: PublishStore, error: Exception) -> None:
        self.new_message_id = inner.new_message_id
        self.new_message_ids = inner.new_message_ids
        self.decides_elsewhere = inner.decides_elsewhere
        self._error = error

    async def publish(self, message: NewMessage) -> Published:
        raise self._error

    async def fan_out(self, messages: Sequence[NewMessage]) -> Published:
        raise self._error


def asgi_client(settings: Settings, stores: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(settings, stores)),
        base_url="http://api",
        headers={"authorization": f"Bearer {settings.token}"},
    )


@pytest.mark.parametrize("header", ["Upstash-Callback", "Upstash-Failure-Callback"])
async def test_a_callback_to_an_address_inside_is_refused(settings: Settings, store: Store, header: str) -> None:
    async with asgi_client(replace(settings, allow_private_destinations=False), store) as client:
        headers = {"Authorization": f"Bearer {settings.token}", header: "http://169.254.169.254/latest"}
        answer = await client.post("/v2/publish/https://example.com", headers=headers)
    assert answer.status_code == 400
    what = header.removeprefix("Upstash-").replace("-", " ").lower()
    assert answer.json()["error"] == f'invalid {what} url: address "169.254.169.254" is not allowed'
    assert await stored_messages(store) == 0
