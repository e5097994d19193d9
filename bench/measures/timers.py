"""How late delayed messages arrive when a thousand are due each second, by the clock that Redis reads too."""

import time

from bench.backlog import lay, plain
from bench.engine import SIGNING_KEY
from bench.plan import Bench
from bench.processes import Stopwatch, Usage
from bench.report import Budget, Figure, percentile
from bench.rounds import undisturbed
from bench.service import check_arrivals, drained, start_worker
from bench.tools.channel import Tool
from bench.tools.samples import destination

_HEAD_START_MS = 2000
"""Time to store all of them before the first is due, with 1 ms for every ten besides."""


async def measure(bench: Bench) -> list[Figure]:
    """One message is due every millisecond; its lateness is arrival minus due time."""
    count = bench.sizes.due
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            receiver = await Tool.start(nursery, "receiver")
            port = (await receiver.ask("listen", name="fast", timeout_s=5))["port"]
            worker = await start_worker(nursery, engine)

            async def once() -> tuple[list[float], Usage]:
                await receiver.ask("reset", timeout_s=5)
                first_ms = time.time_ns() // 1_000_000 + _HEAD_START_MS + count // 10
                expected = await lay(
                    store, count, plain(destination(port)), not_before_ms=lambda number: first_ms + number
                )
                watch = Stopwatch({"worker": worker.pid, "redis": engine.pid, "receiver": receiver.child.pid})
                patience_s = (first_ms + count) / 1000 - time.time() + 20
                await receiver.ask("expect", name="fast", count=count, patience_s=patience_s, timeout_s=patience_s + 5)
                usage = watch.read()
                await drained(engine, worker)
                collected = await receiver.ask("collect", name="fast", key=SIGNING_KEY, timeout_s=30)
                check_arrivals(expected, collected, "timers")
                due_ms = {message_id: first_ms + number for number, message_id in enumerate(expected)}
                arrivals = zip(collected["message_ids"], collected["arrived_ns"], strict=True)
                return [arrived_ns / 1e6 - due_ms[message_id] for message_id, arrived_ns in arrivals], usage

            bench.say(f"timers: {count} messages, a thousand due each second")
            lateness, usage = await undisturbed(once)
    return [
        Figure(
            measure="timers",
            name=f"lateness at 1,000 due/s, p{share * 100:.0f}",
            value=percentile(lateness, share),
            unit="ms",
            budget=None if limit is None else Budget(limit=limit, unit="ms"),
            is_disturbed=usage.is_disturbed,
            note=str(usage) if share < 1 else f"earliest {min(lateness):.2f} ms",
        )
        for share, limit in ((0.5, None), (0.99, 25), (1, None))
    ]
