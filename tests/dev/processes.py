"""Which processes a process has started, as Linux tells it."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, told from a later one of the same number by its start."""

    pid: int
    parent: int
    state: str
    started: str
    words: tuple[str, ...]

    @property
    def role(self) -> str:
        """`redis`, the command given to the service, or the whole command line."""
        if "redis-server" in self.words[0]:
            return "redis"
        if "qstash_clone.cli" in self.words:
            return self.words[self.words.index("qstash_clone.cli") + 1]
        return " ".join(self.words)

    def is_running(self) -> bool:
        found = find(self.pid)
        return found is not None and found.started == self.started and found.state != "Z"

    def kill(self) -> None:
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def find(pid: int) -> Process | None:
    """A process by its number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    return Process(
        pid=pid, parent=int(fields[1]), state=fields[0], started=fields[19], words=tuple(words[:-1]) or ("",)
    )


def descendants(pid: int) -> list[Process]:
    """All processes below one, nearest first."""
    everything = [process for entry in os.listdir("/proc") if entry.isdecimal() and (process := find(int(entry)))]
    found: list[Process] = []
    parents = {pid}
    while below := [process for process in everything if process.parent in parents]:
        found += below
        parents = {process.pid for process in below}
    return found
