"""What a destination sees, and what its answer leads to."""

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import (
    CLOSE,
    ENDLESS_HEADERS,
    GARBAGE,
    HANG,
    RESET,
    AnyReply,
    RawReply,
    ReceivedRequest,
    Receiver,
    Then,
)

Signed = Callable[[ReceivedRequest], dict[str, object]]


async def test_the_headers_of_a_delivery(client: Client, receiver: Receiver, signed: Signed) -> None:
    before_s = int(time.time())
    message_id = await client.publish(f"{receiver.url}/p?q=1", b'{"a": 1}', [("Content-Type", "application/json")])
    (request,) = await receiver.wait_for(1)
    claims = signed(request)
    signature = request.header("Upstash-Signature")
    assert sorted(request.headers) == sorted(
        [
            ("Host", receiver.url.removeprefix("http://")),
            ("User-Agent", "Upstash-QStash"),
            ("Content-Type", "application/json"),
            ("Content-Length", "8"),
            ("Upstash-Message-Id", message_id),
            ("Upstash-Retried", "0"),
            ("Upstash-Caller-Ip", "127.0.0.1"),
            ("Upstash-Signature", signature),
        ]
    )
    assert sorted(claims) == ["body", "exp", "iat", "iss", "jti", "nbf", "sub"]
    assert claims["nbf"] == 0
    issued_s = claims["iat"]
    assert isinstance(issued_s, int)
    assert before_s <= issued_s <= time.time(), "never in the future: the Python receiver rejects that"
    assert claims["exp"] == issued_s + 300


async def test_an_own_user_agent_wins(client: Client, receiver: Receiver) -> None:
    await client.publish(receiver.url, b"", [("Upstash-Forward-User-Agent", "mine/1.0")])
    (request,) = await receiver.wait_for(1)
    assert request.values("User-Agent") == ["mine/1.0"]


async def test_every_delivery_has_a_token_of_its_own(client: Client, receiver: Receiver, signed: Signed) -> None:
    receiver.respond(500)
    await client.publish(f"{receiver.url}/p", b"x", [("Upstash-Retry-Delay", "0")])
    first, second = await receiver.wait_for(2)
    assert signed(first)["jti"] != signed(second)["jti"]
    assert first.values("Upstash-Message-Id") == second.values("Upstash-Message-Id")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_success(status: int, system: System, client: Client, receiver: Receiver) -> None:
    receiver.always(RawReply(data=f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode(), then=Then.KEEP))
    message_id = await client.publish(receiver.url, b"", [("Upstash-Retries", "0")])
    await receiver.wait_for(1)
    (attempt,) = await eventually(lambda: system.attempts(message_id))
    assert attempt["decision"] == "delivered"


@pytest.mark.parametrize("status", [300, 301, 302, 307, 400, 401, 404, 410, 429, 489, 500, 503, 599])
async def test_any_other_status_is_a_failure_and_redirects_are_not_followed(
    status: int, client: Client, receiver: Receiver
) -> None:
    receiver.respond(
        status, headers=(("Location", f"{receiver.url}/elsewhere"), ("X-Why", "because")), body=b"404 Not Found"
    )
    message_id = await client.publish(f"{receiver.url}/p", b"", [("Upstash-Retries", "0")])
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    assert letter["responseStatus"] == status
    assert letter["responseBody"] == "404 Not Found"
    assert letter["responseHeader"]["X-Why"] == ["because"]
    assert [request.target for request in receiver.requests] == ["/p"]


@pytest.mark.parametrize(
    "reply",
    [
        CLOSE,
        RESET,
        GARBAGE,
        ENDLESS_HEADERS,
        RawReply(data=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntoo short"),
        RawReply(data=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        RawReply(data=b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n"),
        RawReply(data=b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
    ids=["closed", "reset", "garbage", "endless headers", "cut off", "bad chunk", "NUL in a header", "status 2000"],
)
async def test_an_exchange_without_a_whole_answer_is_a_failure_with_status_0(
    reply: AnyReply, client: Client, receiver: Receiver
) -> None:
    receiver.always(reply)
    message_id = await client.publish(receiver.url, b"", [("Upstash-Retries", "0")])
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    assert letter["responseStatus"] == 0
    assert "responseBody" not in letter


async def test_nobody_listening_is_a_failure_with_status_0(client: Client, receiver: Receiver) -> None:
    await receiver.stop()
    message_id = await client.publish(receiver.url, b"", [("Upstash-Retries", "0")])
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    assert letter["responseStatus"] == 0


@pytest.mark.parametrize(
    "reply",
    [
        HANG,
        RawReply(data=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning", then=Then.HANG),
        RawReply(data=b"HTTP/1.1 200 OK\r\n", repeat=b"X: y\r\n", repeat_interval_s=0.05),
        RawReply(data=b"HTTP/1.1 200 OK\r\n\r\n", repeat=b"x", repeat_interval_s=0.05),
    ],
    ids=["silent", "silent in the body", "dripping headers", "dripping body"],
)
async def test_the_timeout_covers_the_whole_answer(reply: AnyReply, client: Client, receiver: Receiver) -> None:
    receiver.always(reply)
    message_id = await client.publish(receiver.url, b"", [("Upstash-Retries", "0"), ("Upstash-Timeout", "1s")])
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    assert letter["responseStatus"] == 0


async def test_an_answer_of_any_length_is_kept_up_to_the_limit(client: Client, receiver: Receiver) -> None:
    receiver.always(RawReply(data=b"HTTP/1.1 500 No\r\n\r\n", repeat=b"x" * 65_536))
    message_id = await client.publish(receiver.url, b"", [("Upstash-Retries", "0")])
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    assert letter["responseStatus"] == 500
    assert letter["responseBody"] == "x" * client.settings.max_message_bytes


async def test_informational_answers_are_passed_over(system: System, client: Client, receiver: Receiver) -> None:
    receiver.always(
        RawReply(
            data=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        )
    )
    message_id = await client.publish(receiver.url, b"", [("Upstash-Retries", "0")])
    (attempt,) = await eventually(lambda: system.attempts(message_id))
    assert attempt["decision"] == "delivered"


async def test_connections_are_reused(client: Client, receiver: Receiver) -> None:
    for number in range(6):
        await client.publish(receiver.url, b"")
        await receiver.wait_for(number + 1)
    assert receiver.connections <= 2, "one for each worker"


async def test_a_connection_closed_by_the_receiver_meanwhile_costs_no_attempt(
    client: Client, receiver: Receiver
) -> None:
    for number in range(4):
        await client.publish(receiver.url, b"", [("Upstash-Retries", "0")])
        await receiver.wait_for(number + 1)
        await receiver.drop_connections()
    assert {request.header("Upstash-Retried") for request in receiver.requests} == {"0"}


async def test_a_slow_answer_is_waited_for(system: System, client: Client, receiver: Receiver) -> None:
    release = asyncio.Event()
    receiver.respond(200, after=release)
    message_id = await client.publish(receiver.url, b"")
    await receiver.wait_for(1)
    assert (await client.message(message_id)) is not None
    release.set()
    (attempt,) = await eventually(lambda: system.attempts(message_id))
    assert attempt["decision"] == "delivered"
    assert len(receiver.requests) == 1
