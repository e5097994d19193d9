"""Flow control with real processes: what arrives never exceeds the limits of a key, and uses them while messages wait.

Everything is measured at the receiver, whose clock is Redis's: both run on this machine. FAULT_LIMITED multiplies the
messages.
"""

import asyncio
import itertools
import math
import os
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.lifecycle import LogEvent
from tests.e2e.conftest import settings_for
from tests.faults.bodies import body_of
from tests.faults.inspection import Inspector
from tests.faults.limits import WindowWatch, arrivals_in, mean_at_once, most_at_once
from tests.faults.recording import ReceiverProcess, Recording
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.redis_server import RedisServer

SCALE = int(os.environ.get("FAULT_LIMITED", "1"))
KEY = "tenant"
PERIOD_MS = 1000
BATCH = 250
WELL_USED = 1 / 3
"""Of the slots of a key, on average while messages wait: a slot is free between an answer and the next request. Six of
seven are used where nothing else runs, this much is on a busy machine too."""
USED_UP = 0.95
"""Of a rate, in every window while messages wait."""
LATE = 0.005
"""Share of a rate that may arrive in a window too many. The service leaves 10 ms for the way; a machine that is busy
with other things may keep the receiver, which is one process among many, from reading a request for longer. What the
service itself counts has no tolerance."""
DRAINED_WITHIN_S = 120.0 * SCALE


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Four workers, and a receiver that sees only messages of one key."""

    system: System
    redis: RedisServer
    inspector: Inspector
    receiver: ReceiverProcess
    client: Client

    @property
    def recording(self) -> Recording:
        return self.receiver.recording

    async def publish(self, count: int, limits: str, *, wait_ms: tuple[int, int]) -> None:
        """Publish messages with these limits, in batches."""
        headers = {"Upstash-Flow-Control-Key": KEY, "Upstash-Flow-Control-Value": limits}
        destination = self.receiver.url(KEY, wait_ms=wait_ms)
        for first in range(0, count, BATCH):
            items = [
                {"destination": destination, "headers": headers, "body": body_of(f"m{number}").decode()}
                for number in range(first, min(count, first + BATCH))
            ]
            answer = await self.client.call("POST", "/v2/batch", body=msgspec.json.encode(items))
            assert answer.status == 200
            assert all("messageId" in result for result in answer.json())

    async def change(self, verb: str) -> None:
        """Change the key (`pin?rate=5`)."""
        answer = await self.client.call("POST", f"/v2/flowControl/{KEY}/{verb}")
        assert answer.status == 200, answer

    async def shown(self) -> dict[str, Any]:
        return (await self.client.call("GET", f"/v2/flowControl/{KEY}")).json()

    async def kill_worker(self, rng: random.Random) -> set[str]:
        """One of the workers; what it had in flight."""
        victim = rng.choice(self.system.workers)
        await asyncio.to_thread(victim.kill)
        # Its leases have not run out yet.
        in_flight = await self.inspector.in_flight(victim.pid)
        victim.start()
        return in_flight

    async def kill_redis(self) -> set[str]:
        """What was in flight meanwhile."""
        await asyncio.to_thread(self.redis.kill)
        await self.inspector.aclose()
        await asyncio.to_thread(self.redis.start)
        return await self.inspector.in_flight()

    async def arrived(self, count: int) -> None:
        """Wait until so many messages have arrived."""

        def have_arrived() -> bool:
            self.recording.update()
            return len(self.recording.exchanges) >= count

        await eventually(have_arrived, timeout=DRAINED_WITHIN_S, what=f"{count} arrivals")

    async def ended(self, count: int) -> None:
        """Wait until so many messages were delivered and settled, and see that nothing of them is left."""
        await self.arrived(count)
        await eventually(self.inspector.is_empty, timeout=30, what="nothing waits and no slot is taken")
        self.recording.update()
        delivered = {exchange.message_id for exchange in self.recording.exchanges if exchange.status == 200}
        assert len(delivered) == count
        key = await self.shown()
        assert (key["parallelismCount"], key["waitListSize"]) == (0, 0)


@pytest.fixture
async def scene(own_redis: RedisServer, tmp_path: Path) -> AsyncGenerator[Scene]:
    settings = settings_for(own_redis.url, lease_ms=2000, worker_concurrency=100)
    with System(settings, workers=4) as system:
        async with Inspector(settings) as inspector, ReceiverProcess(tmp_path) as receiver:
            yield Scene(
                system=system,
                redis=own_redis,
                inspector=inspector,
                receiver=receiver,
                client=Client(system.url, settings),
            )


async def test_parallelism_is_used_and_never_exceeded(scene: Scene, accounts: list[str]) -> None:
    count, parallelism = 10_000 * SCALE, 64
    await scene.change("pause")
    await scene.publish(count, f"parallelism={parallelism}", wait_ms=(20, 40))
    await scene.change("resume")
    await scene.ended(count)
    exchanges = scene.recording.exchanges
    assert len(exchanges) == count, "nothing was repeated"
    # Until the last one began, others were waiting.
    mean = mean_at_once(scene.recording, exchanges[0].began_ns, exchanges[-1].began_ns)
    accounts.append(f"parallelism {parallelism}, {count} messages: {mean:.1f} under way on average")
    assert most_at_once(scene.recording) == parallelism
    assert mean >= WELL_USED * parallelism


async def test_a_rate_is_used_and_never_exceeded(scene: Scene, accounts: list[str]) -> None:
    count, rate = 10_000 * SCALE, 1000
    await scene.change("pause")
    await scene.publish(count, f"rate={rate}, period=1", wait_ms=(0, 20))
    async with WindowWatch(scene.inspector, KEY) as watch:
        await scene.change("resume")
        await scene.ended(count)
    starts = sorted(watch.counted)
    used = [arrivals_in(scene.recording.exchanges, start, PERIOD_MS) for start in starts]
    accounts.append(f"rate {rate} per s, {count} messages: {used} in each window")
    gaps_ms = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert min(gaps_ms) >= PERIOD_MS
    assert max(gaps_ms) < 2 * PERIOD_MS, "the next window opens when one is over"
    assert max(watch.counted.values()) == rate
    assert max(used) <= rate * (1 + LATE)
    assert sum(used) >= count * (1 - LATE), "attempts arrive within windows"
    for start, arrived in list(zip(starts, used, strict=True))[:-1]:
        # On a machine that cannot deliver so many in time, the workers must at least have been given them.
        assert arrived >= USED_UP * rate or watch.idle_share(start) <= 1 - USED_UP


async def test_changed_limits_hold_for_what_waits(scene: Scene, accounts: list[str]) -> None:
    phases: list[Phase] = []

    async def begin(change: Awaitable[None], parallelism: int, rate: int | None = None) -> None:
        """The last phase ends before the change is asked for, the next one begins when it is certainly in force."""
        if phases:
            phases[-1].until_ms = _unix_ms()
        await change
        phases.append(Phase(from_ms=_unix_ms(), parallelism=parallelism, rate=rate))

    def publish(count: int, limits: str) -> Awaitable[None]:
        return scene.publish(count, limits, wait_ms=(20, 40))

    await scene.change("pause")
    await publish(2500, "parallelism=16, rate=300, period=1")
    async with WindowWatch(scene.inspector, KEY) as watch:
        await begin(scene.change("resume"), parallelism=16, rate=300)
        await _see_a_whole_window(watch, phases[-1])
        await begin(publish(1, "parallelism=6, rate=120, period=1"), parallelism=6, rate=120)
        await _see_a_whole_window(watch, phases[-1])
        await begin(scene.change("pin?parallelism=24&rate=400&period=1"), parallelism=24, rate=400)
        await _see_a_whole_window(watch, phases[-1])
        await scene.change("unpin?parallelism=true&rate=true")
        await begin(publish(1, "parallelism=40"), parallelism=40)
        await scene.ended(2502)
    phases[-1].until_ms = scene.recording.exchanges[-1].began_ns // 1_000_000
    claims = await scene.inspector.entries(LogEvent.ACTIVE)
    seen = [_look_at(phase, scene.recording, claims, watch) for phase in phases]
    lines = [f"{phase}: {one}" for phase, one in zip(phases, seen, strict=True)]
    accounts.append("\n".join(["limits changed under load", *lines]))
    for phase, one in zip(phases, seen, strict=True):
        assert one.most == phase.parallelism
        if phase.rate is None:
            assert one.mean >= WELL_USED * phase.parallelism
        else:
            assert one.used
            assert max(one.used) <= phase.rate * (1 + LATE)
            assert min(one.used) >= USED_UP * phase.rate or one.mean >= WELL_USED * phase.parallelism


async def test_kills_neither_exceed_limits_nor_leak_a_slot(scene: Scene, accounts: list[str]) -> None:
    count, parallelism, rate = 3000 * SCALE, 32, 500
    rng = random.Random(1)
    in_flight: set[str] = set()
    await scene.change("pause")
    await scene.publish(count, f"parallelism={parallelism}, rate={rate}, period=1", wait_ms=(20, 60))
    kills = 0
    async with WindowWatch(scene.inspector, KEY) as watch:
        await scene.change("resume")
        while len(scene.recording.exchanges) < 0.75 * count:
            await scene.arrived(len(scene.recording.exchanges) + rate)
            kills += 1
            in_flight |= await (scene.kill_redis() if kills % 4 == 3 else scene.kill_worker(rng))
        await scene.ended(count)
    recording = scene.recording
    arrivals = Counter(exchange.message_id for exchange in recording.exchanges)
    twice = {message_id for message_id, times in arrivals.items() if times > 1}
    most = most_at_once(recording)
    used = [arrivals_in(recording.exchanges, start, PERIOD_MS) for start in sorted(watch.counted)]
    accounts.append(
        f"parallelism {parallelism} and rate {rate} per s, {count} messages, {kills} kills: at most {most} at once, "
        f"{used} in each window, {len(twice)} delivered twice"
    )
    assert most <= parallelism
    assert max(watch.counted.values()) <= rate
    assert max(used) <= rate * (1 + LATE)
    assert twice <= in_flight, "only what was in flight in something killed is repeated"


@dataclass(slots=True, kw_only=True)
class Phase:
    """From a change of the limits to the next one."""

    from_ms: int
    until_ms: int = 0
    parallelism: int
    rate: int | None = None

    def __str__(self) -> str:
        return f"parallelism {self.parallelism}, rate {self.rate}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the receiver saw in a phase."""

    most: int
    """At once."""
    mean: float
    used: list[int]
    """Arrivals in each window that was over before the phase was."""

    def __str__(self) -> str:
        return f"at most {self.most} at once, {self.mean:.1f} on average, {self.used} in each window"


async def _see_a_whole_window(watch: WindowWatch, phase: Phase) -> None:
    """Wait until a second window begins under the limits of a phase."""
    await eventually(lambda: sum(start > phase.from_ms for start in watch.counted) >= 2, timeout=30, what="two windows")


def _look_at(phase: Phase, recording: Recording, claims: list[tuple[int, str]], watch: WindowWatch) -> Seen:
    # Attempts that began before the change go on. Once one was claimed after it, not more are under way than it allows.
    claimed_ms = {message_id: at_ms for at_ms, message_id in claims if at_ms > phase.from_ms}
    from_ns = next(
        exchange.began_ns
        for exchange in recording.exchanges
        if exchange.began_ns >= claimed_ms.get(exchange.message_id, math.inf) * 1_000_000
    )
    until_ns = phase.until_ms * 1_000_000
    whole = [start for start in sorted(watch.counted) if phase.from_ms < start <= phase.until_ms - PERIOD_MS]
    return Seen(
        most=most_at_once(recording, from_ns, until_ns),
        mean=mean_at_once(recording, from_ns, until_ns),
        used=[arrivals_in(recording.exchanges, start, PERIOD_MS) for start in whole],
    )


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
