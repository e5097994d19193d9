"""Children of the supervisor: when they are started again, and when they are given up."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qstash_clone.dev.children import MAX_SHORT_LIVES, Child, RestartPolicy
from qstash_clone.errors import ConfigurationError
from tests.support.eventually import eventually


def test_long_life_is_followed_by_the_next_at_once() -> None:
    policy = RestartPolicy()
    assert [policy.delay_after(60, 1) for _ in range(20)] == [0.0] * 20


def test_short_lives_wait_longer_and_longer_and_are_given_up() -> None:
    policy = RestartPolicy()
    assert [policy.delay_after(0.1, 1) for _ in range(MAX_SHORT_LIVES)] == [0.2, 0.4, 0.8, 1.6, None]


def test_long_life_forgives_short_ones() -> None:
    policy = RestartPolicy()
    assert [policy.delay_after(lived_s, 1) for lived_s in (0.1, 0.1, 60, 0.1)] == [0.2, 0.4, 0.0, 0.2]


def test_killed_child_is_never_given_up() -> None:
    policy = RestartPolicy()
    delays = [policy.delay_after(0.1, -signal.SIGKILL) for _ in range(30)]
    assert delays[-1] == 5.0
    assert delays == sorted(delay for delay in delays if delay is not None)


@pytest.mark.parametrize("code", [2, os.EX_CONFIG])
def test_wrong_setting_is_given_up_at_once(code: int) -> None:
    assert RestartPolicy().delay_after(60, code) is None


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def child(pipe: tuple[int, int], script: str, **environ: str) -> Child:
    return Child(
        "worker 7",
        ("worker",),
        environ={**os.environ, **environ},
        inherited_fd=pipe[0],
        command=(sys.executable, "-c", script),
    )


async def test_child_that_dies_is_started_again_and_named(pipe: tuple[int, int]) -> None:
    subject = child(pipe, "import sys; sys.exit(3)")
    subject.start(100.0)
    await eventually(lambda: not subject.is_running())
    assert subject.due_s is None
    said = subject.tend(160.0)
    assert said is not None
    assert "worker 7 (process " in said
    assert "ended with code 3 and is started again." in said
    assert subject.pid is not None
    await eventually(lambda: not subject.is_running())
    said = subject.tend(160.5)
    assert said is not None
    assert "in 0.2 s" in said
    assert subject.due_s == pytest.approx(160.7)  # pyright: ignore[reportUnknownMemberType]
    assert subject.tend(160.6) is None
    assert subject.pid is None
    assert subject.tend(160.7) is None
    assert subject.pid is not None
    subject.kill()


async def test_child_with_a_wrong_setting_ends_everything(pipe: tuple[int, int]) -> None:
    subject = child(pipe, "import sys; sys.exit(2)")
    subject.start(0.0)
    await eventually(lambda: not subject.is_running())
    with pytest.raises(ConfigurationError, match=r"ended with code 2; its reason is in the lines above"):
        subject.tend(60.0)


async def test_signal_is_named(pipe: tuple[int, int]) -> None:
    subject = child(pipe, "import signal; signal.pause()")
    subject.start(0.0)
    subject.terminate()
    await eventually(lambda: not subject.is_running())
    assert "was ended by SIGTERM" in (subject.tend(60.0) or "")
    subject.kill()
    assert not subject.is_running()


async def test_child_finds_this_package_and_its_pipe_from_anywhere(pipe: tuple[int, int], tmp_path: Path) -> None:
    found = tmp_path / "found"
    script = f"""
import os, worker, qstash_clone
os.fstat({pipe[0]})
open({str(found)!r}, "w").write(qstash_clone.__file__)
"""
    (tmp_path / "worker.py").write_text("raise SystemExit('the wrong worker')")
    subject = child(pipe, script, PYTHONPATH=str(tmp_path))
    subject.start(0.0)
    await eventually(found.exists)
    await eventually(lambda: "qstash_clone" in found.read_text())
    await eventually(lambda: not subject.is_running())
