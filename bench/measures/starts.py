"""How soon the service answers and delivers after its start, and what its processes occupy when idle."""

import asyncio
import dataclasses
import statistics
import time

from bench.engine import TOKEN, Engine
from bench.plan import Bench
from bench.processes import Child, Memory, Nursery, memory_of
from bench.report import BenchFailure, Budget, Figure, compared
from bench.service import DRAIN_PATIENCE_S, drained, eventually, free_port, is_answered, start_api, start_worker
from bench.tools.channel import Tool
from bench.tools.samples import destination, publish_request
from qstash_clone.settings import DEVELOPMENT_TOKEN

_POLL_S = 0.005
_WARM_UP = 500


async def measure(bench: Bench) -> list[Figure]:
    """Start-up times are medians; memory is read after some work, when nothing is left to do."""
    bench.say("starts: api")
    figures = [await _api_starts(bench)]
    bench.say("starts: dev")
    figures.append(await _dev_starts(bench))
    bench.say("starts: memory of idle processes")
    return [*figures, *await _idle_memory(bench)]


async def _api_starts(bench: Bench) -> Figure:
    times: list[float] = []
    bare_times: list[float] = []
    with bench.engine() as engine:
        async with bench.nursery() as nursery:
            for _ in range(bench.sizes.starts):
                bare_times.append(await _start_s(nursery, engine, "bare-api", ["-m", "bench.tools.bare_api"]))
                times.append(await _start_s(nursery, engine, "api", ["-m", "qstash_clone.cli", "api"]))
    return compared(
        "starts",
        "api: start to first stored message",
        "s",
        times,
        bare_times,
        inverse=True,
        budget=Budget(limit=1, unit="s"),
        note="the reference is the bare route's first answer",
    )


async def _start_s(nursery: Nursery, engine: Engine, name: str, arguments: list[str]) -> float:
    port = free_port()
    request = _closing(publish_request(port, TOKEN, destination(54321)))
    environ = dataclasses.replace(engine.settings(), port=port).to_environ()
    started_s = time.monotonic()
    child = await nursery.start(name, arguments, environ)
    await _first_answer(port, request, child)
    elapsed_s = time.monotonic() - started_s
    await nursery.end(child)
    return elapsed_s


async def _dev_starts(bench: Bench) -> Figure:
    times: list[float] = []
    async with bench.nursery() as nursery:
        receiver = await Tool.start(nursery, "receiver")
        target = (await receiver.ask("listen", name="fast", timeout_s=5))["port"]
        for _ in range(bench.sizes.starts):
            await receiver.ask("reset", timeout_s=5)
            port = free_port()
            request = _closing(publish_request(port, DEVELOPMENT_TOKEN, destination(target)))
            folder = str(bench.new_folder("dev"))
            started_s, started_ns = time.monotonic(), time.time_ns()
            child = await nursery.start(
                "dev", ["-m", "qstash_clone.cli", "dev", "--port", str(port), "--data-dir", folder]
            )
            await _first_answer(port, request, child)
            answer = await receiver.ask("expect", name="fast", count=1, patience_s=20, timeout_s=25)
            if answer["arrived"] < 1:
                raise BenchFailure(f"dev: no delivery within {time.monotonic() - started_s:.0f} s")
            collected = await receiver.ask("collect", name="fast", timeout_s=5)
            times.append((collected["arrived_ns"][0] - started_ns) / 1e9)
            await nursery.end(child)
    return Figure(
        measure="starts",
        name="dev: start to first delivery",
        value=statistics.median(times),
        unit="s",
        budget=Budget(limit=3, unit="s"),
        rounds=tuple(times),
    )


async def _first_answer(port: int, request: bytes, child: Child) -> None:
    await eventually(lambda: is_answered(port, request), child, f"{child.name} does not answer", interval_s=_POLL_S)


def _closing(request: bytes) -> bytes:
    return request.replace(b"Accept: */*\r\n", b"Connection: close\r\n")


async def _idle_memory(bench: Bench) -> list[Figure]:
    with bench.engine() as engine:
        async with bench.nursery() as nursery:
            receiver = await Tool.start(nursery, "receiver")
            port = (await receiver.ask("listen", name="fast", timeout_s=5))["port"]
            api, api_port = await start_api(nursery, engine)
            worker = await start_worker(nursery, engine)
            load = await Tool.start(nursery, "load")
            await load.ask(
                "paced",
                timeout_s=DRAIN_PATIENCE_S,
                port=api_port,
                request=publish_request(api_port, TOKEN, destination(port)).decode("latin-1"),
                count=_WARM_UP,
                gap_ms=1,
            )
            await drained(engine, worker)
            await asyncio.sleep(0.5)
            return [_memory(role, memory_of(child.pid)) for role, child in (("api", api), ("worker", worker))]


def _memory(role: str, memory: Memory) -> Figure:
    return Figure(
        measure="starts",
        name=f"memory of an idle {role} process",
        value=memory.resident_mib,
        unit="MiB",
        budget=Budget(limit=80, unit="MiB"),
        note=f"resident, after {_WARM_UP} messages; {memory.private_mib:.0f} MiB of it private",
    )
