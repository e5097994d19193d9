"""Queues that deliver one member after the other: publishers of members, and what their receiver saw of the order."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import aiohttp

from tests.faults.bodies import body_of
from tests.faults.recording import Exchange, ReceiverProcess
from tests.support.processes import Api, System

WAIT_MS: Final = (5, 30)
SLOW_MS: Final = (50, 100)
MAX_WAITING: Final = 8
"""Members of a queue that are accepted and have not arrived: publishers wait above this, so that members are accepted
during the whole run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A kind of member: which of its attempts fail, and what its receiver is told about them."""

    fail: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    callback_fails: int | None = None
    """How many of the first attempts of its callback; None for no callback."""
    failure_callback_fails: int | None = None

    @property
    def is_doomed(self) -> bool:
        return self.fail > 1

    @property
    def callbacks(self) -> int:
        """How many messages report its attempts."""
        attempts = 1 + min(self.fail, 1)
        return (0 if self.callback_fails is None else attempts) + (0 if self.failure_callback_fails is None else 1)


_RETRY = {"Upstash-Retries": "1", "Upstash-Retry-Delay": "50"}
RECIPES: Final = (
    Recipe(),
    Recipe(fail=1, headers=_RETRY),
    Recipe(callback_fails=0),
    Recipe(callback_fails=1, headers={"Upstash-Callback-Retry-Delay": "50"}),
    Recipe(fail=1, callback_fails=0, headers=_RETRY),
    Recipe(fail=9, failure_callback_fails=0, headers=_RETRY),
    Recipe(fail=9, callback_fails=1, failure_callback_fails=1, headers=_RETRY),
)


class FifoQueue:
    """One queue, its members in the order of acceptance, and what arrived of them."""

    def __init__(self, number: int, receiver: ReceiverProcess) -> None:
        self.name = f"q{number}"
        self._receiver = receiver
        self.accepted: dict[str, Recipe] = {}
        """By message id; those that were acknowledged."""
        self.asked_again: set[str] = set()
        """Keys of members of which an earlier publish was not acknowledged: it may be in the queue as well."""
        self.arrived: set[str] = set()

    @property
    def waiting(self) -> int:
        return len(self.accepted.keys() - self.arrived)

    def recipe_of(self, number: int) -> Recipe:
        """The recipe of the member with this number."""
        return RECIPES[number % len(RECIPES)]

    def destination(self, recipe: Recipe) -> str:
        return self._receiver.url(self.name, wait_ms=WAIT_MS, fail=recipe.fail)

    def headers(self, recipe: Recipe) -> dict[str, str]:
        """Those of the recipe, with its callbacks."""
        headers = dict(recipe.headers)
        if recipe.callback_fails is not None:
            headers["Upstash-Callback"] = self._callback_url(recipe.callback_fails)
        if recipe.failure_callback_fails is not None:
            headers["Upstash-Failure-Callback"] = self._callback_url(recipe.failure_callback_fails)
        return headers

    def _callback_url(self, fail: int) -> str:
        return self._receiver.url(f"{self.name}/callback", wait_ms=SLOW_MS, fail=fail)


class FifoPublishers:
    """One publisher for each queue, which asks again until a member is acknowledged, and only then goes on."""

    def __init__(self, system: System, queues: list[FifoQueue]) -> None:
        self._system = system
        self._queues = queues
        self._open: Counter[Api] = Counter()

    def open_publishes(self, api: Api) -> int:
        """Requests that this api has not answered yet."""
        return self._open[api]

    async def publish_all(self, members: int, *, are_enough: Callable[[], bool], is_urgent: Callable[[], bool]) -> None:
        """At least so many members for each queue, and more until they are enough. While it is urgent, publishers do
        not wait for the members that they have published."""

        def may_end(queue: FifoQueue) -> bool:
            return len(queue.accepted) >= members and are_enough()

        def may_go_on(queue: FifoQueue) -> bool:
            return queue.waiting < MAX_WAITING or is_urgent()

        authorization = {"Authorization": f"Bearer {self._system.settings.token}"}
        async with aiohttp.ClientSession(headers=authorization) as session, asyncio.TaskGroup() as group:
            for number, queue in enumerate(self._queues):
                group.create_task(self._publish_to(session, queue, number, may_end, may_go_on))

    async def _publish_to(
        self,
        session: aiohttp.ClientSession,
        queue: FifoQueue,
        tries: int,
        may_end: Callable[[FifoQueue], bool],
        may_go_on: Callable[[FifoQueue], bool],
    ) -> None:
        while not may_end(queue):
            if not may_go_on(queue):
                await asyncio.sleep(0.01)
                continue
            number = len(queue.accepted)
            key, recipe = f"{queue.name}-{number}", queue.recipe_of(number)
            while (message_id := await self._try(session, queue, key, recipe, tries)) is None:
                queue.asked_again.add(key)
                tries += 1
                await asyncio.sleep(0.05)
            tries += 1
            queue.accepted[message_id] = recipe

    async def _try(
        self, session: aiohttp.ClientSession, queue: FifoQueue, key: str, recipe: Recipe, tries: int
    ) -> str | None:
        api = self._system.apis[tries % len(self._system.apis)]
        self._open[api] += 1
        try:
            url = f"{api.url}/v2/enqueue/{queue.name}/{queue.destination(recipe)}"
            async with session.post(url, data=body_of(key), headers=queue.headers(recipe)) as answer:
                fields = await answer.json()
                assert answer.status in (200, 503), (answer.status, fields)
                return fields["messageId"] if answer.status == 200 else None
        except aiohttp.ClientError:
            return None
        finally:
            self._open[api] -= 1


@dataclass(slots=True, kw_only=True)
class Member:
    """What arrived of one member: its attempts, and those of its callbacks."""

    message_id: str
    key: str = ""
    attempts: list[Exchange] = field(default_factory=list[Exchange])
    callbacks: dict[str, list[Exchange]] = field(default_factory=lambda: defaultdict[str, list[Exchange]](list))
    """By their message ids."""

    @property
    def number(self) -> int:
        return int(self.key.rpartition("-")[2])

    @property
    def began_ns(self) -> int:
        return self.attempts[0].began_ns

    @property
    def ended_ns(self) -> int:
        """The end of the last attempt of anything that belongs to it."""
        ends: list[int] = []
        for one in [*self.attempts, *(one for callback in self.callbacks.values() for one in callback)]:
            assert one.ended_ns is not None, one
            ends.append(one.ended_ns)
        return max(ends)

    @property
    def is_delivered(self) -> bool:
        return any(one.status == 200 for one in self.attempts)

    @property
    def reports(self) -> int:
        """Callbacks that were delivered."""
        return sum(any(one.status == 200 for one in callback) for callback in self.callbacks.values())


def members_of(queue: FifoQueue, exchanges: list[Exchange]) -> list[Member]:
    """The members of a queue in the order of their first attempts."""
    members: dict[str, Member] = {}
    for one in exchanges:
        if one.path == f"/{queue.name}":
            member = members.setdefault(one.message_id, Member(message_id=one.message_id, key=one.key))
            member.attempts.append(one)
    for one in exchanges:
        if one.path == f"/{queue.name}/callback":
            members[one.key].callbacks[one.message_id].append(one)
    return list(members.values())


def overlapping(members: list[Member]) -> Iterator[tuple[Member, Member]]:
    """Members of which the second one began before everything of the first one had ended."""
    for earlier, later in pairwise(members):
        if later.began_ns < earlier.ended_ns:
            yield earlier, later


def overtaking(members: list[Member]) -> Iterator[tuple[Member, Member]]:
    """Members of which the second one was accepted before the first one."""
    for earlier, later in pairwise(members):
        if later.number < earlier.number:
            yield earlier, later
