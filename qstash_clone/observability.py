"""Structured log events, their names, and the metric instruments of every process.

An event is encoded where it happens (about two microseconds) and written by a background thread at most 100 ms
later, so a slow reader of the log never holds up the event loop; what does not fit the buffer is dropped and counted.
"""

import atexit
import logging
import os
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from typing import Any, Final, Literal, cast

import msgspec

from qstash_clone.instruments import Counter, Histogram, LabeledCounter

# Event names: what happened, in the past tense, written when it ended.
SERVER_STARTED: Final = "server.started"
SERVER_STOPPED: Final = "server.stopped"
PROCESS_ENDED: Final = "process.ended"
STORE_OPENED: Final = "store.opened"
STORE_INITIALISED: Final = "store.initialised"
TOPIC_LOG_DAMAGED: Final = "topic.log_damaged"
STORE_UNAVAILABLE: Final = "store.unavailable"
STORE_RECOVERED: Final = "store.recovered"
SIGNING_KEYS_DIFFER: Final = "signing_keys.differ"
REQUEST_SERVED: Final = "request.served"
REQUEST_REFUSED: Final = "request.refused"
REQUEST_FAILED: Final = "request.failed"
MESSAGE_PUBLISHED: Final = "message.published"
MESSAGE_DEDUPLICATED: Final = "message.deduplicated"
BATCH_PUBLISHED: Final = "batch.published"
MESSAGE_QUARANTINED: Final = "message.quarantined"
ATTEMPT_SETTLED: Final = "attempt.settled"
LEASE_LOST: Final = "lease.lost"
CLAIM_FAILED: Final = "claim.failed"
TIMERS_PROMOTED: Final = "timers.promoted"
SCHEDULE_CREATED: Final = "schedule.created"
SCHEDULE_DEDUPLICATED: Final = "schedule.deduplicated"
SCHEDULE_FIRED: Final = "schedule.fired"
SCHEDULE_MISSED: Final = "schedule.missed"
SCHEDULE_FAILED: Final = "schedule.failed"
SCHEDULE_STUCK: Final = "schedule.stuck"
SCHEDULES_HELD: Final = "schedules.held"
WORKER_STARTED: Final = "worker.started"
WORKER_DRAINING: Final = "worker.draining"
WORKER_STOPPED: Final = "worker.stopped"
LOOP_FAILED: Final = "loop.failed"
RETENTION_CUT_SHORT: Final = "retention.cut_short"
CLOCK_SKEWED: Final = "clock.skewed"
CLOCK_JUMPED: Final = "clock.jumped"
LOG_DROPPED: Final = "log.dropped"
LOG_LINE: Final = "log.line"
"""A line of a library's own logger."""

_LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ATTEMPT_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 7200)
_GROUP_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 100)

ROUTES: Final = (
    "publish", "enqueue", "batch", "messages", "dlq", "log", "deduplication", "preview", "keys", "queues",
    "flow_control", "schedules", "url_groups", "livez", "readyz", "metrics", "openapi", "dev", "unmatched", "protocol",
    "produce", "webhook", "fetch", "consume", "commit", "delete_consumer", "committed", "offsets", "consumers",
    "topics", "records_v1", "records_v2", "schema_registry",
)  # fmt: skip
"""The values of the label `route`; `protocol` counts requests refused before they reached a route."""

REQUESTS = LabeledCounter(
    "http_requests",
    "Requests answered by the api.",
    {"route": ROUTES, "status": ("2xx", "4xx", "5xx")},
)
MESSAGES_PUBLISHED = Counter("messages_published", "Messages stored by a publish.")
MESSAGES_DEDUPLICATED = Counter("messages_deduplicated", "Publishes that repeated an earlier one and stored nothing.")
RECORDS_PRODUCED = Counter("records_produced", "Records appended to topics, by whichever API.")
PUBLISH_DURATION = Histogram("publish_duration_seconds", "From a publish's headers to its answer.", _LATENCY_BOUNDS_S)
PUBLISH_GROUP_SIZE = Histogram("publish_group_size", "Messages that travelled in one publish script.", _GROUP_BOUNDS)
SETTLE_GROUP_SIZE = Histogram("settle_group_size", "Attempts that travelled in one settle script.", _GROUP_BOUNDS)
ATTEMPTS = LabeledCounter(
    "attempts",
    "Attempts that ended, by what they led to; `stale` ones had lost their lease.",
    {"outcome": ("delivered", "retry", "failed", "canceled", "stale")},
)
ATTEMPT_DURATION = Histogram("attempt_duration_seconds", "One HTTP exchange with a destination.", _ATTEMPT_BOUNDS_S)
DELIVERY_LATENESS = Histogram(
    "delivery_lateness_seconds", "From the time a message was due to the start of its attempt.", _ATTEMPT_BOUNDS_S
)
REDELIVERIES = Counter("redeliveries", "Attempts begun again because an earlier worker lost its lease.")
LEASES_LOST = Counter("leases_lost", "Leases that were gone when their worker wanted to renew them or to settle.")
MESSAGES_QUARANTINED = Counter(
    "messages_quarantined", "Messages dead-lettered because they were claimed too often without a result."
)
SCHEDULES_FIRED = Counter("schedules_fired", "Instants of schedules at which something was published.")
SCHEDULES_MISSED = Counter(
    "schedules_missed", "Times a schedule was so late that instants of it were passed over, after an outage."
)
SCHEDULES_FAILED = Counter(
    "schedules_failed", "Instants of schedules at which there was nothing to publish to: a URL group gone or empty."
)
SCHEDULE_LATENESS = Histogram(
    "schedule_lateness_seconds", "From an instant of a schedule to the storing of its messages.", _ATTEMPT_BOUNDS_S
)
FINISHED_SHED = Counter(
    "finished_messages_shed", "Finished messages dropped from the log before their age, for memory or its length."
)
DEDUPLICATION_SHED = Counter(
    "deduplication_shed", "Deduplication records dropped before their window was over, because there were too many."
)
LOG_EVENTS_DROPPED = Counter("log_events_dropped", "Log events dropped because their reader was too slow.")


_FLUSH_INTERVAL_S = 0.1
_EXIT_PATIENCE_S = 2.0
_BUFFER_LINES = 20_000
"""About 5 MB of events: three seconds of a process that publishes as fast as it can."""
_OFF = logging.CRITICAL + 1
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LEVEL_NAMES = {value: name for name, value in _LEVELS.items()} | {logging.CRITICAL: "critical"}
_MASK = "***"
_SENSITIVE_FIELDS = frozenset({"token", "qstash_token", "authorization", "password", "secret", "signing_key"})
_SHORTEST_SECRET = 6
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_PLAIN_WORD = re.compile(r"[^\s\"=\x00-\x1f]+")


class _Sink:
    """Buffers encoded lines and writes them to a file descriptor from a thread of its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: list[bytes] = []
        self._dropped = 0
        self._wake = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def append(self, line: bytes) -> None:
        lines = self._lines
        if len(lines) >= _BUFFER_LINES:
            self._dropped += 1
            LOG_EVENTS_DROPPED.inc()
            return
        lines.append(line)
        if len(lines) == 1:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log-flush", daemon=True)
                self._thread.start()
            self._wake.set()

    def flush(self) -> None:
        """Write what is buffered, without waiting longer than two seconds for the reader."""
        deadline = time.monotonic() + _EXIT_PATIENCE_S
        if not self._writing.acquire(timeout=_EXIT_PATIENCE_S):
            return
        try:
            data = memoryview(self._take())
            while data and _is_writable(self._fd, deadline - time.monotonic()):
                # A pipe that is writable takes a page without blocking.
                data = data[_write(self._fd, data[:4096]) :]
        finally:
            self._writing.release()

    def forget_thread(self) -> None:
        """For a forked child: the thread stayed with the parent, and so did the responsibility for its lines."""
        self._lines.clear()
        self._thread = None
        self._wake = threading.Event()
        self._writing = threading.Lock()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(_FLUSH_INTERVAL_S)
            self._wake.clear()
            with self._writing:
                data = memoryview(self._take())
                while data:
                    if _is_writable(self._fd, None):
                        data = data[_write(self._fd, data) :]

    def _take(self) -> bytes:
        # Copying and deleting a prefix keeps the list that `append` may hold at this moment.
        lines = self._lines
        taken = lines[:]
        del lines[: len(taken)]
        if lines:
            # What came in between was not the first of an empty list, so nobody was woken for it.
            self._wake.set()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            taken.append(_format(logging.WARNING, LOG_DROPPED, {"events": dropped}))
        return b"".join(taken)


def _is_writable(fd: int, timeout_s: float | None) -> bool:
    try:
        return bool(select.select([], [fd], [], None if timeout_s is None else max(0.0, timeout_s))[1])
    except (OSError, ValueError):
        return True  # The write will say what is wrong.


def _write(fd: int, data: memoryview) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)  # The reader is gone; the service goes on.


class _Formats:
    """Turns events into lines; the time's text is cached for the second it is in."""

    def __init__(self) -> None:
        self.is_text = False
        self.tail = b""
        self.secrets: tuple[bytes, ...] = ()
        self._encode = msgspec.json.Encoder(enc_hook=str).encode
        self._second = -1
        self._second_text = ""

    def line(self, level: int, event: str, fields: dict[str, Any]) -> bytes:
        milliseconds = time.time_ns() // 1_000_000
        second = milliseconds // 1000
        if second != self._second:
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        if not _SENSITIVE_FIELDS.isdisjoint(fields):
            fields = {name: _MASK if name in _SENSITIVE_FIELDS else value for name, value in fields.items()}
        moment = f"{self._second_text}.{milliseconds % 1000:03d}Z"
        level_name = _LEVEL_NAMES.get(level, "info")
        if self.is_text:
            line = self._text(moment, level_name, event, fields)
        else:
            head = f'{{"time":"{moment}","level":"{level_name}","event":"{event}"'.encode()
            encoded = self._json(fields)
            line = head + self.tail + (b"," + encoded[1:] if len(encoded) > 2 else b"}") + b"\n"
        for secret in self.secrets:
            if secret in line:
                line = line.replace(secret, _MASK.encode())
        return line

    def _json(self, value: object) -> bytes:
        try:
            return self._encode(value)
        except UnicodeEncodeError:
            return self._encode(_printable(value))

    def _text(self, moment: str, level_name: str, event: str, fields: dict[str, Any]) -> bytes:
        shown = dict(fields)
        trace = shown.pop("traceback", None)
        words = [f"{moment} {level_name.upper():<7} {event}"]
        for name, value in shown.items():
            text = value if isinstance(value, str) else self._json(value).decode()
            words.append(f"{name}={text if _PLAIN_WORD.fullmatch(text) else self._json(text).decode()}")
        line = " ".join(words)
        if trace is not None:
            line += "\n" + "\n".join("    " + part for part in str(trace).splitlines())
        return line.encode("utf-8", "backslashreplace") + b"\n"


def _printable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in cast("list[object]", value)]
    return value


_formats = _Formats()
_format = _formats.line


class _State:
    threshold = _OFF
    sink: _Sink | None = None
    role = ""


def emit(event: str, /, *, level: int = logging.INFO, **fields: object) -> None:
    """Record that something happened; returns at once when the level is off or logging was never configured.

    Strings, numbers, lists and maps are written as they are, anything else as `str()` shows it.
    """
    if level < _State.threshold or _State.sink is None:
        return
    _State.sink.append(_format(level, event, fields))


def is_enabled(level: int) -> bool:
    """Whether an event of this level would be written: to skip gathering its fields."""
    return level >= _State.threshold


def describe(error: BaseException) -> str:
    """The traceback of an error, for an event's field `traceback`."""
    return "".join(traceback.format_exception(error))


def mask_url(text: str) -> str:
    """A text with the user and password of every URL in it hidden."""
    return _URL_CREDENTIALS.sub(_MASK + "@", text)


def configure_logging(
    *,
    log_format: Literal["json", "text"],
    level: Literal["debug", "info", "warning", "error", "none"],
    role: str,
    secrets: Iterable[str] = (),
    fd: int | None = None,
) -> None:
    """Write events, and what libraries log, to standard output (or `fd`) from now on.

    `role` is the kind of process (`api`, `worker`), a field of each JSON line together with the process id.
    `secrets` are values that are replaced by `***` wherever they would appear.
    """
    flush_logs()
    _formats.is_text = log_format == "text"
    _formats.secrets = tuple(secret.encode() for secret in secrets if len(secret) >= _SHORTEST_SECRET)
    _State.threshold = _LEVELS.get(level, _OFF)
    _State.sink = _Sink(_standard_output() if fd is None else fd)
    _set_role(role)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler())
    # Libraries report each connection on `info`; what they do is in this service's own events.
    root.setLevel(logging.DEBUG if level == "debug" else max(_State.threshold, logging.WARNING))
    logging.captureWarnings(True)


def flush_logs() -> None:
    """Write everything emitted so far; called at exit by itself, to be called before `os._exit`."""
    if _State.sink is not None:
        _State.sink.flush()


def _standard_output() -> int:
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return 1


def _set_role(role: str) -> None:
    _State.role = role
    _formats.tail = f',"role":{msgspec.json.encode(role).decode()},"pid":{os.getpid()}'.encode()


def _after_fork() -> None:
    if _State.sink is not None:
        _State.sink.forget_thread()
        _set_role(_State.role)


class _LibraryHandler(logging.Handler):
    """Sends the records of standard loggers (uvicorn, redis, asyncio, aiohttp) through `emit`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: dict[str, object] = {"logger": record.name, "message": mask_url(record.getMessage().strip())}
            if record.exc_info and record.exc_info[1] is not None:
                fields["traceback"] = mask_url(describe(record.exc_info[1]))
            emit(LOG_LINE, level=record.levelno, **fields)
        except Exception:
            self.handleError(record)


atexit.register(flush_logs)
os.register_at_fork(after_in_child=_after_fork)
