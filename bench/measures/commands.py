"""Commands that Redis executes per message, those inside scripts included: the same whatever is waiting."""

from bench.backlog import lay, plain
from bench.counting import Counter, same_commands
from bench.plan import Bench
from bench.report import Figure
from bench.tools.samples import destination

_DAY_MS = 24 * 3600 * 1000
_BUSY, _OTHER = 54321, 54322
"""Ports that nothing listens on: two destinations, one with a backlog and one without."""
_SHORT_BACKLOG = 1000


async def measure(bench: Bench) -> list[Figure]:
    """Publish, claim and settle one message at a time, with an empty store and with a full one."""
    sizes = bench.sizes
    busy, other = plain(destination(_BUSY)), plain(destination(_OTHER))
    with bench.engine() as engine:
        async with bench.store(engine) as store:
            counter = Counter(engine, store, sizes.counted)
            bench.say("commands: empty store")
            await counter.hold()
            await counter.alone(other)
            alone_empty = await counter.alone(other)
            await lay(store, _SHORT_BACKLOG, busy)
            held = await counter.hold()
            await counter.in_line(busy, held)
            in_line_short = await counter.in_line(busy, held)

            bench.say(f"commands: {sizes.waiting} messages waiting")
            await lay(store, sizes.waiting // 2, busy, delay_ms=_DAY_MS)
            await lay(store, sizes.waiting // 2, busy)
            # What the second backlog has admitted meanwhile is held too, so that a claim finds only what is published.
            held += await counter.hold()
            alone_full = await counter.alone(other)
            in_line_full = await counter.in_line(busy, held)
    return [
        same_commands("commands", "another host's message", alone_full, alone_empty, sizes.waiting, "an empty store"),
        same_commands(
            "commands",
            "a message in a backlog",
            in_line_full,
            in_line_short,
            sizes.waiting,
            f"{_SHORT_BACKLOG} waiting",
        ),
    ]
