"""Random lives of queues and flow-control keys: every step of the store that touches them, and what holds after each.

The clock of messages stands still and is moved by a step, so that an example is the same whenever it is run.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qstash_clone.domain.lanes import flow_control_lane, parse_route, queue_lane
from qstash_clone.domain.message import Claim, NewMessage, Settlement, State
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.delivery_store import FLOW_IDLE_MS
from qstash_clone.storage.interface import CancelResult, Published, SettleResult
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.store import Store, open_store
from tests.model.lane_checks import (
    MARGIN_MS,
    MARGIN_SHARE,
    Life,
    blocked_problems,
    members_of,
    queue_order_problems,
    slot_problems,
    waiting_for,
)
from tests.support.lanes import new_member, new_report
from tests.support.messages import delivered, failed, reported, retry
from tests.support.snapshot import Inspector, Partition, find_problems

BEGINNING_MS = 1_800_000_000_000
WORKERS = ["w1", "w2"]
QUEUES = ["a", "b"]
KEYS = ["k", "l"]
SOON_MS, LATER_MS = 1_000, 20_000
LIMITS: list[dict[str, int]] = [
    {"parallelism": 1},
    {"parallelism": 3},
    {"rate": 2, "period_s": 1},
    {"rate": 3, "period_s": 10, "parallelism": 2},
]
ENDS: dict[str, Callable[[Claim], Settlement]] = {
    "delivered": delivered,
    "retry": lambda claim: retry(claim, delay_ms=SOON_MS),
    "retry now": lambda claim: retry(claim, delay_ms=0),
    "failed": failed,
}
AT = st.integers(0, 999)
"""Chooses among what there is: what is drawn does not depend on the store."""
DELAYS = st.sampled_from([0, 0, 0, SOON_MS, LATER_MS])
REPORTS = st.lists(st.tuples(st.sampled_from([None, *KEYS]), DELAYS), max_size=2)
"""Keys and delays of the callbacks that a settlement brings along."""

ValueT = TypeVar("ValueT")


class LanesMachine(RuleBasedStateMachine):
    """One example is one store on key names of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.runner = asyncio.Runner()
        self.inspector = Inspector(settings.redis_url)
        self.inspector.clear(settings.key_namespace)
        self.raw: Any = redis.Redis.from_url(settings.redis_url)  # pyright: ignore[reportUnknownMemberType]
        self.keys = PartitionKeys(settings.key_namespace, 0, 1)
        self.lives: dict[MessageId, Life] = {}
        self.workers: dict[str, list[Claim]] = {}
        """Name of each live worker -> what it holds."""
        self.taken: dict[str, list[bytes]] = {}
        """Entries that a worker has read and not claimed yet."""
        self.forgotten: set[MessageId] = set()
        """In flight, and reset since."""
        self.windows: dict[str, tuple[int, int]] = {}
        """Flow-control key -> beginning and count of its last rate window."""
        self.numbers = 0
        self.ranks: dict[bytes, tuple[int, int]] = {}
        """Message -> its place in the order of a key: those once admitted, as they were, before those that were not."""
        self.ranked_entries: set[bytes] = set()
        self.is_out_of_order = False
        """The last step may have looked at messages in another order than that of their admission."""
        self.now_ms = BEGINNING_MS
        self.store: Store = self.run(open_store(settings))
        self.raw.hset(self.keys.meta, "fz", self.now_ms)
        self.seen = self.look()

    def run(self, work: Coroutine[Any, Any, ValueT]) -> ValueT:
        return self.runner.run(work)

    def look(self) -> Partition:
        return self.inspector.read(self.settings.key_namespace)

    def pick(self, at: int, among: list[ValueT]) -> ValueT:
        return among[at % len(among)]

    def next_number(self) -> int:
        self.numbers += 1
        return self.numbers

    # Publishing

    @initialize(capacity=st.sampled_from([1, 4, 20]))
    def first_worker(self, capacity: int) -> None:
        self.heartbeat("w1", capacity)

    @rule(
        queue=st.sampled_from([None, *QUEUES, *QUEUES]),
        key=st.sampled_from([None, *KEYS]),
        limits=st.sampled_from(LIMITS),
        delay_ms=DELAYS,
        copies=st.integers(1, 3),
    )
    def publish(self, queue: str | None, key: str | None, limits: dict[str, int], delay_ms: int, copies: int) -> None:
        brought = {} if key is None else limits
        for _ in range(copies):
            message = new_member(self.store, queue=queue, key=key, delay_ms=delay_ms, **brought)
            self.run(self._publish(message))
            self.know(message)

    async def _publish(self, message: NewMessage) -> Published:
        return await self.store.publishing.publish(message)

    def know(self, message: NewMessage) -> None:
        route = parse_route(message.lane)
        life = Life(new=message, state=State.QUEUED, queue=route.queue, key=route.flow_control_key, slot_of=route.slot)
        if message.delay_ms:
            life.state = State.DELAYED
        else:
            life.joined = self.next_number()
        self.lives[message.id] = life

    @rule(at=AT)
    def retry_dead_letter(self, at: int) -> None:
        page = self.run(self.store.admin.list_dead_letters(cursor=None, count=1_000, newest_first=False))
        if not page.entries:
            return
        letter = self.pick(at, list(page.entries))
        old = self.lives[letter.stored.id]
        new_id = self.run(self.store.admin.retry_dead_letter(letter.dlq_id))
        assert new_id is not None
        new = NewMessage(id=new_id, message=old.new.message, body=old.new.body, lane=old.new.lane)
        life = Life(new=new, state=State.QUEUED, queue=old.queue, key=old.key, joined=self.next_number())
        self.lives[new_id] = life

    # Workers

    @rule(name=st.sampled_from(WORKERS), capacity=st.sampled_from([0, 1, 3, 8, 30]))
    def heartbeat(self, name: str, capacity: int) -> None:
        self.run(self.store.delivery.heartbeat(name, capacity))
        self.workers.setdefault(name, [])

    @rule(at=AT)
    def leave(self, at: int) -> None:
        if self.workers:
            name = self.pick(at, sorted(self.workers))
            self.run(self.store.delivery.leave(name))
            del self.workers[name]
            self.taken.pop(name, None)

    @rule(at=AT, limit=st.integers(1, 2))
    def wait(self, at: int, limit: int) -> None:
        if not self.workers or self.seen.entries.keys() <= self.seen.pending.keys():
            return  # it would block
        name = self.pick(at, sorted(self.workers))
        tokens = self.run(self.store.delivery.wait(0, name, limit, 1_000))
        self.taken.setdefault(name, []).extend(tokens)

    @rule(at=AT, limit=st.integers(1, 6), reclaim=st.booleans())
    def claim(self, at: int, limit: int, reclaim: bool) -> None:
        if not self.workers:
            return
        name = self.pick(at, sorted(self.workers))
        self.is_out_of_order = reclaim or any(self.taken.values())
        tokens = self.taken.pop(name, [])
        batch = self.run(self.store.delivery.claim(0, name, limit, taken=tokens, reclaim=reclaim))
        assert len(batch.claims) <= max(limit, len(tokens))
        seen = self.look()
        started: dict[str, int] = {}
        for claim in batch.claims:
            life = self.lives[claim.id]
            assert life.state is State.QUEUED or (reclaim and life.is_aged and life.state is State.ACTIVE)
            assert not life.cancel_requested
            assert not life.is_deleted
            assert claim.generation == life.generation + 1
            life.state, life.generation, life.was_attempted, life.is_aged = State.ACTIVE, claim.generation, True, False
            self.forgotten.discard(claim.id)
            if life.key is not None:
                started[life.key] = started.get(life.key, 0) + 1
        self.take_over_refusals(seen, reclaim=reclaim)
        for key, count in started.items():
            self.check_starts(seen, key, count)
        self.workers[name] += batch.claims

    def take_over_refusals(self, seen: Partition, *, reclaim: bool) -> None:
        """What claim sent back to where it waited, or found cancelled."""
        for message_id, life in self.lives.items():
            stored = seen.records[message_id].stored
            if (stored.state, stored.generation) == (life.state, life.generation):
                continue
            assert life.state is State.QUEUED or (reclaim and life.is_aged and life.state is State.ACTIVE)
            if stored.state is State.CANCELED:
                assert life.cancel_requested or life.is_deleted
            else:
                assert stored.state is State.QUEUED
                assert stored.generation == life.generation + 1
                assert life.queue is not None or life.key is not None
            self.forgotten.discard(message_id)
            life.state, life.generation, life.is_aged = stored.state, stored.generation, False

    def check_starts(self, seen: Partition, key: str, count: int) -> None:
        """What began with one call of claim was allowed to."""
        limits = seen.limits[flow_control_lane(key)]
        parallelism, rate = int(limits.get("p", 0)), int(limits.get("r", 0))
        flying = {one for one, life in self.lives.items() if life.key == key and life.state is State.ACTIVE}
        assert not parallelism or len(flying - self.forgotten) <= parallelism
        if not rate:
            return
        started_ms, counted, period_ms = int(limits["ws"]), int(limits["wc"]), int(limits["w"])
        assert counted <= rate
        assert started_ms <= self.now_ms < started_ms + period_ms
        last_started_ms, last_counted = self.windows.get(key, (None, 0))
        if started_ms == last_started_ms:
            assert counted == last_counted + count
            assert self.now_ms < started_ms + period_ms - min(MARGIN_MS, period_ms * MARGIN_SHARE)
        else:
            assert (started_ms, counted) == (self.now_ms, count)
            assert last_started_ms is None or last_started_ms > self.now_ms or last_started_ms + period_ms <= started_ms
        self.windows[key] = started_ms, counted

    @rule(at=AT, end=st.sampled_from(sorted(ENDS)), reports=REPORTS)
    def settle(self, at: int, end: str, reports: list[tuple[str | None, int]]) -> None:
        holders = sorted(name for name, held in self.workers.items() if held)
        if not holders:
            return
        held = self.workers[self.pick(at, holders)]
        claim = held.pop(at % len(held))
        life = self.lives[claim.id]
        callbacks = [
            new_report(self.store, claim, life.queue, key=key, delay_ms=delay_ms)
            for key, delay_ms in (reports if life.slot_of is None else ())
        ]
        result = self.run(self.store.delivery.settle(reported(ENDS[end](claim), *callbacks)))
        if (life.state, life.generation) != (State.ACTIVE, claim.generation):
            assert result is SettleResult.STALE or not life.is_living
            return
        if life.cancel_requested and end != "delivered":
            life.state = State.CANCELED
        else:
            ended = {"delivered": State.DELIVERED, "failed": State.FAILED}
            life.state = ended.get(end, State.DELAYED)
            for callback in callbacks:
                self.know(callback.message)
        self.forgotten.discard(claim.id)

    @rule(at=AT)
    def release(self, at: int) -> None:
        if not self.workers:
            return
        name = self.pick(at, sorted(self.workers))
        claims, self.workers[name] = self.workers[name], []
        self.run(self.store.delivery.release(claims))
        for claim in claims:
            life = self.lives[claim.id]
            if (life.state, life.generation) == (State.ACTIVE, claim.generation):
                life.state, life.generation, life.is_aged = State.QUEUED, life.generation + 1, False
                self.forgotten.discard(claim.id)

    @rule(at=AT)
    def extend(self, at: int) -> None:
        if not self.workers:
            return
        name = self.pick(at, sorted(self.workers))
        claims = self.workers[name]
        lost = self.run(self.store.delivery.extend(0, name, claims))
        for claim in claims:
            life = self.lives[claim.id]
            is_current = (life.state, life.generation) == (State.ACTIVE, claim.generation)
            assert (claim in lost) != is_current
            life.is_aged = life.is_aged and not is_current

    @rule(at=AT)
    def crash(self, at: int) -> None:
        """A worker forgets everything, and its leases run out."""
        if not self.workers:
            return
        name = self.pick(at, sorted(self.workers))
        self.workers[name] = []
        self.taken.pop(name, None)
        for entry_id, owner in self.seen.pending.items():
            if owner == name:
                self.age(entry_id, owner)

    def age(self, entry_id: bytes, owner: str) -> None:
        self.raw.xclaim(self.keys.ready, CONSUMER_GROUP, owner, 0, [entry_id], idle=3_600_000, justid=True)
        life = self.lives.get(MessageId(self.seen.entries.get(entry_id) or b""))
        if life is not None:
            life.is_aged = True

    # What callers do to messages, queues and keys

    @rule(at=AT, count=st.sampled_from([1, 1, 3]))
    def cancel(self, at: int, count: int) -> None:
        chosen = [self.pick(at + n, list(self.lives)) for n in range(count)] if self.lives else []
        for message_id in chosen:
            life = self.lives[message_id]
            result = self.run(self.store.admin.cancel(message_id))
            if not life.is_living:
                assert result is CancelResult.NOT_FOUND or life.state is State.CANCELED
            elif life.state is not State.ACTIVE:
                assert result is CancelResult.CANCELED
                life.state = State.CANCELED
            else:
                expected = CancelResult.ALREADY_REQUESTED if life.cancel_requested else CancelResult.REQUESTED
                assert result is expected
                life.cancel_requested = True

    @rule(
        name=st.sampled_from(QUEUES),
        parallelism=st.sampled_from([None, 1, 2, 4]),
        is_paused=st.sampled_from([None, True, False]),
    )
    def put_queue(self, name: str, parallelism: int | None, is_paused: bool | None) -> None:
        assert self.run(self.store.queues.put_queue(name, parallelism=parallelism, is_paused=is_paused, max_queues=10))

    @rule(name=st.sampled_from(QUEUES))
    def delete_queue(self, name: str) -> None:
        exists = name in self.seen.queues
        assert self.run(self.store.queues.delete_queue(name)) == exists
        for life in self.lives.values():
            # A deletion of what is gone already ends what was in flight at the first one and waits again by now.
            if life.queue == name and life.is_living and (exists or life.is_deleted):
                life.is_deleted = True
                if life.state is not State.ACTIVE:
                    life.state = State.CANCELED

    @rule(key=st.sampled_from(KEYS), is_paused=st.booleans())
    def pause_key(self, key: str, is_paused: bool) -> None:
        self.run(self.store.flow_controls.set_flow_control_paused(key, is_paused))

    @rule(key=st.sampled_from(KEYS), parallelism=st.sampled_from([None, 1, 4]), rate=st.sampled_from([None, 1, 5]))
    def pin_key(self, key: str, parallelism: int | None, rate: int | None) -> None:
        self.run(self.store.flow_controls.pin_flow_control(key, parallelism=parallelism, rate=rate, period_ms=10_000))
        if rate is not None:
            self.windows.pop(key, None)

    @rule(key=st.sampled_from(KEYS), parallelism=st.booleans(), rate=st.booleans())
    def unpin_key(self, key: str, parallelism: bool, rate: bool) -> None:
        self.run(self.store.flow_controls.unpin_flow_control(key, parallelism=parallelism, rate=rate))

    @rule(key=st.sampled_from(KEYS), parallelism=st.booleans())
    def reset_key(self, key: str, parallelism: bool) -> None:
        self.run(self.store.flow_controls.reset_flow_control(key, parallelism=parallelism))
        if flow_control_lane(key) not in self.seen.limits:
            return
        self.windows[key] = self.now_ms, 0
        if parallelism:
            self.forgotten |= {
                message_id for message_id, life in self.lives.items() if life.key == key and life.state is State.ACTIVE
            }

    # Time

    @rule(ms=st.sampled_from([1, 985, SOON_MS, SOON_MS, LATER_MS, -SOON_MS]))
    def move_clock(self, ms: int) -> None:
        self.now_ms += ms
        self.raw.hset(self.keys.meta, "fz", self.now_ms)

    @rule(limit=st.integers(1, 10))
    def promote(self, limit: int) -> None:
        before = sorted((due_ms, message_id) for message_id, due_ms in self.seen.timers.items())
        self.run(self.store.delivery.promote(0, limit))
        left = self.look().timers
        for _, message_id in before[:limit]:
            life = self.lives[MessageId(message_id)]
            if message_id not in left:
                life.state = State.QUEUED
                life.joined = life.joined or self.next_number()

    @rule()
    def expire(self) -> None:
        self.run(self.store.delivery.expire(0, 100))
        for key in KEYS:
            if flow_control_lane(key) not in self.look().limits:
                self.windows.pop(key, None)

    # Checks

    @invariant()
    def everything_holds(self) -> None:
        before, self.seen = self.seen, self.look()
        seen = self.seen
        for message_id, life in self.lives.items():
            stored = seen.records[message_id].stored
            found = (stored.state, stored.generation, stored.cancel_requested)
            assert found == (life.state, life.generation, life.cancel_requested), (
                f"{message_id.hex()} is {found}, not {life}"
            )
        assert find_problems(seen, self.forgotten) == []
        assert slot_problems(seen, self.lives) == []
        assert queue_order_problems(seen, self.lives) == []
        assert blocked_problems(seen, self.now_ms) == []
        self.check_order_of_keys(before)
        self.check_slots_in_number(before)
        self.check_numbers()

    def check_slots_in_number(self, before: Partition) -> None:
        """Never more holders than the parallelism allows, unless that was lowered: then nobody new."""
        for lane, holders in self.seen.slots.items():
            is_within = len(holders) <= int(self.seen.limits.get(lane, {}).get("p", 1))
            assert is_within or holders <= before.slots.get(lane, set()), lane

    def check_order_of_keys(self, before: Partition) -> None:
        """Whoever joins the line of a key stands behind all others, and whoever is refused before those that have not
        been admitted yet, behind those that were admitted earlier."""
        for entry_id, message_id in self.seen.entries.items():
            if message_id is not None and entry_id not in self.ranked_entries:
                self.ranked_entries.add(entry_id)
                self.ranks[message_id] = (0, self.next_number())
        for lane, ids in self.seen.lanes.items():
            living = [one for one in ids if self.lives[MessageId(one)].is_living]
            if lane.startswith("f:"):
                for one in living:
                    if one in before.lanes.get(lane, ()):
                        continue
                    was_admitted = one in before.entries.values()
                    if self.is_out_of_order or not was_admitted:
                        self.ranks[one] = (0 if was_admitted else 1, self.next_number())
                ranks = [self.ranks[one] for one in living]
                assert ranks == sorted(ranks), lane
        self.is_out_of_order = False

    def check_numbers(self) -> None:
        """`lag`, `waitListSize` and the attempts in flight, as callers see them."""
        for queue in self.run(self.store.queues.list_queues()):
            assert queue.lag == members_of(self.lives.values(), queue.name)
        for key in self.run(self.store.flow_controls.list_flow_control_keys("")):
            flying = {one for one, life in self.lives.items() if life.key == key.key and life.state is State.ACTIVE}
            assert key.in_flight == len(flying - self.forgotten)
            assert key.waiting == waiting_for(self.seen, self.lives, key.key)

    # The end

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            self.run(self.store.aclose())
            self.runner.close()
            self.inspector.clear(self.settings.key_namespace)
            self.inspector.close()
            self.raw.close()

    def drain(self) -> None:
        """With nothing held up any more, one worker brings everything to its end in a bounded number of rounds."""
        for name in list(self.workers):
            self.run(self.store.delivery.leave(name))
        self.taken.clear()
        for name in self.look().queues:
            self.put_queue(name, None, False)
        for key in KEYS:
            self.pause_key(key, False)
            self.unpin_key(key, True, True)
        delivery = self.store.delivery
        for _ in range(2 * len(self.lives) + 5):
            self.run(delivery.heartbeat("last", 12))
            self.move_clock(LATER_MS)
            self.run(delivery.promote(0, 100))
            for entry_id, owner in self.look().pending.items():
                self.age(entry_id, owner)
            while claims := self.run(delivery.claim(0, "last", 100, reclaim=True)).claims:
                for claim in claims:
                    assert self.run(delivery.settle(delivered(claim))) is SettleResult.SETTLED
            seen = self.look()
            if all(record.stored.state.is_final for record in seen.records.values()):
                break
        else:
            raise AssertionError("something waits for ever")
        for message_id in self.lives:
            letters = seen.letters(message_id)
            assert letters.count("C") == sum(letters.count(end) for end in "DFX") == 1, letters
        self.check_nothing_is_left()

    def check_nothing_is_left(self) -> None:
        """Neither a key of a lane, once idle keys are forgotten and queues deleted."""
        self.run(self.store.delivery.heartbeat("last", 12))
        self.run(self.store.delivery.promote(0, 100))
        self.run(self.store.delivery.claim(0, "last", 100))
        for name in self.look().queues:
            assert self.run(self.store.queues.delete_queue(name))
        for _ in range(2):
            self.move_clock(FLOW_IDLE_MS + LATER_MS)
            self.run(self.store.delivery.promote(0, 100))
            self.run(self.store.delivery.expire(0, 100))
        seen = self.look()
        assert (seen.lanes, seen.ring, seen.parked, seen.blocked, seen.windows) == ({}, [], set(), set(), {})
        assert (seen.slots, seen.returning, seen.callbacks, seen.in_flight) == ({}, {}, {}, {})
        assert (seen.admitted, seen.limits, seen.flows, seen.queues) == ({}, {}, {}, {})
        assert queue_lane(QUEUES[0]) not in seen.limits
