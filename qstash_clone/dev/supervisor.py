"""Runs the whole service on one machine: the embedded Redis, the api and the workers, until it is told to stop."""

import contextlib
import dataclasses
import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qstash_clone.dev.banner import banner, reachable_host
from qstash_clone.dev.children import Child, RestartPolicy
from qstash_clone.dev.data_folder import DataFolder, Disk
from qstash_clone.dev.signals import Signals
from qstash_clone.errors import ConfigurationError
from qstash_clone.settings import PARENT_FD_VARIABLE, PREFIX, Settings
from qstash_clone.storage.embedded import EmbeddedRedis, Interrupted
from qstash_clone.storage.engine_program import find_programs

TICK_S = 1.0
SLOW_START_S = 10.0
REDIS_GRACE_S = 5.0
_UNANSWERED = "The api does not answer yet; its log lines may say why."


def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; a second one ends everything at once. Returns the exit code.

    Raises ConfigurationError for a port, folder, program or child that cannot be used.
    """
    settings = _with_free_port(settings)
    programs = find_programs(settings.redis_server)
    folder = Path(settings.data_dir).absolute()
    with DataFolder(folder), Signals() as signals:
        redis = EmbeddedRedis(folder, programs, max_memory_bytes=settings.redis_max_memory_bytes, pause=signals.pause)
        settings = dataclasses.replace(settings, redis_url=redis.url)
        disk = Disk(folder, min_free_bytes=settings.min_free_disk_bytes)
        supervisor = Supervisor(settings, environ, redis=redis, disk=disk, signals=signals, say=_say)
        return supervisor.run()


class Supervisor:
    """Starts everything in order, starts again what dies, and stops in the opposite order."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        redis: EmbeddedRedis,
        disk: Disk,
        signals: Signals,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._redis_policy = RestartPolicy()
        self._redis_started_s = 0.0
        self._redis_due_s: float | None = None
        self._disk = disk
        self._is_limit_set = True
        """Whether Redis has taken what the disk asks for."""
        self._signals = signals
        self._say = say
        # Nothing is ever written: the children wait for the end of the pipe, which comes with the end of this process.
        self._pipe_reader, self._pipe_writer = os.pipe()
        child_environ = {
            **{name: value for name, value in environ.items() if not name.startswith(PREFIX)},
            **settings.to_environ(),
            PARENT_FD_VARIABLE: str(self._pipe_reader),
        }

        def child(name: str, role: str) -> Child:
            return Child(name, (role,), environ=child_environ, inherited_fd=self._pipe_reader)

        self._api = child("api", "api")
        self._workers = [
            child("worker" if settings.workers == 1 else f"worker {number}", "worker")
            for number in range(1, settings.workers + 1)
        ]

    def run(self) -> int:
        """Serve until told to stop; always leaves no process behind. Raises ConfigurationError on giving up."""
        try:
            self._start_redis()
            for child in self._children:
                child.start(time.monotonic())
            self._await_answer()
            while not self._signals.is_stopping:
                self.step(time.monotonic())
                self._signals.pause(self._next_due_s())
        except Interrupted:
            pass
        finally:
            self.stop()
        return 0

    def step(self, now_s: float) -> None:
        """One look at everything: the disk, Redis and the children."""
        self.tend(now_s)
        if self._redis.is_running():
            for child in self._children:
                if said := child.tend(now_s):
                    self._say(said)

    def tend(self, now_s: float) -> None:
        """One look at the disk and at Redis; raises ConfigurationError when Redis is given up."""
        if self._disk.check():
            self._apply_disk()
        elif not self._is_limit_set and self._redis.is_running():
            self._set_limit()
        self._tend_redis(now_s)

    def stop(self) -> None:
        """End the api, then the workers, then Redis; at once if asked a second time."""
        grace_s = self._settings.shutdown_grace_ms / 1000 + 1
        for group in ([self._api], self._workers):
            for child in group:
                child.terminate()
            self._await_end(lambda group=group: any(child.is_running() for child in group), grace_s)
            for child in group:
                child.kill()
        self._redis.terminate()
        self._await_end(self._redis.is_running, REDIS_GRACE_S)
        self._redis.stop(timeout_s=0)
        os.close(self._pipe_reader)
        os.close(self._pipe_writer)

    @property
    def _children(self) -> Sequence[Child]:
        return [self._api, *self._workers]

    def _await_end(self, is_running: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while is_running() and not self._signals.is_impatient and (left := deadline - time.monotonic()) > 0:
            self._signals.pause(min(left, 0.1))

    def _start_redis(self) -> None:
        self._disk.check()
        self._redis.start()
        self._redis_started_s = time.monotonic()
        self._redis_due_s = None
        self._is_limit_set = True
        if self._disk.is_low:
            self._apply_disk()

    def _set_limit(self) -> None:
        # A Redis that waits for a slow disk may not answer in time: it is told again until it has.
        self._is_limit_set = self._redis.refuse_writes(self._disk.is_low)

    def _apply_disk(self) -> None:
        self._set_limit()
        free, limit = (number // 2**20 for number in (self._disk.free_bytes(), self._disk.min_free_bytes))
        if self._disk.is_low:
            self._say(
                f"Only {free} MiB are free on the disk of {self._redis.folder} (limit {limit} MiB): new messages are "
                f"answered 503 until there is more; deliveries go on."
            )
        else:
            self._say(f"There are {free} MiB free again; new messages are accepted.")

    def _tend_redis(self, now_s: float) -> None:
        if self._redis.is_running():
            return
        if self._redis_due_s is None:
            self._plan_redis(now_s, self._redis.cause_of_death())
        if self._redis_due_s is None or now_s < self._redis_due_s or not self._disk.has_room_to_start():
            return
        try:
            self._start_redis()
        except ConfigurationError as error:
            self._plan_redis(now_s, str(error))

    def _plan_redis(self, now_s: float, cause: str) -> None:
        self._disk.release_ballast()
        self._say(cause)
        if not self._disk.has_room_to_start():
            self._redis_due_s = now_s
            self._say("Redis is started again as soon as there is some space.")
            return
        delay_s = self._redis_policy.delay_after(now_s - self._redis_started_s, self._redis.exit_code)
        if delay_s is None:
            raise ConfigurationError(cause)
        self._redis_due_s = now_s + delay_s

    def _next_due_s(self) -> float:
        now = time.monotonic()
        dues = [child.due_s for child in self._children] + [self._redis_due_s]
        return max(0.01, min([TICK_S, *(due - now for due in dues if due is not None and due > now)]))

    def _await_answer(self) -> None:
        """Return, with the banner printed, when the api answers."""
        started = time.monotonic()
        is_patient = True
        # With too little space it is not ready to store, and should say where it listens all the same.
        while not _answers(self._settings, "/livez" if self._disk.is_low else "/readyz"):
            now = time.monotonic()
            if is_patient and now - started > SLOW_START_S:
                is_patient = False
                self._say(_UNANSWERED)
            self.step(now)
            if self._signals.pause(0.05):
                return
        self._say(banner(self._settings, engine=str(self._redis.program), data_dir=str(self._redis.folder)))


def _with_free_port(settings: Settings) -> Settings:
    """The same settings with port 0 replaced; raises ConfigurationError if the port cannot be listened on."""
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            return dataclasses.replace(settings, port=int(probe.getsockname()[1]))
    except socket.gaierror:
        raise ConfigurationError(f"{host!r} is no address of this machine; choose another with --host.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Port {port} of {host} is in use; stop what uses it, or choose another one with --port."
            ) from None
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"Cannot listen on port {port} of {host}: {reason}.") from None


def _answers(settings: Settings, path: str) -> bool:
    host = reachable_host(settings.host)
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host, settings.port), timeout=2.0) as connection,
    ):
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    return False


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stdout, flush=True)
