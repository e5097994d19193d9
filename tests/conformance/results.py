"""What a suite's own runner reported, measured against the list of tests that are deselected."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree


class Outcome(StrEnum):
    """How one test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Left out by the suite itself or by our list, which some runners report alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test of a suite, as its runner reported it."""

    test: str
    """`file > group > name`, the groups as the suite nests them."""
    outcome: Outcome
    detail: str = ""
    """Of a failure: its first line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deselected:
    """A test that is not run, and why."""

    suite: str
    test: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run of a suite."""

    suite: str
    command: str
    cases: Sequence[Case]
    deselected: Sequence[Deselected]
    exit_code: int
    stale: Sequence[Deselected] = ()
    """Entries of the list for which there is no test."""
    is_partial: bool = False
    """Only tests of a certain name were run; the runners report all others as skipped."""

    @property
    def skipped(self) -> list[Case]:
        """What the suite itself leaves out."""
        if self.is_partial:
            return []
        deselected = {entry.test for entry in self.deselected}
        return [case for case in self.of(Outcome.SKIPPED) if case.test not in deselected]

    @property
    def problems(self) -> list[str]:
        """Everything that makes this run a failed one; empty if there is nothing."""
        if self.is_partial and not self.of(Outcome.PASSED) and not self.of(Outcome.FAILED):
            return []
        problems = [f"failed: {case.test}: {case.detail}" for case in self.of(Outcome.FAILED)]
        if not self.of(Outcome.PASSED):
            problems.append("no test has passed")
        if self.exit_code and not problems:
            problems.append(f"the runner ended with {self.exit_code} although it reported no failure")
        problems += [f"deselected, but there is no such test: {entry.test}" for entry in self.stale]
        return problems

    def of(self, outcome: Outcome) -> list[Case]:
        return [case for case in self.cases if case.outcome == outcome]

    def describe(self) -> str:
        """For people; every test that did not pass is named."""
        passed, failed, skipped = self.of(Outcome.PASSED), self.of(Outcome.FAILED), self.skipped
        deselected = [entry for entry in self.deselected if entry not in self.stale]
        collected = len(passed) + len(failed) + len(skipped) + len(deselected)
        lines = [
            f"{self.suite}: {collected} collected, {len(passed)} passed, {len(failed)} failed, "
            f"{len(deselected)} deselected, {len(skipped)} skipped by the suite itself",
            f"  command: {self.command}",
        ]
        lines += [f"  {problem}" for problem in self.problems]
        lines += [f"  deselected: {entry.test}: {entry.reason}" for entry in deselected]
        lines += [f"  skipped by the suite itself: {case.test}" for case in skipped]
        return "\n".join(lines)


def read_deselected(path: Path) -> list[Deselected]:
    """The tests that are not run. Raises `ValueError` for an entry without all of its parts, or one for the second
    time."""
    deselected: list[Deselected] = []
    for entry in tomllib.loads(path.read_text())["deselected"]:
        if set(entry) != {"suite", "test", "reason"} or not all(entry.values()):
            raise ValueError(f"{path.name}: an entry has a suite, a test and a reason: {entry}")
        if any((other.suite, other.test) == (entry["suite"], entry["test"]) for other in deselected):
            raise ValueError(f"{path.name}: {entry['test']} is listed twice")
        deselected.append(Deselected(**entry))
    return deselected


def parse_junit(text: str) -> list[Case]:
    """Read what `pytest --junitxml` (family xunit1) or `bun test --reporter=junit` wrote."""
    return [_case(element) for element in ElementTree.fromstring(text).iter("testcase")]


def _case(element: ElementTree.Element) -> Case:
    file, groups, name = (element.get(attribute, "") for attribute in ("file", "classname", "name"))
    # pytest repeats the file as the class: `tests.test_queue` for `tests/test_queue.py`.
    is_module = groups == file.removesuffix(".py").replace("/", ".")
    test = " > ".join(part for part in (file, "" if is_module else groups, name) if part)
    failure = next((part for part in element if part.tag in ("failure", "error")), None)
    if failure is not None:
        detail = (failure.get("message") or failure.text or "no message").strip()
        return Case(test=test, outcome=Outcome.FAILED, detail=detail.splitlines()[0][:300])
    return Case(test=test, outcome=Outcome.PASSED if element.find("skipped") is None else Outcome.SKIPPED)


def parse_go(text: str) -> list[Case]:
    """Read what `go test -json` wrote; of a test with parts, the parts and the whole."""
    output: dict[str, list[str]] = {}
    cases: list[Case] = []
    for event in _go_events(text):
        if "Test" not in event:
            continue
        test = f"{event['Package']} > {event['Test']}"
        match event["Action"]:
            case "output":
                output.setdefault(test, []).append(event["Output"].strip())
            case "fail":
                cases.append(Case(test=test, outcome=Outcome.FAILED, detail=_go_detail(output.get(test, []))))
            case "pass" | "skip" as action:
                cases.append(Case(test=test, outcome=Outcome.PASSED if action == "pass" else Outcome.SKIPPED))
            case _:
                pass
    return cases


def list_go(text: str) -> set[str]:
    """Read what `go test -json -list` wrote: the names of all tests, as `parse_go` has them."""
    outputs = ((event["Package"], event.get("Output", "").strip()) for event in _go_events(text))
    return {f"{package} > {name}" for package, name in outputs if name.startswith("Test")}


def _go_events(text: str) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        # What go itself has to say, about downloads for one, is no JSON.
        if line.startswith("{"):
            yield json.loads(line)


def _go_detail(output: Sequence[str]) -> str:
    lines = [line for line in output if line and not line.startswith(("=== ", "--- "))]
    return next((line for line in lines if line.startswith("Error:")), lines[0] if lines else "no message")[:300]
