"""Runs the measures, prints one table and keeps the figures as JSON."""

import argparse
import asyncio
import dataclasses
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.measures import (
    batch,
    commands,
    costs,
    deliver,
    fairness,
    flow_control,
    lanes,
    latency,
    memory,
    publish,
    schedules,
    starts,
    timers,
    topics,
)
from bench.plan import FULL, QUICK, Bench, Measure, Sizes
from bench.report import BenchFailure, Report
from qstash_clone.errors import QstashCloneError

MEASURES: dict[str, Measure] = {
    "publish": publish.measure,
    "batch": batch.measure,
    "costs": costs.measure,
    "deliver": deliver.measure,
    "latency": latency.measure,
    "timers": timers.measure,
    "fairness": fairness.measure,
    "lanes": lanes.measure,
    "flow_control": flow_control.measure,
    "memory": memory.measure,
    "commands": commands.measure,
    "schedules": schedules.measure,
    "topics": topics.measure,
    "starts": starts.measure,
}
RESULTS = Path(__file__).parent / "results"
PATIENCE_S = 1800
"""No measure may take longer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if a measure failed; a budget that was missed is shown and fails nothing."""
    options = _parser().parse_args(arguments)
    RESULTS.mkdir(exist_ok=True)
    sizes = QUICK if options.quick else FULL
    if options.rounds is not None:
        sizes = dataclasses.replace(sizes, rounds=options.rounds)
    folder = Path(tempfile.mkdtemp(prefix="data-", dir=options.data_dir or RESULTS))
    try:
        report = asyncio.run(_run(sizes, "quick" if options.quick else "full", folder, options.only or list(MEASURES)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    finally:
        if options.keep:
            print(f"Logs and data are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    _show(report)
    path = options.json or RESULTS / "last.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(report.json())
    return 1 if report.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure this service on this machine.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, under two minutes in all")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="one measure; may be repeated")
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="where to write the figures (bench/results/last.json)"
    )
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER", help="where Redis stores: a folder on a real disk")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of the compared measures")
    parser.add_argument("--keep", action="store_true", help="keep logs and data of the processes")
    return parser


async def _run(sizes: Sizes, mode: str, folder: Path, names: Sequence[str]) -> Report:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    started_s = time.monotonic()
    report = Report(facts=machine.facts(), mode=mode)
    bench = Bench(sizes, folder, lambda text: print(text, file=sys.stderr, flush=True))
    try:
        with bench.engine() as engine:
            report.facts |= engine.facts()
        for name in names:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    report.figures += await MEASURES[name](bench)
            except (BenchFailure, QstashCloneError, TimeoutError) as error:
                report.failures.append(f"{name}: {error or type(error).__name__}")
                bench.say(f"FAILED {report.failures[-1]}")
    except (BenchFailure, QstashCloneError) as error:
        report.failures.append(str(error))
    report.seconds = time.monotonic() - started_s
    return report


def _show(report: Report) -> None:
    for name, value in report.facts.items():
        print(f"- {name}: {value}")
    print(f"- run: {report.mode}, {report.seconds:.0f} s\n")
    print(report.table())
    for failure in report.failures:
        print(f"\nFAILED: {failure}")


if __name__ == "__main__":
    sys.exit(main())
