"""Publishing: requests per second, latency and processor time of one api process beside a route that stores nothing."""

from bench.engine import TOKEN
from bench.plan import Bench
from bench.processes import Stopwatch, Usage
from bench.publishing import WARM_UP_S, check_stored
from bench.report import BenchFailure, Figure, compared, ratio_of_at_least
from bench.rounds import undisturbed_pairs
from bench.service import start_api, start_bare_api
from bench.tools.channel import Tool
from bench.tools.samples import destination, publish_request

CONNECTIONS = (1, 64)
_UNUSED_PORT = 54321
"""Nothing is delivered in this measure."""


class _Round:
    """What one stretch of load found out."""

    def __init__(self, answer: dict[str, float], usage: Usage, server: str) -> None:
        self.per_second = answer["per_second"]
        self.p50_ms = answer["p50_ms"]
        self.p99_ms = answer["p99_ms"]
        self.server_us = usage.processor_s[server] / answer["answered"] * 1e6
        self.redis_us = usage.processor_s.get("redis", 0.0) / answer["answered"] * 1e6
        self.usage = usage


async def measure(bench: Bench) -> list[Figure]:
    """The api and its reference take turns."""
    with bench.engine() as engine:
        async with bench.nursery() as nursery:
            api, port = await start_api(nursery, engine)
            bare, bare_port = await start_bare_api(nursery, engine)
            load = await Tool.start(nursery, "load")
            url = destination(_UNUSED_PORT)
            stored = 0

            async def run(connections: int, is_bare: bool) -> _Round:
                nonlocal stored
                server, server_port = (bare, bare_port) if is_bare else (api, port)
                pids = {server.name: server.pid, "load": load.child.pid}
                watch = Stopwatch(pids if is_bare else {**pids, "redis": engine.pid})
                answer = await load.ask(
                    "closed",
                    timeout_s=bench.sizes.publish_s + 30,
                    port=server_port,
                    request=publish_request(server_port, TOKEN, url).decode("latin-1"),
                    connections=connections,
                    warm_up_s=WARM_UP_S,
                    seconds=bench.sizes.publish_s,
                )
                usage = watch.read()
                server.check()
                if answer["refused"]:
                    raise BenchFailure(f"{server.name} refused requests, by status: {answer['refused']}")
                if not is_bare:
                    stored = check_stored(engine, answer["message_ids"], stored)
                return _Round(answer, usage, server.name)

            figures: list[Figure] = []
            for connections in CONNECTIONS:
                bench.say(f"publish: {connections} connections")

                async def pair(connections: int = connections) -> tuple[_Round, _Round]:
                    bare_round = await run(connections, True)
                    return await run(connections, False), bare_round

                calls_before = engine.calls()
                stored_before = stored
                pairs = await undisturbed_pairs(bench.sizes.rounds, pair, lambda one: one.usage)
                calls = engine.calls().get("evalsha", 0) - calls_before.get("evalsha", 0)
                group_size = (stored - stored_before) / max(1, calls)
                figures += _figures(connections, [own for own, _ in pairs], [bare for _, bare in pairs], group_size)
            return figures


def _figures(connections: int, rounds: list[_Round], bare: list[_Round], group_size: float) -> list[Figure]:
    at = f"{connections} connection{'s' if connections > 1 else ''}"
    middle = sorted(rounds, key=lambda one: one.per_second)[len(rounds) // 2]
    is_disturbed = any(one.usage.is_disturbed for one in (*rounds, *bare))
    redis_us = sorted(one.redis_us for one in rounds)[len(rounds) // 2]
    return [
        compared(
            "publish",
            f"requests, {at}",
            "/s",
            [one.per_second for one in rounds],
            [one.per_second for one in bare],
            budget=ratio_of_at_least(0.65) if connections > 1 else None,
            note=str(middle.usage),
            is_disturbed=is_disturbed,
        ),
        compared(
            "publish",
            f"api processor time, {at}",
            "µs",
            [one.server_us for one in rounds],
            [one.server_us for one in bare],
            inverse=True,
            note=f"per request; Redis besides {redis_us:.0f} µs; {group_size:.1f} messages a script call",
        ),
        compared(
            "publish",
            f"latency p50, {at}",
            "ms",
            [one.p50_ms for one in rounds],
            [one.p50_ms for one in bare],
            inverse=True,
        ),
        compared(
            "publish",
            f"latency p99, {at}",
            "ms",
            [one.p99_ms for one in rounds],
            [one.p99_ms for one in bare],
            inverse=True,
        ),
    ]
