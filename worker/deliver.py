"""Takes one claim through one HTTP exchange to its settlement; each in a task of its own."""

import asyncio
import contextlib
import math
import os
from collections.abc import Callable

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.domain.callbacks import plan_callbacks
from qstash_clone.domain.delivery import build_request
from qstash_clone.domain.llm import LlmUpstream, is_for_llm
from qstash_clone.domain.message import Claim, Settlement, SettlementKind
from qstash_clone.domain.outcome import AttemptResult, BackoffPolicy, KeptAnswer, decide, quarantine_record
from qstash_clone.domain.signing import sign
from qstash_clone.errors import StorageError
from qstash_clone.storage.interface import DeliveryStore, SettleResult
from worker import telemetry
from worker.holdings import Delivery, Holdings, Slots
from worker.loop import Backoff
from worker.redis_clock import RedisClock
from worker.settle import Settler
from worker.transport import Transport


class LeaseLost(Exception):
    """Another worker may deliver this message by now."""


class Deliverer:
    """Delivers claims side by side.

    A claim of a message that was claimed too often is settled as failed instead: it probably kills its workers.

    A bug met while one message is prepared or sent ends that attempt only: it is settled as a failed one, so that it
    is shown, backed off and finally dead-lettered like any other failure. A bug met after the exchange leaves the
    lease to expire: the message comes back, and the count of its claims dead-letters it if that goes on.
    """

    def __init__(
        self,
        *,
        store: DeliveryStore,
        transport: Transport,
        settler: Settler,
        holdings: Holdings,
        slots: Slots,
        redis_clocks: list[RedisClock],
        policy: BackoffPolicy,
        kept: KeptAnswer,
        consumer: str,
        region: str | None,
        llm: LlmUpstream | None,
        on_retry: Callable[[int, int], None],
        lease_ms: int,
        max_claims: int,
        clock: Clock,
    ) -> None:
        self._store = store
        self._transport = transport
        self._settler = settler
        self._holdings = holdings
        self._slots = slots
        self._redis_clocks = redis_clocks
        self._policy = policy
        self._kept = kept
        self._consumer = consumer
        self._region = region
        self._llm = llm
        self._on_retry = on_retry
        self._lease_ms = lease_ms
        self._max_claims = max_claims
        self._clock = clock
        self._jwt_prefix = os.urandom(10).hex()
        self._jwt_count = 0

    def start(self, claim: Claim, signing_key: str, lease_until_ms: float, start_until_ms: float = math.inf) -> None:
        """Deliver this claim in the background. It occupies a slot that was taken for it, and gives it back."""
        delivery = Delivery(claim, signing_key, lease_until_ms, start_until_ms)
        self._holdings.add(delivery)
        delivery.task = asyncio.create_task(self._deliver(delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            if delivery.claim.claims > self._max_claims:
                await self._quarantine(delivery)
            else:
                await self._attempt(delivery)
        except LeaseLost:
            telemetry.lease_lost(delivery.claim, "before the attempt began")
        except Exception as error:
            telemetry.delivery_crashed(delivery.claim, error)
        finally:
            self._holdings.remove(delivery)
            self._slots.give_back()

    async def _attempt(self, delivery: Delivery) -> None:
        claim = delivery.claim
        if self._clock.monotonic_ms() >= delivery.lease_until_ms:
            await self._renew(delivery)
        body = await self._whole_body(delivery)
        redis_clock = self._redis_clocks[claim.partition]
        if self._clock.monotonic_ms() >= delivery.start_until_ms:
            await self._hand_back(claim)
            return
        telemetry.attempt_begins(claim, redis_clock.message_now_ms())
        result = await self._exchange(delivery, body)
        settlement = decide(claim, result, self._policy, redis_clock.now_ms(), kept=self._kept)
        if claim.message.extras is not None:
            settlement = self._with_callbacks(settlement, result, body)
        settled = await self._settler.settle(delivery, settlement)
        if settled is None or settled is SettleResult.STALE:
            telemetry.attempt_stale(claim)
            return
        telemetry.attempt_settled(settlement, result, settled)
        if settlement.kind is SettlementKind.RETRY:
            self._on_retry(claim.partition, settlement.delay_ms)

    async def _hand_back(self, claim: Claim) -> None:
        """The attempt is counted in a rate window that is over, and the next one may be full already. Should handing it
        back fail, the message comes back when its lease is over."""
        telemetry.window_missed(claim)
        with contextlib.suppress(StorageError):
            await self._store.release([claim])

    async def _quarantine(self, delivery: Delivery) -> None:
        """If this worker dies here as well, the next one that claims the message comes here again; after as many tries
        as there were to deliver it, the message goes without its callbacks."""
        claim = delivery.claim
        attempt = quarantine_record(self._max_claims)
        settlement = Settlement(claim=claim, kind=SettlementKind.FAILED, attempt=attempt)
        if claim.message.extras is not None and claim.claims <= 2 * self._max_claims:
            body = await self._whole_body(delivery)
            settlement = self._with_callbacks(settlement, AttemptResult(error=attempt.error), body)
        if await self._settler.settle(delivery, settlement) is SettleResult.SETTLED:
            telemetry.quarantined(claim.id)

    def _with_callbacks(self, settlement: Settlement, result: AttemptResult, body: bytes) -> Settlement:
        """The settlement with the callbacks that it leads to. A bug costs the callbacks and not the settlement:
        otherwise the destination would get the message again and again."""
        claim = settlement.claim
        try:
            callbacks = plan_callbacks(
                claim, body, settlement, result, lambda: self._store.new_message_id(claim.partition)
            )
        except Exception as error:
            telemetry.delivery_crashed(claim, error)
            return settlement
        return msgspec.structs.replace(settlement, callbacks=callbacks) if callbacks else settlement

    async def _exchange(self, delivery: Delivery, body: bytes) -> AttemptResult:
        claim = delivery.claim
        if is_for_llm(claim.message) and (self._llm is None or not self._llm.takes(claim.message)):
            return AttemptResult(error="the LLM upstream that this message was accepted for is configured no more")
        try:
            signature = sign(
                delivery.signing_key,
                url=claim.message.url,
                body=body,
                issued_at_s=self._redis_clocks[claim.partition].now_ms() // 1000,
                jwt_id=self._next_jwt_id(),
            )
            request = build_request(claim, body, signature, self._region, self._llm)
            return await self._transport.send(request, claim.message.timeout_ms)
        except Exception as error:
            telemetry.delivery_crashed(claim, error)
            return AttemptResult(error=f"the request could not be made ({type(error).__name__})")

    async def _renew(self, delivery: Delivery) -> None:
        """A lease that may have run out between claim and now (a stopped process, a slow machine) is renewed first:
        without an answer, the message is left to whoever reclaims it."""
        asked_ms = self._clock.monotonic_ms()
        try:
            lost = await self._store.extend(delivery.claim.partition, self._consumer, [delivery.claim])
        except StorageError:
            raise LeaseLost from None
        if lost:
            raise LeaseLost
        delivery.lease_until_ms = asked_ms + self._lease_ms

    async def _whole_body(self, delivery: Delivery) -> bytes:
        claim = delivery.claim
        if len(claim.body) == claim.body_bytes:
            return claim.body
        backoff = Backoff()
        while True:
            try:
                return await self._store.fetch_body(delivery.claim)
            except StorageError:
                if self._clock.monotonic_ms() >= delivery.lease_until_ms:
                    raise LeaseLost from None
                await self._clock.sleep(backoff.next_ms())

    def _next_jwt_id(self) -> str:
        """Unique: 80 random bits of this start, and a counter."""
        self._jwt_count += 1
        return f"{self._jwt_prefix}{self._jwt_count:012x}"
