"""Commands that Redis executes per message, those inside scripts included: the same whatever is waiting."""

from collections.abc import Awaitable, Callable

from bench.backlog import lay
from bench.engine import Engine
from bench.plan import Bench
from bench.report import BenchFailure, Budget, Figure
from bench.tools.samples import destination
from qstash_clone.domain.message import Claim, Settlement, SettlementKind
from qstash_clone.storage.store import Store

_CONSUMER = "bench"
_CAPACITY = 200
_DAY_MS = 24 * 3600 * 1000
_BUSY, _OTHER = 54321, 54322
"""Ports that nothing listens on: two destinations, one with a backlog and one without."""
_SHORT_BACKLOG = 1000


async def measure(bench: Bench) -> list[Figure]:
    """Publish, claim and settle one message at a time, with an empty store and with a full one."""
    sizes = bench.sizes
    with bench.engine() as engine:
        async with bench.store(engine) as store:
            steps = _Steps(engine, store, sizes.counted)
            bench.say("commands: empty store")
            await store.delivery.heartbeat(_CONSUMER, _CAPACITY)
            await steps.alone()
            alone_empty = await steps.alone()
            await lay(store, _SHORT_BACKLOG, destination(_BUSY))
            held = await store.delivery.claim(0, _CONSUMER, _CAPACITY)
            await steps.in_line(held.claims)
            in_line_short = await steps.in_line(held.claims)

            bench.say(f"commands: {sizes.waiting} messages waiting")
            await lay(store, sizes.waiting // 2, destination(_BUSY), delay_ms=_DAY_MS)
            await lay(store, sizes.waiting // 2, destination(_BUSY))
            # What the second backlog has admitted meanwhile is held too, so that a claim finds only what is published.
            await store.delivery.heartbeat(_CONSUMER, _CAPACITY)
            more = await store.delivery.claim(0, _CONSUMER, _CAPACITY)
            alone_full = await steps.alone()
            in_line_full = await steps.in_line([*held.claims, *more.claims])
    return [
        _figure("another host's message", alone_full, alone_empty, sizes.waiting, "an empty store"),
        _figure("a message in a backlog", in_line_full, in_line_short, sizes.waiting, f"{_SHORT_BACKLOG} waiting"),
    ]


class _Steps:
    """Lives of single messages, counted."""

    def __init__(self, engine: Engine, store: Store, count: int) -> None:
        self._engine = engine
        self._store = store
        self._count = count

    async def alone(self) -> dict[str, float]:
        """Messages of a host for which nothing waits: published, claimed and settled one after the other."""

        async def live() -> None:
            await lay(self._store, 1, destination(_OTHER))
            (claim,) = (await self._store.delivery.claim(0, _CONSUMER, 1)).claims
            await self._settle(claim)

        return await self._counted(live)

    async def in_line(self, held: list[Claim]) -> dict[str, float]:
        """Messages that join a backlog, while for each another one is settled and the next is admitted and claimed."""
        claims = list(held)

        async def live() -> None:
            await lay(self._store, 1, destination(_BUSY))
            await self._settle(claims.pop())
            claims.insert(0, *(await self._store.delivery.claim(0, _CONSUMER, 1)).claims)

        counted = await self._counted(live)
        held[:] = claims
        return counted

    async def _settle(self, claim: Claim) -> None:
        await self._store.delivery.settle(Settlement(claim=claim, kind=SettlementKind.DELIVERED))

    async def _counted(self, live: Callable[[], Awaitable[None]]) -> dict[str, float]:
        before = self._engine.calls()
        for _ in range(self._count):
            await live()
        after = self._engine.calls()
        difference = {name: after[name] - before.get(name, 0) for name in sorted(after) if name not in _OURS}
        return {name: calls / self._count for name, calls in difference.items() if calls}


_OURS = frozenset({"info", "config|get", "config"})
"""What the measure itself asks."""


def _figure(
    what: str, full: dict[str, float], reference: dict[str, float], waiting: int, reference_name: str
) -> Figure:
    total, reference_total = sum(full.values()), sum(reference.values())
    differing = [name for name in {*full, *reference} if full.get(name, 0) != reference.get(name, 0)]
    if not full or not reference:
        raise BenchFailure("commands: nothing was counted")
    note = f"publish, claim and settle, {waiting:,} waiting; reference: {reference_name}"
    if differing:
        note += "; differ: " + ", ".join(
            f"{name} {full.get(name, 0):g} / {reference.get(name, 0):g}" for name in sorted(differing)
        )
    return Figure(
        measure="commands",
        name=f"commands for {what}",
        value=total,
        unit="",
        reference=reference_total,
        ratio=reference_total / total,
        budget=Budget(limit=1, unit="", is_floor=True, of_ratio=True),
        note=note,
    )
