"""The dead letter queue: listing by filter, and taking entries out, one or many."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from qstash_clone.domain.filters import EVERYTHING, Filter
from qstash_clone.domain.lanes import Route, parse_route
from qstash_clone.domain.message import DeadLetter, Extras, Message
from qstash_clone.domain.overrides import AT_ONCE, Delay
from qstash_clone.domain.planning import plan_lanes
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest
from qstash_clone.ids import MessageId
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION, decode_record, encode_limits, encode_message, find_lane
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.interface import DeadLetterPage
from qstash_clone.storage.partitions import buckets_of, lane_partition
from qstash_clone.storage.places import Place, parse_cursor
from qstash_clone.storage.publish_store import member_error
from qstash_clone.storage.records import Records
from qstash_clone.storage.selection import collect_page, record_filter
from qstash_clone.storage.stream_walk import StreamEntry, StreamWalk

DELETE_TOGETHER: Final = 100


class DeadLetterStore:
    """The part of `AdminStore` that is about dead letters."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    async def list_dead_letters(
        self, selection: Filter = EVERYTHING, *, cursor: str | None, count: int, newest_first: bool
    ) -> DeadLetterPage:
        walk = StreamWalk(
            self._access.commands,
            [(partition, keys.dlq, keys) for partition, keys in enumerate(self._access.keys)],
            self._access.partitions,
            newest_first=newest_first,
            after=parse_cursor(cursor),
            from_ms=selection.from_ms,
            to_ms=selection.to_ms,
        )

        def identify(entry: StreamEntry) -> MessageId | None:
            message_id = MessageId(entry.value)
            return message_id if selection.message_ids is None or message_id in selection.message_ids else None

        records = Records(self._access)
        found, last = await collect_page(
            walk,
            records,
            count,
            identify=identify,
            accepts=record_filter(selection),
            takes_all=selection.selects_everything,
            needs_attempts=selection.response_statuses is not None,
        )
        entries = [
            DeadLetter(dlq_id=str(one.entry.place), stored=decode_record(one.message_id, record))
            for one in found
            if (record := records.whole(one.message_id)) is not None
        ]
        return DeadLetterPage(entries=entries, cursor=None if last is None else str(last))

    async def get_dead_letter(self, dlq_id: str) -> DeadLetter | None:
        [letter] = await self.get_dead_letters([dlq_id])
        return letter

    async def get_dead_letters(self, dlq_ids: Sequence[str]) -> list[DeadLetter | None]:
        places = {dlq_id: place for dlq_id in dlq_ids if (place := Place.parse(dlq_id)) is not None}
        commands: list[Sequence[Argument]] = []
        for place in places.values():
            partition, entry = place.entry_of(self._access.partitions)
            commands.append(("XRANGE", self._access.keys[partition].dlq, entry, entry))
        entries = await self._access.commands.ask_all(commands) if commands else []
        owners = {dlq_id: MessageId(found[0][1][b"i"]) for dlq_id, found in zip(places, entries, strict=True) if found}
        records = Records(self._access)
        await records.peek(owners.values())
        await records.complete(owners.values())
        letters: dict[str, DeadLetter] = {}
        for dlq_id, message_id in owners.items():
            record = records.whole(message_id)
            if record is not None:
                letters[dlq_id] = DeadLetter(dlq_id=dlq_id, stored=decode_record(message_id, record))
        return [letters.get(dlq_id) for dlq_id in dlq_ids]

    async def delete_dead_letter(self, dlq_id: str) -> bool:
        return await self.delete_dead_letters([dlq_id]) == 1

    async def delete_dead_letters(self, dlq_ids: Sequence[str]) -> int:
        by_partition: dict[int, list[str]] = defaultdict(list)
        for dlq_id in dict.fromkeys(dlq_ids):
            place = Place.parse(dlq_id)
            if place is not None:
                partition, entry = place.entry_of(self._access.partitions)
                by_partition[partition].append(entry)
        count = 0
        for partition, entries in by_partition.items():
            for at in range(0, len(entries), DELETE_TOGETHER):
                count += await self._delete(partition, entries[at : at + DELETE_TOGETHER])
        return count

    async def _delete(self, partition: int, entries: Sequence[str]) -> int:
        keys = self._access.keys[partition]
        reply, is_repeated = await self._access.runner.run(
            "delete_dead_letter",
            [keys.meta, keys.dlq, keys.log],
            [STORAGE_VERSION, int(self._access.is_logged), self._access.finished_retention_ms, *entries],
        )
        count = 0
        for word in reply[1:]:
            if word.startswith(b"error "):
                raise member_error(word)
            # Not there any more after a lost reply: most probably because the lost reply said "deleted".
            count += word == b"deleted" or is_repeated
        return count

    async def retry_dead_letter(self, dlq_id: str) -> MessageId | None:
        dead_letter = await self.get_dead_letter(dlq_id)
        if dead_letter is None:
            # Its record may be gone while its entry is still there.
            await self.delete_dead_letter(dlq_id)
            return None
        return await self.retry_dead_letter_as(dead_letter, dead_letter.stored.message)

    def _route(self, dead_letter: DeadLetter, message: Message, partition: int) -> Route:
        """Where the message waits this time: in its queue, and under the key that it has now."""
        route, extras = parse_route(dead_letter.stored.lane), message.extras or Extras()
        for lane in plan_lanes(extras, route.queue):
            if lane_partition(lane, self._access.partitions) != partition:
                raise InvalidRequest(
                    f"{quoted(lane[2:])}: this flow-control key lives in another partition than the dead letter"
                    f" {dead_letter.dlq_id}, which can only be retried within its own"
                )
        control = extras.flow_control
        key = route.flow_control_key if control is None else control.key
        # The member whose callback it may be has left its queue.
        return msgspec.structs.replace(route, flow_control_key=key, slot=None)

    async def retry_dead_letter_as(
        self, dead_letter: DeadLetter, message: Message, delay: Delay = AT_ONCE
    ) -> MessageId | None:
        place = Place.parse(dead_letter.dlq_id)
        if place is None:
            return None
        partition, entry = place.entry_of(self._access.partitions)
        keys = self._access.keys[partition]
        route = self._route(dead_letter, message, partition)
        lane, encoded = route.text.encode(), encode_message(message)
        new_id = self._access.ids.next_id(*buckets_of(partition, self._access.partitions))
        reply, _ = await self._access.runner.run(
            "retry_dead_letter",
            [keys.meta, keys.log, keys.dlq],
            [
                STORAGE_VERSION,
                int(self._access.is_logged),
                self._access.finished_retention_ms,
                entry,
                new_id,
                lane,
                find_lane(lane, encoded),
                encoded,
                encode_limits(message),
                delay.delay_ms,
                -1 if delay.not_before_ms is None else delay.not_before_ms,
            ],
        )
        return new_id if reply[0] == b"stored" else None
