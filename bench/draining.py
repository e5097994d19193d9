"""One worker that drains what was laid before: how fast messages arrive, and what a message costs."""

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.backlog import Kind, lay
from bench.engine import SIGNING_KEY, Engine
from bench.processes import Child, Nursery, Stopwatch, Usage
from bench.service import DRAIN_PATIENCE_S, check_arrivals, drained, start_worker
from bench.tools.channel import Tool
from bench.tools.samples import destination
from qstash_clone.storage.store import Store

WARM_UP = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRound:
    """From the first arrival to the last; processor times are for one message."""

    per_second: float
    sender_us: float
    redis_us: float
    most_connections: int
    usage: Usage


def drain_round(arrived_ns: list[int], usage: Usage, sender: str, most_connections: int) -> DrainRound:
    count = len(arrived_ns)
    return DrainRound(
        per_second=(count - 1) / ((max(arrived_ns) - min(arrived_ns)) / 1e9),
        sender_us=usage.processor_s[sender] / count * 1e6,
        redis_us=usage.processor_s.get("redis", 0.0) / count * 1e6,
        most_connections=most_connections,
        usage=usage,
    )


class Drain:
    """A worker and a receiver that answers at once."""

    def __init__(self, engine: Engine, store: Store, worker: Child, receiver: Tool, port: int) -> None:
        self._engine = engine
        self._store = store
        self.worker = worker
        self.receiver = receiver
        self.url = destination(port)

    @classmethod
    async def start(cls, engine: Engine, store: Store, nursery: Nursery) -> "Drain":
        receiver = await Tool.start(nursery, "receiver")
        port = int((await receiver.ask("listen", name="fast", timeout_s=5))["port"])
        return cls(engine, store, await start_worker(nursery, engine), receiver, port)

    async def backlog(self, count: int, kind: Kind) -> DrainRound:
        """Messages of one kind. The worker is stopped while they are laid, so that it begins with all of them, warm and
        with its connections. Raises `BenchFailure` unless each arrives once and signed."""
        return await self.run(lambda: lay(self._store, count, kind))

    async def run(self, laying: Callable[[], Awaitable[list[str]]]) -> DrainRound:
        """As `backlog`, for what `laying` puts into the store; it returns the ids."""
        await self.receiver.ask("reset", timeout_s=5)
        self.worker.signal(signal.SIGSTOP)
        expected = await laying()
        processes = {"worker": self.worker.pid, "redis": self._engine.pid, "receiver": self.receiver.child.pid}
        watch = Stopwatch(processes)
        self.worker.signal(signal.SIGCONT)
        await self.receiver.ask(
            "expect", name="fast", count=len(expected), patience_s=DRAIN_PATIENCE_S, timeout_s=DRAIN_PATIENCE_S + 5
        )
        await drained(self._engine, self.worker)
        usage = watch.read()
        collected = await self.receiver.ask("collect", name="fast", key=SIGNING_KEY, timeout_s=30)
        check_arrivals(expected, collected, "deliver")
        return drain_round(collected["arrived_ns"], usage, "worker", int(collected["most_connections"]))
