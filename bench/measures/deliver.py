"""Delivering: one worker process drains a backlog, beside an aiohttp loop that posts the same to the same receiver."""

import signal

from bench.backlog import lay
from bench.engine import SIGNING_KEY
from bench.plan import Bench
from bench.processes import Stopwatch, Usage
from bench.report import BenchFailure, Figure, compared, ratio_of_at_least
from bench.rounds import undisturbed_pairs
from bench.service import DRAIN_PATIENCE_S, check_arrivals, drained, start_worker
from bench.tools.channel import Tool
from bench.tools.samples import HEADERS, destination

_WARM_UP = 1000


class _Round:
    def __init__(self, arrived_ns: list[int], usage: Usage, sender: str) -> None:
        self.per_second = (len(arrived_ns) - 1) / ((max(arrived_ns) - min(arrived_ns)) / 1e9)
        self.sender_us = usage.processor_s[sender] / len(arrived_ns) * 1e6
        self.redis_us = usage.processor_s.get("redis", 0.0) / len(arrived_ns) * 1e6
        self.usage = usage


async def measure(bench: Bench) -> list[Figure]:
    """Worker and reference take turns."""
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            receiver = await Tool.start(nursery, "receiver")
            port = (await receiver.ask("listen", name="fast", timeout_s=5))["port"]
            url = destination(port)
            worker = await start_worker(nursery, engine)
            loop = await Tool.start(nursery, "bare_loop")
            connections = 0

            async def drain(count: int) -> _Round:
                nonlocal connections
                await receiver.ask("reset", timeout_s=5)
                # Stopped while the backlog is laid, so that it begins with all of it, warm and with its connections.
                worker.signal(signal.SIGSTOP)
                expected = await lay(store, count, url)
                watch = Stopwatch({"worker": worker.pid, "redis": engine.pid, "receiver": receiver.child.pid})
                worker.signal(signal.SIGCONT)
                await receiver.ask(
                    "expect", name="fast", count=count, patience_s=DRAIN_PATIENCE_S, timeout_s=DRAIN_PATIENCE_S + 5
                )
                await drained(engine, worker)
                usage = watch.read()
                collected = await receiver.ask("collect", name="fast", key=SIGNING_KEY, timeout_s=30)
                check_arrivals(expected, collected, "deliver")
                connections = max(connections, int(collected["most_connections"]))
                return _Round(collected["arrived_ns"], usage, "worker")

            async def post(count: int) -> _Round:
                await receiver.ask("reset", timeout_s=5)
                watch = Stopwatch({"loop": loop.child.pid, "receiver": receiver.child.pid})
                answer = await loop.ask(
                    "post",
                    timeout_s=DRAIN_PATIENCE_S,
                    url=url,
                    count=count,
                    connections=connections,
                    headers=_like_a_delivery(),
                )
                usage = watch.read()
                collected = await receiver.ask("collect", name="fast", timeout_s=30)
                if answer["wrong"] or len(set(collected["message_ids"])) != count:
                    raise BenchFailure("deliver: the bare loop did not post every message")
                return _Round(collected["arrived_ns"], usage, "loop")

            bench.say("deliver: warming up")
            await drain(_WARM_UP)
            await post(_WARM_UP)
            total = 0

            async def pair() -> tuple[_Round, _Round]:
                nonlocal total
                total += bench.sizes.delivered
                bare_round = await post(bench.sizes.delivered)
                return await drain(bench.sizes.delivered), bare_round

            bench.say(f"deliver: {bench.sizes.delivered} messages a round")
            calls_before = engine.calls()
            pairs = await undisturbed_pairs(bench.sizes.rounds, pair, lambda one: one.usage)
            calls = engine.calls().get("evalsha", 0) - calls_before.get("evalsha", 0)

    rounds, bare = [own for own, _ in pairs], [reference for _, reference in pairs]
    laid_calls = total / 100
    middle = sorted(rounds, key=lambda one: one.per_second)[len(rounds) // 2]
    redis_us = sorted(one.redis_us for one in rounds)[len(rounds) // 2]
    return [
        compared(
            "deliver",
            f"messages, {connections} connections",
            "/s",
            [one.per_second for one in rounds],
            [one.per_second for one in bare],
            budget=ratio_of_at_least(0.65),
            note=str(middle.usage),
            is_disturbed=any(one.usage.is_disturbed for one in (*rounds, *bare)),
        ),
        compared(
            "deliver",
            "worker processor time",
            "µs",
            [one.sender_us for one in rounds],
            [one.sender_us for one in bare],
            inverse=True,
            note=f"per message; Redis besides {redis_us:.0f} µs; "
            f"{total / (calls - laid_calls):.1f} messages a script call",
        ),
    ]


def _like_a_delivery() -> dict[str, str]:
    """As many headers as a delivery carries, of the same length; the id is added for each message."""
    return {
        **dict(HEADERS),
        "User-Agent": "Upstash-QStash",
        "Upstash-Signature": "x" * 440,
        "Upstash-Retried": "0",
        "Upstash-Caller-Ip": "127.0.0.1",
    }
