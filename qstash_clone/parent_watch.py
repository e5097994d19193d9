"""Ends a child process with the supervisor that started it, also when that was killed: a pipe tells."""

import asyncio
import os
from collections.abc import Callable

from qstash_clone.errors import ConfigurationError
from qstash_clone.settings import PARENT_FD_VARIABLE


def parent_fd() -> int | None:
    """The inherited end of the supervisor's pipe, or None if nobody supervises this process.

    Raises ConfigurationError if the variable names no open file.
    """
    text = os.environ.get(PARENT_FD_VARIABLE, "")
    if not text:
        return None
    try:
        fd = int(text)
        os.fstat(fd)
    except (ValueError, OSError):
        raise ConfigurationError(f"{PARENT_FD_VARIABLE} is internal and names no open pipe; unset it.") from None
    return fd


def has_ended(fd: int) -> bool:
    """Whether the pipe's other end is closed, to be asked when `fd` is readable."""
    try:
        return not os.read(fd, 4096)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True


def watch_parent(loop: asyncio.AbstractEventLoop, on_gone: Callable[[], None]) -> None:
    """Call `on_gone` once the supervisor is gone; does nothing if there is none.

    Raises ConfigurationError like `parent_fd`.
    """
    fd = parent_fd()
    if fd is None:
        return

    def readable() -> None:
        if has_ended(fd):
            loop.remove_reader(fd)
            on_gone()

    loop.add_reader(fd, readable)
