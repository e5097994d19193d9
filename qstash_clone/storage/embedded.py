"""Starts and stops a Redis of our own on a data folder, never two on the same one, and never a forgetful one.

Redis does not lock its folder: a second server on it loses acknowledged writes without an error. So each server
inherits an exclusive lock on `engine.lock`, which the operating system releases when the server and its helpers are
gone, however they ended. A lock that is taken at the start belongs to an orphan of a killed supervisor, which is shut
down first.

    <data folder>/
      redis/        append-only files
      redis.log     what the engine says
      engine.json   which engine wrote the folder and where its last server was to be found
      engine.lock   held by a running server
"""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import hiredis

from qstash_clone.errors import ConfigurationError
from qstash_clone.storage.engine_program import EngineKind, EngineProgram, choose_program

MAX_SOCKET_PATH_BYTES = 100
"""The operating systems' limit is 104 to 108, and Redis 6.2 cuts a longer path off silently."""
MAX_LOG_BYTES = 4 * 1024 * 1024
ORPHAN_PATIENCE_S = 20.0
_REFUSE_MEMORY_BYTES = 1

Pause = Callable[[float], bool]
"""Waits that many seconds; true when whoever started this wants it to stop."""


class Interrupted(Exception):
    """The start was abandoned because the pause said so."""


class EmbeddedRedis:
    """One redis-server on one data folder, reached through a unix socket that only this user may open."""

    def __init__(
        self, folder: Path, programs: list[EngineProgram], *, max_memory_bytes: int = 0, pause: Pause | None = None
    ) -> None:
        """Nothing is started yet; `max_memory_bytes` 0 takes half of what this machine or container has."""
        self.folder = folder
        self.program: EngineProgram = programs[0]
        self._programs = programs
        self._max_memory_bytes = max_memory_bytes or default_max_memory_bytes()
        self._pause: Pause = pause or _plain_pause
        self._socket_path = socket_path_of(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    @property
    def url(self) -> str:
        """What `REDIS_URL` must be to reach this server."""
        return "unix://" + quote(self._socket_path)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int:
        """How the last server ended; negative for a signal, 0 if it has not."""
        return (self._process.returncode or 0) if self._process else 0

    def start(self) -> None:
        """Return when the server answers, with everything loaded.

        Shuts an orphan on the same folder down first. Raises ConfigurationError, with the cause in one sentence, if
        the folder or the program cannot be used or the server ends at once, and Interrupted if the pause says stop.
        """
        make_folder(self.folder / "redis")
        written_by = self._read_writer()
        self.program = choose_program(self._programs, written_by=written_by, folder=self.folder)
        lock = self._acquire_lock()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._socket_path)
            self._write_record(pid=None)
            with self._open_log() as log:
                self._process = subprocess.Popen(
                    [self.program.path, *self._options()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder / "redis",
                    pass_fds=(lock,),
                    start_new_session=True,  # the terminal's Ctrl-C is for the supervisor, which stops in order
                )
        except OSError as error:
            raise ConfigurationError(f"Cannot start {self.program.path} on {self.folder}: {error}.") from error
        finally:
            os.close(lock)
        self._write_record(pid=self._process.pid)
        while not self.is_serving():
            if self._process.poll() is not None:
                raise ConfigurationError(self.cause_of_death())
            if self._pause(0.01):
                raise Interrupted

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_serving(self) -> bool:
        """Whether the server answers, and not only to say that it is still loading."""
        return _ask(self._socket_path, "PING") == b"PONG"

    def refuse_writes(self, refused: bool) -> bool:
        """Turn writes that need more room away, or allow them again; false if the server did not take it.

        What ends messages (delivering, cancelling, expiring) stays possible, exactly as when memory is full.
        """
        limit = _REFUSE_MEMORY_BYTES if refused else self._max_memory_bytes
        return _ask(self._socket_path, "CONFIG", "SET", "maxmemory", str(limit)) == b"OK"

    def terminate(self) -> None:
        """Ask the server to write everything and end; `is_running` tells when it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the server now; whatever it acknowledged is on disk all the same."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the server and wait for it; after the time-out, kill it."""
        self.terminate()
        if self._process is not None:
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        with contextlib.suppress(OSError):
            os.unlink(self._socket_path)

    def cause_of_death(self) -> str:
        """One sentence about why the server ended, from its log and the disk."""
        said = self._read_new_log()
        folder = self.folder
        if "No space left" in said or free_bytes(folder) < 1024 * 1024:
            return f"The disk of {folder} is full and Redis has ended; free some space, nothing acknowledged is lost."
        if "Bad file format" in said or "Wrong signature" in said or ("AOF" in said and "rror reading" in said):
            return (
                f"The append-only file in {folder / 'redis'} is damaged; copy the folder, then repair it with "
                f"redis-check-aof --fix, or choose another --data-dir."
            )
        if "Can't handle RDB format version" in said:
            return f"{folder} was written by a newer engine than {self.program}; install that, or use --data-dir."
        if "Permission denied" in said or "Read-only file system" in said:
            return f"{self.program} cannot write to {folder}; make it writable, or choose another --data-dir."
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = f": {lines[-1][:200]}" if lines else ""
        return f"{self.program} ended by itself, see {folder / 'redis.log'}{last}"

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": self._socket_path,
            "unixsocketperm": "700",
            "dir": str((self.folder / "redis").resolve()),
            "logfile": "",
            "daemonize": "no",
            "databases": "1",
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "save": "",  # the append-only file has everything; snapshots would only cost memory and time
            "maxmemory": str(self._max_memory_bytes),
            "maxmemory-policy": "noeviction",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _acquire_lock(self) -> int:
        """The lock of the folder, after any orphan that held it has ended."""
        lock = os.open(self.folder / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + ORPHAN_PATIENCE_S
        try:
            while not _try_lock(lock):
                self._end_orphan()
                if time.monotonic() > deadline:
                    raise ConfigurationError(
                        f"Another Redis is using {self.folder} and does not end (see engine.json there); "
                        f"end it, or choose another --data-dir."
                    )
                if self._pause(0.05):
                    raise Interrupted
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _end_orphan(self) -> None:
        """Ask the server that holds the lock to end; it is found by its socket, else by the recorded process."""
        record = self._read_record()
        wanted = os.path.realpath(self.folder / "redis")
        for path in dict.fromkeys((self._socket_path, str(record.get("socket", self._socket_path)))):
            reply = _ask(path, "CONFIG", "GET", "dir")
            if isinstance(reply, list) and cast("list[object]", reply)[1:] == [os.fsencode(wanted)]:
                _ask(path, "SHUTDOWN", "NOSAVE")
                return
        pid = record.get("pid")
        if isinstance(pid, int) and record.get("started") == (started := process_start(pid)) and started is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _read_record(self) -> dict[str, Any]:
        try:
            record = json.loads((self.folder / "engine.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return cast("dict[str, Any]", record) if isinstance(record, dict) else {}

    def _read_writer(self) -> tuple[EngineKind, str] | None:
        """Kind and version of the engine that last wrote the folder; None if it is new."""
        record = self._read_record()
        if record.get("engine") in ("redis", "valkey") and isinstance(record.get("version"), str):
            return record["engine"], record["version"]
        # Without a record the layout tells enough to keep an engine away that would see nothing.
        return ("redis", "7.0") if (self.folder / "redis" / "appendonlydir").exists() else None

    def _write_record(self, *, pid: int | None) -> None:
        record = {
            "engine": self.program.kind,
            "version": self.program.version,
            "socket": self._socket_path,
            "pid": pid,
            "started": process_start(pid) if pid else None,
        }
        draft = self.folder / "engine.json.new"
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.folder / "engine.json")

    def _open_log(self) -> IO[bytes]:
        path = self.folder / "redis.log"
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            os.replace(path, self.folder / "redis.log.1")
        log = open(path, "ab")  # noqa: SIM115 (closed by the caller)
        self._log_offset = log.tell()
        return log

    def _read_new_log(self) -> str:
        try:
            with open(self.folder / "redis.log", "rb") as log:
                log.seek(self._log_offset)
                return log.read()[-65_536:].decode(errors="replace")
        except OSError:
            return ""


def make_folder(folder: Path) -> None:
    """Make a folder, or check that it can be written; raises ConfigurationError otherwise."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigurationError(f"{folder} is not a folder; choose another --data-dir.") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"Cannot make the folder {folder}: {reason}; choose another --data-dir.") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(f"The folder {folder} cannot be written; change that, or choose another --data-dir.")


def socket_path_of(folder: Path) -> str:
    """A short path for the socket of a folder's server, always the same one, in a folder that is this user's alone.

    Raises ConfigurationError if somebody else has made that folder.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16] + ".sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [base for base in (runtime, tempfile.gettempdir(), "/tmp") if base and os.access(base, os.W_OK)]
    for base in bases:
        parent = os.path.join(base, f"qstash-clone-{os.getuid()}")
        path = os.path.join(parent, name)
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            with contextlib.suppress(FileExistsError):
                os.mkdir(parent, 0o700)
            found = os.lstat(parent)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise ConfigurationError(f"{parent} is not this user's alone; remove it, or set TMPDIR to another one.")
            return path
    raise ConfigurationError("No folder for temporary files can be written; set TMPDIR to one with a short name.")


def default_max_memory_bytes() -> int:
    """Half of the memory of this machine, or of this container if it is allowed less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(limit).read_text()))
    return total // 2


def free_bytes(folder: Path) -> int:
    """Space left for this user on the disk of a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def process_start(pid: int) -> str | None:
    """When a process started, in the system's own words, which tell it from a later one of the same number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        printed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return printed.stdout.strip() or None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ask(path: str, *command: str) -> object:
    """The server's reply to one command; None if there is none."""
    request = b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in (os.fsencode(word) for word in command))
    reader = hiredis.Reader(notEnoughData=_NOTHING)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2.0)
            connection.connect(path)
            connection.sendall(b"*%d\r\n%s" % (len(command), request))
            while (reply := reader.gets()) is _NOTHING:
                received = connection.recv(4096)
                if not received:
                    return None
                reader.feed(received)
    except (OSError, hiredis.ProtocolError):
        return None
    return reply


def _plain_pause(duration_s: float) -> bool:
    time.sleep(duration_s)
    return False


_NOTHING = object()
