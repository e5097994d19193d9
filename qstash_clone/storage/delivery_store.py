"""What workers do: claim, extend, settle, release, promote, and the care of partitions."""

import logging
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from qstash_clone import observability
from qstash_clone.domain.message import AttemptRecord, Claim, Settlement, SettlementKind, SigningKeys
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.storage.codec import HEAD_BYTES, STORAGE_VERSION, body_range, decode_claim, encode_attempt
from qstash_clone.storage.commands import FAULTS, Argument, RedisCommands, translate
from qstash_clone.storage.grouping import Grouper
from qstash_clone.storage.interface import FOR_EVER_MS, ClaimBatch, PromoteReport, SettleResult
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.publish_store import member_error
from qstash_clone.storage.scripts import ScriptRunner

HEARTBEAT_SILENT_MS: Final = 10_000
"""A worker not heard of for ten heartbeats no longer counts as capacity."""
CLAIM_RECORD_BYTES: Final = 65_536 + 8_192
"""Bodies up to 64 KiB come along with the claim."""
EXTEND_MAX_CLAIMS: Final = 500
ADMIT_TURNS: Final = 1_000
DEPARTED_CONSUMER_MS: Final = 600_000

_KINDS: Final = {SettlementKind.DELIVERED: "d", SettlementKind.RETRY: "r", SettlementKind.FAILED: "f"}
_RESULTS: Final = {
    b"settled": SettleResult.SETTLED,
    b"done": SettleResult.SETTLED,
    b"canceled": SettleResult.CANCELED,
    b"stale": SettleResult.STALE,
}
_Encoded = tuple[bytes, bytes, int, str, int, bytes]
"""The six arguments of settle.lua for one attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """The settings that the delivery scripts apply."""

    lease_ms: int
    max_claims: int
    record_grace_ms: int
    """How long the record of a finished message stays."""
    dlq_retention_ms: int
    log_retention_ms: int
    log_max_entries: int


class RedisDeliveryStore:
    """`DeliveryStore` on Redis."""

    def __init__(
        self,
        commands: RedisCommands,
        runner: ScriptRunner,
        keys: Sequence[PartitionKeys],
        limits: DeliveryLimits,
    ) -> None:
        self._commands = commands
        self._runner = runner
        self._keys = keys
        self._limits = limits
        self._quarantine = encode_attempt(
            AttemptRecord(
                status=0,
                error=f"given up after {limits.max_claims} claims without a result: each time the worker that had"
                " the message stopped or lost its lease",
            )
        )
        self._groupers = [
            Grouper[_Encoded, SettleResult](self._settle_caller(keys), _weigh, observability.SETTLE_GROUP_SIZE.observe)
            for keys in self._keys
        ]

    @property
    def partitions(self) -> int:
        return len(self._keys)

    async def heartbeat(self, consumer: str, capacity: int) -> None:
        share = -(-capacity // len(self._keys))
        for keys in self._keys:
            await self._heartbeat(keys, consumer, share)

    async def leave(self, consumer: str) -> None:
        for keys in self._keys:
            await self._heartbeat(keys, consumer, -1)

    async def _heartbeat(self, keys: PartitionKeys, consumer: str, holds: int) -> None:
        await self._runner.run(
            "heartbeat",
            [keys.meta, keys.ready, keys.ring, keys.parked, keys.workers, keys.capacity],
            [STORAGE_VERSION, CONSUMER_GROUP, consumer, holds, HEARTBEAT_SILENT_MS, ADMIT_TURNS],
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
            limits.max_claims,
            CLAIM_RECORD_BYTES,
            limits.dlq_retention_ms,
            limits.record_grace_ms,
            self._quarantine,
        ]
        for token in taken:
            entry_id, _, message_id = token.partition(b" ")
            args += (entry_id, message_id)
        reply, is_repeated = await self._runner.run(
            "claim", [keys.meta, keys.ready, keys.ring, keys.parked, keys.log, keys.dlq], args
        )
        _, now_ms, current_key, next_key, rang, dead, faults, *claimed = reply
        # Their entries stay pending and are reclaimed when their lease is over.
        _report(faults)
        claims: list[Claim] = []
        for at in range(0, len(claimed), 3):
            try:
                claims.append(decode_claim(partition, *claimed[at : at + 3]))
            except (ValueError, struct.error) as error:
                # Left to its lease, and after `max_claims` to the quarantine: it must not take the others along.
                detail = f"The record of {claimed[at + 1].hex()} cannot be read: {error}"
                observability.emit(observability.CLAIM_FAILED, level=logging.ERROR, detail=detail)
        return ClaimBatch(
            claims=claims,
            now_ms=now_ms,
            signing_keys=SigningKeys(current=current_key.decode(), next=next_key.decode()),
            dead_lettered=[MessageId(message_id) for message_id in dead],
            # The reply that was lost may have had a doorbell in it.
            rang=rang == 1 or is_repeated,
        )

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
        claim = settlement.claim
        attempt = b"" if settlement.attempt is None else encode_attempt(settlement.attempt)
        return await self._groupers[claim.partition].submit(
            (claim.entry_id, claim.id, claim.generation, _KINDS[settlement.kind], settlement.delay_ms, attempt)
        )

    def _settle_caller(
        self, keys: PartitionKeys
    ) -> Callable[[Sequence[_Encoded]], Awaitable[Sequence[SettleResult | Exception]]]:
        key_list = [keys.meta, keys.ready, keys.timers, keys.ring, keys.parked, keys.log, keys.dlq]
        fixed = (STORAGE_VERSION, CONSUMER_GROUP, self._limits.record_grace_ms, self._limits.dlq_retention_ms)

        async def call(group: Sequence[_Encoded]) -> list[SettleResult | Exception]:
            args: list[Argument] = [*fixed]
            for encoded in group:
                args.extend(encoded)
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
            "promote", [keys.meta, keys.ready, keys.timers, keys.ring], [STORAGE_VERSION, limit]
        )
        _, now_ms, promoted, next_due_ms, *faults = reply
        _report(faults)
        return PromoteReport(promoted=promoted, next_due_ms=None if next_due_ms < 0 else next_due_ms, now_ms=now_ms)

    async def expire(self, partition: int, limit: int) -> int:
        keys, limits = self._keys[partition], self._limits
        reply, _ = await self._runner.run(
            "expire",
            [keys.meta, keys.ready, keys.log, keys.dlq, keys.workers],
            [
                STORAGE_VERSION,
                CONSUMER_GROUP,
                limit,
                limits.log_retention_ms,
                -(-limits.log_max_entries // len(self._keys)),
                limits.dlq_retention_ms,
                DEPARTED_CONSUMER_MS,
            ],
        )
        return reply[1]


def _report(faults: Sequence[bytes]) -> None:
    for fault in faults:
        observability.emit(observability.CLAIM_FAILED, level=logging.ERROR, detail=fault.decode(errors="replace"))


def _weigh(encoded: _Encoded) -> int:
    return len(encoded[5])
