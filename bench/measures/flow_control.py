"""How much of a flow-control key's rate is used while messages wait for it, and how late each window begins."""

from collections.abc import Sequence
from itertools import pairwise

from bench.backlog import keyed, lay
from bench.engine import SIGNING_KEY
from bench.plan import Bench
from bench.processes import Stopwatch, Usage
from bench.report import BenchFailure, Budget, Figure, percentile
from bench.rounds import undisturbed
from bench.service import check_arrivals, drained, start_worker
from bench.tools.channel import Tool
from bench.tools.samples import destination

_RATES = (100, 1000)
_PERIOD_MS = 1000


async def measure(bench: Bench) -> list[Figure]:
    """A backlog of some windows for one key."""
    figures: list[Figure] = []
    for rate in _RATES:
        bench.say(f"flow_control: {bench.sizes.windows} windows of {rate}")

        async def once(rate: int = rate) -> tuple[list[int], Usage]:
            return await _drain(bench, rate)

        begun_ms, usage = await undisturbed(once)
        figures += _figures(rate, begun_ms, usage)
    return figures


async def _drain(bench: Bench, rate: int) -> tuple[list[int], Usage]:
    """When the attempts of a backlog of some windows began."""
    count = rate * bench.sizes.windows
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            receiver = await Tool.start(nursery, "receiver")
            port = (await receiver.ask("listen", name="fast", timeout_s=5))["port"]
            worker = await start_worker(nursery, engine)
            expected = await lay(store, count, keyed(destination(port), 1, rate=rate, period_s=_PERIOD_MS // 1000))
            watch = Stopwatch({"worker": worker.pid, "redis": engine.pid, "receiver": receiver.child.pid})
            patience_s = 2 * bench.sizes.windows * _PERIOD_MS / 1000 + 20
            await receiver.ask("expect", name="fast", count=count, patience_s=patience_s, timeout_s=patience_s + 5)
            usage = watch.read()
            await drained(engine, worker)
            collected = await receiver.ask("collect", name="fast", key=SIGNING_KEY, timeout_s=30)
            check_arrivals(expected, collected, "flow_control")
            return engine.begun_ms(), usage


def _figures(rate: int, begun_ms: list[int], usage: Usage) -> list[Figure]:
    windows = windows_of(begun_ms, _PERIOD_MS)
    # The first one began while the backlog was being laid, and the last one has what was left.
    full = windows[1:-1]
    if not full:
        raise BenchFailure(f"flow_control: {len(begun_ms)} attempts at {rate} a second took {len(windows)} windows")
    shares = [len(window) / rate for window in full]
    if max(shares) > 1:
        raise BenchFailure(f"flow_control: {max(shares) * rate:.0f} attempts began in a window of {rate}")
    late_ms = [window[0] - before[0] - _PERIOD_MS for before, window in pairwise(windows)]
    in_all = sum(map(len, full)) / (rate * (windows[-1][0] - full[0][0]) / _PERIOD_MS)
    at = f"{rate:,} a second"
    return [
        Figure(
            measure="flow_control",
            name=f"used share of each full window, {at}",
            value=min(shares) * 100,
            unit="%",
            budget=Budget(limit=95, unit="%", is_floor=True),
            note=f"the least of {len(full)}; {usage}",
            is_disturbed=usage.is_disturbed,
        ),
        Figure(
            measure="flow_control",
            name=f"used share of the rate, {at}",
            value=in_all * 100,
            unit="%",
            note="with the time until the next window begins",
        ),
        *(
            Figure(
                measure="flow_control",
                name=f"lateness of a window, {at}, p{share * 100:.0f}",
                value=percentile(late_ms, share),
                unit="ms",
            )
            for share in (0.5, 1)
        ),
    ]


def windows_of(begun_ms: Sequence[int], period_ms: int) -> list[list[int]]:
    """Attempts in order, by their rate windows: one begins with the first attempt after the end of the last one."""
    windows: list[list[int]] = []
    for at_ms in begun_ms:
        if not windows or at_ms >= windows[-1][0] + period_ms:
            windows.append([])
        windows[-1].append(at_ms)
    return windows
