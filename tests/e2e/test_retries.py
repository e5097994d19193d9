"""How often a failing destination is tried, and when."""

import asyncio
import time
from email.utils import formatdate

import pytest

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver, Reply

NEVER_BY_ITSELF = ("Upstash-Retry-Delay", "86400000")
"""A day: what comes sooner was caused by something else."""


@pytest.mark.parametrize("retries", [0, 1, 3, 6])
async def test_a_failing_message_is_attempted_once_and_then_retried(
    retries: int, client: Client, receiver: Receiver, system: System
) -> None:
    receiver.always(Reply(status=500))
    message_id = await client.publish(
        receiver.url, b"x", [("Upstash-Retries", str(retries)), ("Upstash-Retry-Delay", "0")]
    )
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    assert letter["maxRetries"] == retries
    assert [request.header("Upstash-Retried") for request in receiver.requests] == [
        str(number) for number in range(retries + 1)
    ]
    assert {request.header("Upstash-Message-Id") for request in receiver.requests} == {message_id}
    attempts = await eventually(lambda: _all_attempts(system, message_id, retries + 1))
    assert [attempt["decision"] for attempt in attempts] == ["retry"] * retries + ["failed"]


async def test_three_retries_are_the_default(client: Client, receiver: Receiver) -> None:
    receiver.always(Reply(status=500))
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", "0")])
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    assert letter["maxRetries"] == 3
    assert len(receiver.requests) == 4


async def test_a_success_ends_the_retries(client: Client, receiver: Receiver, system: System) -> None:
    receiver.respond(500, times=2)
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", "0")])
    attempts = await eventually(lambda: _all_attempts(system, message_id, 3))
    assert [attempt["decision"] for attempt in attempts] == ["retry", "retry", "delivered"]
    assert await client.dead_letter_of(message_id) is None
    assert len(receiver.requests) == 3


async def test_a_retry_expression_sets_every_delay(client: Client, receiver: Receiver, system: System) -> None:
    receiver.always(Reply(status=500))
    expression = "min(50 * pow(2, retried), 150) + retried"
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", expression)])
    message = await client.message(message_id)
    assert message is not None
    assert message["retryDelayExpression"] == expression
    await receiver.wait_for(4)
    attempts = await eventually(lambda: _all_attempts(system, message_id, 4))
    assert [attempt.get("next_delay_ms") for attempt in attempts] == [50, 101, 152, None]
    for sooner, later, delay_ms in zip(receiver.requests, receiver.requests[1:], [50, 101, 152], strict=False):
        assert later.at_s - sooner.at_s >= delay_ms / 1000


@pytest.mark.parametrize(
    ("headers", "delay_ms"),
    [
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "20ms"}, 20),
        ({"X-RateLimit-Reset": "30ms"}, 30),
        ({"x-ratelimit-reset-requests": "10ms", "x-ratelimit-reset-tokens": "25ms"}, 25),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "0"}, 0),
        ({"Retry-After": "0", "X-RateLimit-Reset": "3600"}, 0),
        ({"Retry-After": formatdate(1_000_000_000, usegmt=True)}, 0),
    ],
    ids=str,
)
async def test_a_destination_may_say_when_to_come_again(
    headers: dict[str, str], delay_ms: int, client: Client, receiver: Receiver, system: System
) -> None:
    receiver.respond(429, headers=tuple(headers.items()))
    message_id = await client.publish(receiver.url, b"x", [NEVER_BY_ITSELF])
    await receiver.wait_for(2)
    attempts = await eventually(lambda: _all_attempts(system, message_id, 2))
    assert attempts[0]["next_delay_ms"] == delay_ms


@pytest.mark.parametrize("value", ["-1", "86401", "1.5", "tomorrow", ""])
async def test_a_wish_that_makes_no_sense_is_ignored(
    value: str, client: Client, receiver: Receiver, system: System
) -> None:
    receiver.respond(429, headers=(("Retry-After", value),))
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", "7")])
    attempts = await eventually(lambda: _all_attempts(system, message_id, 2))
    assert attempts[0]["next_delay_ms"] == 7


async def test_a_date_to_come_again(client: Client, receiver: Receiver, system: System) -> None:
    at_s = int(time.time()) + 3600
    receiver.respond(503, headers=(("Retry-After", formatdate(at_s, usegmt=True)),))
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", "0")])
    (attempt,) = await eventually(lambda: system.attempts(message_id))
    assert 3_500_000 < attempt["next_delay_ms"] <= 3_600_000
    assert (await client.cancel(message_id)).json() == {"cancelled": 1}


async def test_489_with_its_header_is_not_retried(client: Client, receiver: Receiver) -> None:
    receiver.respond(489, headers=(("Upstash-NonRetryable-Error", "true"),), body=b"never again")
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", "0")])
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    assert (letter["responseStatus"], letter["responseBody"]) == (489, "never again")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (489, ("X-Other", "true")),
        (489, ("Upstash-NonRetryable-Error", "false")),
        (500, ("Upstash-NonRetryable-Error", "true")),
    ],
)
async def test_either_alone_is_an_ordinary_failure(
    status: int, header: tuple[str, str], client: Client, receiver: Receiver
) -> None:
    receiver.respond(status, headers=(header,))
    await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", "0")])
    await receiver.wait_for(2)


async def test_a_retry_waits_without_holding_up_others(client: Client, receiver: Receiver) -> None:
    receiver.respond(500, path="/failing")
    failing = await client.publish(f"{receiver.url}/failing", b"x", [NEVER_BY_ITSELF])
    await receiver.wait_for(1, path="/failing")
    await asyncio.gather(*(client.publish(f"{receiver.url}/fine", b"x") for _ in range(40)))
    await receiver.wait_for(40, path="/fine")
    message = await client.message(failing)
    assert message is not None
    assert (await client.cancel(failing)).json() == {"cancelled": 1}


def _all_attempts(system: System, message_id: str, count: int) -> list[dict[str, object]]:
    attempts = system.attempts(message_id)
    return attempts if len(attempts) == count else []
