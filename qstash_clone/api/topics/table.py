"""The routes of the Kafka REST APIs as one table, matched on the raw path."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from qstash_clone.api.errors import WrongMethod
from qstash_clone.api.requests import Head
from qstash_clone.api.topics.calls import ErrorShape, Handler
from qstash_clone.api.topics.credentials import Grant
from qstash_clone.errors import NotFound

UNMATCHED: Final = "unmatched"
_SHARED: Final = b"v2"
"""Where paths that are not in the table belong to somebody else."""


class TopicApi(msgspec.Struct, frozen=True):
    """What the routes of one API have in common."""

    authenticate: Callable[[Head], Grant]
    """Runs before anything else about a request is looked at. Raises `Unauthorized`."""
    error_shape: ErrorShape
    max_url_bytes: int


class TopicRow(NamedTuple):
    """One line of the table."""

    methods: str
    """Separated by blanks; `HEAD` counts as none of them, because reading changes state in these APIs."""
    path: str
    """`{name}` takes one raw segment, a last `{name:path}` one or more."""
    handler: Handler
    api: TopicApi
    label: str
    """Of the metrics: one of `observability.ROUTES`."""


class _Pattern:
    """All rows of one path."""

    def __init__(self, path: str) -> None:
        parts = path.encode().lower().split(b"/")[1:]
        self.first = parts[0]
        self.count = len(parts)
        self.takes_rest = path.endswith(":path}")
        self.rows: dict[str, TopicRow] = {}
        self._fixed = [(at, part) for at, part in enumerate(parts) if at and part[:1] != b"{"]
        self._taken = [at for at, part in enumerate(parts) if part[:1] == b"{"]

    def match(self, parts: Sequence[bytes]) -> tuple[str, ...] | None:
        """What stands for the braces, where the first part and their number are right."""
        for at, part in self._fixed:
            if parts[at].lower() != part:
                return None
        taken = [parts[at] for at in self._taken]
        if self.takes_rest:
            taken += parts[self.count :]
        return tuple([part.decode("latin-1") for part in taken])


class Found(NamedTuple):
    """The path of a request is that of one of these APIs."""

    api: TopicApi
    label: str
    row: TopicRow | None
    """None: the path does not exist, or not with this method."""
    segments: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    """The methods that the path has."""

    def refusal(self, head: Head) -> Exception:
        """Why there is no row."""
        if self.allowed:
            return WrongMethod(head.method, self.allowed)
        return NotFound(f"no such path: {head.raw_path[:100].decode('latin-1')}")


class TopicTable:
    """Finds rows; fixed segments count in any case, and a slash at the end like none."""

    def __init__(self, rows: Sequence[TopicRow]) -> None:
        self._patterns: dict[bytes, list[_Pattern]] = {}
        by_path: dict[str, _Pattern] = {}
        for row in rows:
            pattern = by_path.get(row.path)
            if pattern is None:
                pattern = by_path[row.path] = _Pattern(row.path)
                self._patterns.setdefault(pattern.first, []).append(pattern)
            pattern.rows |= dict.fromkeys(row.methods.split(), row)

    def find(self, head: Head) -> Found | None:
        """The row of a request; None if its path is none of these APIs'."""
        parts = head.raw_path.split(b"/")
        # A base URL that ends with a slash makes two of them.
        first = 2 if not parts[1] and len(parts) > 2 else 1
        patterns = self._patterns.get(parts[first].lower())
        if patterns is None:
            return None
        del parts[:first]
        if not parts[-1]:
            parts.pop()
        count = len(parts)
        for pattern in patterns:
            if pattern.count != count and not (pattern.takes_rest and pattern.count < count):
                continue
            segments = pattern.match(parts)
            if segments is not None:
                row = pattern.rows.get(head.method)
                if row is not None:
                    return Found(row.api, row.label, row, segments)
                some = next(iter(pattern.rows.values()))
                return Found(some.api, some.label, None, segments, tuple(sorted(pattern.rows)))
        if patterns[0].first == _SHARED:
            return None
        return Found(next(iter(patterns[0].rows.values())).api, UNMATCHED, None)
