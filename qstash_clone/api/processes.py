"""Several serving processes behind one port: forks them, restarts the ones that die, ends them together."""

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback

from qstash_clone import instruments
from qstash_clone.api.server import STOP_NOW, listen_shared, serve
from qstash_clone.errors import ConfigurationError, StoreIncompatible
from qstash_clone.observability import PROCESS_ENDED, emit, flush_logs
from qstash_clone.parent_watch import has_ended, parent_fd
from qstash_clone.settings import PARENT_FD_VARIABLE, Settings

EXIT_CONFIGURATION = 78
"""`EX_CONFIG` of sysexits.h: starting again changes nothing."""

_RESTART_PAUSE_S = 1.0
"""From the start of a process to the start of its successor, at least."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_processes(settings: Settings) -> None:
    """Serve with `settings.processes` processes until SIGTERM or SIGINT.

    Ends this process with the status of a child that met a configuration it cannot work with; the child has said
    what it was. Raises ConfigurationError if the port cannot be used.
    """
    _Processes(settings, listen_shared(settings)).run()


class _Slot:
    """The place of one process: its socket, its row of the metrics."""

    def __init__(self) -> None:
        self.pid = 0
        self.started_s = 0.0
        self.predecessor: tuple[int, int] | None = None
        """Process id and exit code (negative: the signal) of the one that died before."""


class _Processes:
    """The forking parent. It has no event loop and no thread (hence no log), so that what it forks is clean."""

    def __init__(self, settings: Settings, listeners: list[socket.socket]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._supervisor = parent_fd()
        self._lifeline, self._lifeline_end = os.pipe()
        """Children read the first; the second closes with this process, however it ends."""
        self._wakeup, self._wakeup_end = os.pipe()
        os.set_blocking(self._wakeup_end, False)
        self._slots = [_Slot() for _ in listeners]
        self._is_stopping = False
        self._exit_status = 0

    def run(self) -> None:
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, self._note_signal)
        signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        for index in range(len(self._slots)):
            self._start(index)
        while not self._is_stopping or any(slot.pid for slot in self._slots):
            self._wait()
            self._reap()
            self._restart()
        if self._exit_status:
            raise SystemExit(self._exit_status)

    def _note_signal(self, number: int, frame: object) -> None:
        if number in _STOP_SIGNALS:
            self._stop()

    def _stop(self) -> None:
        number = STOP_NOW if self._is_stopping else signal.SIGTERM
        self._is_stopping = True
        for listener in self._listeners:
            listener.close()
        for slot in self._slots:
            # A signal may come between the end of a process and the note of it.
            with contextlib.suppress(ProcessLookupError):
                if slot.pid:
                    os.kill(slot.pid, number)

    def _wait(self) -> None:
        """Until a signal came, the supervisor ended, or a process is due to be restarted."""
        watched = [self._wakeup] if self._supervisor is None else [self._wakeup, self._supervisor]
        due = [slot.started_s + _RESTART_PAUSE_S for slot in self._slots if not slot.pid]
        pause_s = max(0.0, min(due) - time.monotonic()) if due and not self._is_stopping else None
        readable, _, _ = select.select(watched, [], [], pause_s)
        if self._wakeup in readable:
            os.read(self._wakeup, 4096)
        if self._supervisor is not None and self._supervisor in readable and has_ended(self._supervisor):
            os._exit(1)  # The children see the end of this process.

    def _reap(self) -> None:
        for slot in self._slots:
            if not slot.pid:
                continue
            ended_pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if not ended_pid:
                continue
            slot.predecessor, slot.pid = (ended_pid, os.waitstatus_to_exitcode(status)), 0
            if slot.predecessor[1] == EXIT_CONFIGURATION and not self._is_stopping:
                self._exit_status = EXIT_CONFIGURATION
                self._stop()

    def _restart(self) -> None:
        for index, slot in enumerate(self._slots):
            if not self._is_stopping and not slot.pid and time.monotonic() >= slot.started_s + _RESTART_PAUSE_S:
                self._start(index)

    def _start(self, index: int) -> None:
        slot = self._slots[index]
        slot.started_s = time.monotonic()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = self._serve(index)
            except BaseException:
                traceback.print_exc()
            finally:
                flush_logs()
                os._exit(status)
        slot.pid = pid
        if self._is_stopping:  # The signal came while forking and did not see the newcomer.
            os.kill(pid, signal.SIGTERM)

    def _serve(self, index: int) -> int:
        """The life of a child; returns its exit status."""
        signal.set_wakeup_fd(-1)
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for fd in (self._lifeline_end, self._wakeup, self._wakeup_end):
            os.close(fd)
        mine = self._listeners[index]
        for listener in self._listeners:
            if listener is not mine:
                listener.close()
        os.environ[PARENT_FD_VARIABLE] = str(self._lifeline)
        instruments.use_row(index, of=len(self._slots))
        predecessor = self._slots[index].predecessor
        if predecessor is not None:
            emit(PROCESS_ENDED, level=logging.ERROR, ended_pid=predecessor[0], exit_code=predecessor[1])
        try:
            serve(self._settings, mine, is_one_of_several=True)
        except (ConfigurationError, StoreIncompatible) as error:
            print(f"qstash-clone api: {error}", file=sys.stderr)
            return EXIT_CONFIGURATION
        return 0
