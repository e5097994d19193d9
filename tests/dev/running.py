"""`qstash-clone dev` as a person starts it: a real process with its children, on a free port."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from qstash_clone.settings import DEVELOPMENT_TOKEN, PREFIX
from tests.dev.processes import Process, descendants, find
from tests.support.eventually import eventually

AUTHORIZATION = {"Authorization": f"Bearer {DEVELOPMENT_TOKEN}"}


class Dev:
    """One supervisor; whatever a test leaves running is killed at its end."""

    def __init__(self, data_dir: Path, *arguments: str, **settings: str) -> None:
        self.data_dir = data_dir
        self._arguments = arguments
        self._settings = {PREFIX + name.upper(): value for name, value in settings.items()}
        self._log = data_dir.parent / f"{data_dir.name}.log"
        self._seen = 0
        self._processes: dict[int, Process] = {}
        self.process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> "Dev":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_everything()

    async def start(self) -> "Dev":
        """Start and wait for the banner."""
        self.launch()
        await self.expect("Ctrl-C stops it")
        self._remember()
        return self

    def launch(self) -> None:
        self._seen = len(self.output)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "qstash_clone.cli", "dev", "--data-dir", str(self.data_dir), "--port", "0"),
                    *self._arguments,
                ],
                env={**environ, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if found := find(self.process.pid):
            self._processes[found.pid] = found

    @property
    def output(self) -> str:
        """Everything printed by all starts on this folder."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def new_output(self) -> str:
        """What was printed since the last start."""
        return self.output[self._seen :]

    @property
    def url(self) -> str:
        found = re.search(r"listens on (http://\S+)", self.new_output)
        assert found, self.new_output
        return found[1]

    async def expect(self, text: str) -> None:
        """Wait until something is printed; fail at once if the supervisor ends before."""

        def is_printed() -> bool:
            assert self.process is not None
            ended = self.process.poll()
            if text in self.new_output:
                return True
            assert ended is None, self.new_output
            return False

        await eventually(is_printed, timeout=30, what=text)

    async def ended(self) -> int:
        """Wait for the supervisor's end; its exit code."""
        assert self.process is not None
        await eventually(lambda: self.process and self.process.poll() is not None, timeout=30, what="the end of dev")
        return self.process.returncode

    async def stop(self) -> int:
        """Ctrl-C; checks that no process is left behind."""
        self._remember()
        self.signal(signal.SIGINT)
        code = await self.ended()
        assert self.survivors() == []
        return code

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill_supervisor(self) -> None:
        self._remember()
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill_everything(self) -> None:
        self._remember()
        for process in self._processes.values():
            process.kill()
        if self.process is not None:
            self.process.wait()

    def children(self, role: str) -> list[Process]:
        """The running children of a role: `api`, `worker` or `redis`."""
        self._remember()
        return [process for process in self._processes.values() if process.role == role and process.is_running()]

    def survivors(self) -> list[str]:
        """Roles of the processes that are still there."""
        return [process.role for process in self._processes.values() if process.is_running()]

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, headers=AUTHORIZATION, timeout=10) as client:
            return await client.request(method, path, **options)

    async def publish(self, url: str, body: bytes, **headers: str) -> str:
        """The id of an acknowledged message; keeps trying while something is away."""

        async def published() -> str | None:
            try:
                response = await self.request(
                    "POST",
                    f"/v2/publish/{url}",
                    content=body,
                    headers={k.replace("_", "-"): v for k, v in headers.items()},
                )
            except httpx.TransportError:
                return None
            return response.json()["messageId"] if response.status_code in (200, 201, 202) else None

        message_id = await eventually(published, timeout=20, what="an acknowledged publish")
        assert message_id is not None
        return message_id

    def _remember(self) -> None:
        if self.process is not None:
            self._processes.update((child.pid, child) for child in descendants(self.process.pid))
