"""What workers do: claim, extend, settle, release, promote, and the care of partitions."""

import logging
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from qstash_clone import observability
from qstash_clone.domain.message import CallbackMessage, Claim, Settlement, SettlementKind, SigningKeys
from qstash_clone.domain.outcome import quarantine_record
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import MessageId, MessageIdGenerator
from qstash_clone.storage.codec import (
    HEAD_BYTES,
    STORAGE_VERSION,
    body_range,
    decode_claim,
    encode_attempt,
    encode_limits,
    encode_message,
    fence_of,
)
from qstash_clone.storage.commands import FAULTS, Argument, RedisCommands, translate
from qstash_clone.storage.grouping import Grouper
from qstash_clone.storage.interface import FOR_EVER_MS, ClaimBatch, PromoteReport, SettleResult
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.partitions import buckets_of
from qstash_clone.storage.publish_store import encode_lane, member_error
from qstash_clone.storage.scripts import ScriptRunner

HEARTBEAT_SILENT_MS: Final = 10_000
"""A worker not heard of for ten heartbeats no longer counts as capacity."""
CLAIM_RECORD_BYTES: Final = 65_536 + 8_192
"""Bodies up to 64 KiB come along with the claim."""
EXTEND_MAX_CLAIMS: Final = 500
ADMIT_TURNS: Final = 1_000
DEPARTED_CONSUMER_MS: Final = 600_000
FLOW_IDLE_MS: Final = 600_000
"""A flow-control key that nobody uses for so long is forgotten."""
DEDUPLICATION_RECORD_BYTES: Final = 200
"""What one deduplication record needs in Redis: key, value, two dictionary entries, and its entry in the stream."""

_KINDS: Final = {SettlementKind.DELIVERED: "d", SettlementKind.RETRY: "r", SettlementKind.FAILED: "f"}
_RESULTS: Final = {
    b"settled": SettleResult.SETTLED,
    b"done": SettleResult.SETTLED,
    b"canceled": SettleResult.CANCELED,
    b"stale": SettleResult.STALE,
}
_Encoded = tuple[tuple[Argument, ...], int]
"""The arguments of settle.lua for one attempt and its callbacks, and what they weigh in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """The settings that the delivery scripts apply."""

    lease_ms: int
    max_claims: int
    finished_retention_ms: int
    """How long the record of a finished message stays."""
    dlq_retention_ms: int
    is_logged: bool
    log_retention_ms: int
    log_max_entries: int
    finished_max_bytes: int
    """Of the records of finished messages and their log entries; 0 is no limit."""
    finished_grace_ms: int
    """How long the record of a finished message stays even so."""
    dedup_max_bytes: int
    """0 is no limit."""
    global_parallelism: int = 0
    """Deliveries at once, whatever the workers can hold; 0 is no limit."""


class RedisDeliveryStore:
    """`DeliveryStore` on Redis."""

    def __init__(
        self,
        commands: RedisCommands,
        runner: ScriptRunner,
        keys: Sequence[PartitionKeys],
        ids: MessageIdGenerator,
        limits: DeliveryLimits,
    ) -> None:
        self._commands = commands
        self._runner = runner
        self._keys = keys
        self._ids = ids
        self._limits = limits
        self._shedding: set[int] = set()
        """Partitions whose last call of `expire` dropped finished messages before their age."""
        self._groupers = [
            Grouper[_Encoded, SettleResult](
                self._settle_caller(partition), _weigh, observability.SETTLE_GROUP_SIZE.observe
            )
            for partition in range(len(keys))
        ]

    @property
    def partitions(self) -> int:
        return len(self._keys)

    def new_message_id(self, partition: int) -> MessageId:
        return self._ids.next_id(*buckets_of(partition, len(self._keys)))

    async def heartbeat(self, consumer: str, capacity: int) -> None:
        share = -(-capacity // len(self._keys))
        for keys in self._keys:
            await self._heartbeat(keys, consumer, share)

    async def leave(self, consumer: str) -> None:
        for keys in self._keys:
            await self._heartbeat(keys, consumer, -1)

    async def _heartbeat(self, keys: PartitionKeys, consumer: str, holds: int) -> None:
        # Rounded down: together the partitions must not have more.
        most = self._limits.global_parallelism and max(1, self._limits.global_parallelism // len(self._keys))
        await self._runner.run(
            "heartbeat",
            [keys.meta, keys.ready, keys.ring, keys.parked, keys.workers, keys.capacity],
            [STORAGE_VERSION, CONSUMER_GROUP, consumer, holds, HEARTBEAT_SILENT_MS, ADMIT_TURNS, most],
        )

    async def wait(self, partition: int, consumer: str, limit: int, timeout_ms: int) -> Sequence[bytes]:
        keys = self._keys[partition]
        command = ("XREADGROUP", "GROUP", CONSUMER_GROUP, consumer, "COUNT", limit, "BLOCK", timeout_ms)
        try:
            reply = await self._commands.send(*command, "STREAMS", keys.ready, ">")
        except FAULTS as error:
            if str(error).startswith("NOGROUP"):
                # Redis was emptied under us.
                await self._runner.heal()
                return []
            raise translate(error) from error
        if not reply:
            return []
        return [entry_id + b" " + fields.get(b"i", b"") for entry_id, fields in reply[0][1]]

    async def claim(
        self,
        partition: int,
        consumer: str,
        limit: int,
        *,
        taken: Sequence[bytes] = (),
        reclaim: bool = False,
        reclaim_until_ms: int = FOR_EVER_MS,
    ) -> ClaimBatch:
        keys, limits = self._keys[partition], self._limits
        args: list[Argument] = [
            STORAGE_VERSION,
            CONSUMER_GROUP,
            consumer,
            limit,
            limits.lease_ms if reclaim else 0,
            reclaim_until_ms,
            CLAIM_RECORD_BYTES,
            int(limits.is_logged),
            limits.finished_retention_ms,
        ]
        for token in taken:
            entry_id, _, message_id = token.partition(b" ")
            args += (entry_id, message_id)
        reply, is_repeated = await self._runner.run(
            "claim", [keys.meta, keys.ready, keys.ring, keys.parked, keys.log], args
        )
        _, now_ms, current_key, next_key, rang, faults, *claimed = reply
        # Their entries stay pending and are reclaimed when their lease is over.
        _report(faults)
        claims: list[Claim] = []
        given_up: list[MessageId] = []
        for at in range(0, len(claimed), 4):
            entry_id, message_id, record, start_within_ms = claimed[at : at + 4]
            try:
                claims.append(decode_claim(partition, entry_id, message_id, record, start_within_ms))
            except (ValueError, struct.error) as error:
                # Left to its lease, and after `max_claims` to the dead letters: it must not take the others along.
                detail = f"The record of {message_id.hex()} cannot be read: {error}"
                observability.emit(observability.CLAIM_FAILED, level=logging.ERROR, detail=detail)
                if await self._give_up(partition, entry_id, message_id, record):
                    given_up.append(MessageId(message_id))
        return ClaimBatch(
            claims=claims,
            now_ms=now_ms,
            signing_keys=SigningKeys(current=current_key.decode(), next=next_key.decode()),
            dead_lettered=given_up,
            # The reply that was lost may have had a doorbell in it.
            rang=rang == 1 or is_repeated,
        )

    async def _give_up(self, partition: int, entry_id: bytes, message_id: bytes, record: bytes) -> bool:
        """Dead-letter a message that no worker can read, if it was claimed too often; returns whether it was."""
        generation, claims = fence_of(record)
        if claims <= self._limits.max_claims:
            return False
        attempt = encode_attempt(quarantine_record(self._limits.max_claims))
        arguments = (entry_id, message_id, generation, _KINDS[SettlementKind.FAILED], 0, attempt, 0)
        return await self._groupers[partition].submit((arguments, len(attempt))) is SettleResult.SETTLED

    async def fetch_body(self, claim: Claim) -> bytes:
        key = self._keys[claim.partition].message(claim.id)
        head = await self._commands.ask("GETRANGE", key, 0, HEAD_BYTES - 1)
        if len(head) < HEAD_BYTES:
            raise StorageUnavailable(f"The record of {claim.id.hex()} is gone.")
        body = await self._commands.ask("GETRANGE", key, *body_range(head))
        if len(body) != claim.body_bytes:
            # It went between the two reads, and what is left must not be delivered as if it were the message.
            raise StorageUnavailable(f"The record of {claim.id.hex()} is gone.")
        return body

    async def extend(self, partition: int, consumer: str, claims: Sequence[Claim]) -> list[Claim]:
        keys = self._keys[partition]
        lost: list[Claim] = []
        for at in range(0, len(claims), EXTEND_MAX_CLAIMS):
            part = claims[at : at + EXTEND_MAX_CLAIMS]
            args: list[Argument] = [STORAGE_VERSION, CONSUMER_GROUP, consumer]
            for claim in part:
                args += (claim.entry_id, claim.id, claim.generation)
            reply, _ = await self._runner.run("extend", [keys.meta, keys.ready], args)
            lost += [part[position - 1] for position in reply[1:]]
        return lost

    async def settle(self, settlement: Settlement) -> SettleResult:
        claim, callbacks = settlement.claim, settlement.callbacks
        attempt = b"" if settlement.attempt is None else encode_attempt(settlement.attempt)
        arguments: tuple[Argument, ...] = (
            claim.entry_id,
            claim.id,
            claim.generation,
            _KINDS[settlement.kind],
            settlement.delay_ms,
            attempt,
            len(callbacks),
        )
        weight = len(attempt)
        for callback in callbacks:
            encoded, callback_weight = _encode_callback(callback)
            arguments += encoded
            weight += callback_weight
        return await self._groupers[claim.partition].submit((arguments, weight))

    def _settle_caller(
        self, partition: int
    ) -> Callable[[Sequence[_Encoded]], Awaitable[Sequence[SettleResult | Exception]]]:
        keys, limits = self._keys[partition], self._limits
        key_list = [keys.meta, keys.ready, keys.timers, keys.ring, keys.parked, keys.log, keys.dlq]
        fixed: tuple[Argument, ...] = (
            STORAGE_VERSION,
            CONSUMER_GROUP,
            int(limits.is_logged),
            limits.finished_retention_ms,
            limits.dlq_retention_ms,
            len(self._keys),
            partition,
        )

        async def call(group: Sequence[_Encoded]) -> list[SettleResult | Exception]:
            args: list[Argument] = [*fixed]
            for arguments, _ in group:
                args.extend(arguments)
            reply, _ = await self._runner.run("settle", key_list, args)
            return [_RESULTS.get(word) or member_error(word) for word in reply[1:]]

        return call

    async def release(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        keys = self._keys[claims[0].partition]
        args: list[Argument] = [STORAGE_VERSION, CONSUMER_GROUP]
        for claim in claims:
            args += (claim.entry_id, claim.id, claim.generation)
        reply, _ = await self._runner.run("release", [keys.meta, keys.ready], args)
        for word in reply[1:]:
            if word not in (b"released", b"stale"):
                raise member_error(word)

    async def promote(self, partition: int, limit: int) -> PromoteReport:
        keys = self._keys[partition]
        reply, _ = await self._runner.run(
            "promote", [keys.meta, keys.ready, keys.timers, keys.ring, keys.windows], [STORAGE_VERSION, limit]
        )
        _, now_ms, promoted, next_due_ms, is_frozen, real_ms, *faults = reply
        _report(faults)
        return PromoteReport(
            promoted=promoted,
            next_due_ms=None if next_due_ms < 0 else next_due_ms,
            now_ms=now_ms,
            real_ms=real_ms,
            is_frozen=is_frozen == 1,
        )

    async def expire(self, partition: int, limit: int) -> int:
        keys, limits = self._keys[partition], self._limits
        reply, _ = await self._runner.run(
            "expire",
            [keys.meta, keys.ready, keys.log, keys.dlq, keys.workers, keys.flows],
            [
                STORAGE_VERSION,
                CONSUMER_GROUP,
                limit,
                limits.log_retention_ms,
                -(-limits.log_max_entries // len(self._keys)),
                -(-limits.finished_max_bytes // len(self._keys)),
                limits.finished_grace_ms,
                limits.dlq_retention_ms,
                DEPARTED_CONSUMER_MS,
                FLOW_IDLE_MS,
            ],
        )
        _, dropped, shed = reply
        self._report_shed(partition, shed)
        return dropped + await self._trim_deduplication(keys, limit)

    def _report_shed(self, partition: int, shed: int) -> None:
        """Count finished messages that go early, and tell when that begins."""
        if shed:
            observability.FINISHED_SHED.inc(shed)
        if shed and partition not in self._shedding:
            observability.emit(observability.RETENTION_CUT_SHORT, level=logging.WARNING, partition=partition)
        (self._shedding.add if shed else self._shedding.discard)(partition)

    async def _trim_deduplication(self, keys: PartitionKeys, limit: int) -> int:
        max_records = -1
        if self._limits.dedup_max_bytes:
            max_records = self._limits.dedup_max_bytes // (DEDUPLICATION_RECORD_BYTES * len(self._keys))
        reply, _ = await self._runner.run(
            "trim_deduplication", [keys.meta, keys.dedup], [STORAGE_VERSION, limit, max_records]
        )
        _, dropped, shed = reply
        if shed:
            observability.DEDUPLICATION_SHED.inc(shed)
        return dropped


def _encode_callback(callback: CallbackMessage) -> tuple[tuple[Argument, ...], int]:
    """The eight arguments of settle.lua for one callback, and what they weigh."""
    message = callback.message
    encoded = encode_message(message.message)
    lane, lane_at = encode_lane(message, encoded)
    dlq_id_at = -1 if callback.dlq_id_at is None else callback.dlq_id_at
    limits = encode_limits(message.message)
    arguments = (message.id, message.delay_ms, lane, lane_at, encoded, message.body, limits, dlq_id_at)
    return arguments, len(encoded) + len(message.body)


def _report(faults: Sequence[bytes]) -> None:
    for fault in faults:
        observability.emit(observability.CLAIM_FAILED, level=logging.ERROR, detail=fault.decode(errors="replace"))


def _weigh(encoded: _Encoded) -> int:
    return encoded[1]
