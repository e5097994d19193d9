"""A child process that is started again when it dies, and given up when it dies at once again and again."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import qstash_clone
from qstash_clone.errors import ConfigurationError

SHORT_LIFE_S = 5.0
MAX_SHORT_LIVES = 5
MAX_DELAY_S = 5.0
CONFIGURATION_EXIT_CODES = (2, os.EX_CONFIG)


class RestartPolicy:
    """When to start again what ended: at once after a long life, later and later after short ones."""

    def __init__(self) -> None:
        self._short_lives = 0

    def delay_after(self, lived_s: float, exit_code: int) -> float | None:
        """Seconds to wait before the next start; None to give up.

        Waits of 0.2, 0.4, 0.8, 1.6 s, then 3.2 and 5 s. A wrong setting does not mend itself, so its exit code ends
        the attempts at once. What was killed from outside is not blamed for its short life and always started again.
        """
        if exit_code in CONFIGURATION_EXIT_CODES:
            return None
        if lived_s >= SHORT_LIFE_S:
            self._short_lives = 0
            return 0.0
        self._short_lives += 1
        if self._short_lives >= MAX_SHORT_LIVES and exit_code != -signal.SIGKILL:
            return None
        return min(MAX_DELAY_S, 0.2 * 2 ** min(self._short_lives - 1, 10))


class Child:
    """One role of the service, run as the command that a production user runs."""

    def __init__(
        self,
        name: str,
        arguments: tuple[str, ...],
        *,
        environ: Mapping[str, str],
        inherited_fd: int,
        command: tuple[str, ...] = (),
    ) -> None:
        """Nothing is started yet; `inherited_fd` stays open in the child, `command` is for tests."""
        self.name = name
        # -P keeps a folder called "worker" where the user stands from being taken for ours.
        self._command = command or (sys.executable, "-P", "-m", "qstash_clone.cli", *arguments)
        self._environ = {**environ, **_source_path(environ)}
        self._inherited_fd = inherited_fd
        self._policy = RestartPolicy()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._due_s = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, now_s: float) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            pass_fds=(self._inherited_fd,),
            start_new_session=True,  # the terminal's Ctrl-C is for the supervisor, which stops in order
        )
        self._started_s = now_s

    def tend(self, now_s: float) -> str | None:
        """Notice an end and start again when it is time; the sentence to show if something has happened.

        Raises ConfigurationError when it is given up.
        """
        if self.is_running():
            return None
        if self._process is None:
            if now_s >= self._due_s:
                self.start(now_s)
            return None
        ended = f"{self.name} (process {self._process.pid}) {_describe_exit(self._process.returncode)}"
        delay_s = self._policy.delay_after(now_s - self._started_s, self._process.returncode)
        self._process = None
        if delay_s is None:
            raise ConfigurationError(f"{ended}; its reason is in the lines above.")
        self._due_s = now_s + delay_s
        if delay_s == 0:
            self.start(now_s)
        return f"{ended} and is started again" + (f" in {delay_s:.1f} s." if delay_s else ".")

    @property
    def due_s(self) -> float | None:
        """When `tend` has something to do without a signal; None while the child runs."""
        return self._due_s if self._process is None else None

    def terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the child now, and with it the processes it has started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _source_path(environ: Mapping[str, str]) -> dict[str, str]:
    """What lets a child find this very package when it runs from a source tree."""
    root = Path(qstash_clone.__file__).resolve().parents[1]
    if "site-packages" in root.parts:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(root), environ.get("PYTHONPATH", ""))))}
