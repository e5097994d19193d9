"""Guards the data folder: one supervisor at a time, and a disk that does not fill up."""

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from qstash_clone.errors import ConfigurationError
from qstash_clone.storage.embedded import free_bytes, make_folder

BALLAST_BYTES = 16 * 1024 * 1024
NEEDED_TO_START_BYTES = 8 * 1024 * 1024
_RECOVERED = 1.1
"""Accepting resumes with a tenth more than the limit, so that it does not flicker around it."""


class DataFolder:
    """The folder of one `dev`, locked for as long as this object is entered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> "DataFolder":
        """Raises ConfigurationError if the folder cannot be used or another supervisor uses it."""
        make_folder(self.path)
        try:
            # Not inheritable, so it ends with this process, whatever happens to the children.
            lock = os.open(self.path / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"Cannot write to {self.path}: {(error.strerror or str(error)).lower()}; choose another --data-dir."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ConfigurationError(
                f"Another `qstash-clone dev` is using {self.path}; stop that one, or choose another --data-dir."
            ) from None
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Disk:
    """Watches the space left and keeps a little of it back for the moment when there is none.

    With every message synced to it, a full disk ends Redis. The file of ballast is then deleted, so that Redis can
    start and finish what is under way.
    """

    def __init__(
        self,
        folder: Path,
        *,
        min_free_bytes: int,
        measure: Callable[[Path], int] = free_bytes,
        ballast: int = BALLAST_BYTES,
    ) -> None:
        self.is_low = False
        self.min_free_bytes = min_free_bytes
        self._folder = folder
        self._measure = measure
        self._ballast_bytes = ballast

    def free_bytes(self) -> int:
        return self._measure(self._folder)

    def has_room_to_start(self) -> bool:
        return self.free_bytes() >= NEEDED_TO_START_BYTES

    def check(self) -> bool:
        """Measure; true if `is_low` has changed. Keeps the ballast whenever there is room for it."""
        free = self.free_bytes()
        was_low = self.is_low
        self.is_low = free < self.min_free_bytes * (_RECOVERED if was_low else 1)
        if not self.is_low and free > self.min_free_bytes + 2 * self._ballast_bytes:
            self._keep_ballast()
        return self.is_low != was_low

    def release_ballast(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self._folder / "ballast"

    def _keep_ballast(self) -> None:
        if self._ballast.exists() and self._ballast.stat().st_size == self._ballast_bytes:
            return
        # Written, not seeked over: a file with a hole holds nothing back. Incompressible for disks that compress.
        with contextlib.suppress(OSError), open(self._ballast, "wb") as file:
            for _ in range(self._ballast_bytes // 65_536):
                file.write(os.urandom(65_536))
