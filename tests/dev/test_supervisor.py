"""The supervisor's decisions about Redis and the disk, with a Redis that only pretends."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qstash_clone.dev.data_folder import Disk
from qstash_clone.dev.signals import Signals
from qstash_clone.dev.supervisor import Supervisor
from qstash_clone.errors import ConfigurationError
from qstash_clone.settings import Settings
from qstash_clone.storage.embedded import EmbeddedRedis
from qstash_clone.storage.engine_program import EngineProgram

MIB = 1024 * 1024


class PretendedRedis(EmbeddedRedis):
    """Runs until told to die; remembers what was asked of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, [EngineProgram(path="/x", kind="redis", version="7.0.15")])
        self.starts = 0
        self.refusals: list[bool] = []
        self.is_up = False
        self.fails_to_start = False
        self.is_busy = False

    def start(self) -> None:
        self.starts += 1
        if self.fails_to_start:
            raise ConfigurationError("It cannot start.")
        self.is_up = True

    def is_running(self) -> bool:
        return self.is_up

    def refuse_writes(self, refused: bool) -> bool:
        self.refusals.append(refused)
        return not self.is_busy

    def cause_of_death(self) -> str:
        return "It has died."

    def terminate(self) -> None:
        self.is_up = False


class Scene:
    """A supervisor without children, a disk that is as full as the test says, and everything that was said."""

    def __init__(self, folder: Path) -> None:
        self.free = 1000 * MIB
        self.said: list[str] = []
        self.redis = PretendedRedis(folder)
        self.signals = Signals()
        self.supervisor = Supervisor(
            Settings(workers=1),
            {"PATH": os.environ["PATH"]},
            redis=self.redis,
            disk=Disk(folder, min_free_bytes=100 * MIB, measure=lambda _: self.free, ballast=65_536),
            signals=self.signals,
            say=self.said.append,
        )
        self.now_s = 0.0

    def step(self, after_s: float = 0.0) -> None:
        self.now_s += after_s
        self.supervisor.tend(self.now_s)

    def step_often(self, times: int, *, after_s: float) -> None:
        for _ in range(times):
            self.step(after_s)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    scene.redis.is_up = True
    with scene.signals:
        yield scene
        scene.supervisor.stop()


def test_dead_redis_is_started_again_with_its_cause_said(scene: Scene) -> None:
    scene.step(after_s=60)
    scene.redis.is_up = False
    scene.step()
    assert (scene.redis.starts, scene.said) == (1, ["It has died."])
    assert scene.redis.is_running()


def test_redis_that_cannot_start_is_given_up_with_its_cause(scene: Scene) -> None:
    scene.redis.is_up = False
    scene.redis.fails_to_start = True
    with pytest.raises(ConfigurationError, match="It cannot start"):
        scene.step_often(100, after_s=0.5)
    assert 3 <= scene.redis.starts <= 6


def test_full_disk_is_waited_for_without_starting_again_and_again(scene: Scene, tmp_path: Path) -> None:
    scene.step(after_s=60)
    assert (tmp_path / "ballast").exists()
    scene.free = MIB
    scene.redis.is_up = False
    scene.step_often(50, after_s=1)
    assert scene.redis.starts == 0
    assert not (tmp_path / "ballast").exists(), "it is given back"
    assert sum("as soon as there is some space" in sentence for sentence in scene.said) == 1
    scene.free = 20 * MIB
    scene.step(after_s=1)
    assert scene.redis.starts == 1
    assert scene.redis.refusals[-1] is True, "new messages stay refused"
    scene.free = 200 * MIB
    scene.step(after_s=1)
    assert scene.redis.refusals[-1] is False
    assert "new messages are accepted" in scene.said[-1]


def test_low_space_refuses_and_enough_accepts_again(scene: Scene) -> None:
    scene.free = 99 * MIB
    scene.step_often(5, after_s=1)
    assert scene.redis.refusals == [True]
    assert "Only 99 MiB are free" in scene.said[0]
    assert "limit 100 MiB" in scene.said[0]
    scene.free = 500 * MIB
    scene.step(after_s=1)
    assert scene.redis.refusals == [True, False]


def test_redis_that_does_not_answer_is_told_again(scene: Scene) -> None:
    """Else it would fill the disk, or refuse messages for ever once there is space again."""
    scene.free = 99 * MIB
    scene.redis.is_busy = True
    scene.step_often(2, after_s=1)
    scene.redis.is_busy = False
    scene.step_often(2, after_s=1)
    assert scene.redis.refusals == [True] * 3
    scene.free = 500 * MIB
    scene.redis.is_busy = True
    scene.step_often(2, after_s=1)
    scene.redis.is_busy = False
    scene.step_often(2, after_s=1)
    assert scene.redis.refusals == [True] * 3 + [False] * 3
    assert len(scene.said) == 2


def test_restarted_redis_refuses_again_while_space_is_low(scene: Scene) -> None:
    scene.free = 50 * MIB
    scene.step(after_s=60)
    scene.redis.is_up = False
    scene.step()
    assert scene.redis.refusals == [True, True]
