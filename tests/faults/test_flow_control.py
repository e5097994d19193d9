"""Flow control with real processes: what arrives never exceeds the limits of a key, and uses them while messages wait.

Everything is measured at the receiver, whose clock is Redis's: both run on this machine. FAULT_LIMITED multiplies the
messages.
"""

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
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
from tests.faults.recording import Exchange, ReceiverProcess, Recording
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.redis_server import RedisServer

SCALE = int(os.environ.get("FAULT_LIMITED", "1"))
KEY = "tenant"
PERIOD_MS = 1000
BATCH = 250
DRAINED_WITHIN_S = 120.0 * SCALE


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Four workers, and a receiver that sees only messages of one key."""

    system: System
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

    async def change(self, verb: str) -> int:
        """Change the key (`pin?rate=5`); unix ms at which the change was certainly in force."""
        answer = await self.client.call("POST", f"/v2/flowControl/{KEY}/{verb}")
        assert answer.status == 200, answer
        return time.time_ns() // 1_000_000

    async def shown(self) -> dict[str, Any]:
        return (await self.client.call("GET", f"/v2/flowControl/{KEY}")).json()

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
    async with _scene(own_redis, tmp_path) as scene:
        yield scene


@asynccontextmanager
async def _scene(own_redis: RedisServer, folder: Path) -> AsyncGenerator[Scene]:
    settings = settings_for(own_redis.url, lease_ms=2000, worker_concurrency=100)
    with System(settings, workers=4) as system:
        async with Inspector(settings) as inspector, ReceiverProcess(folder) as receiver:
            yield Scene(system=system, inspector=inspector, receiver=receiver, client=Client(system.url, settings))


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
    assert mean >= 0.5 * parallelism


async def test_a_rate_is_used_and_never_exceeded(scene: Scene, accounts: list[str]) -> None:
    count, rate = 10_000 * SCALE, 1000
    await scene.change("pause")
    await scene.publish(count, f"rate={rate}, period=1", wait_ms=(0, 20))
    async with WindowWatch(scene.inspector, KEY) as watch:
        await scene.change("resume")
        await scene.ended(count)
    starts = sorted(watch.counted)
    used = {start: arrivals_in(scene.recording.exchanges, start, PERIOD_MS) for start in starts}
    accounts.append(f"rate {rate} per s, {count} messages: windows of {[*used.values()]}")
    gaps_ms = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert min(gaps_ms) >= PERIOD_MS
    assert max(gaps_ms) < 2 * PERIOD_MS, "the next window opens when one is over"
    assert max(watch.counted.values()) <= rate
    assert max(used.values()) <= rate
    assert sum(used.values()) == count, "every attempt arrived within a window"
    assert min(used[start] for start in starts[:-1]) >= 0.95 * rate


async def test_changed_limits_hold_for_what_waits(scene: Scene, accounts: list[str]) -> None:
    await scene.change("pause")
    phases: list[_Phase] = []
    async with WindowWatch(scene.inspector, KEY) as watch:
        await scene.publish(3000, "parallelism=16, rate=300, period=1", wait_ms=(20, 40))
        phases.append(_Phase(await scene.change("resume"), parallelism=16, rate=300))
        await _windows_begin(watch, phases[-1], 3)
        await scene.publish(1, "parallelism=6, rate=120, period=1", wait_ms=(20, 40))
        phases.append(_Phase(time.time_ns() // 1_000_000, parallelism=6, rate=120))
        await _windows_begin(watch, phases[-1], 3)
        changed_ms = await scene.change("pin?parallelism=24&rate=400&period=1")
        phases.append(_Phase(changed_ms, parallelism=24, rate=400))
        await _windows_begin(watch, phases[-1], 3)
        await scene.change("unpin?parallelism=true&rate=true")
        await scene.publish(1, "parallelism=40", wait_ms=(20, 40))
        phases.append(_Phase(time.time_ns() // 1_000_000, parallelism=40, rate=None))
        await scene.ended(3002)
    await _check_phases(scene, watch, phases, accounts)


async def test_killed_workers_neither_exceed_the_limits_nor_leak_a_slot(scene: Scene, accounts: list[str]) -> None:
    count, parallelism, rate = 4000 * SCALE, 32, 500
    rng = random.Random(1)
    kills = 0
    in_flight: set[str] = set()
    await scene.change("pause")
    await scene.publish(count, f"parallelism={parallelism}, rate={rate}, period=1", wait_ms=(20, 60))
    async with WindowWatch(scene.inspector, KEY) as watch:
        await scene.change("resume")
        while len(scene.recording.exchanges) < 0.75 * count:
            await scene.arrived(len(scene.recording.exchanges) + rate)
            victim = rng.choice(scene.system.workers)
            await asyncio.to_thread(victim.kill)
            # Its leases have not run out yet.
            in_flight |= await scene.inspector.in_flight(victim.pid)
            victim.start()
            kills += 1
        await scene.ended(count)
    recording = scene.recording
    repeated = Counter(exchange.message_id for exchange in recording.exchanges)
    twice = {message_id for message_id, times in repeated.items() if times > 1}
    used = {start: arrivals_in(recording.exchanges, start, PERIOD_MS) for start in sorted(watch.counted)}
    accounts.append(
        f"parallelism {parallelism} and rate {rate} per s, {count} messages, {kills} workers killed: "
        f"at most {most_at_once(recording)} at once, windows of {[*used.values()]}, {len(twice)} delivered twice"
    )
    assert most_at_once(recording) <= parallelism
    assert max(used.values()) <= rate
    assert twice <= in_flight, "only what was in flight in a killed worker is repeated"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    parallelism: int
    rate: int | None


class _Phase:
    """From a change of the limits to the next one."""

    def __init__(self, from_ms: int, *, parallelism: int, rate: int | None) -> None:
        self.from_ms = from_ms
        self.limits = _Limits(parallelism=parallelism, rate=rate)


async def _windows_begin(watch: WindowWatch, phase: _Phase, count: int) -> None:
    """Wait until so many windows have begun under the limits of a phase."""
    await eventually(
        lambda: sum(start > phase.from_ms for start in watch.counted) >= count, timeout=30, what=f"{count} windows"
    )


async def _check_phases(scene: Scene, watch: WindowWatch, phases: list[_Phase], accounts: list[str]) -> None:
    recording = scene.recording
    first_arrival: dict[str, Exchange] = {exchange.message_id: exchange for exchange in reversed(recording.exchanges)}
    claims = await scene.inspector.entries(LogEvent.ACTIVE)
    for phase, following in zip(phases, [*phases[1:], None], strict=True):
        until_ms = following.from_ms if following else recording.exchanges[-1].began_ns // 1_000_000
        # Attempts that began before the change go on. Once one was claimed after it, not more are under way than it
        # allows.
        claimed = [first_arrival[one].began_ns for at_ms, one in claims if phase.from_ms < at_ms < until_ms]
        from_ns, until_ns = min(claimed), until_ms * 1_000_000
        most = most_at_once(recording, from_ns, until_ns)
        mean = mean_at_once(recording, from_ns, until_ns)
        whole = [start for start in watch.counted if phase.from_ms < start < until_ms - PERIOD_MS]
        used = [arrivals_in(recording.exchanges, start, PERIOD_MS) for start in sorted(whole)]
        limits = phase.limits
        accounts.append(f"limits changed to {limits}: at most {most} at once, {mean:.1f} on average, windows of {used}")
        assert most == limits.parallelism
        if limits.rate is None:
            assert mean >= 0.5 * limits.parallelism
        else:
            assert len(used) >= 2
            assert max(used) <= limits.rate
