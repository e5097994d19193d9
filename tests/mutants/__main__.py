"""Breaks named places of the product, one at a time and in a copy, and expects that a test notices each.

Line coverage sees neither Lua nor the order of writes. Run it with `make mutants`; names as arguments choose some.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant
from tests.support.redis_server import find_engines

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("qstash_clone", "worker", "tests", "pyproject.toml")
PROCESSES = 2
TIME_LIMIT_S = 60
"""A mutant that makes its tests hang is noticed too."""
UNBROKEN_TIME_LIMIT_S = 900
"""Of all selections together, on all engines."""
PASSED, FAILED = 0, 1
"""Exit statuses of pytest; any other means that the selection itself is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one mutant."""

    mutant: Mutant
    word: str
    """killed, survived, or why there is no telling."""
    seconds: float
    output: str = ""

    @property
    def is_killed(self) -> bool:
        return self.word.startswith("killed")


class Workshop:
    """A copy of the product to break things in."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="qc-mutants-")
        self.path = Path(self._folder.name)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.path / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.path / name)

    def close(self) -> None:
        self._folder.cleanup()

    def judge(self, mutant: Mutant) -> Verdict:
        """Apply, test, restore."""
        started = time.monotonic()
        path = self.path / mutant.path
        original = path.read_text()
        if original.count(mutant.old) != 1:
            return Verdict(mutant=mutant, word=f"text found {original.count(mutant.old)} times", seconds=0)
        path.write_text(original.replace(mutant.old, mutant.new))
        try:
            status, output = self.test(mutant.selection, on_all_engines=mutant.on_all_engines)
        finally:
            path.write_text(original)
        words = {PASSED: "survived", FAILED: "killed", None: "killed (time)"}
        word = words.get(status, f"tests cannot be run (status {status})")
        return Verdict(mutant=mutant, word=word, seconds=time.monotonic() - started, output=output)

    def test(
        self, selection: Sequence[str], *, on_all_engines: bool = False, time_limit_s: float = TIME_LIMIT_S
    ) -> tuple[int | None, str]:
        """Exit status of pytest, None if it took too long; and what it said."""
        environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
        environment.pop("QSTASH_CLONE_TEST_ENGINE", None)
        if not on_all_engines:
            environment["QSTASH_CLONE_TEST_ENGINE"] = next(iter(find_engines()))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider"]
        with subprocess.Popen(
            [*command, *selection], cwd=self.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                output, _ = process.communicate(timeout=time_limit_s)
            except subprocess.TimeoutExpired:
                # As Ctrl-C does it: the fixtures end the servers that they started.
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=TIME_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                return None, ""
        return process.returncode, output.decode(errors="replace")


def main(names: Sequence[str]) -> int:
    """Judge all mutants, or those named; 0 if every one was killed."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"no such mutant: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    free: SimpleQueue[Workshop] = SimpleQueue()
    workshops = [Workshop() for _ in range(PROCESSES)]
    for workshop in workshops:
        free.put(workshop)

    def borrow(mutant: Mutant) -> Verdict:
        workshop = free.get()
        try:
            return workshop.judge(mutant)
        finally:
            free.put(workshop)

    try:
        if not _passes_unbroken(workshops[0], chosen):
            return 1
        verdicts: list[Verdict] = []
        with ThreadPoolExecutor(PROCESSES) as pool:
            for verdict in pool.map(borrow, chosen):
                print(f"{verdict.word:<14} {verdict.seconds:5.1f} s  {verdict.mutant.name}", flush=True)
                verdicts.append(verdict)
    finally:
        for workshop in workshops:
            workshop.close()
    survivors = [verdict for verdict in verdicts if not verdict.is_killed]
    for verdict in survivors:
        print(f"\n{verdict.mutant.name}: {verdict.word}\n  {verdict.mutant.path}\n  {verdict.output[-2000:]}")
    print(f"\n{len(verdicts) - len(survivors)} of {len(verdicts)} mutants killed")
    return 1 if survivors else 0


def _passes_unbroken(workshop: Workshop, chosen: Sequence[Mutant]) -> bool:
    """A selection that fails anyway would kill everything."""
    files = sorted({argument.split("::")[0] for mutant in chosen for argument in mutant.selection if "/" in argument})
    status, output = workshop.test(files, on_all_engines=True, time_limit_s=UNBROKEN_TIME_LIMIT_S)
    if status != PASSED:
        print(f"the tests fail without any mutant:\n{output[-3000:]}", file=sys.stderr)
    return status == PASSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
