"""Single messages: what one is, where it waits, and cancelling by id."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from qstash_clone.domain.message import State, StoredMessage
from qstash_clone.ids import MessageId
from qstash_clone.storage.access import StoreAccess, ask_time, store_time_ms
from qstash_clone.storage.codec import STORAGE_VERSION, decode_record
from qstash_clone.storage.interface import CancelResult, HeldUpBy, Whereabouts
from qstash_clone.storage.publish_store import member_error

CANCEL_TOGETHER: Final = 100
"""About 2 ms in Redis."""

_COUNTED: Final = frozenset({CancelResult.CANCELED, CancelResult.REQUESTED})


class MessageStore:
    """The part of `AdminStore` that knows its messages by their ids."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    async def get_message(self, message_id: MessageId) -> StoredMessage | None:
        keys = self._access.keys_of(message_id)
        record, *times = await self._access.commands.ask_all([("GET", keys.message(message_id)), *ask_time(keys)])
        return None if record is None else self._shown(message_id, record, store_time_ms(*times))

    def _shown(self, message_id: MessageId, record: bytes, now_ms: int) -> StoredMessage | None:
        """The message, unless it is to be known from the log alone."""
        stored = decode_record(message_id, record)
        if stored.state is State.CANCELED:
            return None
        if stored.state.is_final and now_ms - stored.due_ms > self._access.message_grace_ms:
            return None
        return stored

    async def locate(self, message_id: MessageId) -> Whereabouts | None:
        keys = self._access.keys_of(message_id)
        reply, _ = await self._access.runner.run(
            "locate", [keys.meta, keys.ready, keys.parked, keys.workers], [STORAGE_VERSION, message_id]
        )
        if reply[0] == b"not_found":
            return None
        _, now_ms, record, is_admitted, waiting, admitted, is_parked, free, workers, capacity = reply[:10]
        lane, held_up_by, held_until_ms = reply[10:]
        stored = self._shown(message_id, record, now_ms)
        if stored is None:
            return None
        return Whereabouts(
            stored=stored,
            now_ms=now_ms,
            is_admitted=is_admitted == 1,
            lane=lane.decode(),
            held_up_by=HeldUpBy(held_up_by.decode()),
            held_until_ms=held_until_ms or None,
            lane_waiting=waiting,
            lane_admitted=admitted,
            is_lane_parked=is_parked == 1,
            free_places=free,
            workers=workers,
            capacity=capacity,
        )

    async def cancel(self, message_id: MessageId) -> CancelResult:
        [result] = await cancel_together(self._access, self._access.partition_of(message_id), [message_id])
        return result

    async def cancel_many(self, message_ids: Sequence[MessageId]) -> int:
        by_partition: dict[int, list[MessageId]] = defaultdict(list)
        for message_id in dict.fromkeys(message_ids):
            by_partition[self._access.partition_of(message_id)].append(message_id)
        count = 0
        for partition, ids in by_partition.items():
            for at in range(0, len(ids), CANCEL_TOGETHER):
                results = await cancel_together(self._access, partition, ids[at : at + CANCEL_TOGETHER])
                count += count_newly_cancelled(results)
        return count


async def cancel_together(access: StoreAccess, partition: int, message_ids: Sequence[MessageId]) -> list[CancelResult]:
    """Cancel messages of one partition in one step each; a result per id.

    Raises `StorageUnavailable` if one of them could not be cancelled; the others were, and may be counted again.
    """
    keys = access.keys[partition]
    reply, is_repeated = await access.runner.run(
        "cancel",
        [keys.meta, keys.timers, keys.ring, keys.parked, keys.log],
        [STORAGE_VERSION, int(access.is_logged), access.finished_retention_ms, *message_ids],
    )
    return [_result(word, is_repeated=is_repeated) for word in reply[1:]]


def _result(word: bytes, *, is_repeated: bool) -> CancelResult:
    if word.startswith(b"error "):
        raise member_error(word)
    text = word.decode()
    if text == "already_canceled":
        # The reply of an earlier try of this very call may be the one that was lost.
        return CancelResult.CANCELED if is_repeated else CancelResult.NOT_FOUND
    if text == "already_requested" and is_repeated:
        return CancelResult.REQUESTED
    return CancelResult(text)


def count_newly_cancelled(results: Sequence[CancelResult]) -> int:
    """How many of these were cancelled, or asked to be, by this very call."""
    return sum(result in _COUNTED for result in results)
