"""Messages for later: delays and points in time, with the store's clock moved where the wait is long."""

import time

from tests.support.client import Client
from tests.support.dev_clock import DevClock
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver, Reply


async def test_a_delay_is_waited_for(client: Client, receiver: Receiver) -> None:
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Delay", "1s")])
    message = await client.message(message_id)
    assert message is not None
    assert message["notBefore"] == message["createdAt"] + 1000
    await receiver.wait_for(1)
    assert time.time() * 1000 >= message["notBefore"]


async def test_not_before_wins_over_delay(client: Client, receiver: Receiver) -> None:
    at_s = int(time.time()) + 1
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Not-Before", str(at_s)), ("Upstash-Delay", "10d")])
    message = await client.message(message_id)
    assert message is not None
    assert message["notBefore"] == at_s * 1000
    await receiver.wait_for(1)
    assert time.time() >= at_s


async def test_a_time_in_the_past_means_now(client: Client, receiver: Receiver) -> None:
    await client.publish(receiver.url, b"x", [("Upstash-Not-Before", "1000000000")])
    await receiver.wait_for(1)


async def test_without_either_a_message_is_due_when_it_was_created(client: Client, receiver: Receiver) -> None:
    message = await client.message(await client.publish(receiver.url, b"x"))
    assert message is not None
    assert message["notBefore"] == message["createdAt"]


async def test_a_long_delay(later: Client, receiver: Receiver, clock: DevClock) -> None:
    await later.publish(f"{receiver.url}/10d", b"x", [("Upstash-Delay", "10d")])
    await later.publish(f"{receiver.url}/1d10h30m", b"x", [("Upstash-Delay", "1d10h30m")])
    await later.publish(f"{receiver.url}/90", b"x", [("Upstash-Delay", "90")])
    await clock.advance(91_000)
    await receiver.wait_for(1)
    await clock.advance((34 * 60 + 30) * 60_000)
    await receiver.wait_for(2)
    await clock.advance(9 * 24 * 3600_000)
    await receiver.wait_for(3)
    assert [request.target for request in receiver.requests] == ["/90", "/1d10h30m", "/10d"]
    assert receiver.requests[0].values("Upstash-Region") == ["EU-WEST-1"]


async def test_the_default_backoff(later: Client, receiver: Receiver, clock: DevClock, clocked: System) -> None:
    receiver.always(Reply(status=500))
    message_id = await later.publish(receiver.url, b"x", [("Upstash-Retries", "6")])
    for number, delay_s in enumerate([7, 54, 403, 2980, 22026, 86400], start=1):
        await receiver.wait_for(number)
        attempts = await eventually(lambda number=number: _attempts(clocked, message_id, number))
        assert attempts[-1]["next_delay_ms"] == delay_s * 1000
        await clock.advance(delay_s * 1000)
    letter = await eventually(lambda: later.dead_letter_of(message_id))
    assert letter is not None
    assert len(receiver.requests) == 7


def _attempts(system: System, message_id: str, count: int) -> list[dict[str, object]]:
    attempts = system.attempts(message_id)
    return attempts if len(attempts) == count else []
