"""Child processes: started with an end that is certain, and read for what they use."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import BenchFailure, shares
from qstash_clone.settings import PARENT_FD_VARIABLE

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1
DISTURBED_CORES = 0.3
"""Of one core, used by processes outside the measure; the kernel's own threads are among them."""
STOP_PATIENCE_S = 10.0
_REPOSITORY = Path(__file__).parent.parent
"""Where `python -m bench.tools.<name>` finds its module."""


class Child:
    """One process; its output goes to a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raise `BenchFailure`, with the end of its log, if it is gone."""
        if self.process.returncode is not None:
            last = self.log.read_text(errors="replace").splitlines()[-5:] if self.log.exists() else []
            raise BenchFailure(f"{self.name} ended with {self.process.returncode}: " + " / ".join(last))

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after ten seconds."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_PATIENCE_S):
                await self.process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.process.wait()


class Nursery:
    """Starts children and ends them all with itself, and with this process however that ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []
        # Nothing is ever written: children of the service end with the other end of the pipe.
        self._pipe_reader, self._pipe_writer = os.pipe()

    async def __aenter__(self) -> "Nursery":
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in reversed(self._children):
            await child.stop()
        os.close(self._pipe_reader)
        os.close(self._pipe_writer)

    async def start(
        self, name: str, arguments: Sequence[str], environ: Mapping[str, str] | None = None, *, piped: bool = False
    ) -> Child:
        """Run `python <arguments>`; `piped` keeps its standard input and output for the caller."""
        log = self._folder / f"{name}-{len(self._children)}.log"
        kept = {variable: os.environ[variable] for variable in ("PATH", "HOME", "TMPDIR") if variable in os.environ}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                env={**kept, **(environ or {}), PARENT_FD_VARIABLE: str(self._pipe_reader)},
                stdin=asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if piped else output,
                stderr=output,
                pass_fds=(self._pipe_reader,),
                start_new_session=True,  # Ctrl-C is for this process, which ends them in order
                cwd=_REPOSITORY,
                limit=256 * 1024 * 1024,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    async def end(self, child: Child) -> None:
        """Stop one child early."""
        await child.stop()
        self._children.remove(child)


def processor_s(pid: int) -> float:
    """Processor time, of all its threads in user and system mode, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _machine_ticks() -> tuple[int, int]:
    words = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(words), words[3] + words[4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Processor time during one stretch of a run."""

    wall_s: float
    processor_s: Mapping[str, float]
    machine_share: float
    """Of all cores together, whoever used them."""

    @property
    def other_cores(self) -> float:
        """How many cores were busy for anything but the processes that were watched."""
        return max(0.0, self.machine_share * CORES - sum(self.processor_s.values()) / self.wall_s)

    @property
    def is_disturbed(self) -> bool:
        """Whether others used so much that times measured meanwhile say little."""
        return self.other_cores > DISTURBED_CORES

    def __str__(self) -> str:
        cores = {name: used / self.wall_s for name, used in self.processor_s.items()}
        return shares(cores, self.other_cores, self.machine_share)


class Stopwatch:
    """Reads what processes use between two moments."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before = {name: processor_s(pid) for name, pid in pids.items()}
        self._ticks = _machine_ticks()
        self._started_s = time.monotonic()

    def read(self) -> Usage:
        """What was used since the start."""
        total, idle = (after - before for after, before in zip(_machine_ticks(), self._ticks, strict=True))
        return Usage(
            wall_s=time.monotonic() - self._started_s,
            processor_s={name: processor_s(pid) - self._before[name] for name, pid in self._pids.items()},
            machine_share=(total - idle) / total if total else 0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a process occupies, in MiB."""

    resident_mib: float
    proportional_mib: float
    """Shared pages divided by the number of processes that share them."""
    private_mib: float


def memory_of(pid: int) -> Memory:
    """Memory of a process right now."""
    kib = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in kib:
            kib[name] = int(value.split()[0])
    return Memory(
        resident_mib=kib["Rss"] / 1024,
        proportional_mib=kib["Pss"] / 1024,
        private_mib=(kib["Private_Clean"] + kib["Private_Dirty"]) / 1024,
    )
