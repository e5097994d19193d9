"""Log events and metric instruments."""

import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from qstash_clone import instruments
from qstash_clone.instruments import Counter, Histogram, LabeledCounter, render_metrics
from qstash_clone.observability import configure_logging, describe, emit, flush_logs, is_enabled, mask_url


class Pipe:
    """Standard output of a log, readable at once."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def text(self) -> str:
        flush_logs()
        try:
            return os.read(self.reading, 1 << 20).decode()
        except BlockingIOError:
            return ""

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    configure_logging(log_format="json", level="none", role="test")
    os.close(pipe.writing)
    os.close(pipe.reading)


def configure(
    pipe: Pipe,
    log_format: Literal["json", "text"] = "json",
    level: Literal["debug", "info", "warning", "error", "none"] = "info",
    secrets: tuple[str, ...] = (),
) -> None:
    configure_logging(log_format=log_format, level=level, role="api", secrets=secrets, fd=pipe.writing)


def test_an_event_is_one_json_object(pipe: Pipe) -> None:
    configure(pipe)
    emit("thing.done", message_id="msg_1", count=3, ok=True, names=["a"], nothing=None, kind=ValueError("odd"))
    emit("thing.bare")
    first, second = pipe.events()
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info", "event": "thing.done", "role": "api", "pid": os.getpid(), "message_id": "msg_1", "count": 3,
        "ok": True, "names": ["a"], "nothing": None, "kind": "odd",
    }  # fmt: skip
    assert second["event"] == "thing.bare"


def test_text_is_for_people(pipe: Pipe) -> None:
    configure(pipe, "text")
    emit("thing.done", level=logging.WARNING, url="https://e.com/a", reason="two words", empty="", count=3)
    line = pipe.text().rstrip("\n")
    assert line.split(" ", 1)[1] == 'WARNING thing.done url=https://e.com/a reason="two words" empty="" count=3'


def test_a_traceback_is_indented_in_text(pipe: Pipe) -> None:
    configure(pipe, "text")
    try:
        raise ValueError("first line\nsecond line")
    except ValueError as error:
        emit("thing.failed", level=logging.ERROR, traceback=describe(error), id="a")
    head, *lines = pipe.text().rstrip("\n").split("\n")
    assert head.endswith("ERROR   thing.failed id=a")
    assert lines[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in lines)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_value_can_forge_a_line(pipe: Pipe, log_format: Literal["json", "text"]) -> None:
    configure(pipe, log_format)
    emit("thing.done", label='a\nb "c" \ud800 \x1b[31m')
    assert pipe.text().count("\n") == 1


def test_broken_text_is_written_as_far_as_it_goes(pipe: Pipe) -> None:
    configure(pipe)
    emit("thing.done", text="a\ud800", nested={"b\ud800": ["\ud800"]})
    [event] = pipe.events()
    assert event["text"] == "a\\ud800"
    assert event["nested"] == {"b\\ud800": ["\\ud800"]}


def test_the_level_decides(pipe: Pipe) -> None:
    configure(pipe, level="warning")
    assert not is_enabled(logging.INFO)
    emit("quiet")
    emit("loud", level=logging.WARNING)
    assert [event["event"] for event in pipe.events()] == ["loud"]
    configure(pipe, level="none")
    emit("louder", level=logging.CRITICAL)
    assert pipe.text() == ""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_secrets_are_masked_wherever_they_appear(pipe: Pipe, log_format: Literal["json", "text"]) -> None:
    configure(pipe, log_format, secrets=("s3cret-token", "", "abc"))
    emit("thing.done", error="refused s3cret-token in abc", token="other", authorization="Bearer x")
    logging.getLogger("redis").warning("connecting to %s", "redis://user:passw0rd@host:1/0")
    text = pipe.text()
    for secret in ("s3cret-token", "other", "Bearer", "passw0rd"):
        assert secret not in text
    assert "refused *** in abc" in text
    assert "redis://***@host:1/0" in text


def test_libraries_log_through_the_same_format(pipe: Pipe) -> None:
    configure(pipe)
    logging.getLogger("uvicorn.error").info("noise")
    try:
        raise OSError("lost http://u:p@h/")
    except OSError:
        logging.getLogger("asyncio").exception("it failed")
    [event] = pipe.events()
    assert (event["event"], event["level"], event["logger"], event["message"]) == (
        "log.line", "error", "asyncio", "it failed",
    )  # fmt: skip
    assert event["traceback"].endswith("OSError: lost http://***@h/\n")


def test_configuring_again_replaces_the_handler(pipe: Pipe) -> None:
    configure(pipe)
    configure(pipe)
    logging.getLogger("redis").warning("once")
    assert len(pipe.events()) == 1


def test_what_the_reader_does_not_take_is_dropped_and_counted(pipe: Pipe) -> None:
    """A stuck reader costs events and never time: neither when they are emitted nor at exit."""
    program = """
import os, sys
from qstash_clone.observability import LOG_EVENTS_DROPPED, configure_logging, emit
configure_logging(log_format="json", level="info", role="test", fd=int(sys.argv[1]))
for number in range(60_000):
    emit("thing.done", number=number, text="x" * 100)
print(int(LOG_EVENTS_DROPPED.value) > 0)
"""
    arguments = [sys.executable, "-c", program, str(pipe.writing)]
    ended = subprocess.run(arguments, pass_fds=(pipe.writing,), capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "True\n"


def test_events_reach_the_reader_without_a_flush_and_at_exit() -> None:
    program = """
import sys
from qstash_clone.observability import configure_logging, emit
configure_logging(log_format="json", level="info", role="test")
emit("first")
assert sys.stdin.readline() == "seen\\n"
emit("last")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "first"
        rest, _ = process.communicate(b"seen\n")
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["last"]


def test_an_event_that_comes_while_others_are_taken_reaches_the_reader_too() -> None:
    """One that finds the buffer not yet emptied wakes nobody, and neither would any after it."""
    program = """
import sys
from qstash_clone import observability
observability.configure_logging(log_format="json", level="info", role="test")

class Interrupted(list):
    def __getitem__(self, index):
        found = super().__getitem__(index)
        if len(self) == 1:
            observability.emit("second")
        return found

observability._State.sink._lines = Interrupted()
observability.emit("first")
sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert json.loads(process.stdout.readline())["event"] == "first"
        is_seen = select.select([process.stdout], [], [], 5)[0]
        rest, _ = process.communicate(b"seen\n")
    assert is_seen
    assert json.loads(rest.splitlines()[0])["event"] == "second"


def test_a_forked_child_logs_under_its_own_id() -> None:
    program = """
import os
from qstash_clone.observability import configure_logging, emit, flush_logs
configure_logging(log_format="json", level="info", role="test")
if os.fork() == 0:
    emit("child")
    flush_logs()
    os._exit(0)
os.wait()
emit("parent", own=os.getpid())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    child, parent = (json.loads(line) for line in ended.stdout.splitlines())
    assert (child["event"], parent["event"]) == ("child", "parent")
    assert parent["pid"] == parent["own"] != child["pid"]


def test_mask_url() -> None:
    assert mask_url("redis://:pw@h:1/0 and https://h/p@q") == "redis://***@h:1/0 and https://h/p@q"


def test_instruments_render() -> None:
    counter = Counter("render_things", "Things.")
    labeled = LabeledCounter("render_kinds", "Kinds.", {"kind": ("a", "b"), "size": ("s",)})
    histogram = Histogram("render_seconds", "Seconds.", (0.1, 1))
    counter.inc()
    counter.inc(2)
    labeled.inc("a", "s")
    labeled.inc("zzz", "s")
    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)
    assert (counter.value, labeled.value("a", "s"), histogram.count, histogram.sum) == (3, 1, 4, 7.65)
    lines = [
        line for line in render_metrics({"render_depth": ("Depth.", 5)}).decode().splitlines() if "_render_" in line
    ]
    assert lines == [
        "# HELP qstash_clone_render_things_total Things.",
        "# TYPE qstash_clone_render_things_total counter",
        "qstash_clone_render_things_total 3.0",
        "# HELP qstash_clone_render_kinds_total Kinds.",
        "# TYPE qstash_clone_render_kinds_total counter",
        'qstash_clone_render_kinds_total{kind="a",size="s"} 1.0',
        'qstash_clone_render_kinds_total{kind="b",size="s"} 0.0',
        'qstash_clone_render_kinds_total{kind="other",size="s"} 1.0',
        "# HELP qstash_clone_render_seconds Seconds.",
        "# TYPE qstash_clone_render_seconds histogram",
        'qstash_clone_render_seconds_bucket{le="0.1"} 2.0',
        'qstash_clone_render_seconds_bucket{le="1.0"} 3.0',
        'qstash_clone_render_seconds_bucket{le="+Inf"} 4.0',
        "qstash_clone_render_seconds_count 4.0",
        "qstash_clone_render_seconds_sum 7.65",
        "# HELP qstash_clone_render_depth Depth.",
        "# TYPE qstash_clone_render_depth gauge",
        "qstash_clone_render_depth 5.0",
    ]


def test_counts_of_all_processes_are_summed() -> None:
    counter = Counter("test_rows", "Rows.")
    counter.inc()
    instruments.use_row(1, of=2)
    try:
        counter.inc(10)
        assert counter.value == 11
    finally:
        instruments.use_row(0, of=1)
    assert counter.value == 1


def test_more_instruments_than_there_are_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="cells"):
        LabeledCounter("test_huge", "Huge.", {"a": [str(number) for number in range(5000)]})
