"""The harness's own parts that need no checkout: reports read, and the list of deselected tests."""

import dataclasses
from pathlib import Path

import pytest

from tests.conformance.results import Case, Deselected, Outcome, Report, list_go, parse_go, parse_junit, read_deselected
from tests.conformance.suites import DevelopmentModeSuite, GoSuite, PythonSuite, TypeScriptSuite

DESELECTED = Path(__file__).with_name("deselected.toml")

PYTEST_XML = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4">
  <testcase classname="tests.test_queue" name="test_queue" file="tests/test_queue.py" line="5" time="0.1" />
  <testcase classname="tests.asyncio.test_dlq" name="test_get[a]" file="tests/asyncio/test_dlq.py" line="9">
    <failure message="assert 1 == 2&#10; +  where 1 = f()">def test_get(): ...</failure>
  </testcase>
  <testcase classname="tests.test_keys" name="test_keys" file="tests/test_keys.py"><error>
    no keys
    at all</error></testcase>
  <testcase classname="tests.test_keys.TestGroup" name="test_late" file="tests/test_keys.py"><skipped /></testcase>
</testsuite></testsuites>"""

BUN_XML = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="4" failures="1" skipped="1">
  <testsuite name="src/a.test.ts" file="src/a.test.ts" tests="3">
    <testsuite name="outer" file="src/a.test.ts"><testsuite name="inner" file="src/a.test.ts">
      <testcase name="passes" classname="outer &gt; inner" file="src/a.test.ts" />
      <testcase name="fails" classname="outer &gt; inner" file="src/a.test.ts"><failure type="Error" /></testcase>
    </testsuite></testsuite>
    <testcase name="waits" classname="" file="src/a.test.ts"><skipped /></testcase>
  </testsuite>
</testsuites>"""

GO_OUTPUT = """go: downloading example.org/assert v1.9.0
{"Action":"start","Package":"example.org/client"}
{"Action":"run","Package":"example.org/client","Test":"TestKeys"}
{"Action":"output","Package":"example.org/client","Test":"TestKeys","Output":"=== RUN   TestKeys\\n"}
{"Action":"pass","Package":"example.org/client","Test":"TestKeys","Elapsed":0.1}
{"Action":"output","Package":"example.org/client","Test":"TestDlq","Output":"    dlq_test.go:9: \\n"}
{"Action":"output","Package":"example.org/client","Test":"TestDlq","Output":"    \\tError:      \\tNot equal\\n"}
{"Action":"output","Package":"example.org/client","Test":"TestDlq","Output":"--- FAIL: TestDlq (0.00s)\\n"}
{"Action":"fail","Package":"example.org/client","Test":"TestDlq","Elapsed":0.1}
{"Action":"skip","Package":"example.org/client","Test":"TestLater/part","Elapsed":0}
{"Action":"output","Package":"example.org/client","Output":"FAIL\\n"}
{"Action":"fail","Package":"example.org/client","Elapsed":0.3}
"""


def test_the_report_of_pytest_is_read() -> None:
    assert parse_junit(PYTEST_XML) == [
        Case(test="tests/test_queue.py > test_queue", outcome=Outcome.PASSED),
        Case(test="tests/asyncio/test_dlq.py > test_get[a]", outcome=Outcome.FAILED, detail="assert 1 == 2"),
        Case(test="tests/test_keys.py > test_keys", outcome=Outcome.FAILED, detail="no keys"),
        Case(test="tests/test_keys.py > tests.test_keys.TestGroup > test_late", outcome=Outcome.SKIPPED),
    ]


def test_the_report_of_bun_is_read() -> None:
    assert parse_junit(BUN_XML) == [
        Case(test="src/a.test.ts > outer > inner > passes", outcome=Outcome.PASSED),
        Case(test="src/a.test.ts > outer > inner > fails", outcome=Outcome.FAILED, detail="no message"),
        Case(test="src/a.test.ts > waits", outcome=Outcome.SKIPPED),
    ]


def test_the_output_of_go_is_read() -> None:
    assert parse_go(GO_OUTPUT) == [
        Case(test="example.org/client > TestKeys", outcome=Outcome.PASSED),
        Case(test="example.org/client > TestDlq", outcome=Outcome.FAILED, detail="Error:      \tNot equal"),
        Case(test="example.org/client > TestLater/part", outcome=Outcome.SKIPPED),
    ]


def test_a_crash_of_go_is_told_by_its_first_line() -> None:
    crash = """{"Action":"output","Package":"p","Test":"TestA","Output":"panic: no more\\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p","Test":"TestB"}"""
    assert [case.detail for case in parse_go(crash)] == ["panic: no more", "no message"]


def test_the_list_of_go_names_tests_as_its_report_does() -> None:
    listing = """{"Action":"start","Package":"example.org/client"}
{"Action":"output","Package":"example.org/client","Output":"TestKeys\\n"}
{"Action":"output","Package":"example.org/client","Output":"ok  \\texample.org/client\\t0.01s\\n"}
{"Action":"pass","Package":"example.org/client"}"""
    assert list_go(listing) == {"example.org/client > TestKeys"}


def report(*cases: Case, exit_code: int = 0) -> Report:
    entry = Deselected(suite="typescript", test="a > downloads", reason="needs the internet")
    return Report(suite="typescript", command="bun test", cases=cases, deselected=[entry], exit_code=exit_code)


PASSED = Case(test="a > passes", outcome=Outcome.PASSED)
LEFT_OUT = Case(test="a > downloads", outcome=Outcome.SKIPPED)
SKIPPED = Case(test="a > later", outcome=Outcome.SKIPPED)
FAILED = Case(test="a > fails", outcome=Outcome.FAILED, detail="expected 1")


def test_a_report_names_every_test_that_did_not_pass() -> None:
    assert report(PASSED, LEFT_OUT, SKIPPED, FAILED, exit_code=1).describe().splitlines() == [
        "typescript: 4 collected, 1 passed, 1 failed, 1 deselected, 1 skipped by the suite itself",
        "  command: bun test",
        "  failed: a > fails: expected 1",
        "  deselected: a > downloads: needs the internet",
        "  skipped by the suite itself: a > later",
    ]


@pytest.mark.parametrize(
    ("cases", "exit_code", "problems"),
    [
        ((PASSED, LEFT_OUT, SKIPPED), 0, []),
        ((PASSED, FAILED), 1, ["failed: a > fails: expected 1"]),
        ((), 1, ["no test has passed"]),
        ((LEFT_OUT,), 0, ["no test has passed"]),
        ((PASSED,), 134, ["the runner ended with 134 although it reported no failure"]),
    ],
)
def test_a_run_fails_unless_tests_passed_and_none_failed(
    cases: tuple[Case, ...], exit_code: int, problems: list[str]
) -> None:
    assert report(*cases, exit_code=exit_code).problems == problems


def test_an_entry_of_the_list_without_a_test_makes_a_run_fail() -> None:
    gone = Deselected(suite="typescript", test="a > was removed", reason="needs the internet")
    stale = dataclasses.replace(report(PASSED), deselected=[gone], stale=[gone])
    assert stale.problems == ["deselected, but there is no such test: a > was removed"]
    assert stale.describe().splitlines() == [
        "typescript: 1 collected, 1 passed, 0 failed, 0 deselected, 0 skipped by the suite itself",
        "  command: bun test",
        "  deselected, but there is no such test: a > was removed",
    ]


def test_a_partial_run_says_nothing_of_what_was_not_chosen() -> None:
    def partial(*cases: Case) -> Report:
        return Report(suite="typescript", command="bun test", cases=cases, deselected=[], exit_code=0, is_partial=True)

    assert partial(SKIPPED).problems == []
    assert partial(PASSED, SKIPPED).describe().splitlines()[2:] == []
    assert partial(PASSED, FAILED).problems == ["failed: a > fails: expected 1"]


def test_every_deselected_test_belongs_to_a_suite_and_has_a_reason() -> None:
    entries = read_deselected(DESELECTED)
    assert {entry.suite for entry in entries} <= {
        suite.name for suite in (PythonSuite, TypeScriptSuite, DevelopmentModeSuite, GoSuite)
    }
    assert all(entry.test.count(" > ") and entry.reason.count(" ") >= 3 for entry in entries)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([{"suite": "python", "test": "a"}], "a suite, a test and a reason"),
        ([{"suite": "python", "test": "a", "reason": ""}], "a suite, a test and a reason"),
        ([{"suite": "python", "test": "a", "reason": "b"}] * 2, "listed twice"),
    ],
)
def test_an_incomplete_list_is_refused(tmp_path: Path, entries: list[dict[str, str]], complaint: str) -> None:
    path = tmp_path / "list.toml"
    path.write_text(
        "".join("[[deselected]]\n" + "".join(f'{name} = "{text}"\n' for name, text in e.items()) for e in entries)
    )
    with pytest.raises(ValueError, match=complaint):
        read_deselected(path)
