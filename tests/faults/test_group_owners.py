"""Who was handed what, while apis and Redis are killed: by one owner at a time, again only if it was not committed.

FAULT_GROUP_KILLS kills. Nothing here looks into the store: what is checked is what consumers saw, call by call.
"""

import asyncio
import itertools
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from qstash_clone.settings import Settings
from tests.e2e.conftest import settings_for
from tests.faults.test_consumer_groups import Account as Produced
from tests.faults.test_consumer_groups import produce
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.raw_http import Answer, Headers
from tests.support.redis_server import RedisServer

KILLS = int(os.environ.get("FAULT_GROUP_KILLS", "6"))
SEED = int(os.environ.get("FAULT_SEED", "1"))
CONSUMERS = 3
PARTITIONS = 6
BETWEEN_KILLS = 120
"""Records handled before something is killed."""
BY_HAND = [("Kafka-Enable-Auto-Commit", "false"), ("Kafka-Auto-Offset-Reset", "earliest")]
BY_ITSELF = [("Kafka-Auto-Commit-Interval", "20"), ("Kafka-Auto-Offset-Reset", "earliest")]

PLACES = [{"topic": "orders", "partition": number} for number in range(PARTITIONS)]

Spot = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True, slots=True)
class Span:
    """When something may have taken effect: from the beginning of a call to its answer, or its connection's end."""

    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Commit:
    span: Span
    offset: int
    is_answered: bool


@dataclass(frozen=True, slots=True)
class HandOut:
    span: Span
    instance: str


@dataclass(slots=True)
class Account:
    """All that consumers did and saw."""

    handed_out: dict[Spot, list[HandOut]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[int, list[Commit]] = field(default_factory=lambda: defaultdict(list))
    """By partition."""
    changes: list[Span] = field(default_factory=list[Span])
    """Calls that let instances come or go."""
    lost_consumes: int = 0
    lives: int = 0
    values: dict[Spot, str] = field(default_factory=dict[Spot, str])
    is_over: bool = False

    def handled(self) -> set[str]:
        return set(self.values.values())

    def repeats(self) -> list[tuple[Spot, HandOut, HandOut]]:
        return [
            (spot, first, second)
            for spot, times in self.handed_out.items()
            for first, second in itertools.pairwise(times)
        ]

    def changes_between(self, first: HandOut, second: HandOut) -> list[Span]:
        """Of which one may have made the owner to whom the record was handed again."""
        return [one for one in self.changes if one.begin_s <= second.span.end_s and one.end_s >= first.span.begin_s]

    def was_committed(self, spot: Spot, first: HandOut, second: HandOut) -> bool:
        """Whether a commit behind the record was answered before there was a new owner, who begins there. One that
        may have gone back since does not count."""
        partition, offset = spot
        since_s = min(one.begin_s for one in self.changes_between(first, second))
        commits = [one for one in self.commits[partition] if one.span.begin_s <= second.span.end_s]
        back = [one.span for one in commits if one.offset <= offset]
        return any(
            one.is_answered
            and one.offset > offset
            and one.span.end_s <= since_s
            and not any(span.end_s >= one.span.begin_s for span in back)
            for one in commits
        )


class Member:
    """One consumer. By hand: handles, commits, and begins a new life where an answer was lost."""

    def __init__(self, number: int, clients: Sequence[Client], account: Account, settings: Headers) -> None:
        self._number = number
        self._clients = clients
        self._account = account
        self._settings = settings
        self._rng = random.Random(SEED + number)

    async def run(self) -> None:
        """By hand."""
        while not self._account.is_over:
            self._account.lives += 1
            instance = f"c{self._number}-{self._account.lives}"
            await self._live(instance)
            await eventually(lambda instance=instance: self._close(instance), timeout=60, what="instance closed")

    async def run_by_itself(self) -> None:
        """One life, whatever is lost."""
        instance, is_known = f"c{self._number}", False
        while not self._account.is_over:
            is_known = await self._consume(instance, is_known=is_known) is not None or is_known

    async def _live(self, instance: str) -> None:
        is_known = False
        while not self._account.is_over:
            records = await self._consume(instance, is_known=is_known)
            if records is None:
                return
            is_known = True
            ends = {record["partition"]: record["offset"] + 1 for record in records}
            if ends and not await self._commit(instance, ends):
                return

    async def _consume(self, instance: str, *, is_known: bool) -> list[dict[str, Any]] | None:
        """None if there was no answer."""
        answer, span = await self._call("GET", f"/consume/g/{instance}/orders?timeout=100")
        if not is_known:
            self._account.changes.append(span)
        if answer is None:
            self._account.lost_consumes += 1
            return None
        records: list[dict[str, Any]] = answer.json()
        for record in records:
            spot = record["partition"], record["offset"]
            self._account.handed_out[spot].append(HandOut(span, instance))
            self._account.values[spot] = record["value"]
        return records

    async def _commit(self, instance: str, ends: dict[int, int]) -> bool:
        places = [{"topic": "orders", "partition": number, "offset": end} for number, end in ends.items()]
        answer, span = await self._call("POST", f"/commit/g/{instance}", msgspec.json.encode(places))
        for number, end in ends.items():
            self._account.commits[number].append(Commit(span, end, answer is not None))
        return answer is not None

    async def _close(self, instance: str) -> bool:
        answer, span = await self._call("DELETE", f"/delete-consumer/g/{instance}", is_there=False)
        self._account.changes.append(span)
        return answer is not None

    async def _call(
        self, method: str, target: str, body: bytes = b"", *, is_there: bool = True
    ) -> tuple[Answer | None, Span]:
        """None if there was no answer, or one that says that nobody knows."""
        begin_s = time.monotonic()
        try:
            answer = await self._rng.choice(self._clients).call(method, target, self._settings, body)
        except (OSError, EOFError, ValueError):
            answer = None
        if answer is None or answer.status == 503:
            # What was killed may have sent something that Redis executes only now.
            await asyncio.sleep(0.02)
            return None, Span(begin_s, time.monotonic())
        assert answer.status == 200 or (answer.status == 404 and not is_there), answer
        return answer, Span(begin_s, time.monotonic())


async def kill_on(system: System, redis: RedisServer, account: Account) -> Counter[str]:
    """Apis and Redis in turn, each after some more was handled."""
    rng = random.Random(SEED)
    kinds = [("api", "redis")[number % 2] for number in range(KILLS)]
    rng.shuffle(kinds)
    for kind in kinds:
        wanted = len(account.values) + BETWEEN_KILLS
        await eventually(lambda wanted=wanted: len(account.values) >= wanted, timeout=60, what="records handled")
        if kind == "redis":
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
        else:
            api = rng.choice(system.apis)
            await asyncio.to_thread(api.kill)
            api.start()
            await asyncio.to_thread(api.wait_ready)
    return Counter(kinds)


async def test_by_hand_only_what_was_not_committed_comes_again(own_redis: RedisServer, accounts: list[str]) -> None:
    settings: Settings = settings_for(own_redis.url, default_partitions=PARTITIONS)
    account, produced = Account(), Produced()
    with System(settings, apis=2, workers=1) as system:
        clients = [Client(api.url, settings) for api in system.apis]
        await clients[0].send("POST", "/topics/orders")
        async with asyncio.TaskGroup() as group:
            producers = [group.create_task(produce(clients[number], number, produced)) for number in range(2)]
            for number in range(CONSUMERS):
                group.create_task(Member(number, clients, account, BY_HAND).run())
            kills = await kill_on(system, own_redis, account)
            produced.is_enough = True
            await asyncio.wait(producers)
            await eventually(lambda: produced.acknowledged <= account.handled(), timeout=60, what="all handled")
            account.is_over = True
    repeats = account.repeats()
    accounts.append(
        f"by hand: {len(produced.acknowledged)} records acknowledged, {len(account.values)} handled, "
        f"{len(repeats)} repeats, {account.lives} instances\nkills (kill -9) {dict(kills)}"
    )
    assert all(account.changes_between(first, second) for _, first, second in repeats), "one owner at a time"
    assert not [repeat for repeat in repeats if account.was_committed(*repeat)], "committed, and again"


async def test_by_itself_nothing_comes_again_and_only_lost_answers_are_missed(
    own_redis: RedisServer, accounts: list[str]
) -> None:
    """Instances that stay go on behind what was handed out, whether or not the answer arrived."""
    settings: Settings = settings_for(own_redis.url, default_partitions=PARTITIONS)
    account, produced = Account(), Produced()
    with System(settings, apis=2, workers=1) as system:
        clients = [Client(api.url, settings) for api in system.apis]
        await clients[0].send("POST", "/topics/orders")
        members = [Member(number, clients, account, BY_ITSELF) for number in range(CONSUMERS)]
        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(member.run_by_itself())
            await eventually(lambda: len(account.changes) >= CONSUMERS, timeout=60, what="all have joined")
            producers = [group.create_task(produce(clients[number], number, produced)) for number in range(2)]
            kills = await kill_on(system, own_redis, account)
            produced.is_enough = True
            await asyncio.wait(producers)
            await eventually(lambda: _are_at_the_end(clients[0]), timeout=60, what="all handed out")
            account.is_over = True
        gaps = _gaps(account.values, await clients[0].send("POST", "/offsets/latest", PLACES))
    accounts.append(
        f"by itself: {len(produced.acknowledged)} records acknowledged, {len(account.values)} handled, "
        f"{len(gaps)} gaps, {account.lost_consumes} answers lost\nkills (kill -9) {dict(kills)}"
    )
    assert account.repeats() == []
    per_partition = Counter(partition for partition, _ in gaps)
    assert max(per_partition.values(), default=0) <= account.lost_consumes, "each gap is an answer that was lost"
    missed = produced.acknowledged - account.handled()
    assert len(missed) <= sum(length for _, length in gaps)


async def _are_at_the_end(client: Client) -> bool:
    """Whether all records were handed out, by what was committed."""
    try:
        committed, ends = [await client.send("POST", path, PLACES) for path in ("/committed/g/c0", "/offsets/latest")]
    except (OSError, EOFError, ValueError, AssertionError):
        return False
    return committed == ends


def _gaps(values: dict[Spot, str], ends: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Partition and length of each run of offsets that nobody was handed."""
    gaps: list[tuple[int, int]] = []
    for end in ends:
        offsets = sorted(offset for partition, offset in values if partition == end["partition"])
        for before, after in itertools.pairwise([-1, *offsets, end["offset"]]):
            if after - before > 1:
                gaps.append((end["partition"], after - before - 1))
    return gaps
