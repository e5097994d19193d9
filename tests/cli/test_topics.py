"""`qstash-clone topics` against a real service."""

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

from qstash_clone import cli
from qstash_clone.cli.topic_arguments import TIMESTAMP_TYPES
from qstash_clone.settings import PREFIX, Settings
from qstash_clone.topics.records import TimestampType
from tests.conftest import CURRENT_KEY, NEXT_KEY
from tests.support.processes import System

TOKEN = "token-of-the-service-0123456789"

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def url(redis_server: Any) -> Iterator[str]:
    settings = Settings(
        redis_url=redis_server.url,
        key_namespace="cli-topics",
        token=TOKEN,
        current_signing_key=CURRENT_KEY,
        next_signing_key=NEXT_KEY,
    )
    with System(settings, workers=0) as system:
        yield system.url


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> Run:
    """Runs the command; exit code, lines, and what it said about an error."""
    for name in list(cli.os.environ):
        if name.startswith((PREFIX, "QSTASH_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("QSTASH_TOKEN", TOKEN)
    monkeypatch.setenv("QSTASH_URL", url)

    def run(*arguments: str) -> tuple[int, list[str], str]:
        code = cli.main(["topics", *arguments])
        out, err = capsys.readouterr()
        assert TOKEN not in out + err
        return code, out.splitlines(), err

    return run


def test_a_topic_lives(run: Run) -> None:
    code, lines, _ = run("create", "orders", "--partitions", "2", "--retention-ms", "60000")
    assert (code, lines) == (
        0,
        [
            "orders  2 partitions, records stay 60000 ms, without a limit of size, timestamp type create",
            "  partition 0: offsets 0 to 0",
            "  partition 1: offsets 0 to 0",
        ],
    )
    assert run("create", "orders", "--partitions", "2", "--retention-ms", "60000")[0] == 0
    code, lines, _ = run("change", "orders", "--partitions", "3", "--retention-ms", "-1", "--retention-bytes", "5")
    shown = "orders  3 partitions, records stay for ever, at most 5 bytes in a partition, timestamp type create"
    assert (code, lines[0], len(lines)) == (0, shown, 4)
    assert run("describe", "orders")[1] == lines
    assert run("list")[1] == ["orders  3 partitions"]
    assert run("delete", "orders") == (0, ["orders is deleted"], "")
    assert run("list") == (0, [], "")


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("describe", "nothing"), 1, "has no topic nothing"),
        (("delete", "nothing"), 1, "topic nothing does not exist"),
        (("create", "a b"), 1, "no name of a topic"),
        (("create", "x", "--partitions", "0"), 1, "partitions"),
        (("create",), 2, "name a topic"),
        (("list", "x"), 2, "takes no topic"),
        (("list", "--url", "127.0.0.1:8080"), 2, "such as http://127.0.0.1:8080"),
        (("delete", "x", "--partitions", "1"), 2, "to create and change only"),
        (("change", "x"), 2, "say what is to be changed"),
        (("list", "--url", "http://127.0.0.1:1"), 1, "cannot be reached"),
    ],
)
def test_mistakes(run: Run, arguments: tuple[str, ...], code: int, complaint: str) -> None:
    found, lines, error = run(*arguments)
    assert (found, lines) == (code, [])
    assert complaint in error
    assert run("list")[1] == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: {list,describe,create,change,delete}"),
        (["create", "x", "--timestamp-type", "now"], "'create', 'append'"),
    ],
)
def test_what_can_be_given_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["topics", *arguments])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_types_of_timestamps_are_those_of_topics() -> None:
    assert get_args(TimestampType) == TIMESTAMP_TYPES


def test_the_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSTASH_TOKEN", "another")
    assert run("list")[0] == 2
    monkeypatch.delenv("QSTASH_TOKEN")
    code, _, error = run("list")
    assert (code, error) == (2, "qstash-clone: QSTASH_TOKEN is not set; it is the token of the service.\n")
