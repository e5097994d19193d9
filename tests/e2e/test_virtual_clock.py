"""A week in milliseconds: with the clock moved, delays, retries and retention follow, while signatures stay real."""

import time
from collections.abc import Callable

import pytest

from tests.support.client import Client
from tests.support.dev_clock import DAY_MS, DevClock
from tests.support.eventually import eventually
from tests.support.receiver import ReceivedRequest, Receiver, Reply

Signed = Callable[[ReceivedRequest], dict[str, object]]


async def test_a_delay_of_a_week(later: Client, receiver: Receiver, clock: DevClock, signed: Signed) -> None:
    message_id = await later.publish(f"{receiver.url}/weekly", b"x", [("Upstash-Delay", "7d")])
    message = await later.message(message_id)
    assert message is not None
    await clock.advance("6d23h59m")
    await later.pass_by(receiver)
    assert len(receiver.requests) == 1
    began_s = time.monotonic()
    now_ms = await clock.to(message["notBefore"])
    _, request = await receiver.wait_for(2)
    assert time.monotonic() - began_s < 5
    claims = signed(request)
    assert abs(int(str(claims["iat"])) - time.time()) < 60, "receivers check it by real time"
    [created, *_] = (await later.send("GET", f"/v2/events?messageId={message_id}&state=CREATED"))["events"]
    assert created["time"] == message["createdAt"]
    assert now_ms - created["time"] >= 7 * DAY_MS


async def test_a_chain_of_retries(later: Client, receiver: Receiver, clock: DevClock, signed: Signed) -> None:
    receiver.always(Reply(status=503))
    message_id = await later.publish(f"{receiver.url}/fails", b"x", [("Upstash-Retries", "5")])
    await clock.freeze()
    for retried in range(5):
        request = (await receiver.wait_for(retried + 1))[-1]
        signed(request)
        assert request.header("Upstash-Retried") == str(retried)

        async def next_delivery_time(count: int = retried + 1) -> int | None:
            retries = (await later.send("GET", f"/v2/events?messageId={message_id}&state=RETRY"))["events"]
            return retries[0]["nextDeliveryTime"] if len(retries) == count else None

        due_ms = await eventually(next_delivery_time)
        assert due_ms is not None
        assert await clock.to(due_ms) == due_ms
    letter = await eventually(lambda: later.dead_letter_of(message_id))
    assert letter is not None
    assert int(letter["dlqId"].split("-")[0]) == await clock.now()
    assert len(receiver.requests) == 6


async def test_a_clock_that_stands_still_lets_through_what_is_due_and_nothing_else(
    later: Client, receiver: Receiver, clock: DevClock
) -> None:
    now_ms = await clock.freeze()
    await later.publish(f"{receiver.url}/later", headers=[("Upstash-Delay", "1s")])
    message = await later.message(await later.publish(f"{receiver.url}/now"))
    assert message is not None
    assert message["createdAt"] == message["notBefore"] == now_ms
    await receiver.wait_for(1, path="/now")
    await clock.advance(999)
    await later.pass_by(receiver)
    assert not any(request.path == "/later" for request in receiver.requests)
    await clock.advance(1)
    await receiver.wait_for(1, path="/later")


async def test_a_delayed_member_joins_its_queue_when_its_time_comes(
    later: Client, receiver: Receiver, clock: DevClock
) -> None:
    queue = f"clocked-{receiver.port}"
    await later.enqueue(queue, f"{receiver.url}/delayed", headers=[("Upstash-Delay", "1h")])
    await later.enqueue(queue, f"{receiver.url}/first")
    await receiver.wait_for(1, path="/first")
    await later.send("POST", f"/v2/queues/{queue}/pause")
    await later.enqueue(queue, f"{receiver.url}/second")
    await clock.advance("1h")
    await later.send("POST", f"/v2/queues/{queue}/resume")
    await receiver.wait_for(3)
    assert [request.path for request in receiver.requests] == ["/first", "/second", "/delayed"]


async def test_retention_and_the_window_of_repeats_follow(later: Client, receiver: Receiver, clock: DevClock) -> None:
    receiver.respond(500, path="/fails")
    headers = [("Upstash-Deduplication-Id", f"once-{receiver.port}"), ("Upstash-Deduplication-Window", "90d")]
    failed = await later.publish(f"{receiver.url}/fails", headers=[("Upstash-Retries", "0")])
    delivered = await later.publish(f"{receiver.url}/delivered", headers=headers)
    letter = await eventually(lambda: later.dead_letter_of(failed))
    assert letter is not None

    async def is_settled() -> bool:
        return len(await later.states(delivered)) == 3

    await eventually(is_settled)
    await clock.advance("13d")
    assert await later.dead_letter_of(failed) is not None
    assert (await later.states(delivered))[-1] == "DELIVERED"
    await clock.advance("1d1m")

    async def is_forgotten() -> bool:
        return not (await later.states(delivered) or await later.dead_letter_of(failed))

    await eventually(is_forgotten)
    answer = await later.call("POST", f"/v2/publish/{receiver.url}/again", headers)
    assert (answer.status, answer.json()["messageId"]) == (202, delivered)
    await clock.advance("76d")
    assert (await later.call("POST", f"/v2/publish/{receiver.url}/again", headers)).status == 200
    await receiver.wait_for(1, path="/again")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"advance": "-1d"}',
        b'{"advance": "soon"}',
        b'{"to": 1}',
        b'{"freeze": "yes"}',
        b'{"rewind": "1d"}',
    ],
)
async def test_a_bad_move_changes_nothing(later: Client, clock: DevClock, body: bytes) -> None:
    before_ms = await clock.freeze()
    answer = await later.call("POST", "/dev/clock", body=body)
    assert answer.status == 400
    assert answer.error
    assert await clock.now() == before_ms


async def test_elsewhere_than_in_dev_there_is_no_such_clock(client: Client) -> None:
    for method in ("GET", "POST"):
        assert (await client.call(method, "/dev/clock", body=b'{"advance": "1d"}')).status == 404
