"""Memory of Redis per message that waits."""

from bench.backlog import lay, plain
from bench.plan import Bench
from bench.report import Budget, Figure
from bench.tools.samples import BODY_BYTES, HEADER_BYTES, URL_BYTES, destination

_DAY_MS = 24 * 3600 * 1000
_UNUSED_PORT = 54321
_CASES = (("delayed", _DAY_MS, 400), ("in a lane", 0, 300))


async def measure(bench: Bench) -> list[Figure]:
    """`used_memory` before and after; what is told is the part beyond body and headers."""
    count = bench.sizes.waiting
    figures: list[Figure] = []
    for name, delay_ms, limit in _CASES:
        bench.say(f"memory: {count} messages {name}")
        with bench.engine() as engine:
            async with bench.store(engine) as store:
                # Whatever exists once (scripts, keys, buffers) is there before the first reading.
                await lay(store, 100, plain(destination(_UNUSED_PORT)), delay_ms=delay_ms)
                before = engine.used_memory()
                await lay(store, count, plain(destination(_UNUSED_PORT)), delay_ms=delay_ms)
                per_message = (engine.used_memory() - before) / count
        figures.append(
            Figure(
                measure="memory",
                name=f"overhead of a message {name}",
                value=per_message - BODY_BYTES - HEADER_BYTES,
                unit="B",
                budget=Budget(limit=limit, unit="B"),
                note=f"{count:,} waiting; {per_message:.0f} B in all, body {BODY_BYTES}, headers {HEADER_BYTES}; "
                f"the URL ({URL_BYTES}) is overhead",
            )
        )
    return figures
