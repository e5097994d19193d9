"""What the log and deduplication cost: requests and processor time beside messages without them, and memory."""

import asyncio
import dataclasses
from collections.abc import Callable

from bench.engine import TOKEN
from bench.plan import Bench
from bench.processes import Child, Stopwatch, Usage
from bench.report import BenchFailure, Figure, compared
from bench.rounds import undisturbed_pairs
from bench.service import start_api
from bench.tools.channel import Tool
from bench.tools.samples import BODY, BODY_BYTES, HEADER_BYTES, HEADERS, NUMBER, destination, publish_request
from qstash_clone.domain.deduplication import digest_of_id
from qstash_clone.domain.lanes import host_lane
from qstash_clone.domain.message import Deduplication, Message, NewMessage, Settlement, SettlementKind
from qstash_clone.storage.store import Store, open_store

_CONNECTIONS = 64
_WARM_UP_S = 0.5
_UNUSED_PORT = 54321
"""Nothing is delivered by a worker in this measure."""
_CONSUMER = "bench"
_CAPACITY = 200
_AT_ONCE = 200
_DAY_MS = 24 * 3600 * 1000

_BY_ID = f"Upstash-Deduplication-Id: {NUMBER}\r\n"
_BY_CONTENT = f"Upstash-Content-Based-Deduplication: true\r\nUpstash-Forward-X-Number: {NUMBER}\r\n"


class _Round:
    def __init__(self, per_second: float, processor_us: dict[str, float], usage: Usage) -> None:
        self.per_second = per_second
        self.processor_us = processor_us
        self.usage = usage


async def measure(bench: Bench) -> list[Figure]:
    """First through the api, then in the store alone."""
    return [*await _publishing(bench), *await _lives(bench), *await _memory(bench)]


async def _publishing(bench: Bench) -> list[Figure]:
    """Other publishes beside plain ones, which are logged and not deduplicated."""
    with bench.engine() as engine:
        async with bench.nursery() as nursery:
            usual = await start_api(nursery, engine)
            without_log = dataclasses.replace(engine.settings(), message_log=False)
            silent = await start_api(nursery, engine, name="api-without-log", settings=without_log)
            load = await Tool.start(nursery, "load")
            url = destination(_UNUSED_PORT)

            async def run(api: tuple[Child, int], options: str) -> _Round:
                child, port = api
                watch = Stopwatch({"api": child.pid, "load": load.child.pid, "redis": engine.pid})
                answer = await load.ask(
                    "closed",
                    timeout_s=bench.sizes.publish_s + 30,
                    port=port,
                    request=publish_request(port, TOKEN, url, options=options).decode("latin-1"),
                    connections=_CONNECTIONS,
                    warm_up_s=_WARM_UP_S,
                    seconds=bench.sizes.publish_s,
                )
                usage = watch.read()
                child.check()
                if answer["refused"]:
                    raise BenchFailure(f"costs: requests were refused, by status: {answer['refused']}")
                if missing := engine.missing(answer["message_ids"]):
                    raise BenchFailure(f"costs: {missing} acknowledged messages are not in the store")
                processor_us = {name: used / answer["answered"] * 1e6 for name, used in usage.processor_s.items()}
                return _Round(answer["per_second"], processor_us, usage)

            figures: list[Figure] = []
            for name, api, options in (
                ("without the log", silent, ""),
                ("with a deduplication id", usual, _BY_ID),
                ("deduplicated by content", usual, _BY_CONTENT),
            ):
                bench.say(f"costs: publishing {name}")

                async def pair(api: tuple[Child, int] = api, options: str = options) -> tuple[_Round, _Round]:
                    plain = await run(usual, "")
                    return await run(api, options), plain

                figures += _beside_plain(name, await undisturbed_pairs(bench.sizes.rounds, pair, _usage))
            return figures


def _beside_plain(name: str, pairs: list[tuple[_Round, _Round]]) -> list[Figure]:
    rounds, plain = [own for own, _ in pairs], [reference for _, reference in pairs]
    redis_us, plain_redis_us = (_median([one.processor_us["redis"] for one in some]) for some in (rounds, plain))
    note = f"per request, at {_CONNECTIONS} connections; Redis besides {redis_us:.0f} µs, {plain_redis_us:.0f} plain"
    return [
        compared(
            "costs",
            f"requests {name}",
            "/s",
            [one.per_second for one in rounds],
            [one.per_second for one in plain],
            note=str(_middle(rounds).usage),
        ),
        compared(
            "costs",
            f"api processor time {name}",
            "µs",
            [one.processor_us["api"] for one in rounds],
            [one.processor_us["api"] for one in plain],
            inverse=True,
            note=note,
        ),
    ]


def _usage(one: _Round) -> Usage:
    return one.usage


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _middle(rounds: list[_Round]) -> _Round:
    return sorted(rounds, key=lambda one: one.per_second)[len(rounds) // 2]


async def _lives(bench: Bench) -> list[Figure]:
    """Messages published, claimed and settled by the store's code, with the log and without."""
    with bench.engine() as engine:
        settings = engine.settings()
        logged = await open_store(dataclasses.replace(settings, key_namespace="logged"))
        silent = await open_store(dataclasses.replace(settings, key_namespace="silent", message_log=False))
        try:
            bench.say("costs: lives with the log and without")
            for store in (logged, silent):
                await _live(store, _AT_ONCE)

            async def run(store: Store) -> _Round:
                count = bench.sizes.delivered // 2
                watch = Stopwatch({"redis": engine.pid})
                started_s = asyncio.get_running_loop().time()
                await _live(store, count)
                seconds = asyncio.get_running_loop().time() - started_s
                usage = watch.read()
                return _Round(count / seconds, {"redis": usage.processor_s["redis"] / count * 1e6}, usage)

            async def pair() -> tuple[_Round, _Round]:
                reference = await run(silent)
                return await run(logged), reference

            pairs = await undisturbed_pairs(bench.sizes.rounds, pair, _usage)
        finally:
            await logged.aclose()
            await silent.aclose()
    return [
        compared(
            "costs",
            "Redis processor time of a life with the log",
            "µs",
            [own.processor_us["redis"] for own, _ in pairs],
            [reference.processor_us["redis"] for _, reference in pairs],
            inverse=True,
            note="published, claimed and settled in groups; reference: without the log",
        ),
        compared(
            "costs",
            "lives with the log",
            "/s",
            [own.per_second for own, _ in pairs],
            [reference.per_second for _, reference in pairs],
            note="by the store's code in one process; reference: without the log",
        ),
    ]


async def _live(store: Store, count: int) -> None:
    """Publish, claim and settle `count` messages, as many at once as one worker holds."""
    for _ in range(0, count, _AT_ONCE):
        await store.delivery.heartbeat(_CONSUMER, _CAPACITY)
        await _publish(store, _AT_ONCE)
        left = _AT_ONCE
        while left:
            claims = (await store.delivery.claim(0, _CONSUMER, _CAPACITY)).claims
            if not claims:
                # Redis stood still for so long that the call was repeated: what it had leased comes back much later.
                raise BenchFailure("costs: the reply to a claim was lost")
            settlements = [Settlement(claim=claim, kind=SettlementKind.DELIVERED) for claim in claims]
            await asyncio.gather(*(store.delivery.settle(settlement) for settlement in settlements))
            left -= len(claims)


async def _memory(bench: Bench) -> list[Figure]:
    """Growth of `used_memory` for a finished message with its log, and for a record of deduplication."""
    count = bench.sizes.waiting // 10
    with bench.engine() as engine:
        async with bench.store(engine) as store:
            bench.say(f"costs: memory of {count} finished messages")
            await _live(store, _AT_ONCE)
            before = engine.used_memory()
            await _live(store, count)
            finished = (engine.used_memory() - before) / count
    plain = await _growth(bench, count, lambda number: None)
    recorded = await _growth(
        bench, count, lambda number: Deduplication(digest=digest_of_id(str(number)), window_ms=_DAY_MS)
    )
    return [
        Figure(
            measure="costs",
            name="memory of a finished message",
            value=finished - BODY_BYTES - HEADER_BYTES,
            unit="B",
            note=f"with its log of three entries, less body and headers; {count:,} messages",
        ),
        Figure(
            measure="costs",
            name="memory of a deduplication record",
            value=recorded - plain,
            unit="B",
            note=f"delayed messages with and without one; {count:,} messages",
        ),
    ]


async def _growth(bench: Bench, count: int, deduplication: Callable[[int], Deduplication | None]) -> float:
    bench.say(f"costs: memory of {count} messages and their records")
    with bench.engine() as engine:
        async with bench.store(engine) as store:
            await _publish(store, _AT_ONCE, lambda number: deduplication(-1 - number), delay_ms=_DAY_MS)
            before = engine.used_memory()
            for first in range(0, count, _AT_ONCE):
                await _publish(
                    store, _AT_ONCE, lambda number, first=first: deduplication(first + number), delay_ms=_DAY_MS
                )
            return (engine.used_memory() - before) / count


async def _publish(
    store: Store,
    count: int,
    deduplication: Callable[[int], Deduplication | None] = lambda number: None,
    *,
    delay_ms: int = 0,
) -> None:
    url = destination(_UNUSED_PORT)
    message, lane = Message(url=url, headers=HEADERS, caller_ip="127.0.0.1"), host_lane(url)

    def plan(number: int) -> NewMessage:
        record = deduplication(number)
        return NewMessage(
            id=store.publishing.new_message_id(record),
            message=message,
            body=BODY,
            lane=lane,
            delay_ms=delay_ms,
            deduplication=record,
        )

    published = await asyncio.gather(*(store.publishing.publish(plan(number)) for number in range(count)))
    if any(one.is_duplicate for one in published):
        raise BenchFailure("costs: a fresh message was taken for a repeat")
