"""Topic logs: producing one record and a hundred at once, and consuming them, beside references in the same run."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.engine import TOKEN, Engine
from bench.plan import Bench
from bench.processes import Child, Stopwatch, Usage
from bench.publishing import WARM_UP_S
from bench.report import BenchFailure, Figure, compared, ratio_of_at_least
from bench.rounds import undisturbed_pairs
from bench.service import is_answered, start_api, start_bare_api
from bench.tools.channel import Tool
from bench.tools.samples import BODY, kafka_request, publish_request
from qstash_clone.storage.store import Store
from qstash_clone.topics.records import Record, TopicConfig

TOGETHER = 100
"""Records of one request."""
CONNECTIONS = (1, 64)
_TOPIC = "bench"
_PARTITIONS = 4
_VALUE = BODY.decode()
_COMMANDS_OF = 50
_Pairs = Sequence[tuple["_Round", "_Round"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What one stretch of load found out; per record."""

    per_second: float
    p50_ms: float
    p99_ms: float
    usage: Usage


class _Topics:
    """An api process, its references, and a topic."""

    def __init__(
        self,
        bench: Bench,
        engine: Engine,
        store: Store,
        api: tuple[Child, int],
        bare: tuple[Child, int],
        tools: list[Tool],
    ) -> None:
        self._bench = bench
        self._engine = engine
        self._store = store
        self._api, self.port = api
        self._bare, self.bare_port = bare
        self._load, self._xadd = tools
        self._seconds = bench.sizes.publish_s

    async def _ask(self, server: Child, port: int, request: bytes, connections: int, **more: object) -> dict[str, Any]:
        answer = await self._load.ask(
            "closed",
            timeout_s=self._seconds + 30,
            port=port,
            request=request.decode("latin-1"),
            connections=connections,
            warm_up_s=WARM_UP_S,
            seconds=self._seconds,
            **more,
        )
        server.check()
        if answer["refused"]:
            raise BenchFailure(f"{server.name} refused requests, by status: {answer['refused']}")
        return answer

    def _watch(self, *children: Child) -> Stopwatch:
        return Stopwatch({child.name: child.pid for child in children} | {"redis": self._engine.pid})

    async def produce(self, request: bytes, connections: int, records: int) -> _Round:
        """Every record that was acknowledged must be in the topic, and no other."""
        before = await self._count()
        watch = self._watch(self._api, self._load.child)
        answer = await self._ask(self._api, self.port, request, connections)
        usage = watch.read()
        stored = await self._count() - before
        if stored != answer["answered"] * records:
            raise BenchFailure(f"{answer['answered'] * records} records were acknowledged, {stored} stored")
        return _round(answer["per_second"] * records, answer, usage)

    async def no_op(self, connections: int) -> _Round:
        """A route that stores nothing."""
        watch = self._watch(self._bare, self._load.child)
        request = publish_request(self.bare_port, TOKEN, "http://127.0.0.1:54321/x")
        answer = await self._ask(self._bare, self.bare_port, request, connections)
        return _round(answer["per_second"], answer, watch.read())

    async def xadd(self, connections: int) -> _Round:
        """Pipelines of XADD."""
        watch = self._watch(self._xadd.child)
        answer = await self._xadd.ask(
            "append",
            timeout_s=self._seconds + 30,
            redis_url=self._engine.url,
            together=TOGETHER,
            connections=connections,
            streams=_PARTITIONS,
            seconds=self._seconds,
        )
        return _round(answer["per_second"], {"p50_ms": 0.0, "p99_ms": 0.0}, watch.read())

    async def consume(self, group: str) -> _Round:
        """One instance that reads as fast as it is answered."""
        request = kafka_request(self.port, TOKEN, f"/consume/{group}/one", {"topic": _TOPIC, "timeout": 0})
        request = request.replace(b"\r\nAccept:", b"\r\nKafka-Auto-Offset-Reset: earliest\r\nAccept:")
        watch = self._watch(self._api, self._load.child)
        answer = await self._ask(self._api, self.port, request, 1, word='"offset":')
        # There may be as many instances as partitions.
        gone = kafka_request(self.port, TOKEN, f"/delete-consumer/{group}/one", {})
        if not await is_answered(self.port, gone.replace(b"\r\nAccept:", b"\r\nConnection: close\r\nAccept:")):
            raise BenchFailure(f"the consumer of {group} cannot be deleted")
        return _round(answer["words_per_second"], answer, watch.read())

    async def fill(self, count: int) -> None:
        """So many records in each partition, more or less."""
        topic = await self._store.topics.create_topic(_TOPIC, TopicConfig(partitions=_PARTITIONS))
        for number in range(_PARTITIONS):
            for _ in range(-(-count // _PARTITIONS // 10_000)):
                await self._store.topics.append(topic, number, [Record(BODY)] * 10_000)

    async def commands_of(self, act: Callable[[], Awaitable[object]]) -> float:
        """Commands that Redis runs for one of these."""
        before = self._engine.calls()
        for _ in range(_COMMANDS_OF):
            await act()
        after = self._engine.calls()
        return sum(count - before.get(name, 0) for name, count in after.items() if name != "info") / _COMMANDS_OF

    async def _count(self) -> int:
        topic = await self._store.topics.get_topic(_TOPIC)
        if topic is None:
            return 0
        logs = await self._store.topics.read_bounds([(topic, number) for number in range(topic.config.partitions)])
        return sum(one.end for one in logs if one is not None)


def _round(per_second: float, answer: dict[str, Any], usage: Usage) -> _Round:
    return _Round(per_second=per_second, p50_ms=answer["p50_ms"], p99_ms=answer["p99_ms"], usage=usage)


async def measure(bench: Bench) -> list[Figure]:
    """The service and its references take turns."""
    figures: list[Figure] = []
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            topics = _Topics(
                bench,
                engine,
                store,
                await start_api(nursery, engine),
                await start_bare_api(nursery, engine),
                [await Tool.start(nursery, name) for name in ("load", "bare_xadd")],
            )
            single = kafka_request(topics.port, TOKEN, f"/produce/{_TOPIC}", {"value": _VALUE})
            hundred = kafka_request(topics.port, TOKEN, f"/produce/{_TOPIC}", [{"value": _VALUE}] * TOGETHER)
            for connections in CONNECTIONS:
                at = f"{connections} connection{'s' if connections > 1 else ''}"

                async def one(connections: int = connections) -> tuple[_Round, _Round]:
                    reference = await topics.no_op(connections)
                    return await topics.produce(single, connections, 1), reference

                async def many(connections: int = connections) -> tuple[_Round, _Round]:
                    reference = await topics.xadd(connections)
                    return await topics.produce(hundred, connections, TOGETHER), reference

                bench.say(f"topics: single records, {at}")
                pairs = await undisturbed_pairs(bench.sizes.rounds, one, lambda made: made.usage)
                figures += _figures(f"produce, {at}", "a route that stores nothing", pairs, 0.6, connections)
                bench.say(f"topics: {TOGETHER} records at once, {at}")
                pairs = await undisturbed_pairs(bench.sizes.rounds, many, lambda made: made.usage)
                name = f"records in requests of {TOGETHER}, {at}"
                figures += _figures(name, "pipelines of XADD", pairs, 0.5, connections)
            bench.say("topics: consume")
            await topics.fill(min(1_000_000, bench.sizes.waiting))
            groups = iter(range(1000))

            async def read() -> tuple[_Round, _Round]:
                reference = await topics.produce(hundred, 1, TOGETHER)
                return await topics.consume(f"g{next(groups)}"), reference

            pairs = await undisturbed_pairs(bench.sizes.rounds, read, lambda made: made.usage)
            figures += _figures("records consumed by one instance", f"records in requests of {TOGETHER}", pairs, 1.0, 2)
            bench.say("topics: commands")
            figures += await _commands(topics, store, bench.sizes.waiting)
    return figures


def _figures(name: str, reference: str, pairs: _Pairs, floor: float, connections: int) -> list[Figure]:
    rounds, others = [own for own, _ in pairs], [other for _, other in pairs]
    middle = sorted(rounds, key=lambda one: one.per_second)[len(rounds) // 2]
    is_disturbed = any(one.usage.is_disturbed for one in (*rounds, *others))
    return [
        compared(
            "topics",
            name,
            "/s",
            [one.per_second for one in rounds],
            [one.per_second for one in others],
            budget=ratio_of_at_least(floor) if connections > 1 else None,
            note=f"reference: {reference}; p50 {middle.p50_ms:.2f} ms, p99 {middle.p99_ms:.2f} ms; {middle.usage}",
            is_disturbed=is_disturbed,
        )
    ]


async def _commands(topics: _Topics, store: Store, long: int) -> list[Figure]:
    """An append and a read, in a topic with a few records and in one with many."""
    figures: list[Figure] = []
    short = await store.topics.create_topic("short", TopicConfig(partitions=1))
    filled = await store.topics.get_topic(_TOPIC)
    assert filled is not None
    few = await topics.commands_of(lambda: store.topics.append(short, 0, [Record(BODY)]))
    many = await topics.commands_of(lambda: store.topics.append(filled, 0, [Record(BODY)]))
    figures.append(
        compared(
            "topics", f"commands for an append behind {long} records", "", [many], [few], note="reference: 1 record"
        )
    )
    return figures
