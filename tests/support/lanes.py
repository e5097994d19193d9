"""Builders for members of queues and messages with flow-control keys, their callbacks, and steps between them."""

from typing import Any

import msgspec

from qstash_clone.domain.lanes import Route
from qstash_clone.domain.limited_lanes import FlowControlKey, Queue
from qstash_clone.domain.message import CallbackMessage, Claim, Extras, FlowControl, NewMessage
from qstash_clone.ids import MessageId
from qstash_clone.storage.store import Store
from tests.support.messages import claim_all, new_callback, new_message

QUEUE = "orders"
KEY = "tenant-7"
HOST = "callback.example"


def new_member(
    store: Store, *, queue: str | None = None, key: str | None = None, delay_ms: int = 0, **limits: Any
) -> NewMessage:
    """A message ready to be published, subject to the limits of a queue, a key, or both."""
    route = Route(queue=queue, flow_control_key=key, host=HOST)
    message = new_message(
        store, id=store.publishing.new_message_id(None, route.limited_lanes), lane=route.text, delay_ms=delay_ms
    )
    return message if key is None else with_limits(message, key, **limits)


def with_limits(message: NewMessage, key: str, **limits: Any) -> NewMessage:
    """The same message, which brings these limits for its key."""
    flow_control = FlowControl(key=key, **(limits or {"parallelism": 100}))
    inner = msgspec.structs.replace(message.message, extras=Extras(flow_control=flow_control))
    return msgspec.structs.replace(message, message=inner)


async def enqueue(store: Store, queue: str = QUEUE, *, key: str | None = None, delay_ms: int = 0) -> MessageId:
    """Publish one member of a queue."""
    message = new_member(store, queue=queue, key=key, delay_ms=delay_ms)
    await store.publishing.publish(message)
    return message.id


async def publish_keyed(
    store: Store, key: str = KEY, *, queue: str | None = None, delay_ms: int = 0, **limits: Any
) -> MessageId:
    """Publish one message with these limits for its key."""
    message = new_member(store, queue=queue, key=key, delay_ms=delay_ms, **limits)
    await store.publishing.publish(message)
    return message.id


def new_report(
    store: Store, claim: Claim, queue: str | None = QUEUE, *, key: str | None = None, delay_ms: int = 0
) -> CallbackMessage:
    """A callback, of a member of a queue if one is given, ready to be stored by the settlement of this claim."""
    slot = None if queue is None else (queue, claim.id)
    route = Route(flow_control_key=key, host=HOST, slot=slot)
    callback = new_callback(store, partition=claim.partition, lane=route.text, delay_ms=delay_ms)
    if key is None:
        return callback
    return msgspec.structs.replace(callback, message=with_limits(callback.message, key))


async def put_queue(
    store: Store, name: str = QUEUE, parallelism: int | None = None, is_paused: bool | None = None
) -> None:
    """Create or change a queue."""
    assert await store.queues.put_queue(name, parallelism=parallelism, is_paused=is_paused, max_queues=1_000_000)


async def shown_queue(store: Store, name: str = QUEUE) -> Queue:
    found = await store.queues.get_queue(name)
    assert found is not None
    return found


async def shown_key(store: Store, key: str = KEY) -> FlowControlKey:
    found = await store.flow_controls.get_flow_control_key(key)
    assert found is not None
    return found


async def claimed(store: Store, consumer: str = "w1", *, limit: int = 1000) -> list[MessageId]:
    """The ids of what one call of claim returns."""
    return [claim.id for claim in await claim_all(store, consumer, limit=limit)]
