"""What a mutant is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LUA = "qstash_clone/storage/lua/"
STORAGE_TESTS = "tests/storage/"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change that must make a test fail."""

    name: str
    path: str
    old: str
    """Occurs exactly once in the file."""
    new: str
    selection: Sequence[str]
    """Arguments of pytest."""
    on_all_engines: bool = False
    """Only one of the engines tells the difference."""


def script_mutant(script: str, name: str, old: str, new: str, *tests: str, on_all_engines: bool = False) -> Mutant:
    """A change of a script; tests are modules of tests/storage, then perhaps `-k` and an expression."""
    modules = {test: f"{STORAGE_TESTS}test_{test}.py" for test in tests}
    return Mutant(
        name=f"{script.removeprefix('include/')}: {name}",
        path=f"{LUA}{script}.lua",
        old=old,
        new=new,
        selection=[path if (ROOT / path).exists() else test for test, path in modules.items()],
        on_all_engines=on_all_engines,
    )
