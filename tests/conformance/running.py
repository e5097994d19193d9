"""Runs suites one after the other, each against a service, a store and stand-ins of its own."""

import asyncio
import contextlib
import os
import re
import secrets
import shlex
import socket
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import httpx

from qstash_clone.settings import DEVELOPMENT_CURRENT_SIGNING_KEY, DEVELOPMENT_NEXT_SIGNING_KEY, DEVELOPMENT_TOKEN
from tests.conformance.results import Deselected, Report
from tests.conformance.stand_ins import StandIns, standing_in
from tests.conformance.suites import CannotRun, Suite
from tests.dev.running import Dev

SUITE_WITHIN_S = 1800


async def run_suites(
    suites: Sequence[Suite], deselected: Sequence[Deselected], only: str | None, logs: Path
) -> tuple[list[Report], list[CannotRun]]:
    """The reports of the suites that could be run, and why others could not."""
    reports: list[Report] = []
    failures: list[CannotRun] = []
    for suite in suites:
        folder = logs / suite.name.replace(" ", "-")
        folder.mkdir()
        try:
            async with contextlib.AsyncExitStack() as stack:
                stand_ins = await stack.enter_async_context(standing_in(suite.hosts, folder))
                environ: dict[str, str] = {}
                for port in suite.ports:
                    environ = await stack.enter_async_context(_serving(suite, port, stand_ins, folder))
                chosen = [entry for entry in deselected if entry.suite == suite.name]
                reports.append(await _run_suite(suite, environ, chosen, only, folder))
        except CannotRun as failure:
            # What the suites before and after it have to report is worth as much as without it.
            failures.append(failure)
    return reports, failures


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
        **suite.settings,
        host_overrides=stand_ins.host_overrides,
        delivery_ca_file=str(stand_ins.ca_file),
    )
    async with service:
        await service.start()
        await _create_topics(suite, service.url, credentials["token"])
        found = {f"QSTASH_{name.upper()}": value for name, value in credentials.items()}
        found |= {"QSTASH_URL": service.url, **suite.address(service.url, credentials["token"])}
        yield {} if suite.uses_public_credentials else found
        await service.stop()


async def _create_topics(suite: Suite, url: str, token: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
        for topic in suite.topics:
            answer = await client.post(f"/topics/{topic}")
            if answer.status_code != 200:
                raise CannotRun(f"topic {topic} could not be created for the tests of {suite.name}: {answer.text}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def _run_suite(
    suite: Suite, environ: dict[str, str], deselected: Sequence[Deselected], only: str | None, folder: Path
) -> Report:
    junit, log = folder / "junit.xml", folder / "suite.log"
    command = suite.command(deselected, junit, only)
    # Nothing of this shell's own dealings with the vendor may reach the tests.
    inherited = {name: value for name, value in os.environ.items() if not re.search("QSTASH|UPSTASH", name)}
    environ = {**inherited, **environ, **suite.environment(folder)}
    # Before the tests, because a suite that cannot be listed must not cost their report.
    listed = await _list_tests(suite, environ, folder) if deselected and only is None else None
    print(f"{suite.name}: {shlex.join(command)}  (in {suite.checkout}, see {log})", flush=True)
    exit_code = await _execute(suite, command, environ, log)
    cases = suite.read_report(junit, log)
    known = {case.test for case in cases} if listed is None else listed
    return Report(
        suite=suite.name,
        command=shlex.join(command),
        cases=cases,
        deselected=deselected,
        stale=[entry for entry in deselected if entry.test not in known] if only is None else [],
        exit_code=exit_code,
        is_partial=only is not None,
    )


async def _list_tests(suite: Suite, environ: dict[str, str], folder: Path) -> set[str] | None:
    """The names of all tests, None if the report will have them. Raises `CannotRun`."""
    command = suite.listing()
    if command is None:
        return None
    log = folder / "listing.log"
    if await _execute(suite, command, environ, log):
        raise CannotRun(f"the tests of {suite.name} could not be listed, see {log}")
    return suite.read_listing(log.read_text())


async def _execute(suite: Suite, command: Sequence[str], environ: dict[str, str], log: Path) -> int:
    """Run a command in the checkout; its exit code. What it prints goes to `log`."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=suite.checkout,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            return await asyncio.wait_for(process.wait(), SUITE_WITHIN_S)
        except TimeoutError:
            raise CannotRun(f"the tests of {suite.name} did not end within {SUITE_WITHIN_S} s, see {log}") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
