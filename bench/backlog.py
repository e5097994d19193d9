"""Puts many messages into the store at once, through the same store code that the api uses."""

import asyncio
from collections.abc import Callable

from bench.tools.samples import BODY, HEADERS
from qstash_clone.domain.lanes import flow_control_lane, host_lane, queue_lane
from qstash_clone.domain.message import Extras, FlowControl, Message, NewMessage
from qstash_clone.ids import format_message_id
from qstash_clone.storage.store import Store

_AT_ONCE = 1000

Kind = Callable[[int], tuple[Message, str]]
"""What the message of a number is, and its route."""


def plain(url: str) -> Kind:
    """All in the lane of their host."""
    alike = Message(url=url, headers=HEADERS, caller_ip="127.0.0.1"), host_lane(url)
    return lambda number: alike


def queued(url: str, queues: int, *, prefix: str = "queue") -> Kind:
    """Members of so many queues, in turn."""
    message = Message(url=url, headers=HEADERS, caller_ip="127.0.0.1")
    return lambda number: (message, queue_lane(f"{prefix}-{number % queues}"))


def keyed(
    url: str,
    keys: int,
    *,
    parallelism: int | None = None,
    rate: int | None = None,
    period_s: int = 1,
    prefix: str = "key",
) -> Kind:
    """Messages of so many flow-control keys, in turn."""

    def make(number: int) -> tuple[Message, str]:
        key = f"{prefix}-{number % keys}"
        limits = FlowControl(key=key, parallelism=parallelism, rate=rate, period_s=period_s)
        extras = Extras(flow_control=limits)
        return Message(url=url, headers=HEADERS, caller_ip="127.0.0.1", extras=extras), flow_control_lane(key)

    return make


async def lay(
    store: Store,
    count: int,
    kind: Kind,
    *,
    delay_ms: int = 0,
    not_before_ms: Callable[[int], int] | None = None,
) -> list[str]:
    """Store `count` messages of a kind; returns their ids. `not_before_ms` gives the due time of each by its number."""
    publishing = store.publishing
    message_ids: list[str] = []
    for start in range(0, count, _AT_ONCE):
        new: list[NewMessage] = []
        for number in range(start, min(start + _AT_ONCE, count)):
            message, lane = kind(number)
            new.append(
                NewMessage(
                    id=publishing.new_message_id(),
                    message=message,
                    body=BODY,
                    lane=lane,
                    delay_ms=delay_ms,
                    not_before_ms=None if not_before_ms is None else not_before_ms(number),
                )
            )
        await asyncio.gather(*(publishing.publish(one) for one in new))
        message_ids += [format_message_id(one.id) for one in new]
    return message_ids
