"""Delivering: one worker process drains a backlog, beside an aiohttp loop that posts the same to the same receiver."""

from bench.backlog import plain
from bench.draining import WARM_UP, Drain, DrainRound, drain_round
from bench.plan import Bench
from bench.processes import Stopwatch
from bench.report import BenchFailure, Figure, compared, ratio_of_at_least
from bench.rounds import undisturbed_pairs
from bench.service import DRAIN_PATIENCE_S
from bench.tools.channel import Tool
from bench.tools.samples import HEADERS


async def measure(bench: Bench) -> list[Figure]:
    """Worker and reference take turns."""
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            drain = await Drain.start(engine, store, nursery)
            receiver, kind = drain.receiver, plain(drain.url)
            loop = await Tool.start(nursery, "bare_loop")
            connections = 0

            async def post(count: int) -> DrainRound:
                await receiver.ask("reset", timeout_s=5)
                watch = Stopwatch({"loop": loop.child.pid, "receiver": receiver.child.pid})
                answer = await loop.ask(
                    "post",
                    timeout_s=DRAIN_PATIENCE_S,
                    url=drain.url,
                    count=count,
                    connections=connections,
                    headers=_like_a_delivery(),
                )
                usage = watch.read()
                collected = await receiver.ask("collect", name="fast", timeout_s=30)
                if answer["wrong"] or len(set(collected["message_ids"])) != count:
                    raise BenchFailure("deliver: the bare loop did not post every message")
                return drain_round(collected["arrived_ns"], usage, "loop", connections)

            bench.say("deliver: warming up")
            connections = (await drain.backlog(WARM_UP, kind)).most_connections
            await post(WARM_UP)
            total = 0

            async def pair() -> tuple[DrainRound, DrainRound]:
                nonlocal total, connections
                total += bench.sizes.delivered
                bare_round = await post(bench.sizes.delivered)
                own_round = await drain.backlog(bench.sizes.delivered, kind)
                connections = max(connections, own_round.most_connections)
                return own_round, bare_round

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
