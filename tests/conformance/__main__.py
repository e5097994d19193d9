"""Runs the official SDKs' own tests, as they are, against this service.

`make conformance PY=... JS=... GO=... KAFKA=...`, each with a checkout.

Every suite gets a store of its own, a service on free ports and stand-ins for the public hosts that its tests write to.
Nothing is written into the checkouts. Exits with 1 if a test fails that `deselected.toml` does not list, or if that
list has an entry without a test, with 2 if a suite cannot be run at all.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.conformance.results import Outcome, read_deselected
from tests.conformance.running import run_suites
from tests.conformance.suites import (
    CannotRun,
    DevelopmentModeSuite,
    GoSuite,
    KafkaSuite,
    PythonSuite,
    Suite,
    TypeScriptSuite,
)

DESELECTED = Path(__file__).with_name("deselected.toml")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", type=_checkout, metavar="FOLDER", help="checkout of upstash/qstash-py")
    parser.add_argument("--typescript", type=_checkout, metavar="FOLDER", help="checkout of upstash/qstash-js")
    parser.add_argument("--go", type=_checkout, metavar="FOLDER", help="checkout of upstash/qstash-go")
    parser.add_argument("--kafka", type=_checkout, metavar="FOLDER", help="checkout of upstash/upstash-kafka")
    parser.add_argument("--only", metavar="TEXT", help="only tests whose name contains this")
    arguments = parser.parse_args()
    suites: list[Suite] = []
    if arguments.python:
        suites.append(PythonSuite(checkout=arguments.python))
    bun = os.environ.get("BUN")
    if arguments.typescript:
        suites += [kind(checkout=arguments.typescript, bun=bun) for kind in (TypeScriptSuite, DevelopmentModeSuite)]
    if arguments.go:
        suites.append(GoSuite(checkout=arguments.go))
    if arguments.kafka:
        suites.append(KafkaSuite(checkout=arguments.kafka, bun=bun))
    if not suites:
        parser.error(
            "give a checkout: make conformance PY=../qstash-py JS=../qstash-js GO=../qstash-go KAFKA=../upstash-kafka"
        )
    logs = Path(tempfile.mkdtemp(prefix="qc-conformance-"))
    try:
        for suite in suites:
            suite.prepare()
    except CannotRun as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    reports, failures = asyncio.run(run_suites(suites, read_deselected(DESELECTED), arguments.only, logs))
    for report in reports:
        print(f"\n{report.describe()}")
    print(f"\nWhat suites and services wrote is in {logs}", flush=True)
    for failure in failures:
        print(f"conformance: {failure}", file=sys.stderr)
    if failures:
        return 2
    if any(report.problems for report in reports):
        return 1
    if not any(report.of(Outcome.PASSED) for report in reports):
        print(f'conformance: no test has "{arguments.only}" in its name', file=sys.stderr)
        return 1
    return 0


def _checkout(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
