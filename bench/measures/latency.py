"""From publish to arrival on an idle system, beside a client that sends to the receiver itself."""

from bench.engine import SIGNING_KEY, TOKEN
from bench.plan import Bench
from bench.processes import Stopwatch, Usage
from bench.report import BenchFailure, Budget, Figure, percentile
from bench.rounds import undisturbed
from bench.service import check_arrivals, drained, start_api, start_worker
from bench.tools.channel import Tool
from bench.tools.samples import destination, plain_request, publish_request

GAP_MS = 15
_WARM_UP = 20


async def measure(bench: Bench) -> list[Figure]:
    """One message at a time, with pauses of random length between them."""
    count = bench.sizes.lone_messages
    with bench.engine() as engine:
        async with bench.nursery() as nursery:
            receiver = await Tool.start(nursery, "receiver")
            port = (await receiver.ask("listen", name="fast", timeout_s=5))["port"]
            url = destination(port)
            api, api_port = await start_api(nursery, engine)
            worker = await start_worker(nursery, engine)
            load = await Tool.start(nursery, "load")
            processes = {child.name: child.pid for child in (api, worker, load.child, receiver.child)}

            async def run(target: int, request: bytes, count: int) -> list[str]:
                await receiver.ask("reset", timeout_s=5)
                answer = await load.ask(
                    "paced",
                    timeout_s=count * GAP_MS / 100 + 30,
                    port=target,
                    request=request.decode("latin-1"),
                    count=count,
                    gap_ms=GAP_MS,
                )
                if answer["refused"]:
                    raise BenchFailure("latency: a request was refused")
                return answer["message_ids"]

            bench.say(f"latency: {count} messages, one at a time")
            publish = publish_request(api_port, TOKEN, url)
            await run(api_port, publish, _WARM_UP)
            await drained(engine, worker)

            async def once() -> tuple[list[float], Usage]:
                watch = Stopwatch({**processes, "redis": engine.pid})
                expected = await run(api_port, publish, count)
                usage = watch.read()
                await drained(engine, worker)
                collected = await receiver.ask("collect", name="fast", key=SIGNING_KEY, timeout_s=10)
                check_arrivals(expected, collected, "latency")
                return latencies_ms(collected), usage

            latencies, usage = await undisturbed(once)
            await run(port, plain_request(port, url), count)
            direct = latencies_ms(await receiver.ask("collect", name="fast", timeout_s=10))
    note = f"reference: the client sends to the receiver itself; {usage}"
    return [
        Figure(
            measure="latency",
            name=f"publish to arrival, p{share * 100:.0f}",
            value=percentile(latencies, share),
            unit="ms",
            reference=percentile(direct, share),
            budget=Budget(limit=limit, unit="ms"),
            is_disturbed=usage.is_disturbed,
            note=note if share == 0.5 else "",
        )
        for share, limit in ((0.5, 5), (0.99, 15))
    ]


def latencies_ms(collected: dict[str, list[int]]) -> list[float]:
    """From the time in each body, at which it was sent, to its arrival."""
    return [
        (arrived_ns - sent_ns) / 1e6
        for arrived_ns, sent_ns in zip(collected["arrived_ns"], collected["sent_ns"], strict=True)
    ]
