"""What a publisher says arrives: body, content type, destination, method and headers, byte for byte."""

import base64
import random
from collections.abc import Callable

import pytest

from tests.support.client import Client, check_signature
from tests.support.receiver import ReceivedRequest, Receiver

Signed = Callable[[ReceivedRequest], dict[str, object]]

BODIES = {
    "empty": b"",
    "json": b'{"hello": "world", "n": 1.0}',
    "blanks and line ends": b" \r\n\r\n\t \n",
    "all bytes": bytes(range(256)),
    "not UTF-8": b"\xff\xfe\xc3\x28",
    "NUL": b"\0",
    "64 KiB": random.Random(1).randbytes(65_536),
    "over 64 KiB": random.Random(2).randbytes(70_001),
    "1 MiB": random.Random(3).randbytes(1_048_576),
}
CONTENT_TYPES = [
    None,
    "application/json",
    "text/plain; charset=utf-8",
    'multipart/form-data; boundary="a b"',
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "made/up+thing;v=1",
]


@pytest.mark.parametrize("name", BODIES)
async def test_bodies_arrive_byte_for_byte(name: str, client: Client, receiver: Receiver, signed: Signed) -> None:
    body = BODIES[name]
    message_id = await client.publish(f"{receiver.url}/body", body)
    (request,) = await receiver.wait_for(1)
    assert request.body == body
    signed(request)
    message = await client.message(message_id)
    assert message is not None
    try:
        shown = {"body": body.decode()} if body else {}
    except UnicodeDecodeError:
        shown = {"bodyBase64": base64.b64encode(body).decode()}
    assert {name: value for name, value in message.items() if name.startswith("body")} == shown


async def test_a_chunked_body_arrives_whole(client: Client, receiver: Receiver) -> None:
    chunks = b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
    await client.publish(receiver.url, chunks, [("Transfer-Encoding", "chunked")])
    (request,) = await receiver.wait_for(1)
    assert request.body == b"hello world"


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
async def test_the_content_type_is_kept_and_never_invented(
    content_type: str | None, client: Client, receiver: Receiver
) -> None:
    headers = [] if content_type is None else [("Content-Type", content_type)]
    message_id = await client.publish(receiver.url, b"x", headers)
    (request,) = await receiver.wait_for(1)
    assert request.values("Content-Type") == ([] if content_type is None else [content_type])
    message = await client.message(message_id)
    assert message is not None
    assert message["header"] == ({} if content_type is None else {"Content-Type": [content_type]})


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        ("{url}", "/"),
        ("{url}?foo=bar", "/?foo=bar"),
        ("{url}/200?sleep=30000", "/200?sleep=30000"),
        ("{url}/123/?asdasd=ooo", "/123/?asdasd=ooo"),
        ("{url}/p?qstash_token={token}", "/p"),
        ("{url}/p?a=1&upstash-retries=3&b=2&qstash_token={token}", "/p?a=1&b=2"),
        ("{encoded}%2Fp%3Fq%3D1", "/p?q=1"),
        ("{encoded}%2Fp%3Fq%3D1?x=2", "/p?q=1&x=2"),
        ("{url}//a//b/", "//a//b/"),
        ("{url}/a%2Fb%20c", "/a%2Fb%20c"),
        ("{url}/a/../b/./c", "/a/../b/./c"),
        ("{merged}/p", "/p"),
        ("{url}/pause", "/pause"),
        ("{url}/x;v=1,2@a:b!$'()*+=~", "/x;v=1,2@a:b!$'()*+=~"),
        ("{url}/p?b=%7e&a=+&&c", "/p?b=%7e&a=+&&c"),
        ("{upper}/p", "/p"),
    ],
)
async def test_the_destination_is_taken_from_the_raw_path(
    given: str, arrives: str, client: Client, receiver: Receiver
) -> None:
    spelled = given.format(
        url=receiver.url,
        encoded=receiver.url.replace(":", "%3A").replace("/", "%2F"),
        merged=receiver.url.replace("//", "/"),
        upper=receiver.url.replace("http", "HTTP"),
        token=client.settings.token,
    )
    message_id = await client.publish(spelled, b"x")
    (request,) = await receiver.wait_for(1)
    assert request.target == arrives
    message = await client.message(message_id)
    assert message is not None
    # The signature names the address as it was published, whatever a client makes of it.
    check_signature(request, message["url"], client.settings.current_signing_key, client.settings.next_signing_key)
    assert message["url"].lower().startswith(receiver.url)
    assert message["url"][len(receiver.url) :] in (arrives, arrives[1:])


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com?foo=bar", "https://example.com?foo=bar"),
        ("https://e.com/p?qstash_token={token}", "https://e.com/p"),
        ("https%3A%2F%2Fe.com%2Fp%3Fq%3D1?x=2", "https://e.com/p?q=1&x=2"),
        ("http://[::1]:3000/p", "http://[::1]:3000/p"),
        ("https:/e.com/p", "https://e.com/p"),
    ],
)
async def test_urls_of_other_hosts_are_stored_as_published(given: str, url: str, client: Client) -> None:
    answer = await client.call(
        "POST", "/v2/publish/" + given.format(token=client.settings.token), [("Upstash-Delay", "1d")]
    )
    assert answer.json()["url"] == url
    message = await client.message(answer.json()["messageId"])
    assert message is not None
    assert message["url"] == url
    assert (await client.cancel(answer.json()["messageId"])).json() == {"cancelled": 1}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "patch"])
async def test_every_method_keeps_its_body(method: str, client: Client, receiver: Receiver, signed: Signed) -> None:
    await client.publish(f"{receiver.url}/m", b"body", [("Upstash-Method", method)])
    (request,) = await receiver.wait_for(1)
    assert (request.method, request.body) == (method.upper(), b"body")
    signed(request)


async def test_forwarded_headers_arrive_and_nothing_else_does(client: Client, receiver: Receiver) -> None:
    message_id = await client.publish(
        receiver.url,
        b"x",
        [
            ("Upstash-Forward-X-API-key", "one"),
            ("upstash-forward-x-api-KEY", "two, three"),
            ("Upstash-Forward-Authorization", "Bearer of the destination"),
            ("Upstash-Forward-Upstash-Something", "legal"),
            ("Upstash-Forward-Upstash-Retried", "77"),
            ("Upstash-Forward-Host", "elsewhere"),
            ("Upstash-Forward-Content-Length", "1"),
            ("Upstash-Forward-Bytes", "æ¼¢".encode("latin-1", "replace") + b"\xe9\xff"),
            ("X-Not-Forwarded", "no"),
            ("Upstash-Telemetry-Sdk", "no"),
        ],
    )
    (request,) = await receiver.wait_for(1)
    assert request.values("X-Api-Key") == ["one", "two, three"]
    assert request.values("Authorization") == ["Bearer of the destination"]
    assert request.values("Upstash-Something") == ["legal"]
    assert request.values("Upstash-Retried") == ["0"]
    assert request.values("Host") == [receiver.url.removeprefix("http://")]
    assert request.values("Content-Length") == ["1"]
    assert any(line.endswith(b"\xe9\xff") for line in request.header_lines)
    assert request.values("X-Not-Forwarded") == []
    assert request.values("Upstash-Telemetry-Sdk") == []
    message = await client.message(message_id)
    assert message is not None
    assert message["header"]["X-Api-Key"] == ["one", "two, three"]
    assert "Upstash-Retried" not in message["header"]


async def test_header_forward_sends_everything_but_what_belongs_to_the_hop(client: Client, receiver: Receiver) -> None:
    await client.publish(
        receiver.url,
        b"x",
        [
            ("Upstash-Header-Forward", "true"),
            ("Upstash-Forward-X-Both", "from the prefix"),
            ("X-Both", "from the request"),
            ("X-Custom", "kept"),
            ("Cookie", "a=b"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("TE", "trailers"),
            ("Proxy-Authorization", "secret"),
            ("User-Agent", "a publisher"),
            ("Upstash-Retries", "1"),
        ],
    )
    (request,) = await receiver.wait_for(1)
    assert request.values("X-Both") == ["from the prefix"]
    assert request.values("X-Custom") == ["kept"]
    assert request.values("Cookie") == ["a=b"]
    assert request.values("User-Agent") == ["Upstash-QStash"]
    for name in ("Authorization", "X-Forwarded-For", "TE", "Proxy-Authorization", "Upstash-Retries"):
        assert request.values(name) == [], name


async def test_the_sender_s_authorization_is_payload_if_the_token_came_in_the_query(
    client: Client, receiver: Receiver
) -> None:
    answer = await client.http.request(
        "POST",
        f"/v2/publish/{receiver.url}/p?qstash_token={client.settings.token}&upstash-header-forward=true&k=v",
        [("Authorization", "Basic of-the-sender")],
        b"x",
    )
    assert answer.status == 200
    (request,) = await receiver.wait_for(1)
    assert request.target == "/p?k=v"
    assert request.values("Authorization") == ["Basic of-the-sender"]


async def test_configuration_by_query_parameters(client: Client, receiver: Receiver) -> None:
    query = (
        "upstash-method=PUT&Upstash-Retries=7&upstash-forward-x-key=a+b%2Bc&upstash-label=one,two"
        "&upstash-retry-delay=1000%20*%20retried&stays=1"
    )
    message_id = await client.publish(f"{receiver.url}/p?{query}", b"x", [("Upstash-Retries", "2")])
    (request,) = await receiver.wait_for(1)
    assert (request.method, request.target) == ("PUT", "/p?stays=1")
    assert request.values("X-Key") == ["a b+c"]
    message = await client.message(message_id)
    assert message is not None
    assert message["maxRetries"] == 2, "a header wins over the query"
    assert (message["label"], message["labels"]) == ("one", ["one", "two"])
    assert message["retryDelayExpression"] == "1000 * retried"
