"""Bad input gets its documented status and a sentence, and stores nothing."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver

NON_EMPTY = "a non-empty destination must be provided"
BAD_SCHEME = "invalid destination url: endpoint has invalid scheme, add http:// or https://"


@pytest.fixture(autouse=True)
def nothing_stored(system: System) -> Iterator[None]:
    """Asserts that no message was stored during the test."""
    before = system.apis[0].metric("messages_published_total")
    yield
    assert system.apis[0].metric("messages_published_total") == before


@pytest.mark.parametrize(
    ("authorization", "query"),
    [
        (None, ""),
        ("Bearer wrong", ""),
        ("Bearer", ""),
        ("Basic {token}", ""),
        ("{token}", ""),
        ("Bearer {token}x", ""),
        (None, "?qstash_token=wrong"),
        ("Bearer {token}", "?qstash_token=wrong"),
        (None, "?qstash_token="),
    ],
)
async def test_without_the_right_token(
    authorization: str | None, query: str, client: Client, receiver: Receiver
) -> None:
    token = client.settings.token
    headers = [] if authorization is None else [("Authorization", authorization.format(token=token))]
    for method, target in (
        ("POST", f"/v2/publish/{receiver.url}/p{query}"),
        ("GET", f"/v2/messages/msg_x{query}"),
        ("GET", f"/v2/dlq{query}"),
        ("GET", f"/v2/keys{query}"),
        ("POST", f"/v2/keys/rotate{query}"),
        ("GET", f"/v2/nothing{query}"),
    ):
        answer = await client.http.request(method, target, headers, b"")
        assert (answer.status, "unauthorized" in answer.error) == (401, True), target
        assert "{token}" not in answer.error
        assert token not in answer.error
    assert receiver.requests == []


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
async def test_the_scheme_of_the_token_in_any_case(scheme: str, client: Client) -> None:
    answer = await client.http.request("GET", "/v2/keys", [("Authorization", f"{scheme} {client.settings.token}")])
    assert answer.status == 200


@pytest.mark.parametrize(
    ("destination", "status", "text"),
    [
        ("", 400, NON_EMPTY),
        ("?a=b", 400, NON_EMPTY),
        ("example.com/foo", 400, BAD_SCHEME),
        ("ftp://e.com", 400, BAD_SCHEME),
        ("javascript:alert(1)", 400, BAD_SCHEME),
        ("my%20group", 400, BAD_SCHEME),
        ("example.com", 404, "topic example.com not found"),
        ("my-group", 404, "topic my-group not found"),
        ("http://", 400, "invalid destination url"),
        ("http:///path", 400, "invalid destination url"),
        ("https://?q", 400, "invalid destination url"),
        ("http://e.com:99999/", 400, "invalid destination url"),
        ("http://[::1/", 400, "invalid destination url"),
        ("http%3A%2F%2Fe.com%2F%0d%0aX:y", 400, "invalid destination url"),
        ("api/llm", 400, "api/llm: no LLM upstream is configured"),
    ],
)
async def test_destinations(destination: str, status: int, text: str, client: Client) -> None:
    answer = await client.call("POST", f"/v2/publish/{destination}", body=b"x")
    assert answer.status == status, answer
    assert text in answer.error


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Upstash-Delay", "5x", 400),
        ("Upstash-Delay", "-1s", 400),
        ("Upstash-Delay", "1.5s", 400),
        ("Upstash-Delay", "", 400),
        ("Upstash-Delay", "5 s", 400),
        ("Upstash-Delay", "99999d", 412),
        ("Upstash-Not-Before", "tomorrow", 400),
        ("Upstash-Not-Before", "1.5", 400),
        ("Upstash-Not-Before", "99999999999", 412),
        ("Upstash-Retries", "-1", 400),
        ("Upstash-Retries", "many", 400),
        ("Upstash-Retries", "1.0", 400),
        ("Upstash-Retries", "1001", 412),
        ("Upstash-Retry-Delay", "1 +", 400),
        ("Upstash-Retry-Delay", "__import__('os')", 400),
        ("Upstash-Retry-Delay", "pow(2)", 400),
        ("Upstash-Timeout", "0", 400),
        ("Upstash-Timeout", "500ms", 400),
        ("Upstash-Timeout", "3h", 412),
        ("Upstash-Method", "HEAD", 400),
        ("Upstash-Method", "BREW", 400),
        ("Upstash-Header-Forward", "perhaps", 400),
    ],
)
async def test_malformed_headers_are_named(
    header: str, value: str, status: int, client: Client, receiver: Receiver
) -> None:
    answer = await client.call("POST", f"/v2/publish/{receiver.url}", [(header, value)], b"x")
    assert answer.status == status, answer
    assert header in answer.error
    if value and value.isprintable():
        assert value in answer.error


async def test_malformed_query_configuration_is_named(client: Client, receiver: Receiver) -> None:
    for query, name in (
        ("upstash-delay=5x", "Upstash-Delay"),
        ("upstash-label=a%7fb", "Upstash-Label"),
        ("upstash-forward-x-a=%0d%0aX:%20y", "X-A"),
    ):
        answer = await client.call("POST", f"/v2/publish/{receiver.url}?{query}", body=b"x")
        assert answer.status == 400
        assert name in answer.error


async def test_a_long_value_is_shown_only_in_part(client: Client, receiver: Receiver) -> None:
    answer = await client.call("POST", f"/v2/publish/{receiver.url}", [("Upstash-Delay", "9" * 5000)], b"x")
    assert answer.status in (400, 412)
    assert len(answer.error) < 250


async def test_forwarded_values_are_never_repeated_in_an_error(client: Client, receiver: Receiver) -> None:
    answer = await client.call(
        "POST", f"/v2/publish/{receiver.url}", [("Upstash-Forward-Authorization", "very\x01secret")], b"x"
    )
    assert answer.status == 400
    assert "secret" not in answer.error


async def test_unknown_paths_and_methods(client: Client, receiver: Receiver) -> None:
    for target in ("/v2/nothing", "/v1/publish/https://e.com", "/", "/v2/workflows/x"):
        assert (await client.call("GET", target)).status == 404, target
    for method, target in (
        ("PUT", f"/v2/publish/{receiver.url}"),
        ("GET", f"/v2/publish/{receiver.url}"),
        ("POST", "/v2/keys"),
        ("PUT", "/v2/dlq"),
    ):
        answer = await client.call(method, target)
        assert (answer.status, bool(answer.error)) == (405, True), target
        assert answer.header("allow")
    for target in ("/v2/messages/", "/v2/dlq/"):
        assert (await client.call("DELETE", target)).status == 400


async def test_a_body_over_the_limit(client: Client, receiver: Receiver) -> None:
    limit = client.settings.max_message_bytes
    answer = await client.call("POST", f"/v2/publish/{receiver.url}", body=b"x" * (limit + 1))
    assert (answer.status, str(limit) in answer.error) == (413, True)
    size = f"{limit + 1:x}".encode()
    chunked = size + b"\r\n" + b"x" * (limit + 1) + b"\r\n0\r\n\r\n"
    answer = await client.call("POST", f"/v2/publish/{receiver.url}", [("Transfer-Encoding", "chunked")], chunked)
    assert answer.status == 413


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(client: Client, receiver: Receiver) -> None:
    answer = await client.http.exchange(
        f"POST /v2/publish/{receiver.url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.settings.token}\r\n"
        "Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n".encode()
    )
    assert answer.status == 413


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_body_that_is_cut_off_stores_nothing(
    framing: str, client: Client, receiver: Receiver, system: System
) -> None:
    refused = len(system.apis[0].events("request.refused"))
    body = "64\r\nhalf of it" if "chunked" in framing else "half of it"
    await client.http.send_and_leave(
        f"POST /v2/publish/{receiver.url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.settings.token}\r\n"
        f"{framing}\r\n\r\n{body}".encode()
    )
    await eventually(lambda: len(system.apis[0].events("request.refused")) > refused)
    assert receiver.requests == []


async def test_heads_over_the_limit_are_answered_431(client: Client, receiver: Receiver) -> None:
    settings = client.settings
    target = f"/v2/publish/{receiver.url}"
    for headers in (
        [("Upstash-Forward-Big", "x" * settings.max_header_bytes)],
        [(f"X-{number}", "y") for number in range(settings.max_headers + 1)],
        [(f"X-{number}", "y" * 1000) for number in range(100)],
    ):
        answer = await client.call("POST", target, headers, b"x")
        assert answer.status == 431
        assert answer.error
    assert (await client.call("POST", f"{target}?{'q' * settings.max_header_bytes}", body=b"x")).status == 431


async def test_just_under_the_limits_is_fine(client: Client) -> None:
    headers = [(f"X-{number}", "y" * 200) for number in range(client.settings.max_headers - 3)]
    assert (await client.call("GET", "/v2/keys", headers)).status == 200


async def test_a_client_never_sees_a_traceback(client: Client) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v2/publish/http://e.com HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v2/publish/http://e.com HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/publish/http://e.com HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v2/publish/http://e.com HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v2/publish/http://e.com HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"POST /v2/publish/http://e.com HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v2/publish/http://e.com HTTP/9.9\r\n\r\n",
        b"GET /v2/messages/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        answer = await client.http.exchange(data)
        assert 400 <= answer.status < 500, data
        assert answer.error
        assert b"Traceback" not in answer.body


async def test_one_bad_client_does_not_disturb_another(client: Client) -> None:
    """A slow head and an endless one on other connections."""
    _, slow = await asyncio.open_connection("127.0.0.1", client.http.port)
    slow.write(b"POST /v2/publish/http://e.com HTTP/1.1\r\nHost: ")
    assert (await client.call("GET", "/v2/keys")).status == 200
    slow.close()
