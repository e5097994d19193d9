"""What selects messages, dead letters and log entries; see docs/protocol/filters.md."""

import msgspec

from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.ids import MessageId


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Different fields combine with AND, the values of one with OR; None is no condition."""

    message_ids: frozenset[MessageId] | None = None
    urls: frozenset[str] | None = None
    hosts: frozenset[str] | None = None
    paths: frozenset[str] | None = None
    url_groups: frozenset[str] | None = None
    queue_names: frozenset[str] | None = None
    schedule_ids: frozenset[str] | None = None
    flow_control_keys: frozenset[str] | None = None
    labels: frozenset[str] | None = None
    caller_ips: frozenset[str] | None = None
    events: frozenset[LogEvent] | None = None
    """For log entries."""
    response_statuses: frozenset[int] | None = None
    """For dead letters: the status of the last attempt."""
    from_ms: int | None = None
    to_ms: int | None = None
    """Both inclusive. Against the entry's time in the log, the time of entering the dead letter queue, or the
    message's creation."""
