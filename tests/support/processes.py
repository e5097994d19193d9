"""The product as it is run: real api and worker processes on free ports, to be killed, paused and restarted by pid."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qstash_clone.settings import PARENT_FD_VARIABLE, Settings
from tests.support.tap import Tap

READY_WITHIN_S = 15.0
STOPS_WITHIN_S = 10.0

_lifeline: list[int] = []
_taps: list[Tap] = []


@contextlib.contextmanager
def tapped() -> Generator[Tap]:
    """Inside, the URL of every api is that of a tap before it; its probes are asked directly."""
    tap = Tap()
    _taps.append(tap)
    try:
        yield tap
    finally:
        _taps.remove(tap)
        tap.close()


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _inherited_lifeline() -> int:
    """The end of a pipe that children watch: they end with this test process, even if it is killed."""
    if not _lifeline:
        _lifeline.extend(os.pipe())
    return _lifeline[0]


class Process:
    """One process of the product; `start` after its end starts another one with the same settings and log."""

    module = "qstash_clone.cli"
    """What Python runs; a test may have a command of its own that hands over to this one."""

    def __init__(self, *command: str, settings: Settings, log: Path) -> None:
        self.settings = settings
        self.log = log
        self._command = command
        self._popen: subprocess.Popen[bytes] | None = None
        self._events: list[dict[str, Any]] = []
        self._read_bytes = 0

    @property
    def pid(self) -> int:
        assert self._popen is not None, "not started"
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Negative for the signal that ended it; None while it runs."""
        return None if self._popen is None else self._popen.poll()

    @property
    def probe(self) -> tuple[str, int]:
        """Host and port that answer /livez, /readyz and /metrics."""
        raise NotImplementedError

    def start(self) -> Self:
        assert not self.is_running, f"{self._command} runs already"
        lifeline = _inherited_lifeline()
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("QSTASH", "REDIS_URL"))}
        environ |= self.settings.to_environ() | {PARENT_FD_VARIABLE: str(lifeline)}
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", self.module, *self._command],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lifeline,),
            )
        return self

    def wait_ready(self) -> Self:
        """Until /readyz says so; AssertionError with the log if that does not happen."""
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not self.is_ready():
            if time.monotonic() > deadline_s or not self.is_running:
                raise AssertionError(f"{self._command} (exit {self.exit_code}) is not ready:\n{self.log_text()}")
            time.sleep(0.02)
        return self

    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a probe."""
        connection = http.client.HTTPConnection(*self.probe, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The value of a metric, its labels included in the name: `attempts_total{outcome="delivered"}`."""
        for line in self.get("/metrics")[1].decode().splitlines():
            if line.startswith(f"qstash_clone_{name} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and its end awaited."""
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait()

    def pause(self) -> None:
        """SIGSTOP; returns once the process stands still."""
        self.send_signal(signal.SIGSTOP)
        while not _stands_still(self.pid):
            time.sleep(0.001)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit code."""
        assert self._popen is not None
        self.send_signal(number)
        return self.wait()

    def wait(self, timeout_s: float = STOPS_WITHIN_S) -> int:
        """Its exit code, once it has ended."""
        assert self._popen is not None
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self._command} did not end within {timeout_s} s:\n{self.log_text()}") from None

    def end(self) -> None:
        """Whatever it does at the moment, it is gone when this returns."""
        if self._popen is not None:
            if self._popen.poll() is None:
                self._popen.kill()
            self._popen.wait()

    def log_text(self) -> str:
        """Everything it wrote so far, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def events(self, name: str | None = None, **fields: object) -> list[dict[str, Any]]:
        """The structured events written so far, of one name and with these fields; written at most 100 ms late."""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(self._read_bytes)
                *lines, rest = log.read().split(b"\n")
                self._read_bytes = log.tell() - len(rest)
            self._events += [json.loads(line) for line in lines if line.startswith(b"{")]
        return [event for event in self._events if name in (None, event["event"]) and fields.items() <= event.items()]


def _stands_still(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    if not status.exists():
        return True
    # The state follows the command's name, which may contain anything, in parentheses.
    return status.read_text().rpartition(")")[2].split()[0] in "TtZ"


class Api(Process):
    """`qstash-clone api` on a port that it keeps over restarts."""

    def __init__(self, *, settings: Settings, log: Path) -> None:
        super().__init__("api", settings=replace(settings, host="127.0.0.1", port=free_port()), log=log)

    @property
    def probe(self) -> tuple[str, int]:
        return self.settings.host, self.settings.port

    @property
    def url(self) -> str:
        port = _taps[-1].before(self.settings.port) if _taps else self.settings.port
        return f"http://{self.settings.host}:{port}"


class Worker(Process):
    """`qstash-clone worker`, with its probes on."""

    def __init__(self, *, settings: Settings, log: Path) -> None:
        super().__init__("worker", settings=replace(settings, probe_port=free_port()), log=log)

    @property
    def probe(self) -> tuple[str, int]:
        return self.settings.probe_host, self.settings.probe_port


class System:
    """Some apis and workers on one Redis. A context manager: all are ready inside, and gone afterwards."""

    def __init__(self, settings: Settings, *, apis: int = 1, workers: int = 1) -> None:
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="qc-system-"))
        self.apis = [Api(settings=settings, log=self.folder / f"api-{number}.log") for number in range(apis)]
        self.workers = [
            Worker(settings=settings, log=self.folder / f"worker-{number}.log") for number in range(workers)
        ]

    @property
    def processes(self) -> list[Process]:
        return [*self.apis, *self.workers]

    @property
    def url(self) -> str:
        """Of the first api."""
        return self.apis[0].url

    def start(self) -> Self:
        """Start all that do not run, and return when they are ready."""
        for process in self.processes:
            if not process.is_running:
                process.start()
        for process in self.processes:
            process.wait_ready()
        return self

    def add_worker(self, **changes: Any) -> Worker:
        """One more worker, not started yet, with some settings of its own."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        self.workers.append(Worker(settings=replace(self.settings, **changes), log=log))
        return self.workers[-1]

    def attempts(self, message_id: str) -> list[dict[str, Any]]:
        """The settled attempts of a message, oldest first, as the workers' logs tell them."""
        events = [event for worker in self.workers for event in worker.events("attempt.settled", message_id=message_id)]
        return sorted(events, key=lambda event: event["attempt"])

    def end(self) -> None:
        """Kill all and remove their logs."""
        for process in self.processes:
            process.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.end()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, GeneratorExit):
            self._show_logs()
        self.end()

    def _show_logs(self) -> None:
        for process in self.processes:
            last = [line[:300] for line in process.log_text().splitlines()[-15:]]
            print(f"--- {process.log.name} (exit {process.exit_code})", *last, sep="\n")


@contextlib.contextmanager
def paused(process: Process) -> Generator[None]:
    """The process stands still inside."""
    process.pause()
    try:
        yield
    finally:
        process.resume()


def wait_until(predicate: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Block until the predicate holds; for drivers that are not asynchronous."""
    deadline_s = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)
