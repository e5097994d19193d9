"""What holds for every path: credentials, unknown paths and methods, request ids, what later releases serve."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from qstash_clone import observability
from qstash_clone.settings import Settings

UNAUTHORIZED: list[dict[str, str]] = [
    {"authorization": ""},
    {"authorization": "Bearer"},
    {"authorization": "Bearer "},
    {"authorization": "Bearer wrong"},
    {"authorization": "Basic {token}"},
    {"authorization": "{token}"},
    {"authorization": "Bearer {token}x"},
]


@pytest.mark.parametrize("headers", UNAUTHORIZED)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/publish/https://example.com"),
        ("GET", "/v2/publish/https://example.com"),
        ("GET", "/v2/dlq"),
        ("GET", "/V2/Keys"),
        ("POST", "/v2/batch"),
        ("GET", "/v2/nothing"),
    ],
)
async def test_every_endpoint_wants_the_token(
    client: httpx.AsyncClient, settings: Settings, headers: dict[str, str], method: str, path: str
) -> None:
    given = {name: value.format(token=settings.token) for name, value in headers.items()}
    answer = await client.request(method, path, headers=given)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "unauthorized" in answer.json()["error"]
    assert settings.token not in answer.text


async def test_no_authorization_at_all(client: httpx.AsyncClient) -> None:
    del client.headers["authorization"]
    assert (await client.get("/v2/dlq")).status_code == 401


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer ", "bEaReR"])
async def test_the_scheme_is_spelled_in_any_case(client: httpx.AsyncClient, settings: Settings, scheme: str) -> None:
    answer = await client.get("/v2/keys", headers={"authorization": f"{scheme} {settings.token}"})
    assert answer.status_code == 200


async def test_a_token_in_the_query_decides(client: httpx.AsyncClient, settings: Settings) -> None:
    good, bad = settings.token, "wrong"
    for header, query, status in (
        (bad, f"qstash_token={good}", 200),
        (bad, f"a=1&QSTASH%5Ftoken={good}&qstash_token={bad}", 200),
        (good, f"qstash_token={bad}", 401),
        (good, "qstash_token=", 401),
    ):
        answer = await client.get(f"/v2/keys?{query}", headers={"authorization": f"Bearer {header}"})
        assert answer.status_code == status, query


@pytest.mark.parametrize(
    "path", ["/", "/v2", "/v2/", "/v1/publish/https://e.com", "/v2/workflows/runs", "/v2/wait/x", "/v2/publishx", "/.."]
)
async def test_an_unknown_path_is_a_404(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("no such path")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/v2/messages/msg_1", "DELETE, GET, HEAD"),
        ("POST", "/v2/messages", "DELETE, GET, HEAD"),
        ("POST", "/v2/events", "GET, HEAD"),
        ("POST", "/v2/deduplication/x", "DELETE, GET, HEAD"),
        ("GET", "/v2/preview/retries", "POST"),
        ("POST", "/v2/dlq", "DELETE, GET, HEAD"),
        ("PUT", "/v2/dlq/1-0", "DELETE, GET, HEAD"),
        ("POST", "/livez", "GET, HEAD"),
        ("GET", "/v2/rotate", "POST"),
        ("DELETE", "/v2/batch", "POST"),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    client: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert allow in answer.json()["error"]


@pytest.mark.parametrize("path", ["/v2/publish/https://example.com", "/v2/publish/", "/v2/keys", "/livez", "/nothing"])
async def test_a_request_id_comes_back(client: httpx.AsyncClient, path: str) -> None:
    method = "POST" if "publish" in path else "GET"
    for given, kept in (
        ("a" * 128, True),
        ("trace-1:x/~", True),
        ("a" * 129, False),
        ("two words", False),
        ("", False),
    ):
        answer = await client.request(method, path, headers={"X-Request-Id": given})
        assert (answer.headers["x-request-id"] == given) is kept
        assert 1 <= len(answer.headers["x-request-id"]) <= 128


async def test_generated_request_ids_differ(client: httpx.AsyncClient) -> None:
    ids = {(await client.get("/livez")).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


async def test_requests_are_logged_without_secrets(
    client: httpx.AsyncClient, settings: Settings, events: Callable[[], list[dict[str, Any]]]
) -> None:
    await client.get(f"/v2/keys?qstash_token={settings.token}", headers={"X-Request-Id": "one"})
    await client.post("/v2/publish/https://e.com", headers={"authorization": "Bearer guess-me", "X-Request-Id": "two"})
    await client.get("/livez", headers={"X-Request-Id": "three"})
    served, refused, probe = events()
    assert (served["event"], served["route"], served["status"], served["request_id"]) == (
        observability.REQUEST_SERVED, "keys", 200, "one",
    )  # fmt: skip
    assert (refused["event"], refused["status"], refused["request_id"]) == (observability.REQUEST_REFUSED, 401, "two")
    assert (probe["level"], probe["route"]) == ("debug", "livez")
    assert settings.token not in str(events())
    assert "guess-me" not in str(events())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/keys/", 200),
        ("HEAD", "/v2/Keys/", 200),
        ("GET", "/v2/globalParallelism/", 200),
        ("GET", "/livez/", 200),
        ("GET", "/v2/messages/", 200),
        ("GET", "/v2/messages//", 404),
        ("GET", "/v2/keys//", 404),
        ("GET", "/v2/schedules//", 405),
        ("GET", "/v2/flowControl/", 400),
        ("GET", "/v2/rotate/", 404),
        ("GET", "/v2/nothing/", 404),
        ("DELETE", "/v2/messages/", 400),
        ("DELETE", "/v2/queues/orders/", 404),
        ("POST", "/v2/rotate/", 404),
    ],
)
async def test_one_slash_at_the_end_of_what_is_read_does_no_harm(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    assert (await client.request(method, path)).status_code == status


@pytest.mark.parametrize(
    "path",
    ["/v2/keys", "/v2/schedules", "/v2/queues", "/v2/topics", "/v2/dlq", "/v2/events", "/v2/logs", "/v2/messages"],
)
async def test_whatever_can_be_read_has_a_head(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.head(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
