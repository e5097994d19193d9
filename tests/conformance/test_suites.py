"""The commands of the suites, and the hosts that stand in for public ones."""

import re
import ssl
from pathlib import Path

import httpx
import pytest

from tests.conformance.results import Deselected
from tests.conformance.stand_ins import Answer, answers_as_asked, standing_in, takes_everything, takes_no_post
from tests.conformance.suites import (
    CannotRun,
    DevelopmentModeSuite,
    GoSuite,
    KafkaSuite,
    PythonSuite,
    TypeScriptSuite,
    name_pattern,
)
from tests.support.receiver import ReceivedRequest

ENTRIES = [
    Deselected(suite="s", test="src/a.test.ts > group > waits (10s) for a/b", reason="r"),
    Deselected(suite="s", test="src/a.test.ts > other", reason="r"),
]


def request(method: str, target: str) -> ReceivedRequest:
    return ReceivedRequest(
        request_line=f"{method} {target} HTTP/1.1".encode(), header_lines=(), body=b"", connection=0, at_s=0
    )


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (None, ["group waits", "group waits (10s) for a/b too", "another"]),
        ("(10s)", ["group waits (10s) for a/b too"]),
    ],
)
def test_bun_leaves_out_tests_by_their_whole_name(only: str | None, chosen: list[str]) -> None:
    pattern = name_pattern(ENTRIES, only)
    assert pattern is not None
    names = ["group waits (10s) for a/b", "other", "group waits", "group waits (10s) for a/b too", "another"]
    assert [name for name in names if re.search(pattern, name)] == chosen


def test_without_a_choice_bun_runs_everything() -> None:
    assert name_pattern([], None) is None
    suite = TypeScriptSuite(checkout=Path("js"), bun="bun")
    command = suite.command([], Path("o.xml"), None)
    assert command[1:] == [
        *("test", "src", "--path-ignore-patterns=src/dev-server/**"),
        *("--reporter=junit", "--reporter-outfile=o.xml"),
    ]


def test_the_kafka_client_finds_the_service_by_its_own_variables() -> None:
    suite = KafkaSuite(checkout=Path("kafka"), bun="bun")
    assert suite.command([], Path("o.xml"), None)[1:3] == ["test", "pkg"]
    assert suite.address("http://127.0.0.1:1", "secret") == {
        "UPSTASH_KAFKA_REST_URL": "http://127.0.0.1:1",
        "UPSTASH_KAFKA_REST_USERNAME": "anybody",
        "UPSTASH_KAFKA_REST_PASSWORD": "secret",
    }


def test_pytest_leaves_out_tests_by_their_id() -> None:
    command = PythonSuite(checkout=Path("py")).command(
        [Deselected(suite="python", test="tests/test_a.py > test_b[c]", reason="r")], Path("o.xml"), "flow control"
    )
    assert "--deselect=tests/test_a.py::test_b[c]" in command
    assert command[-3:] == ["-k", "flow_control", "tests"]


def test_go_leaves_out_tests_by_their_name() -> None:
    entries = [Deselected(suite="go", test=f"example.org/client > {name}", reason="r") for name in ("TestA", "TestB")]
    suite = GoSuite(checkout=Path("go"))
    assert suite.command(entries, Path("o.xml"), "Keys") == [
        *("go", "test", "-json", "-count=1"),
        *("-skip", "^(TestA|TestB)$", "-run", "Keys", "."),
    ]
    assert suite.command([], Path("o.xml"), None) == ["go", "test", "-json", "-count=1", "."]


def test_a_missing_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRun, match="go is not on the PATH"):
        GoSuite(checkout=tmp_path).prepare()


def test_pytest_lists_tests_as_its_report_names_them() -> None:
    listing = "tests/test_a.py::test_b[c]\ntests/test_a.py::TestGroup::test_d\n\n2 tests collected\n"
    assert PythonSuite(checkout=Path("py")).read_listing(listing) == {
        "tests/test_a.py > test_b[c]",
        "tests/test_a.py > TestGroup > test_d",
    }


def test_a_missing_bun_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="name the program in BUN"):
        DevelopmentModeSuite(checkout=tmp_path, bun=str(tmp_path / "bun")).prepare()


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/200", Answer(200, b"200 OK")),
        ("/status/201", Answer(201, b"201 Created")),
        ("/404", Answer(404, b"404 Not Found")),
        ("/200?sleep=30000", Answer(200, b"200 OK", 30.0)),
        ("/", Answer(400, b"400 Bad Request")),
    ],
)
def test_a_host_answers_as_asked(target: str, answer: Answer) -> None:
    assert answers_as_asked(request("POST", target)) == answer


def test_a_web_site_takes_no_post() -> None:
    assert takes_no_post(request("POST", "/")).status == 405
    assert takes_no_post(request("GET", "/")).status == 200


async def test_stand_ins_are_reached_with_the_two_settings(tmp_path: Path) -> None:
    hosts = {"a.example": takes_everything, "b.example": answers_as_asked}
    async with standing_in(hosts, tmp_path) as stand_ins:
        overrides = dict(pair.split("=") for pair in stand_ins.host_overrides.split(","))
        assert list(overrides) == ["a.example:80", "b.example:80", "a.example:443", "b.example:443"]
        tls = ssl.create_default_context(cafile=str(stand_ins.ca_file))
        async with httpx.AsyncClient(verify=tls) as client:
            for scheme, port in (("http", 80), ("https", 443)):
                for host, path, status in (
                    ("a.example", "/", 200),
                    ("b.example", "/201", 201),
                    ("c.example", "/", 421),
                ):
                    answer = await client.post(
                        f"{scheme}://{overrides[f'a.example:{port}']}{path}",
                        headers={"Host": host},
                        extensions={"sni_hostname": "b.example"},
                    )
                    assert answer.status_code == status
