"""Builders for the values that go through the store, and steps that most tests begin with."""

from collections.abc import Sequence

import msgspec

from qstash_clone.domain.message import (
    AttemptRecord,
    CallbackMessage,
    Claim,
    Deduplication,
    Message,
    NewMessage,
    Settlement,
    SettlementKind,
)
from qstash_clone.ids import MessageId
from qstash_clone.storage.store import Store

LANE = "h:receiver.example"
CALLBACK_LANE = "h:callback.example"
FAILURE = AttemptRecord(status=500, error="destination answered 500", headers=(("X-Why", "tests"),), body=b"no")


def new_message(
    store: Store,
    *,
    id: MessageId | None = None,  # noqa: A002 (the name it has in the value)
    body: bytes = b"body",
    lane: str = LANE,
    delay_ms: int = 0,
    not_before_ms: int | None = None,
    url: str = "https://receiver.example/",
    deduplication: Deduplication | None = None,
) -> NewMessage:
    """A message ready to be published."""
    return NewMessage(
        id=id or store.publishing.new_message_id(deduplication),
        message=Message(url=url, headers=(("X-Test", "1"),)),
        body=body,
        lane=lane,
        delay_ms=delay_ms,
        not_before_ms=not_before_ms,
        deduplication=deduplication,
    )


def new_callback(
    store: Store,
    *,
    partition: int = 0,
    body: bytes = b'{"status":200}',
    lane: str = CALLBACK_LANE,
    delay_ms: int = 0,
    dlq_id_at: int | None = None,
) -> CallbackMessage:
    """A callback ready to be stored by a settlement."""
    message = NewMessage(
        id=store.delivery.new_message_id(partition),
        message=Message(url="https://callback.example/", headers=(("Content-Type", "application/json"),)),
        body=body,
        lane=lane,
        delay_ms=delay_ms,
    )
    return CallbackMessage(message=message, dlq_id_at=dlq_id_at)


def reported(settlement: Settlement, *callbacks: CallbackMessage) -> Settlement:
    """The settlement with callbacks."""
    return msgspec.structs.replace(settlement, callbacks=callbacks)


async def publish(
    store: Store, *, body: bytes = b"body", lane: str = LANE, delay_ms: int = 0, not_before_ms: int | None = None
) -> MessageId:
    """Publish one message."""
    message = new_message(store, body=body, lane=lane, delay_ms=delay_ms, not_before_ms=not_before_ms)
    await store.publishing.publish(message)
    return message.id


async def claim_all(
    store: Store, consumer: str = "w1", *, limit: int = 1000, reclaim: bool = False, partition: int = 0
) -> list[Claim]:
    """The claims of one call."""
    return (await store.delivery.claim(partition, consumer, limit, reclaim=reclaim)).claims


async def claim_one(store: Store, consumer: str = "w1", *, reclaim: bool = False, partition: int = 0) -> Claim:
    """The claim of the only message that is ready."""
    [claim] = await claim_all(store, consumer, reclaim=reclaim, partition=partition)
    return claim


def delivered(claim: Claim) -> Settlement:
    return Settlement(claim=claim, kind=SettlementKind.DELIVERED)


def retry(claim: Claim, delay_ms: int = 1000, attempt: AttemptRecord = FAILURE) -> Settlement:
    return Settlement(claim=claim, kind=SettlementKind.RETRY, delay_ms=delay_ms, attempt=attempt)


def failed(claim: Claim, attempt: AttemptRecord = FAILURE) -> Settlement:
    return Settlement(claim=claim, kind=SettlementKind.FAILED, attempt=attempt)


async def dead_letter(store: Store, *, body: bytes = b"body", lane: str = LANE) -> str:
    """Publish a message, let it fail for good, and return its id in the dead letter queue."""
    message_id = await publish(store, body=body, lane=lane)
    claims: Sequence[Claim] = await claim_all(store)
    await store.delivery.settle(failed(next(claim for claim in claims if claim.id == message_id)))
    page = await store.admin.list_dead_letters(cursor=None, count=1000, newest_first=True)
    return next(entry.dlq_id for entry in page.entries if entry.stored.id == message_id)
