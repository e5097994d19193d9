"""What happened, written down outside the processes that are killed: one line per fact, never rewritten."""

import os
from collections.abc import Iterator
from pathlib import Path


class Ledger:
    """Appends lines to a file; a line is there, whole, once `record` returns."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def record(self, *words: object) -> None:
        """One fact, its words without blanks."""
        os.write(self._fd, (" ".join(str(word) for word in words) + "\n").encode())

    def close(self) -> None:
        os.close(self._fd)


class LedgerReader:
    """Reads a ledger that is still being written; each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def new_facts(self) -> Iterator[list[str]]:
        """The facts recorded since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        *lines, rest = data.split(b"\n")
        self._read_bytes += len(data) - len(rest)
        for line in lines:
            yield line.decode().split(" ")
