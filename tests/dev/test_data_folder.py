"""The data folder: one supervisor, and a disk that is watched."""

from pathlib import Path

import pytest

from qstash_clone.dev.data_folder import DataFolder, Disk
from qstash_clone.errors import ConfigurationError
from qstash_clone.storage import embedded

MIB = 1024 * 1024


def test_second_supervisor_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data"):
        second = DataFolder(tmp_path / "data")
        with pytest.raises(ConfigurationError, match="Another `qstash-clone dev` is using"):
            second.__enter__()
    with DataFolder(tmp_path / "data") as folder:
        assert folder.path.is_dir()


def test_folder_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is not a folder"):
        DataFolder(tmp_path / "file").__enter__()
    with pytest.raises(ConfigurationError, match=r"Cannot make the folder .*not a directory"):
        DataFolder(tmp_path / "file" / "data").__enter__()
    (tmp_path / "supervisor.lock").mkdir()
    with pytest.raises(ConfigurationError, match=r"Cannot write to .*is a directory; choose another --data-dir"):
        DataFolder(tmp_path).__enter__()


def test_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Told by the access check, as whoever runs the tests may be allowed everything.
    def refuse(path: Path, mode: int) -> bool:
        return False

    monkeypatch.setattr(embedded.os, "access", refuse)
    with pytest.raises(ConfigurationError, match="cannot be written; change that, or choose another --data-dir"):
        DataFolder(tmp_path).__enter__()


class Measured:
    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, folder: Path) -> int:
        return self.free


def test_low_space_is_noticed_once_and_left_with_some_reserve(tmp_path: Path) -> None:
    measure = Measured(1000 * MIB)
    disk = Disk(tmp_path, min_free_bytes=100 * MIB, measure=measure, ballast=65_536)
    assert (disk.check(), disk.is_low) == (False, False)
    for free, has_changed, is_low in (
        (99 * MIB, True, True),
        (50 * MIB, False, True),
        (105 * MIB, False, True),
        (111 * MIB, True, False),
        (101 * MIB, False, False),
    ):
        measure.free = free
        assert (disk.check(), disk.is_low) == (has_changed, is_low)


def test_ballast_is_kept_while_there_is_room_and_released_when_there_is_none(tmp_path: Path) -> None:
    measure = Measured(100 * MIB)
    disk = Disk(tmp_path, min_free_bytes=100 * MIB, measure=measure, ballast=3 * 65_536)
    disk.check()
    assert not (tmp_path / "ballast").exists()
    disk.release_ballast()
    measure.free = 101 * MIB
    disk.check()
    ballast = (tmp_path / "ballast").stat()
    assert ballast.st_size == 3 * 65_536
    assert ballast.st_blocks * 512 >= ballast.st_size, "a file with holes"
    disk.check()
    assert (tmp_path / "ballast").stat().st_mtime_ns == ballast.st_mtime_ns
    disk.release_ballast()
    assert not (tmp_path / "ballast").exists()


def test_room_to_start() -> None:
    measure = Measured(1)
    disk = Disk(Path("/"), min_free_bytes=0, measure=measure)
    assert not disk.has_room_to_start()
    measure.free = 100 * MIB
    assert disk.has_room_to_start()
