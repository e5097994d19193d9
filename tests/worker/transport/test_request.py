"""What the transport puts on the wire, byte for byte."""

import pytest

from qstash_clone.domain.delivery import OutgoingRequest
from tests.support.receiver import Receiver, Reply
from tests.worker.transport.requests import TIMEOUT_MS, post
from worker.transport import AiohttpTransport


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", "/"),
        ("/", "/"),
        ("?foo=bar", "/?foo=bar"),
        ("?", "/?"),
        ("?a=/b", "/?a=/b"),
        ("/200?sleep=30000", "/200?sleep=30000"),
        ("/123/?asdasd=ooo", "/123/?asdasd=ooo"),
        ("/p?a=1&b=2", "/p?a=1&b=2"),
        ("/p?a=1&b", "/p?a=1&b"),
        ("/p?", "/p?"),
        ("/p?&&=", "/p?&&="),
        ("//a//b/", "//a//b/"),
        ("/a%2Fb%20c", "/a%2Fb%20c"),
        ("/a%2fb%7E~", "/a%2fb%7E~"),
        ("/a/../b/./c/..", "/a/../b/./c/.."),
        ("/%zz%", "/%zz%"),
        ("/a+b?c+d=%2B", "/a+b?c+d=%2B"),
        ("/[x]'y'", "/[x]'y'"),
        ("/p?u=http://other.example/?x=1", "/p?u=http://other.example/?x=1"),
        ("/p;v=1,2:3@4!$&'()*", "/p;v=1,2:3@4!$&'()*"),
    ],
)
async def test_the_target_is_sent_character_for_character(
    receiver: Receiver, transport: AiohttpTransport, rest: str, target: str
) -> None:
    result = await transport.send(post(receiver.url + rest), TIMEOUT_MS)
    assert result.status == 200
    assert receiver.requests[0].request_line == f"POST {target} HTTP/1.1".encode()


async def test_only_host_and_content_length_are_added(receiver: Receiver, transport: AiohttpTransport) -> None:
    lines = (("X-B", "2"), ("User-Agent", "Upstash-QStash"), ("x-a", "1"), ("X-B", "3, 4"), ("X-Empty", ""))
    await transport.send(post(receiver.url, headers=lines), TIMEOUT_MS)
    assert receiver.requests[0].header_lines == (
        f"Host: 127.0.0.1:{receiver.port}".encode(),
        b"X-B: 2",
        b"User-Agent: Upstash-QStash",
        b"x-a: 1",
        b"X-B: 3, 4",
        b"X-Empty: ",
        b"Content-Length: 5",
    )


async def test_header_values_are_the_bytes_that_were_published(receiver: Receiver, transport: AiohttpTransport) -> None:
    values = [b"caf\xc3\xa9", b"caf\xe9", b"tab\tinside", b"\xff\x80"]
    lines = tuple((f"X-{number}", value.decode("latin-1")) for number, value in enumerate(values))
    await transport.send(post(receiver.url, headers=lines), TIMEOUT_MS)
    assert receiver.requests[0].header_lines[1:-1] == tuple(
        b"X-%d: %s" % (number, value) for number, value in enumerate(values)
    )


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("body", [b"", b"\x00\xff\r\n\r\n", b"x" * 65_537, b"y" * 1_048_576])
async def test_the_body_is_sent_unchanged_with_every_method(
    receiver: Receiver, transport: AiohttpTransport, method: str, body: bytes
) -> None:
    result = await transport.send(OutgoingRequest(method, receiver.url, (), body), TIMEOUT_MS)
    assert result.status == 200
    request = receiver.requests[0]
    assert (request.method, request.body) == (method, body)
    expected = str(len(body)) if body or method in {"POST", "PUT", "PATCH"} else None
    assert request.header("Content-Length") == expected
    assert request.header("Transfer-Encoding") is None


async def test_cookies_are_neither_kept_nor_sent(receiver: Receiver, transport: AiohttpTransport) -> None:
    receiver.always(Reply(headers=(("Set-Cookie", "session=1"),)))
    for _ in range(2):
        await transport.send(post(receiver.url), TIMEOUT_MS)
    assert [request.header("Cookie") for request in receiver.requests] == [None, None]


async def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver, transport: AiohttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await transport.send(post(receiver.url + "/direct"), TIMEOUT_MS)
        assert proxy.connections == 0
    assert receiver.requests[0].target == "/direct"


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\rb", "a\0b", "\u20ac"])
async def test_a_value_that_could_end_its_line_is_not_sent(
    receiver: Receiver, transport: AiohttpTransport, value: str
) -> None:
    result = await transport.send(post(receiver.url, headers=(("X-A", value),)), TIMEOUT_MS)
    assert result.status == 0
    assert result.error is not None
    assert result.error.startswith("request cannot be sent: ")
    assert receiver.requests == []


async def test_a_url_that_leads_nowhere_is_not_sent(transport: AiohttpTransport) -> None:
    result = await transport.send(post("http://2130706433/"), TIMEOUT_MS)
    assert result.error == 'request cannot be sent: invalid address "2130706433"'
