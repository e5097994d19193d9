"""Counts the commands that Redis executes for single messages, those inside scripts included, step by step."""

import asyncio
from collections.abc import Awaitable, Callable

from bench.backlog import Kind, lay
from bench.engine import Engine
from bench.report import BenchFailure, Budget, Figure
from qstash_clone.domain.message import Claim, Settlement, SettlementKind
from qstash_clone.storage.store import Store

CONSUMER = "bench"
CAPACITY = 200
Steps = dict[str, dict[str, float]]
"""Of each step (publish, claim, ...) how often each command ran for one message."""
_DELAY_MS = 5
_OURS = frozenset({"info", "config|get", "config"})
"""What the measure itself asks."""


class Counter:
    """Lives of single messages."""

    def __init__(self, engine: Engine, store: Store, count: int) -> None:
        self._engine = engine
        self._store = store
        self._count = count

    async def hold(self) -> list[Claim]:
        """Claim whatever is admitted, so that a later claim finds only what is admitted then."""
        await self._store.delivery.heartbeat(CONSUMER, CAPACITY)
        return list((await self._store.delivery.claim(0, CONSUMER, CAPACITY)).claims)

    async def alone(self, kind: Kind) -> Steps:
        """Messages for whose lane nothing waits: published, claimed and settled one after the other."""
        claim: Claim | None = None

        async def take() -> None:
            nonlocal claim
            (claim,) = (await self._store.delivery.claim(0, CONSUMER, 1)).claims

        async def end() -> None:
            assert claim is not None
            await self._settle(claim)

        return await self._counted({"publish": lambda: lay(self._store, 1, kind), "claim": take, "settle": end})

    async def in_line(self, kind: Kind, held: list[Claim]) -> Steps:
        """Messages that join a backlog, while for each another one is settled and the next is admitted and claimed.

        `held` are those in flight, at least one.
        """

        async def end() -> None:
            await self._settle(held.pop())

        async def take() -> None:
            held[:0] = (await self._store.delivery.claim(0, CONSUMER, 1)).claims

        return await self._counted({"publish": lambda: lay(self._store, 1, kind), "settle": end, "claim": take})

    async def waiting(self, kind: Kind) -> Steps:
        """Messages that are published, or become due, and then wait."""

        async def promote() -> None:
            if (await self._store.delivery.promote(0, 1)).promoted != 1:
                raise BenchFailure("commands: no timer was due")

        async def publish_delayed() -> None:
            await lay(self._store, 1, kind, delay_ms=_DELAY_MS)
            await asyncio.sleep(2 * _DELAY_MS / 1000)

        return await self._counted(
            {
                "publish": lambda: lay(self._store, 1, kind),
                "publish delayed": publish_delayed,
                "promote": promote,
            },
            self._take_doorbell,
        )

    async def heartbeats(self) -> Steps:
        return await self._counted({"heartbeat": lambda: self._store.delivery.heartbeat(CONSUMER, CAPACITY)})

    async def _take_doorbell(self) -> None:
        if (await self._store.delivery.claim(0, CONSUMER, CAPACITY)).claims:
            raise BenchFailure("commands: what was to wait was admitted")

    async def _settle(self, claim: Claim) -> None:
        await self._store.delivery.settle(Settlement(claim=claim, kind=SettlementKind.DELIVERED))

    async def _counted(
        self,
        steps: dict[str, Callable[[], Awaitable[object]]],
        afterwards: Callable[[], Awaitable[object]] | None = None,
    ) -> Steps:
        totals: Steps = {name: {} for name in steps}
        for _ in range(self._count):
            for name, step in steps.items():
                before = self._engine.calls()
                await step()
                for command, calls in self._engine.calls().items():
                    new = calls - before.get(command, 0)
                    if new and command not in _OURS:
                        totals[name][command] = totals[name].get(command, 0) + new / self._count
            if afterwards is not None:
                await afterwards()
        if not all(totals.values()):
            raise BenchFailure("commands: nothing was counted")
        return totals


def total(steps: Steps) -> float:
    return sum(calls for commands in steps.values() for calls in commands.values())


def same_commands(measure: str, what: str, steps: Steps, reference: Steps, waiting: int, reference_name: str) -> Figure:
    """A figure whose budget is to need no more commands than the reference."""
    note = ", ".join(f"{name} {sum(commands.values()):g}" for name, commands in steps.items())
    note += f"; {waiting:,} waiting; reference: {reference_name}"
    differing = [
        f"{name} {command} {calls:g} / {others:g}"
        for name in steps
        for command in sorted({*steps[name], *reference[name]})
        if (calls := steps[name].get(command, 0)) != (others := reference[name].get(command, 0))
    ]
    if differing:
        note += "; differ: " + ", ".join(differing)
    return Figure(
        measure=measure,
        name=f"commands for {what}",
        value=total(steps),
        unit="",
        reference=total(reference),
        ratio=total(reference) / total(steps),
        budget=Budget(limit=1, unit="", is_floor=True, of_ratio=True),
        note=note,
    )
