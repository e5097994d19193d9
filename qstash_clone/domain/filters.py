"""What selects messages, dead letters and log entries; see docs/protocol/filters.md."""

import re
from typing import Final

import msgspec

from qstash_clone.domain.lanes import parse_route
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.message import Extras, StoredMessage
from qstash_clone.domain.urls import origin_of
from qstash_clone.ids import MessageId

_PATH = re.compile(r"[^/?]*//[^/?]*([^?]*)")


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Different fields combine with AND, the values of one with OR; None is no condition."""

    message_ids: frozenset[MessageId] | None = None
    urls: frozenset[str] | None = None
    """Compared as a whole, exactly as published."""
    hosts: frozenset[str] | None = None
    """In lower case, each with or without its port."""
    paths: frozenset[str] | None = None
    """Without the query; `/` where the URL has none."""
    url_groups: frozenset[str] | None = None
    """The group that the message was published to."""
    queue_names: frozenset[str] | None = None
    """The queue that the message is a member of; callbacks are members of none."""
    schedule_ids: frozenset[str] | None = None
    flow_control_keys: frozenset[str] | None = None
    labels: frozenset[str] | None = None
    """One that the message has is enough."""
    caller_ips: frozenset[str] | None = None
    events: frozenset[LogEvent] | None = None
    """For log entries."""
    response_statuses: frozenset[int] | None = None
    """For dead letters: the status of the last attempt."""
    from_ms: int | None = None
    to_ms: int | None = None
    """Both inclusive. Against the entry's time in the log, the time of entering the dead letter queue, or the
    message's creation."""

    @property
    def selects_everything(self) -> bool:
        """It has no condition at all."""
        return self == EVERYTHING

    def matches(self, stored: StoredMessage) -> bool:
        """Whether a message is selected, by its creation and by whatever is known of it; events do not count."""
        message = stored.message
        return (
            (self.from_ms is None or stored.created_ms >= self.from_ms)
            and (self.to_ms is None or stored.created_ms <= self.to_ms)
            and (self.message_ids is None or stored.id in self.message_ids)
            and (self.urls is None or message.url in self.urls)
            and (self.labels is None or not self.labels.isdisjoint(message.labels))
            and (self.caller_ips is None or message.caller_ip in self.caller_ips)
            and (self.hosts is None or not self.hosts.isdisjoint(hosts_of(message.url)))
            and (self.paths is None or path_of(message.url) in self.paths)
            and (self.response_statuses is None or _status(stored) in self.response_statuses)
            and self._matches_origin(message.extras or _NO_EXTRAS)
            and self._matches_route(stored.lane)
        )

    def _matches_origin(self, extras: Extras) -> bool:
        return (self.url_groups is None or extras.url_group in self.url_groups) and (
            self.schedule_ids is None or extras.schedule_id in self.schedule_ids
        )

    def _matches_route(self, text: str) -> bool:
        if self.queue_names is None and self.flow_control_keys is None:
            return True
        route = parse_route(text)
        return (self.queue_names is None or route.queue in self.queue_names) and (
            self.flow_control_keys is None or route.flow_control_key in self.flow_control_keys
        )


EVERYTHING: Final = Filter()
_NO_EXTRAS = Extras()


def _status(stored: StoredMessage) -> int:
    return 0 if stored.last_attempt is None else stored.last_attempt.status


def hosts_of(url: str) -> frozenset[str]:
    """The spellings by which a filter may name the host of a URL: with and without the port, in lower case."""
    origin = origin_of(url)
    if ":" not in origin.host:
        return frozenset((origin.host, f"{origin.host}:{origin.port}"))
    return frozenset((origin.host, f"[{origin.host}]", f"[{origin.host}]:{origin.port}"))


def path_of(url: str) -> str:
    """The path of a URL as it is written, without the query; `/` if there is none."""
    match = _PATH.match(url)
    return (match[1] if match is not None else "") or "/"
