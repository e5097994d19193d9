"""What callers see of the lanes with limits of their own: queues and flow-control keys."""

import msgspec


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue and how many of its messages are not final yet."""

    name: str
    parallelism: int
    is_paused: bool
    created_ms: int
    updated_ms: int
    lag: int
    """Members that are not final, delayed ones included."""


class FlowControlKey(msgspec.Struct, frozen=True, kw_only=True):
    """A flow-control key: its limits, and what they hold at the moment. Limits of 0 are no limits."""

    key: str
    waiting: int
    """Due messages that wait for room."""
    parallelism: int
    in_flight: int
    rate: int
    """Attempts that may start in one period."""
    rate_count: int
    """Those that started in the current window."""
    period_ms: int
    window_started_ms: int
    """Unix time; 0 while no window is open."""
    is_paused: bool
    is_parallelism_pinned: bool
    is_rate_pinned: bool
