"""Random lives of messages, checked step by step against a tiny model and against what lies in Redis."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis.exceptions
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qstash_clone.domain.message import Claim, Deduplication, NewMessage, Settlement, State
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import CancelResult, Published, SettleResult
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.partitions import partition_of
from qstash_clone.storage.store import Store, open_store
from tests.support.messages import delivered, failed, new_callback, new_message, reported, retry
from tests.support.snapshot import Inspector, Partition, Record

WORKERS = ["w1", "w2", "w3"]
LANES = ["h:a", "h:b", "h:c", "h:d"]
ENDS: dict[str, Callable[[Claim], Settlement]] = {
    "delivered": delivered,
    "retry": lambda claim: retry(claim, delay_ms=SOON_MS),
    "retry now": lambda claim: retry(claim, delay_ms=0),
    "failed": failed,
}
DRAIN_ROUNDS = 60
AT = st.integers(0, 999)
"""Chooses among what there is. What is drawn never depends on the store: two runs of an example differ by a
millisecond here and there, and with it in the order of timers."""
NUMBER = st.integers(0, 5)
SOON_MS, LATER_MS = 100_000, 1_000_000
"""Longer than an example takes, so that only a moved clock makes anything due."""
DIGESTS = [bytes([number]) * 16 for number in (0, 100, 200)]
REPORTS = st.lists(st.tuples(st.sampled_from(LANES), st.sampled_from([0, SOON_MS])), max_size=2)
"""Lanes and delays of the callbacks that a settlement brings along."""

ResultT = TypeVar("ResultT")


@dataclass(slots=True, kw_only=True)
class Known:
    """What the model knows of a message."""

    new: NewMessage
    state: State
    generation: int = 0
    claims: int = 0
    retried: int = 0
    cancel_requested: bool = False
    is_aged: bool = False
    """Its lease is over, whether its worker knows or not."""
    taken_by: str | None = None
    """A worker has read its entry and not claimed it yet, as far as that worker heard."""


@dataclass(slots=True, kw_only=True)
class Worker:
    capacity: int
    held: list[Claim] = field(default_factory=list[Claim])
    taken: dict[int, list[bytes]] = field(default_factory=dict[int, list[bytes]])


class StoreMachine(RuleBasedStateMachine):
    """One example is one store on key names of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.runner = asyncio.Runner()
        self.inspector = Inspector(settings.redis_url)
        self.inspector.clear(settings.key_namespace)
        self.raw: Any = redis.Redis.from_url(settings.redis_url)  # pyright: ignore[reportUnknownMemberType]
        self.known: dict[MessageId, Known] = {}
        self.workers: dict[str, Worker] = {}
        self.old_claims: list[Claim] = []
        self.dead_letters: dict[str, MessageId] = {}
        self.on_record: dict[bytes, MessageId] = {}
        """Digest -> the message that was the first with it."""
        self.losing = 0
        self.admitted_before: dict[tuple[int, str], set[bytes]] = {}
        self.store: Store = self.run(open_store(settings))
        self._lose_replies_on_demand()

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        return self.runner.run(work)

    def _lose_replies_on_demand(self) -> None:
        send = self.store.commands.send

        async def lossy(*command: Any) -> Any:
            reply = await send(*command)
            if command[0] == "EVALSHA" and self.losing:
                self.losing -= 1
                raise redis.exceptions.ConnectionError("it worked, but nobody heard")
            return reply

        self.store.commands.send = lossy

    # What lies in Redis

    def partitions(self) -> list[Partition]:
        count = self.settings.partitions
        return [self.inspector.read(self.settings.key_namespace, number, count) for number in range(count)]

    def keys(self, partition: int) -> PartitionKeys:
        return PartitionKeys(self.settings.key_namespace, partition, self.settings.partitions)

    def age(self, message_ids: set[MessageId]) -> None:
        """Make the leases of these messages expire."""
        for number, partition in enumerate(self.partitions()):
            for entry_id, message_id in partition.entries.items():
                if message_id is not None and entry_id in partition.pending and message_id in message_ids:
                    owner = partition.pending[entry_id]
                    self.raw.xclaim(
                        self.keys(number).ready, CONSUMER_GROUP, owner, 0, [entry_id], idle=3_600_000, justid=True
                    )
                    self.known[MessageId(message_id)].is_aged = True

    # Steps

    @initialize(capacity=st.sampled_from([1, 4, 20]))
    def first_worker(self, capacity: int) -> None:
        self.heartbeat("w1", capacity)

    @rule(name=st.sampled_from(WORKERS), capacity=st.sampled_from([0, 1, 3, 8, 30]))
    def heartbeat(self, name: str, capacity: int) -> None:
        self.run(self.store.delivery.heartbeat(name, capacity))
        self.workers.setdefault(name, Worker(capacity=capacity)).capacity = capacity

    @rule(
        lane=st.sampled_from(LANES),
        delay_ms=st.sampled_from([0, 0, 0, SOON_MS, LATER_MS]),
        body=st.sampled_from([b"", b"body", b"x" * 5_000]),
        copies=st.integers(1, 4),
        digest=st.sampled_from([None, None, *DIGESTS]),
    )
    def publish(self, lane: str, delay_ms: int, body: bytes, copies: int, digest: bytes | None) -> None:
        repeat = None if digest is None else Deduplication(digest=digest, window_ms=SOON_MS)
        messages = [
            new_message(self.store, lane=lane, delay_ms=delay_ms, body=body, deduplication=repeat)
            for _ in range(copies)
        ]

        async def publish_all() -> list[Published]:
            return await asyncio.gather(*map(self.store.publishing.publish, messages))

        for message, published in zip(messages, self.run(publish_all()), strict=True):
            first_id = message.id if digest is None else self.on_record.setdefault(digest, message.id)
            assert published == Published(id=first_id, is_duplicate=first_id != message.id)
            if not published.is_duplicate:
                self.know(message)

    def know(self, message: NewMessage) -> None:
        self.known[message.id] = Known(new=message, state=State.DELAYED if message.delay_ms else State.QUEUED)

    @rule(at=AT)
    def publish_again(self, at: int) -> None:
        if not self.known:
            return
        new = self.pick(at, list(self.known.values())).new
        assert self.run(self._publish(new)) == Published(id=new.id)
        if new.deduplication is not None:
            self.on_record.setdefault(new.deduplication.digest, new.id)

    async def _publish(self, new: NewMessage) -> Published:
        return await self.store.publishing.publish(new)

    @rule(digest=st.sampled_from(DIGESTS))
    def forget_repeats(self, digest: bytes) -> None:
        is_lossy = self.losing > 0
        known = digest in self.on_record
        assert self.run(self.store.admin.clear_deduplication(digest)) == known or is_lossy
        self.on_record.pop(digest, None)

    @rule()
    def lose_the_next_reply(self) -> None:
        self.losing = 1

    @rule(at=AT, number=NUMBER, limit=st.integers(1, 3))
    def wait(self, at: int, number: int, limit: int) -> None:
        if not self.workers:
            return
        name, number = self.pick(at, sorted(self.workers)), number % self.settings.partitions
        if not any(entry not in self.partition(number).pending for entry in self.partition(number).entries):
            return  # it would block
        tokens = self.run(self.store.delivery.wait(number, name, limit, 1_000))
        self.workers[name].taken.setdefault(number, []).extend(tokens)
        for token in tokens:
            known = self.known.get(MessageId(token.partition(b" ")[2]))
            if known is not None:
                known.taken_by = name

    @rule(
        at=AT,
        number=NUMBER,
        limit=st.integers(1, 5),
        reclaim=st.booleans(),
        is_heard=st.sampled_from([True, True, False]),
    )
    def claim(self, at: int, number: int, limit: int, reclaim: bool, is_heard: bool) -> None:
        if not self.workers:
            return
        name, number = self.pick(at, sorted(self.workers)), number % self.settings.partitions
        worker = self.workers[name]
        tokens = worker.taken.get(number, [])
        is_lossy = self.losing > 0
        batch = self.run(self.store.delivery.claim(number, name, limit, taken=tokens, reclaim=reclaim))
        assert len(batch.claims) <= max(limit, len(tokens))
        for claim in batch.claims:
            self.check_claim(claim, name, reclaim=reclaim, is_lossy=is_lossy)
        assert batch.dead_lettered == []
        self.take_over_what_only_redis_knows(number, name, reclaim=reclaim, is_lossy=is_lossy)
        if is_heard:
            worker.held += batch.claims
            worker.taken.pop(number, None)
            for known in self.known.values():
                if known.taken_by == name and partition_of(known.new.id, self.settings.partitions) == number:
                    known.taken_by = None
        # Else the worker goes on without an answer: it keeps what it had taken, and forgets the rest.

    def check_claim(self, claim: Claim, name: str, *, reclaim: bool, is_lossy: bool) -> None:
        known = self.known[claim.id]
        assert (claim.message, claim.retried) == (known.new.message, known.retried)
        assert claim.body == known.new.body
        assert not known.cancel_requested
        is_repeated = known.state is State.ACTIVE and known.taken_by == name
        if not is_repeated and not is_lossy:
            assert known.state is State.QUEUED or (reclaim and known.is_aged and known.state is State.ACTIVE)
            assert (claim.generation, claim.claims) == (known.generation + 1, known.claims + 1)
        elif is_repeated and not known.is_aged and not is_lossy:
            assert (claim.generation, claim.claims) == (known.generation, known.claims)
        known.state, known.generation, known.claims, known.is_aged = State.ACTIVE, claim.generation, claim.claims, False

    def take_over_what_only_redis_knows(self, number: int, name: str, *, reclaim: bool, is_lossy: bool) -> None:
        """Cancellations that won, and leases whose reply was lost."""
        for message_id, record in self.partition(number).records.items():
            known, stored = self.known[MessageId(message_id)], record.stored
            if stored.state is State.CANCELED and known.state is not State.CANCELED:
                assert known.cancel_requested
                assert known.state is State.QUEUED or reclaim or known.taken_by == name
                known.state = State.CANCELED
            elif is_lossy and (stored.state, stored.generation) != (known.state, known.generation):
                assert stored.state is State.ACTIVE
                assert stored.generation > known.generation
                known.state, known.generation, known.claims = stored.state, stored.generation, stored.claims
                known.is_aged = False

    @rule(at=AT, end=st.sampled_from(sorted(ENDS)), reports=REPORTS)
    def settle(self, at: int, end: str, reports: list[tuple[str, int]]) -> None:
        holders = sorted(name for name, worker in self.workers.items() if worker.held)
        if not holders:
            return
        held = self.workers[self.pick(at, holders)].held
        claim = held.pop(at % len(held))
        self.old_claims.append(claim)
        self.check_settlement(claim, end, reports)

    @rule(at=AT, end=st.sampled_from(sorted(ENDS)), reports=REPORTS)
    def settle_something_old(self, at: int, end: str, reports: list[tuple[str, int]]) -> None:
        if not self.old_claims:
            return
        self.check_settlement(self.pick(at, self.old_claims), end, reports)

    def check_settlement(self, claim: Claim, end: str, reports: list[tuple[str, int]]) -> None:
        known = self.known[claim.id]
        callbacks = [
            new_callback(self.store, partition=claim.partition, lane=lane, delay_ms=delay_ms)
            for lane, delay_ms in reports
        ]
        result = self.run(self.store.delivery.settle(reported(ENDS[end](claim), *callbacks)))
        if claim.generation != known.generation:
            assert result is SettleResult.STALE
            return
        if known.state is not State.ACTIVE:
            assert result is (SettleResult.CANCELED if known.state is State.CANCELED else SettleResult.SETTLED)
            return
        known.retried, known.claims = known.retried + 1, 0
        if end == "delivered":
            known.state = State.DELIVERED
        elif known.cancel_requested:
            known.state = State.CANCELED
        else:
            known.state = State.FAILED if end == "failed" else State.DELAYED
        if known.state is not State.CANCELED:
            for callback in callbacks:
                self.know(callback.message)
        assert result is (SettleResult.CANCELED if known.state is State.CANCELED else SettleResult.SETTLED)

    @rule(at=AT, number=NUMBER)
    def extend(self, at: int, number: int) -> None:
        if not self.workers:
            return
        name, number = self.pick(at, sorted(self.workers)), number % self.settings.partitions
        claims = [claim for claim in self.workers[name].held if claim.partition == number]
        lost = self.run(self.store.delivery.extend(number, name, claims))
        current: list[Claim] = []
        for claim in claims:
            known = self.known[claim.id]
            if (known.state, known.generation) == (State.ACTIVE, claim.generation):
                current.append(claim)
                known.is_aged = False
        assert lost == [claim for claim in claims if claim not in current]

    @rule(at=AT, number=NUMBER)
    def release(self, at: int, number: int) -> None:
        if not self.workers:
            return
        name, number = self.pick(at, sorted(self.workers)), number % self.settings.partitions
        worker = self.workers[name]
        claims = [claim for claim in worker.held if claim.partition == number]
        self.run(self.store.delivery.release(claims))
        worker.held = [claim for claim in worker.held if claim.partition != number]
        self.old_claims += claims
        for claim in claims:
            known = self.known[claim.id]
            if (known.state, known.generation) == (State.ACTIVE, claim.generation):
                known.state, known.generation, known.claims = State.QUEUED, known.generation + 1, known.claims - 1
                known.is_aged = False

    @rule(at=AT)
    def cancel(self, at: int) -> None:
        if not self.known:
            return
        known = self.pick(at, list(self.known.values()))
        result = self.run(self.store.admin.cancel(known.new.id))
        if known.state.is_final:
            assert result is CancelResult.NOT_FOUND or known.state is State.CANCELED
        elif known.state is not State.ACTIVE:
            assert result is CancelResult.CANCELED
            known.state = State.CANCELED
        elif known.cancel_requested:
            assert result in (CancelResult.ALREADY_REQUESTED, CancelResult.REQUESTED)
        else:
            assert result is CancelResult.REQUESTED
            known.cancel_requested = True

    @rule(at=AT)
    def crash(self, at: int) -> None:
        """The worker forgets everything, and its leases run out."""
        if not self.workers:
            return
        name = self.pick(at, sorted(self.workers))
        worker = self.workers[name]
        self.old_claims += worker.held
        worker.held, worker.taken = [], {}
        owned: set[MessageId] = set()
        for partition in self.partitions():
            owned |= {MessageId(partition.entries[e] or b"") for e, owner in partition.pending.items() if owner == name}
        for known in self.known.values():
            known.taken_by = None if known.taken_by == name else known.taken_by
        self.age(owned & self.known.keys())

    @rule(at=AT)
    def stall(self, at: int) -> None:
        """A lease runs out while its worker still works on."""
        if not self.known:
            return
        self.age({self.pick(at, list(self.known))})

    @rule(at=AT)
    def leave(self, at: int) -> None:
        if not self.workers:
            return
        name = self.pick(at, sorted(self.workers))
        self.run(self.store.delivery.leave(name))
        worker = self.workers.pop(name)
        self.old_claims += worker.held
        for known in self.known.values():
            known.taken_by = None if known.taken_by == name else known.taken_by

    @rule(ms=st.sampled_from([SOON_MS, LATER_MS]))
    def move_clock(self, ms: int) -> None:
        for number in range(self.settings.partitions):
            self.raw.hincrby(self.keys(number).meta, "off", ms)
        self.on_record.clear()  # as long as any window, or longer

    @rule(number=NUMBER, limit=st.integers(1, 10))
    def promote(self, number: int, limit: int) -> None:
        number %= self.settings.partitions
        before = sorted((due_ms, message_id) for message_id, due_ms in self.partition(number).timers.items())
        is_lossy = self.losing > 0
        report = self.run(self.store.delivery.promote(number, limit))
        left = self.partition(number).timers
        gone = [MessageId(message_id) for _, message_id in before if message_id not in left]
        assert gone == [message_id for _, message_id in before[: len(gone)]], "the earliest go first"
        due = [message_id for due_ms, message_id in before if due_ms <= report.now_ms]
        assert is_lossy or len(gone) == report.promoted == min(limit, len(due))
        assert report.next_due_ms == (min(left.values()) if left else None)
        for message_id in gone:
            assert self.known[message_id].state is State.DELAYED
            self.known[message_id].state = State.QUEUED

    @rule(at=AT)
    def retry_dead_letter(self, at: int) -> None:
        if not self.dead_letters:
            return
        dlq_id = self.pick(at, sorted(self.dead_letters))
        old = self.known[self.dead_letters[dlq_id]]
        new_id = self.run(self.store.admin.retry_dead_letter(dlq_id))
        assert new_id is not None
        new = NewMessage(id=new_id, message=old.new.message, body=old.new.body, lane=old.new.lane)
        self.known[new_id] = Known(new=new, state=State.QUEUED)

    @rule(at=AT)
    def delete_dead_letter(self, at: int) -> None:
        if not self.dead_letters:
            return
        dlq_id = self.pick(at, sorted(self.dead_letters))
        assert self.run(self.store.admin.delete_dead_letter(dlq_id))

    # Checks

    @invariant()
    def redis_agrees(self) -> None:
        assert self.inspector.problems(self.settings.key_namespace, self.settings.partitions) == []
        records: dict[bytes, Record] = {}
        for partition in self.partitions():
            records |= partition.records
        assert records.keys() == self.known.keys()
        for message_id, known in self.known.items():
            stored = records[message_id].stored
            found = (stored.state, stored.generation, stored.claims, stored.retried, stored.cancel_requested)
            assert found == (known.state, known.generation, known.claims, known.retried, known.cancel_requested)
            assert (stored.lane, stored.body) == (known.new.lane, known.new.body)

    @invariant()
    def dead_letters_are_listed(self) -> None:
        page = self.run(self.store.admin.list_dead_letters(cursor=None, count=10_000, newest_first=False))
        self.dead_letters = {entry.dlq_id: entry.stored.id for entry in page.entries}
        for entry in page.entries:
            assert self.known[entry.stored.id].state is State.FAILED

    @invariant()
    def no_lane_takes_all(self) -> None:
        now: dict[tuple[int, str], set[bytes]] = {}
        for number, partition in enumerate(self.partitions()):
            capacity = sum(partition.capacity.values())
            assert int(partition.meta["cap"]) == capacity
            for lane, ids in partition.admitted.items():
                now[number, lane] = ids
                others = len(partition.entries) - len(ids)
                if ids - self.admitted_before.get((number, lane), set()):
                    assert len(ids) - 1 <= max(0, capacity - others), "at its last admission it held less than was free"
        self.admitted_before = now

    def teardown(self) -> None:
        try:
            self.losing = 0
            self.drain()
        finally:
            self.run(self.store.aclose())
            self.runner.close()
            self.inspector.clear(self.settings.key_namespace)
            self.inspector.close()
            self.raw.close()

    def drain(self) -> None:
        """One worker works on: everything ends, and what is left has a lifetime or an owner."""
        for name in list(self.workers):
            self.run(self.store.delivery.leave(name))
        delivery = self.store.delivery
        for _ in range(DRAIN_ROUNDS):
            self.run(delivery.heartbeat("last", 12))
            self.move_clock(LATER_MS)
            self.age(set(self.known))
            for number in range(self.settings.partitions):
                self.run(delivery.promote(number, 100))
                for claim in self.run(delivery.claim(number, "last", 100, reclaim=True)).claims:
                    assert self.run(delivery.settle(delivered(claim))) is SettleResult.SETTLED
            if all(record.stored.state.is_final for one in self.partitions() for record in one.records.values()):
                break
        for partition in self.partitions():
            assert [r for r in partition.records.values() if not r.stored.state.is_final] == [], (
                "nothing waits for ever"
            )
            assert (partition.timers, partition.ring, partition.parked) == ({}, [], set())
            assert (partition.lanes, partition.admitted) == ({}, {})
        self.expire()

    def expire(self) -> None:
        self.run(self.store.delivery.leave("last"))
        self.move_clock(self.settings.log_retention_ms + self.settings.dlq_retention_ms + 60_000)
        for number in range(self.settings.partitions):
            while self.run(self.store.delivery.expire(number, 500)):
                pass
            partition = self.partition(number)
            assert (partition.log, partition.dlq, partition.workers, partition.capacity) == ([], [], set(), {})
            assert (partition.dedup, partition.deduplication, partition.finished_bytes) == ([], {}, 0)
            assert all(record.ttl_ms > 0 for record in partition.records.values())

    # Choices

    def partition(self, number: int) -> Partition:
        return self.inspector.read(self.settings.key_namespace, number, self.settings.partitions)

    def pick(self, at: int, among: list[ResultT]) -> ResultT:
        return among[at % len(among)]
