"""Lets a loop without threads sleep until a signal arrives, a child ends, or time is up."""

import contextlib
import select
import signal
import socket
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Counts requests to stop; to be used as a context manager in the main thread."""

    def __init__(self) -> None:
        self.stop_requests = 0
        self._previous: dict[signal.Signals, Any] = {}
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> "Signals":
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in STOPPING:
            # Under nohup, the end of the terminal is not meant.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._request_stop)
        self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _do_nothing)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    @property
    def is_stopping(self) -> bool:
        return self.stop_requests > 0

    @property
    def is_impatient(self) -> bool:
        """Whether somebody asked a second time, which means now."""
        return self.stop_requests > 1

    def pause(self, duration_s: float) -> bool:
        """Wait that long, less if a signal arrives or a child ends; true once a stop was requested."""
        select.select([self._reader], [], [], max(0.0, duration_s))
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        return self.is_stopping

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requests += 1


def _do_nothing(number: int, frame: FrameType | None) -> None:
    # Only a signal with a handler writes to the wake-up socket.
    return
