"""Starts the service's own processes with the commands that production uses, and waits until they serve."""

import asyncio
import dataclasses
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.engine import Engine
from bench.processes import Child, Nursery
from bench.report import BenchFailure
from qstash_clone.settings import Settings

START_PATIENCE_S = 20.0
DRAIN_PATIENCE_S = 60.0


async def start_api(
    nursery: Nursery, engine: Engine, *, name: str = "api", settings: Settings | None = None
) -> tuple[Child, int]:
    """One api process that is ready to store, and its port; with the engine's settings unless others are given."""
    port = free_port()
    environ = dataclasses.replace(settings or engine.settings(), port=port).to_environ()
    child = await nursery.start(name, ["-m", "qstash_clone.cli", "api"], environ)
    await eventually(lambda: answers(port, "/readyz"), child, "the api does not get ready")
    return child, port


async def start_bare_api(nursery: Nursery, engine: Engine) -> tuple[Child, int]:
    """The reference of the api, and its port."""
    port = free_port()
    environ = dataclasses.replace(engine.settings(), port=port).to_environ()
    child = await nursery.start("bare-api", ["-m", "bench.tools.bare_api"], environ)
    request = b"POST /v2/publish/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    await eventually(lambda: is_answered(port, request), child, "the bare api does not answer")
    return child, port


async def start_worker(nursery: Nursery, engine: Engine) -> Child:
    """One worker process whose capacity the store knows."""
    child = await nursery.start("worker", ["-m", "qstash_clone.cli", "worker"], engine.settings().to_environ())

    async def is_known() -> bool:
        return engine.workers() > 0

    await eventually(is_known, child, "the worker does not report to the store")
    return child


async def eventually(
    condition: Callable[[], Awaitable[bool]],
    child: Child,
    failure: str,
    *,
    patience_s: float = START_PATIENCE_S,
    interval_s: float = 0.01,
) -> None:
    """Wait for a condition while a child lives; raises `BenchFailure`."""
    deadline = time.monotonic() + patience_s
    while not await condition():
        child.check()
        if time.monotonic() > deadline:
            raise BenchFailure(f"{failure} within {patience_s:g} s")
        await asyncio.sleep(interval_s)


async def drained(engine: Engine, worker: Child) -> None:
    """Wait until no message waits or is in flight, and check that none was given up."""

    async def is_empty() -> bool:
        return engine.unfinished() == 0

    await eventually(is_empty, worker, "messages are left in the store", patience_s=DRAIN_PATIENCE_S, interval_s=0.05)
    if engine.dead_letters():
        raise BenchFailure(f"{engine.dead_letters()} messages became dead letters")


async def answers(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    return await is_answered(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


async def is_answered(port: int, request: bytes) -> bool:
    """Whether a request on a connection of its own is answered with 200."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(request)
        async with asyncio.timeout(START_PATIENCE_S):
            return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_arrivals(expected: list[str], collected: dict[str, Any], what: str) -> None:
    """Raise `BenchFailure` unless exactly the expected messages arrived, each once and signed."""
    arrived: list[str] = collected["message_ids"]
    unique = set(arrived)
    missing = len(set(expected) - unique)
    strange = len(unique - set(expected))
    repeated = len(arrived) - len(unique)
    unsigned = collected["unsigned"]
    if missing or strange or repeated or unsigned:
        raise BenchFailure(
            f"{what}: of {len(expected)} messages {missing} are missing, {repeated} arrived again, "
            f"{strange} are unknown, {unsigned} have no valid signature"
        )
