"""How each suite is run: its command, its environment, and the hosts that its tests expect."""

import os
import re
import shutil
import subprocess
import sys
import venv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.conformance.results import Case, Deselected, list_go, parse_go, parse_junit
from tests.conformance.stand_ins import Host, answers_as_asked, takes_everything, takes_no_post

PYTHON_PACKAGES = (
    "httpx>=0.23,<1",
    "PyJWT>=2.8,<2.10",
    "pytest>=8.2,<9",
    "pytest-asyncio>=0.23.7,<0.24",
    "python-dotenv",
)
"""PyJWT before 2.10, because the suite's own test of the receiver signs with a `jti` that is no string."""


class CannotRun(Exception):
    """Something that a suite needs is missing; the text says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite(ABC):
    """The tests of one checkout that run against one set-up of the service."""

    name: ClassVar[str]
    hosts: ClassVar[dict[str, Host]]
    ports: ClassVar[tuple[int, ...]] = (0,)
    """One service for each, on a free port for 0."""
    uses_public_credentials: ClassVar[bool] = False
    """The suite sets none of its own and finds the service as the SDKs find QStash's development server."""
    settings: ClassVar[dict[str, str]] = {}
    """Of the service, besides what all suites need."""
    topics: ClassVar[tuple[str, ...]] = ()
    """There are these before the tests begin."""

    checkout: Path

    @abstractmethod
    def prepare(self) -> None:
        """Make or find what the command needs. Raises `CannotRun` if that is impossible."""

    @abstractmethod
    def command(self, deselected: Sequence[Deselected], report: Path, only: str | None) -> list[str]:
        """Run all tests but the deselected ones, and only those whose name contains `only`; JUnit goes to `report`."""

    def listing(self) -> list[str] | None:
        """Print the names of all tests, one a line. None if those that are deselected are in the report too."""
        return None

    def read_listing(self, text: str) -> set[str]:
        """The tests in the output of `listing`, named as in reports."""
        return set(text.splitlines())

    def read_report(self, report: Path, output: Path) -> list[Case]:
        """What became of the tests, from the report and from what `command` printed."""
        return parse_junit(report.read_text()) if report.exists() else []

    def address(self, url: str, token: str) -> dict[str, str]:
        """The variables by which the tests find the service, besides `QSTASH_...`."""
        return {}

    def environment(self, folder: Path) -> dict[str, str]:
        """What the suite needs besides the address and the credentials of the service."""
        return {"OPENAI_API_KEY": "no-key-the-host-is-a-stand-in", "HOME": str(folder)}


class PythonSuite(Suite):
    """`upstash/qstash-py`, by pytest in a virtual environment of its own."""

    name = "python"
    hosts: ClassVar[dict[str, Host]] = {"mock.httpstatus.io": answers_as_asked, "api.openai.com": takes_everything}
    environment_folder: ClassVar[Path] = Path(__file__).parents[2] / ".venv-conformance"

    def prepare(self) -> None:
        stamp = self.environment_folder / "packages"
        if stamp.exists() and stamp.read_text().splitlines() == list(PYTHON_PACKAGES):
            return
        venv.create(self.environment_folder, with_pip=True, clear=True)
        installed = subprocess.run(
            [str(self._python), "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES], check=False
        )
        if installed.returncode:
            raise CannotRun("pip could not install what the Python suite needs; its reason is above")
        stamp.write_text("\n".join(PYTHON_PACKAGES))

    def command(self, deselected: Sequence[Deselected], report: Path, only: str | None) -> list[str]:
        options = ["-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        options += [f"--deselect={entry.test.replace(' > ', '::')}" for entry in deselected]
        # Blanks would join words of pytest's own little language, and no name has any.
        chosen = ["-k", only.replace(" ", "_")] if only else []
        return [str(self._python), "-m", "pytest", *options, *chosen, "tests"]

    def listing(self) -> list[str]:
        return [str(self._python), "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "tests"]

    def read_listing(self, text: str) -> set[str]:
        return {line.replace("::", " > ") for line in text.splitlines() if "::" in line}

    def environment(self, folder: Path) -> dict[str, str]:
        return {**Suite.environment(self, folder), "PYTHONDONTWRITEBYTECODE": "1"}

    @property
    def _python(self) -> Path:
        return self.environment_folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class _BunSuite(Suite):
    bun: str | None
    """Program to run; None looks on the PATH."""

    def prepare(self) -> None:
        self._demand_bun()
        if not (self.checkout / "node_modules").is_dir():
            raise CannotRun(f"{self.checkout} has no node_modules; run `bun install` there")

    def _demand_bun(self) -> None:
        if not self._program:
            raise CannotRun("bun is not on the PATH; install it (npm install bun) or name the program in BUN")

    def environment(self, folder: Path) -> dict[str, str]:
        # Some tests start further processes by the name `bun`.
        path = f"{Path(self._program or '').parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**Suite.environment(self, folder), "PATH": path}

    @property
    def _program(self) -> str | None:
        return shutil.which(self.bun or "bun")

    def _bun_test(self, deselected: Sequence[Deselected], report: Path, only: str | None, *arguments: str) -> list[str]:
        options = ["--reporter=junit", f"--reporter-outfile={report}"]
        pattern = name_pattern(deselected, only)
        options += [f"--test-name-pattern={pattern}"] if pattern else []
        return [self._program or "bun", "test", *arguments, *options]


class TypeScriptSuite(_BunSuite):
    """`upstash/qstash-js` but for its development mode."""

    name = "typescript"
    hosts: ClassVar[dict[str, Host]] = {
        "example.com": takes_no_post,
        "example.org": takes_everything,
        "oz.requestcatcher.com": takes_everything,
        "oz1.requestcatcher.com": takes_everything,
        "httpbin.org": answers_as_asked,
        "mock.httpstatus.io": answers_as_asked,
        "api.openai.com": takes_everything,
    }

    def command(self, deselected: Sequence[Deselected], report: Path, only: str | None) -> list[str]:
        return self._bun_test(deselected, report, only, "src", "--path-ignore-patterns=src/dev-server/**")


class DevelopmentModeSuite(_BunSuite):
    """The part of `upstash/qstash-js` that looks for a development server, where the SDK looks for one."""

    name = "typescript development mode"
    hosts: ClassVar[dict[str, Host]] = {"example.com": takes_no_post}
    ports = (8080, 8181)
    uses_public_credentials = True

    def command(self, deselected: Sequence[Deselected], report: Path, only: str | None) -> list[str]:
        return self._bun_test(deselected, report, only, "src/dev-server")


class KafkaSuite(_BunSuite):
    """`upstash/upstash-kafka`; its tests need no packages."""

    name = "kafka"
    hosts: ClassVar[dict[str, Host]] = {}
    topics = ("blue", "green", "red")

    def prepare(self) -> None:
        self._demand_bun()

    def address(self, url: str, token: str) -> dict[str, str]:
        prefix = "UPSTASH_KAFKA_REST_"
        return {f"{prefix}URL": url, f"{prefix}USERNAME": "anybody", f"{prefix}PASSWORD": token}

    def command(self, deselected: Sequence[Deselected], report: Path, only: str | None) -> list[str]:
        return self._bun_test(deselected, report, only, "pkg")


class GoSuite(Suite):
    """`upstash/qstash-go`, by the `go` on the PATH."""

    name = "go"
    hosts: ClassVar[dict[str, Host]] = {
        "example.com": takes_everything,
        "example.net": takes_everything,
        "httpstat.us": answers_as_asked,
        "llm.example": takes_everything,
    }
    settings: ClassVar[dict[str, str]] = {"llm_base_url": "https://llm.example"}

    def prepare(self) -> None:
        if shutil.which("go") is None:
            raise CannotRun("go is not on the PATH; see https://go.dev/dl")
        if subprocess.run(["go", "test", "-run", "^$", "."], cwd=self.checkout, check=False).returncode:
            raise CannotRun(f"go could not build the tests in {self.checkout}; its reason is above")

    def command(self, deselected: Sequence[Deselected], report: Path, only: str | None) -> list[str]:
        unwanted = "|".join(re.escape(entry.test.split(" > ")[1]) for entry in deselected)
        skipped = ["-skip", f"^({unwanted})$"] if unwanted else []
        chosen = ["-run", re.escape(only)] if only else []
        return ["go", "test", "-json", "-count=1", *skipped, *chosen, "."]

    def listing(self) -> list[str]:
        return ["go", "test", "-json", "-list", ".", "."]

    def read_listing(self, text: str) -> set[str]:
        return list_go(text)

    def read_report(self, report: Path, output: Path) -> list[Case]:
        return parse_go(output.read_text())

    def environment(self, folder: Path) -> dict[str, str]:
        # These lie below the home folder, which is another one for the tests.
        names = ("GOPATH", "GOMODCACHE", "GOCACHE")
        found = subprocess.run(["go", "env", *names], capture_output=True, check=True, text=True).stdout.splitlines()
        return {**Suite.environment(self, folder), **dict(zip(names, found, strict=True))}


def name_pattern(deselected: Sequence[Deselected], only: str | None) -> str | None:
    """The regular expression for the names, groups included, of the tests that bun shall run; None for all.

    bun can choose by name alone, so a test of the same name in another file is left out too.
    """
    unwanted = "|".join(_escaped(" ".join(entry.test.split(" > ")[1:])) for entry in deselected)
    pattern = f"(?!(?:{unwanted})$)" if unwanted else ""
    pattern += f".*{_escaped(only)}" if only else ""
    return f"^{pattern}" if pattern else None


def _escaped(text: str) -> str:
    return re.sub(r"[\\^$.*+?()[\]{}|/]", r"\\\g<0>", text)
