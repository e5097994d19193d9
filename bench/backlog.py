"""Puts many messages into the store at once, through the same store code that the api uses."""

import asyncio
from collections.abc import Callable

from bench.tools.samples import BODY, HEADERS
from qstash_clone.domain.lanes import host_lane
from qstash_clone.domain.message import Message, NewMessage
from qstash_clone.ids import format_message_id
from qstash_clone.storage.store import Store

_AT_ONCE = 1000


async def lay(
    store: Store,
    count: int,
    url: str,
    *,
    delay_ms: int = 0,
    not_before_ms: Callable[[int], int] | None = None,
) -> list[str]:
    """Store `count` messages for `url`; returns their ids. `not_before_ms` gives the due time of each by its number."""
    message = Message(url=url, headers=HEADERS, caller_ip="127.0.0.1")
    lane = host_lane(url)
    publishing = store.publishing
    message_ids: list[str] = []
    for start in range(0, count, _AT_ONCE):
        new = [
            NewMessage(
                id=publishing.new_message_id(),
                message=message,
                body=BODY,
                lane=lane,
                delay_ms=delay_ms,
                not_before_ms=None if not_before_ms is None else not_before_ms(number),
            )
            for number in range(start, min(start + _AT_ONCE, count))
        ]
        await asyncio.gather(*(publishing.publish(one) for one in new))
        message_ids += [format_message_id(one.id) for one in new]
    return message_ids
