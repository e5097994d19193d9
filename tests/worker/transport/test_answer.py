"""What the transport makes of answers, good and bad."""

import asyncio
import gzip

import pytest

from qstash_clone.domain.egress import EgressPolicy
from qstash_clone.domain.outcome import AttemptResult
from tests.support.receiver import (
    CLOSE,
    ENDLESS_BODY,
    ENDLESS_HEADERS,
    GARBAGE,
    HANG,
    RESET,
    RawReply,
    Receiver,
    Reply,
    Then,
)
from tests.worker.transport.requests import TIMEOUT_MS, post
from worker.transport import AiohttpTransport


async def answer_to(transport: AiohttpTransport, receiver: Receiver, timeout_ms: int = TIMEOUT_MS) -> AttemptResult:
    return await transport.send(post(receiver.url), timeout_ms)


async def test_status_headers_and_body_are_read(receiver: Receiver, transport: AiohttpTransport) -> None:
    receiver.respond(404, headers=(("x-ABC-3d", "1"), ("X-Abc-3d", "caf\xe9")), body=b"\x00nope")
    result = await answer_to(transport, receiver)
    assert (result.status, result.body, result.error, result.is_body_cut) == (404, b"\x00nope", None, False)
    assert result.headers == (("X-Abc-3d", "1"), ("X-Abc-3d", "caf\xe9"), ("Content-Length", "5"))


async def test_header_names_of_any_length_are_read(receiver: Receiver, transport: AiohttpTransport) -> None:
    name = "x-" + "long-" * 30 + "name"
    receiver.respond(headers=((name, "1"),))
    result = await answer_to(transport, receiver)
    assert result.headers[0] == ("X-" + "Long-" * 30 + "Name", "1")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(receiver: Receiver, transport: AiohttpTransport, status: int) -> None:
    receiver.respond(status, headers=(("Location", receiver.url + "/elsewhere"),))
    result = await answer_to(transport, receiver)
    assert result.status == status
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_ends_at_once(
    receiver: Receiver, transport: AiohttpTransport, status: int
) -> None:
    receiver.respond(status)
    result = await answer_to(transport, receiver)
    assert (result.status, result.body) == (status, b"")


async def test_content_codings_are_left_alone(receiver: Receiver, transport: AiohttpTransport) -> None:
    packed = gzip.compress(b"x" * 1000)
    receiver.respond(headers=(("Content-Encoding", "gzip"),), body=packed)
    receiver.respond(headers=(("Content-Encoding", "gzip"),), body=b"not gzip at all")
    assert (await answer_to(transport, receiver)).body == packed
    assert (await answer_to(transport, receiver)).body == b"not gzip at all"


async def test_a_chunked_answer_is_joined(receiver: Receiver, transport: AiohttpTransport) -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    receiver.script(RawReply(data=chunks, then=Then.KEEP))
    assert (await answer_to(transport, receiver)).body == b"abcde"


async def test_an_answer_may_end_with_the_connection(receiver: Receiver, transport: AiohttpTransport) -> None:
    receiver.script(RawReply(data=b"HTTP/1.0 200 OK\r\n\r\nto the end"))
    result = await answer_to(transport, receiver)
    assert (result.status, result.body) == (200, b"to the end")


async def test_interim_answers_are_skipped(receiver: Receiver, transport: AiohttpTransport) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    final = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
    receiver.script(RawReply(data=interim + final, then=Then.KEEP))
    result = await answer_to(transport, receiver)
    assert (result.status, result.body) == (201, b"ok")


async def test_another_protocol_is_not_entered(receiver: Receiver, transport: AiohttpTransport) -> None:
    receiver.script(
        RawReply(data=b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", then=Then.HANG)
    )
    assert (await answer_to(transport, receiver)).status == 101
    await answer_to(transport, receiver)
    assert receiver.connections == 2


@pytest.mark.parametrize("size_bytes", [0, 999, 1000])
async def test_a_body_up_to_the_limit_is_whole(receiver: Receiver, size_bytes: int) -> None:
    receiver.always(Reply(body=b"x" * size_bytes))
    async with AiohttpTransport(egress=EgressPolicy(allow_private=True), max_response_bytes=1000) as transport:
        for _ in range(2):
            result = await answer_to(transport, receiver)
            assert (len(result.body), result.is_body_cut) == (size_bytes, False)
    assert receiver.connections == 1


@pytest.mark.parametrize("size_bytes", [1001, 5_000_000])
async def test_a_longer_body_is_cut_and_its_connection_closed(receiver: Receiver, size_bytes: int) -> None:
    receiver.always(Reply(status=500, body=b"x" * size_bytes))
    async with AiohttpTransport(egress=EgressPolicy(allow_private=True), max_response_bytes=1000) as transport:
        for _ in range(2):
            result = await answer_to(transport, receiver)
            assert (result.status, len(result.body), result.is_body_cut) == (500, 1000, True)
    assert receiver.connections == 2


async def test_a_large_body_within_the_limit_is_read_in_parts(receiver: Receiver, transport: AiohttpTransport) -> None:
    body = bytes(range(256)) * 4096
    receiver.respond(body=body)
    result = await answer_to(transport, receiver)
    assert (result.body == body, result.is_body_cut) == (True, False)


async def test_an_endless_body_is_cut(receiver: Receiver, transport: AiohttpTransport) -> None:
    receiver.script(ENDLESS_BODY)
    result = await answer_to(transport, receiver)
    assert (result.status, len(result.body), result.is_body_cut) == (200, 1_048_576, True)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (CLOSE, "destination closed the connection without a complete answer"),
        (RESET, "connection to 127.0.0.1:{port} was lost: connection reset by peer"),
        (RawReply(data=b"HTTP/1.1 20"), "destination closed the connection without a complete answer"),
        (RawReply(data=b"HTTP/1.1 200 OK\r\nA: b\r\n"), "destination closed the connection without a complete answer"),
        (RawReply(data=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "destination broke off its answer"),
        (
            RawReply(data=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
            "destination broke off its answer",
        ),
    ],
)
async def test_a_connection_that_ends_too_early_is_a_failure(
    receiver: Receiver, transport: AiohttpTransport, reply: RawReply, error: str
) -> None:
    receiver.script(reply)
    result = await answer_to(transport, receiver)
    assert (result.status, result.error) == (0, error.format(port=receiver.port))
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        GARBAGE,
        RawReply(data=b"HTTP/1.1 abc\r\n\r\n"),
        RawReply(data=b"HTTP/1.1 200 OK\r\nbad header line\r\n\r\n"),
        RawReply(data=b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n"),
        RawReply(data=b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n"),
        RawReply(data=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ENDLESS_HEADERS,
    ],
)
async def test_what_is_no_valid_http_is_a_failure(
    receiver: Receiver, transport: AiohttpTransport, reply: RawReply
) -> None:
    receiver.script(reply)
    result = await answer_to(transport, receiver)
    assert result.status == 0
    assert result.error is not None
    assert result.error.startswith("destination sent no valid HTTP answer: ")
    assert result.error.isprintable()
    assert len(result.error) < 300


@pytest.mark.parametrize(
    "reply",
    [
        HANG,
        RawReply(data=b"HTTP/1.1 200 OK\r\n", then=Then.HANG),
        RawReply(data=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", then=Then.HANG),
        RawReply(data=b"HTTP/1.1 200 OK\r\n\r\n", repeat=b"drip", repeat_interval_s=0.01),
        RawReply(repeat=b"HTTP/1.1 102 Processing\r\n\r\n", repeat_interval_s=0.001),
    ],
)
async def test_the_whole_exchange_has_one_time_limit(
    receiver: Receiver, transport: AiohttpTransport, reply: RawReply
) -> None:
    receiver.script(reply)
    result = await answer_to(transport, receiver, timeout_ms=150)
    assert (result.status, result.body, result.headers) == (0, b"", ())
    assert result.error == "no complete answer within 0.15 s"
    assert result.duration_ms >= 149


async def test_a_success_tells_its_duration(receiver: Receiver, transport: AiohttpTransport) -> None:
    may_answer = asyncio.Event()
    receiver.respond(after=may_answer)
    sending = asyncio.ensure_future(answer_to(transport, receiver))
    await receiver.wait_for(1)
    asyncio.get_running_loop().call_later(0.05, may_answer.set)
    result = await sending
    assert result.duration_ms + 1 >= 50
