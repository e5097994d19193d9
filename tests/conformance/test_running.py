"""Several suites in a row, with small programs in place of the SDKs' runners."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tests.conformance.results import Deselected
from tests.conformance.running import run_suites
from tests.conformance.stand_ins import Host, takes_everything
from tests.conformance.suites import Suite

JUNIT = """<testsuites>
<testcase name="passes" classname="" file="a" /><testcase name="waits" classname="" file="a"><skipped /></testcase>
</testsuites>"""
ENTRIES = [Deselected(suite="small", test=f"a > {name}", reason="r") for name in ("waits", "was removed")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallSuite(Suite):
    """Needs no service, and reports two tests."""

    name = "small"
    hosts: ClassVar[dict[str, Host]] = {"example.com": takes_everything}
    ports = ()
    list_program: str | None = None

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def command(self, deselected: Sequence[Deselected], report: Path, only: str | None) -> list[str]:
        return [sys.executable, "-c", f"open({str(report)!r}, 'w').write({JUNIT!r})"]

    def listing(self) -> list[str] | None:
        return None if self.list_program is None else [sys.executable, "-c", self.list_program]


class LastSuite(SmallSuite):
    name = "last"


async def test_a_taken_port_leaves_the_reports_of_other_suites(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port: int = taken.sockets[0].getsockname()[1]

    class BlockedSuite(SmallSuite):
        name = "blocked"
        ports = (port,)

    async with taken:
        suites = [kind(checkout=tmp_path) for kind in (SmallSuite, BlockedSuite, LastSuite)]
        reports, failures = await run_suites(suites, [], None, tmp_path)
    assert [(report.suite, report.problems) for report in reports] == [("small", []), ("last", [])]
    assert [str(failure) for failure in failures] == [
        f"port {port} is taken by another program, and the tests of blocked need it"
    ]


@pytest.mark.parametrize("list_program", [None, r"print('a > passes\na > waits')"])
async def test_an_entry_without_a_test_is_found(tmp_path: Path, list_program: str | None) -> None:
    [report], failures = await run_suites(
        [SmallSuite(checkout=tmp_path, list_program=list_program)], ENTRIES, None, tmp_path
    )
    assert failures == []
    assert report.problems == ["deselected, but there is no such test: a > was removed"]


async def test_a_partial_run_does_not_judge_the_list(tmp_path: Path) -> None:
    [report], _ = await run_suites([SmallSuite(checkout=tmp_path)], ENTRIES, "passes", tmp_path)
    assert report.problems == []


async def test_a_suite_whose_tests_cannot_be_listed_is_not_run(tmp_path: Path) -> None:
    suite = SmallSuite(checkout=tmp_path, list_program="raise SystemExit(1)")
    reports, [failure] = await run_suites([suite], ENTRIES, None, tmp_path)
    assert reports == []
    assert "the tests of small could not be listed" in str(failure)
    assert not (tmp_path / "small" / "junit.xml").exists()
