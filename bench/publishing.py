"""Load on one api process, and the check that every message it acknowledged is in the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.engine import Engine
from bench.plan import Bench
from bench.processes import Child, Nursery, Stopwatch, Usage
from bench.report import BenchFailure, Figure, compared, ratio_of_at_least
from bench.service import start_api
from bench.tools.channel import Tool

WARM_UP_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRound:
    """What one stretch of load found out; everything is for one message, also where a request carries many."""

    per_second: float
    api_us: float
    redis_us: float
    usage: Usage


class PublishLoad:
    """An api process, a load generator, and the messages stored so far; nothing is delivered meanwhile."""

    def __init__(self, bench: Bench, engine: Engine, api: Child, port: int, load: Tool) -> None:
        self._bench = bench
        self._engine = engine
        self._api = api
        self._load = load
        self.port = port
        self._stored = engine.created()

    @classmethod
    async def start(cls, bench: Bench, engine: Engine, nursery: Nursery) -> "PublishLoad":
        api, port = await start_api(nursery, engine)
        return cls(bench, engine, api, port, await Tool.start(nursery, "load"))

    async def run(self, request: bytes, *, connections: int, messages: int = 1) -> PublishRound:
        """Send `request`, which stores so many `messages`, over and over. Raises `BenchFailure` if any is refused or
        not in the store."""
        watch = Stopwatch({"api": self._api.pid, "load": self._load.child.pid, "redis": self._engine.pid})
        answer = await self._load.ask(
            "closed",
            timeout_s=self._bench.sizes.publish_s + 30,
            port=self.port,
            request=request.decode("latin-1"),
            connections=connections,
            warm_up_s=WARM_UP_S,
            seconds=self._bench.sizes.publish_s,
        )
        usage = watch.read()
        self._api.check()
        if answer["refused"]:
            raise BenchFailure(f"{self._api.name} refused requests, by status: {answer['refused']}")
        count = answer["answered"] * messages
        if len(answer["message_ids"]) != count:
            raise BenchFailure(f"{count} messages were published, {len(answer['message_ids'])} acknowledged")
        self._stored = check_stored(self._engine, answer["message_ids"], self._stored)
        return PublishRound(
            per_second=answer["per_second"] * messages,
            api_us=usage.processor_s["api"] / count * 1e6,
            redis_us=usage.processor_s["redis"] / count * 1e6,
            usage=usage,
        )


def check_stored(engine: Engine, message_ids: Sequence[str], stored_before: int) -> int:
    """Every acknowledged message is in the store, and nothing else is; returns how many there are now."""
    stored = engine.created()
    repeated = len(message_ids) - len(set(message_ids))
    missing = engine.missing(message_ids)
    if repeated or missing or stored - stored_before != len(message_ids):
        raise BenchFailure(
            f"{len(message_ids)} messages were acknowledged, {stored - stored_before} stored; "
            f"{missing} are missing, {repeated} ids were given twice"
        )
    return stored


def beside(
    measure: str,
    name: str,
    reference: str,
    pairs: Sequence[tuple[PublishRound, PublishRound]],
    *,
    floor: float | None = None,
) -> list[Figure]:
    """Messages per second and the api's processor time for each, beside those of other requests in the same run."""
    rounds, others = [own for own, _ in pairs], [other for _, other in pairs]
    middle = sorted(rounds, key=lambda one: one.per_second)[len(rounds) // 2]
    redis_us, other_us = (sorted(one.redis_us for one in some)[len(some) // 2] for some in (rounds, others))
    return [
        compared(
            measure,
            name,
            "/s",
            [one.per_second for one in rounds],
            [one.per_second for one in others],
            budget=None if floor is None else ratio_of_at_least(floor),
            note=f"reference: {reference}; {middle.usage}",
            is_disturbed=any(one.usage.is_disturbed for one in (*rounds, *others)),
        ),
        compared(
            measure,
            f"api processor time, {name}",
            "µs",
            [one.api_us for one in rounds],
            [one.api_us for one in others],
            inverse=True,
            note=f"per message; Redis besides {redis_us:.0f} µs, {other_us:.0f} for the reference",
        ),
    ]
