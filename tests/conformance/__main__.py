"""Runs the official SDKs' own tests, as they are, against this service: `make conformance PY=... JS=...`.

Every suite gets a store of its own, a service on free ports and stand-ins for the public hosts that its tests write to.
Nothing is written into the checkouts. Exits with 1 if a test fails that `deselected.toml` does not list, with 2 if a
suite cannot be run at all.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import shlex
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from qstash_clone.settings import DEVELOPMENT_CURRENT_SIGNING_KEY, DEVELOPMENT_NEXT_SIGNING_KEY, DEVELOPMENT_TOKEN
from tests.conformance.results import Outcome, Report, parse_junit, read_deselected
from tests.conformance.stand_ins import StandIns, standing_in
from tests.conformance.suites import CannotRun, DevelopmentModeSuite, PythonSuite, Suite, TypeScriptSuite
from tests.dev.running import Dev

DESELECTED = Path(__file__).with_name("deselected.toml")
SUITE_WITHIN_S = 1800


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", type=_checkout, metavar="FOLDER", help="checkout of upstash/qstash-py")
    parser.add_argument("--typescript", type=_checkout, metavar="FOLDER", help="checkout of upstash/qstash-js")
    parser.add_argument("--only", metavar="TEXT", help="only tests whose name contains this")
    arguments = parser.parse_args()
    suites: list[Suite] = []
    if arguments.python:
        suites.append(PythonSuite(checkout=arguments.python))
    if arguments.typescript:
        bun = os.environ.get("BUN")
        suites += [kind(checkout=arguments.typescript, bun=bun) for kind in (TypeScriptSuite, DevelopmentModeSuite)]
    if not suites:
        parser.error("give a checkout: make conformance PY=../qstash-py JS=../qstash-js")
    logs = Path(tempfile.mkdtemp(prefix="qc-conformance-"))
    try:
        for suite in suites:
            suite.prepare()
        reports = asyncio.run(_run(suites, arguments.only, logs))
    except CannotRun as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    for report in reports:
        print(f"\n{report.describe()}")
    print(f"\nWhat suites and services wrote is in {logs}")
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


async def _run(suites: Sequence[Suite], only: str | None, logs: Path) -> list[Report]:
    reports: list[Report] = []
    for suite in suites:
        folder = logs / suite.name.replace(" ", "-")
        folder.mkdir()
        async with contextlib.AsyncExitStack() as stack:
            stand_ins = await stack.enter_async_context(standing_in(suite.hosts, folder))
            environ: dict[str, str] = {}
            for port in suite.ports:
                environ = await stack.enter_async_context(_serving(suite, port, stand_ins, folder))
            reports.append(await _run_suite(suite, environ, only, folder))
    return reports


@contextlib.asynccontextmanager
async def _serving(suite: Suite, port: int, stand_ins: StandIns, folder: Path) -> AsyncGenerator[dict[str, str]]:
    """A service with an empty store; yields the variables by which a suite finds it."""
    if port and not _is_free(port):
        raise CannotRun(f"port {port} is taken by another program, and the tests of {suite.name} need it")
    credentials = {
        "token": DEVELOPMENT_TOKEN,
        "current_signing_key": DEVELOPMENT_CURRENT_SIGNING_KEY,
        "next_signing_key": DEVELOPMENT_NEXT_SIGNING_KEY,
    }
    if not suite.uses_public_credentials:
        credentials = {name: f"sig_{secrets.token_hex(14)}" for name in credentials}
    service = Dev(
        folder / f"data-{port}",
        *("--port", str(port)),
        **credentials,
        host_overrides=stand_ins.host_overrides,
        delivery_ca_file=str(stand_ins.ca_file),
    )
    async with service:
        await service.start()
        found = {f"QSTASH_{name.upper()}": value for name, value in credentials.items()}
        yield {} if suite.uses_public_credentials else {**found, "QSTASH_URL": service.url}
        await service.stop()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def _run_suite(suite: Suite, environ: dict[str, str], only: str | None, folder: Path) -> Report:
    deselected = [entry for entry in read_deselected(DESELECTED) if entry.suite == suite.name]
    junit, log = folder / "junit.xml", folder / "suite.log"
    command = suite.command(deselected, junit, only)
    # Nothing of this shell's own dealings with QStash may reach the tests.
    inherited = {name: value for name, value in os.environ.items() if "QSTASH" not in name}
    print(f"{suite.name}: {shlex.join(command)}  (in {suite.checkout}, see {log})", flush=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=suite.checkout,
            env={**inherited, **environ, **suite.environment(folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            exit_code = await asyncio.wait_for(process.wait(), SUITE_WITHIN_S)
        except TimeoutError:
            raise CannotRun(f"the tests of {suite.name} did not end within {SUITE_WITHIN_S} s, see {log}") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    cases = parse_junit(junit.read_text()) if junit.exists() else []
    return Report(
        suite=suite.name,
        command=shlex.join(command),
        cases=cases,
        deselected=deselected,
        exit_code=exit_code,
        is_partial=only is not None,
    )


if __name__ == "__main__":
    raise SystemExit(main())
