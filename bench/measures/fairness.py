"""What the backlog of one host and the silence of another cost the messages of a third."""

from bench.backlog import keyed, lay, plain
from bench.engine import SIGNING_KEY, TOKEN
from bench.measures.latency import latencies_ms
from bench.plan import Bench
from bench.processes import Stopwatch
from bench.report import BenchFailure, Figure, percentile
from bench.rounds import calm
from bench.service import DRAIN_PATIENCE_S, check_arrivals, eventually, start_api, start_worker
from bench.tools.channel import Tool
from bench.tools.samples import destination, publish_request

SLOW_ANSWER_MS = 100
_HANGING = 500
_GAP_MS = 15
_FASTEST_PER_S = 12_000
"""No worker drains a backlog faster, so it lasts as long as the measurement."""
_SHARES = (0.5, 0.99)


async def measure(bench: Bench) -> list[Figure]:
    """Latency of the third host: alone, beside a backlog that its host is slow to take, beside one taken at once."""
    count = bench.sizes.lone_messages
    others = bench.sizes.others
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            receiver = await Tool.start(nursery, "receiver")
            ports = {
                name: int((await receiver.ask("listen", name=name, timeout_s=5, **how))["port"])
                for name, how in {
                    "third": {},
                    "fast": {},
                    "limited": {},
                    "slow": {"delay_ms": SLOW_ANSWER_MS},
                    "hanging": {"hangs": True},
                }.items()
            }
            api, api_port = await start_api(nursery, engine)
            worker = await start_worker(nursery, engine)
            load = await Tool.start(nursery, "load")
            processes = {child.name: child.pid for child in (api, worker, load.child, receiver.child)}
            request = publish_request(api_port, TOKEN, destination(ports["third"])).decode("latin-1")

            async def third(count: int) -> list[float]:
                await receiver.ask("reset", timeout_s=5)
                answer = await load.ask(
                    "paced",
                    timeout_s=count + 30,
                    port=api_port,
                    request=request,
                    count=count,
                    gap_ms=_GAP_MS,
                )
                if answer["refused"]:
                    raise BenchFailure("fairness: a publish was refused")
                await receiver.ask("expect", name="third", count=count, patience_s=30, timeout_s=35)
                collected = await receiver.ask("collect", name="third", key=SIGNING_KEY, timeout_s=10)
                check_arrivals(answer["message_ids"], collected, "fairness")
                return latencies_ms(collected)

            async def beside(name: str, seconds: float) -> tuple[list[float], str]:
                """Latencies while messages wait for another host, and what there was besides."""
                await calm()
                await lay(store, others, plain(destination(ports[name])))
                watch = Stopwatch({**processes, "redis": engine.pid})
                latencies = await third(min(count, int(seconds * 1000 / _GAP_MS)))
                usage, left = watch.read(), engine.unfinished() - _HANGING
                await eventually(
                    only_hanging, worker, "the backlog is not drained", patience_s=DRAIN_PATIENCE_S, interval_s=0.1
                )
                return latencies, f"{others:,} waiting for it, {left:,} at the end; {usage}"

            async def only_hanging() -> bool:
                return engine.unfinished() <= _HANGING

            bench.say("fairness: idle")
            await third(20)
            await calm()
            idle = await third(count)
            await lay(store, _HANGING, plain(destination(ports["hanging"])))
            bench.say(f"fairness: {others} messages for a slow host, {_HANGING} for a hanging one")
            slow = await beside("slow", 60)
            bench.say(f"fairness: {others} messages for a fast host")
            fast = await beside("fast", others / _FASTEST_PER_S)
            waiting = bench.sizes.waiting
            bench.say(f"fairness: {waiting} messages for a limited key")
            limited = keyed(destination(ports["limited"]), 1, parallelism=10, rate=10)
            await lay(store, waiting, limited)
            await calm()
            watch = Stopwatch({**processes, "redis": engine.pid})
            beside_key = await third(count), f"{waiting:,} waiting for it, at 10 a second; {watch.read()}"
            worker.check()
            await worker.kill()  # it would wait for the hanging host
    return [
        _figure(name, share, latencies, idle, note if share == _SHARES[0] else f"a hanging host has {_HANGING} besides")
        for name, (latencies, note) in {"a slow host": slow, "a fast host": fast, "a limited key": beside_key}.items()
        for share in _SHARES
    ]


def _figure(name: str, share: float, latencies: list[float], idle: list[float], note: str) -> Figure:
    value, reference = percentile(latencies, share), percentile(idle, share)
    return Figure(
        measure="fairness",
        name=f"another host's latency beside {name}, p{share * 100:.0f}",
        value=value,
        unit="ms",
        reference=reference,
        ratio=reference / value,
        note=note,
    )
