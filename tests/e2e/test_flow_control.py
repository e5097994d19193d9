"""Flow control as receivers see it: how many at once, how many per period, and what changing a key does at once."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.dev_clock import DevClock
from tests.support.eventually import eventually
from tests.support.gates import Gates
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer

UNSET = {"rateMax": 0, "rateCount": 0, "isPaused": False, "isPinnedParallelism": False, "isPinnedRate": False}


@pytest.fixture
def key(receiver: Receiver) -> str:
    """A flow-control key that no other test uses."""
    return f"key-{receiver.port}"


class Publisher:
    """Publishes with one key."""

    def __init__(self, client: Client, receiver: Receiver, key: str) -> None:
        self.client = client
        self._receiver = receiver
        self._key = key

    async def publish(self, path: str, limits: str, *headers: tuple[str, str]) -> str:
        flow_control = [("Upstash-Flow-Control-Key", self._key), ("Upstash-Flow-Control-Value", limits)]
        return await self.client.publish(self._receiver.url + path, headers=[*flow_control, *headers])

    async def shown(self) -> dict[str, Any]:
        return await self.client.send("GET", f"/v2/flowControl/{self._key}")

    async def has_waiting(self, count: int) -> None:
        """Wait until so many messages are in the key's waiting list."""

        async def is_reached() -> bool:
            return (await self.shown())["waitListSize"] == count

        await eventually(is_reached, what=f"{count} waiting messages")

    async def change(self, action: str) -> None:
        await self.client.send("POST", f"/v2/flowControl/{self._key}/{action}")

    async def passes_by(self) -> None:
        await self.client.pass_by(self._receiver)


@pytest.fixture
def keyed(client: Client, receiver: Receiver, key: str) -> Publisher:
    return Publisher(client, receiver, key)


@pytest.fixture
async def timed(later: Client, receiver: Receiver, key: str, clock: DevClock) -> Publisher:
    """On a clock that stands still."""
    await clock.freeze()
    return Publisher(later, receiver, key)


async def test_parallelism(keyed: Publisher, key: str, receiver: Receiver, gates: Gates) -> None:
    ids = [await keyed.publish(f"/{number}", "parallelism=2") for number in range(6)]
    await gates.wait_for(2)
    await keyed.passes_by()
    assert sorted(gates.paths) == ["/0", "/1"]
    shown = await keyed.shown()
    assert shown.items() >= (UNSET | {"flowControlKey": key, "parallelismMax": 2, "parallelismCount": 2}).items()
    assert (shown["waitListSize"], shown["ratePeriod"]) == (4, 1)
    assert (await keyed.client.send("GET", f"/v2/messages/{ids[-1]}/explain"))["reason"] == "parallelism"
    at_once = await keyed.client.send("GET", "/v2/globalParallelism")
    assert 2 <= at_once["parallelismCount"] <= at_once["parallelismMax"]
    for number in range(4):
        gates.open(f"/{number}")
        await receiver.wait_for(1, path=f"/{number + 2}")
        await keyed.passes_by()
        assert len(gates.paths) == number + 3
    gates.open_all()
    assert len(set(await gates.wait_for(6))) == 6
    page = await keyed.client.send("GET", f"/v2/events?flowControlKey={key}&state=CREATED")
    assert [(event["parallelism"], "rate" in event, event["period"]) for event in page["events"]] == [(2, False, 1)] * 6


async def test_a_retry_that_waits_and_a_delayed_message_take_no_place(
    keyed: Publisher, receiver: Receiver, gates: Gates
) -> None:
    receiver.respond(500, path="/fails")
    await keyed.publish("/delayed", "parallelism=1", ("Upstash-Delay", "1h"))
    await keyed.publish("/fails", "parallelism=1", ("Upstash-Retry-Delay", "3600000"))
    await keyed.publish("/next", "parallelism=1")
    await receiver.wait_for(1, path="/next")
    shown = await keyed.shown()
    assert (shown["waitListSize"], shown["parallelismCount"]) == (0, 1)
    gates.open_all()


async def test_a_rate(timed: Publisher, receiver: Receiver, clock: DevClock, gates: Gates) -> None:
    gates.open_all()
    receiver.respond(500, path="/0")
    started_ms = await clock.now()
    for number in range(6):
        await timed.publish(f"/{number}", "rate=3, period=1h", ("Upstash-Retry-Delay", "0"))
    await gates.wait_for(3)
    await timed.passes_by()
    assert len(gates.paths) == 3
    # The retry is an attempt as well, and waits in the line like all others.
    await timed.has_waiting(4)
    shown = await timed.shown()
    assert (shown["rateMax"], shown["rateCount"], shown["ratePeriod"]) == (3, 3, 3600)
    assert shown["ratePeriodStart"] == started_ms // 1000
    await clock.advance("58m")
    await timed.passes_by()
    assert len(gates.paths) == 3
    await clock.advance("2m")
    await gates.wait_for(6)
    await timed.passes_by()
    assert len(gates.paths) == 6
    await clock.advance("1h")
    await gates.wait_for(7)
    assert sorted(gates.paths) == ["/0", "/0", "/1", "/2", "/3", "/4", "/5"]


async def test_a_rate_in_real_time(keyed: Publisher, receiver: Receiver) -> None:
    for number in range(12):
        await keyed.publish(f"/{number}", "rate=5, period=1s")
    arrived = [request.at_s for request in await receiver.wait_for(12)]
    # Three windows of a second each; a busy machine shows some arrivals late.
    assert arrived[5] - arrived[0] > 0.5
    assert arrived[10] - arrived[5] > 0.5


async def test_the_limits_of_the_last_message_act_on_those_that_wait(
    keyed: Publisher, receiver: Receiver, gates: Gates
) -> None:
    for number in range(4):
        await keyed.publish(f"/{number}", "parallelism=1")
    await gates.wait_for(1)
    await keyed.publish("/4", "parallelism=3")
    await gates.wait_for(3)
    await keyed.passes_by()
    assert sorted(gates.paths) == ["/0", "/1", "/2"]
    await keyed.publish("/5", "rate=100,period=7d")
    await gates.wait_for(6)
    shown = await keyed.shown()
    assert (shown["parallelismMax"], shown["rateMax"], shown["ratePeriod"]) == (0, 100, 604_800)
    gates.open_all()


async def test_pinned_limits_stay_until_they_are_unpinned(keyed: Publisher, receiver: Receiver, gates: Gates) -> None:
    await keyed.change("pin?parallelism=1")
    for number in range(3):
        await keyed.publish(f"/{number}", "parallelism=3, rate=50, period=1m")
    await gates.wait_for(1)
    await keyed.passes_by()
    assert gates.paths == ["/0"]
    shown = await keyed.shown()
    assert (shown["parallelismMax"], shown["isPinnedParallelism"], shown["isPinnedRate"]) == (1, True, False)
    assert (shown["rateMax"], shown["ratePeriod"]) == (50, 60)
    await keyed.change("pin?rate=20&period=120&parallelism=2")
    await receiver.wait_for(1, path="/1")
    await keyed.change("unpin?parallelism=true&rate=false")
    shown = await keyed.shown()
    assert (shown["parallelismMax"], shown["isPinnedParallelism"]) == (2, False), "stays until a message says otherwise"
    await keyed.publish("/3", "parallelism=4, rate=50, period=1m")
    await receiver.wait_for(1, path="/3")
    shown = await keyed.shown()
    assert (shown["rateMax"], shown["ratePeriod"], shown["isPinnedRate"]) == (20, 120, True)
    await keyed.change("unpin?rate=true")
    await keyed.publish("/4", "parallelism=5")
    await receiver.wait_for(1, path="/4")
    shown = await keyed.shown()
    assert (shown["parallelismMax"], shown["rateMax"], shown["isPinnedRate"]) == (5, 0, False)
    gates.open_all()


async def test_a_paused_key_begins_no_attempt(keyed: Publisher, receiver: Receiver, gates: Gates) -> None:
    assert (await keyed.client.call("GET", "/v2/flowControl/no-such-key")).status == 404
    await keyed.change("pause")
    assert (await keyed.shown())["isPaused"], "created by the pause"
    await keyed.publish("/0", "parallelism=1")
    await keyed.change("resume")
    await receiver.wait_for(1, path="/0")
    await keyed.change("pause")
    await keyed.publish("/1", "parallelism=9")
    gates.open("/0")

    async def has_ended() -> bool:
        return (await keyed.shown())["parallelismCount"] == 0

    await eventually(has_ended)
    await keyed.passes_by()
    assert gates.paths == ["/0"]
    assert (await keyed.shown())["waitListSize"] == 1
    await keyed.change("resume")
    await receiver.wait_for(1, path="/1")
    gates.open_all()


async def test_reset(timed: Publisher, receiver: Receiver, gates: Gates) -> None:
    for number in range(6):
        await timed.publish(f"/{number}", "rate=2,period=1h,parallelism=3")
    await gates.wait_for(2)
    await timed.change("resetRate")
    await gates.wait_for(3)
    await timed.passes_by()
    shown = await timed.shown()
    assert (len(gates.paths), shown["parallelismCount"], shown["rateCount"]) == (3, 3, 1)
    await timed.change("reset")
    await gates.wait_for(5)
    shown = await timed.shown()
    assert (shown["parallelismCount"], shown["rateCount"], shown["waitListSize"]) == (2, 2, 1)
    await timed.change("pause")
    await timed.change("resetRate")
    assert (await timed.shown())["rateCount"] == 0
    await timed.change("resume")
    gates.open_all()
    await gates.wait_for(6)


async def test_keys_are_listed_by_a_part_of_their_names(client: Client, receiver: Receiver) -> None:
    flow = [("Upstash-Flow-Control-Value", "rate=1")]
    for name in ("one", "two", "three"):
        await client.publish(
            receiver.url, headers=[*flow, ("Upstash-Flow-Control-Key", f"list-{receiver.port}.{name}")]
        )
    listed = await client.send("GET", f"/v2/flowControl?search={receiver.port}.t")
    assert [key["flowControlKey"] for key in listed] == [f"list-{receiver.port}.{name}" for name in ("three", "two")]
    assert [key["rateMax"] for key in listed] == [1, 1]
    assert len(await client.send("GET", "/v2/flowControl")) >= 3
    assert await client.send("GET", "/v2/flowControl?search=no-such-key") == []


async def test_a_callback_with_a_key_of_its_own(keyed: Publisher, receiver: Receiver, key: str) -> None:
    await keyed.change("pause")
    await keyed.client.publish(
        f"{receiver.url}/source",
        headers=[
            ("Upstash-Callback", f"{receiver.url}/callback"),
            ("Upstash-Callback-Flow-Control-Key", key),
            ("Upstash-Callback-Flow-Control-Value", "parallelism=1"),
        ],
    )
    await keyed.has_waiting(1)
    assert [request.path for request in receiver.requests] == ["/source"]
    await keyed.change("resume")
    await receiver.wait_for(1, path="/callback")


@pytest.fixture
def narrow(e2e_redis: RedisServer) -> Iterator[System]:
    """Two workers that may deliver three messages at once, together."""
    with System(settings_for(e2e_redis.url, key_namespace="narrow", global_parallelism=3), workers=2) as system:
        yield system


async def test_the_parallelism_of_everybody(narrow: System, receiver: Receiver, gates: Gates) -> None:
    client = Client(narrow.url, narrow.settings)
    assert await client.send("GET", "/v2/globalParallelism") == {"parallelismMax": 3, "parallelismCount": 0}
    for number in range(7):
        flow_control = [("Upstash-Flow-Control-Key", f"k{number}"), ("Upstash-Flow-Control-Value", "parallelism=1")]
        await client.publish(f"{receiver.url}/{number}", headers=flow_control)
    await gates.wait_for(3)
    assert await client.send("GET", "/v2/globalParallelism") == {"parallelismMax": 3, "parallelismCount": 3}
    gates.open(*gates.paths)
    await gates.wait_for(6)
    assert len(receiver.requests) == 6
    gates.open_all()
    await gates.wait_for(7)
