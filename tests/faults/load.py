"""Publishers that use everything at once: plain and delayed messages, queues, keys, groups, callbacks, batches.

What a message is shows at the receiver, by the path it arrives at: `/<kind>/<lane>`, callbacks at `/callback`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
import msgspec

from tests.faults.bodies import body_of
from tests.faults.recording import ReceiverProcess
from tests.support.ledger import Ledger
from tests.support.processes import Api, System

ANSWER_DELAY_MS = (20, 120)
GROUP = "everybody"
ENDPOINTS = 3
LANES = 4
"""Queues, and flow-control keys."""
PARALLELISM = 12
"""Of each queue and key: enough not to hold the run up, few enough to be reached."""
BATCHES = 0.1
"""Share of the requests that are batches."""
BATCH_ITEMS = (2, 8)


QUEUES = [f"q{number}" for number in range(LANES)]


class Kind(StrEnum):
    """What is asked for besides delivery."""

    PLAIN = "plain"
    DELAYED = "delayed"
    RETRIED = "retried"
    """The first attempt fails."""
    DOOMED = "doomed"
    """All attempts fail; a failure callback."""
    REPORTED = "reported"
    """A callback, whose first attempt fails."""
    QUEUED = "queued"
    LIMITED = "limited"
    """A flow-control key."""
    QUEUED_AND_LIMITED = "queued-and-limited"
    FANNED_OUT = "fanned-out"
    """To a URL group."""


_WEIGHTS = {
    Kind.PLAIN: 8,
    Kind.DELAYED: 2,
    Kind.RETRIED: 1,
    Kind.DOOMED: 1,
    Kind.REPORTED: 2,
    Kind.QUEUED: 3,
    Kind.LIMITED: 3,
    Kind.QUEUED_AND_LIMITED: 1,
    Kind.FANNED_OUT: 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One publish."""

    key: str
    kind: Kind
    destination: str
    headers: dict[str, str]
    queue: str | None = None


@dataclass(slots=True, kw_only=True)
class Orders:
    """Makes publishes of all kinds for one receiver."""

    receiver: ReceiverProcess
    rng: random.Random
    _count: int = 0

    def endpoints(self) -> list[str]:
        """Of the URL group."""
        return [self._url(f"{Kind.FANNED_OUT}/{number}") for number in range(ENDPOINTS)]

    def next(self) -> Order:
        """Another one, with a key of its own."""
        self._count += 1
        [kind] = self.rng.choices([*_WEIGHTS], [*_WEIGHTS.values()])
        lane = self.rng.randrange(LANES)
        destination = self._url(f"{kind}/{lane}")
        headers: dict[str, str] = {}
        queue = QUEUES[lane] if kind in (Kind.QUEUED, Kind.QUEUED_AND_LIMITED) else None
        match kind:
            case Kind.DELAYED:
                headers["Upstash-Delay"] = f"{self.rng.randint(1, 2)}s"
            case Kind.RETRIED:
                destination = self._url(f"{kind}/{lane}", fail=1)
                headers["Upstash-Retry-Delay"] = "100"
            case Kind.DOOMED:
                destination = self._url(f"{kind}/{lane}", fail=9)
                headers |= {"Upstash-Retries": "1", "Upstash-Retry-Delay": "100"}
                headers["Upstash-Failure-Callback"] = self._url("callback")
            case Kind.REPORTED:
                headers["Upstash-Callback"] = self._url("callback", fail=1)
                headers["Upstash-Callback-Retry-Delay"] = "100"
            case Kind.LIMITED | Kind.QUEUED_AND_LIMITED:
                headers["Upstash-Flow-Control-Key"] = f"f{lane}"
                headers["Upstash-Flow-Control-Value"] = f"parallelism={PARALLELISM}, rate=2000, period=1"
            case Kind.FANNED_OUT:
                destination = GROUP
            case Kind.PLAIN | Kind.QUEUED:
                pass
        return Order(key=f"k{self._count}", kind=kind, destination=destination, headers=headers, queue=queue)

    def _url(self, path: str, *, fail: int = 0) -> str:
        return self.receiver.url(path, wait_ms=ANSWER_DELAY_MS, fail=fail)


@dataclass(slots=True, kw_only=True)
class Answers:
    """What publishers were told."""

    acknowledged: dict[str, Kind] = field(default_factory=dict[str, Kind])
    """By message id."""
    refused: int = 0
    """Answered 503."""
    unanswered: int = 0
    """The connection broke: some of it, all or nothing may be stored."""
    asked_again: set[str] = field(default_factory=set[str])
    """Keys that were published more than once, because an earlier try was not acknowledged."""


class Publishers:
    """Publish until told to stop, and write down every acknowledgement before the next publish."""

    def __init__(self, system: System, orders: Orders, ledger: Ledger) -> None:
        self.answers = Answers()
        self._system = system
        self._orders = orders
        self._ledger = ledger
        self._open: Counter[Api] = Counter()

    def open_publishes(self, api: Api) -> int:
        """Requests that this api has not answered yet."""
        return self._open[api]

    async def publish(self, session: aiohttp.ClientSession, number: int) -> None:
        """Publish once, or a batch, again and again until it is acknowledged; `number` chooses the api."""
        is_batch = self._orders.rng.random() < BATCHES
        size = self._orders.rng.randint(*BATCH_ITEMS) if is_batch else 1
        orders = [self._orders.next() for _ in range(size)]
        tries = 0
        while True:
            api = self._system.apis[(number + tries) % len(self._system.apis)]
            results = await self._try(session, api, orders, is_batch=is_batch)
            if results is not None:
                break
            # Broken off, a batch may be stored in part: none of it counts as acknowledged.
            self.answers.asked_again |= {order.key for order in orders}
            tries += 1
            await asyncio.sleep(0.05)
        for order, result in zip(orders, results, strict=True):
            for message in result if order.kind is Kind.FANNED_OUT else [result]:
                self._ledger.record("acknowledged", order.key, message["messageId"], order.kind.value)
                self.answers.acknowledged[message["messageId"]] = order.kind

    async def _try(
        self, session: aiohttp.ClientSession, api: Api, orders: Sequence[Order], *, is_batch: bool
    ) -> list[Any] | None:
        """The results in order; None if it was not acknowledged."""
        self._open[api] += 1
        try:
            async with _request(session, api, orders, is_batch=is_batch) as answer:
                fields = await answer.json()
                if answer.status == 200:
                    return fields if is_batch else [fields]
                assert answer.status == 503, (answer.status, fields)
                assert "Retry-After" in answer.headers
                self.answers.refused += 1
        except aiohttp.ClientError:
            self.answers.unanswered += 1
        finally:
            self._open[api] -= 1
        return None


def _request(
    session: aiohttp.ClientSession, api: Api, orders: Sequence[Order], *, is_batch: bool
) -> aiohttp.client._RequestContextManager:  # pyright: ignore[reportPrivateUsage]  (its only name)
    if is_batch:
        items = [
            {
                "destination": order.destination,
                "headers": order.headers,
                "queue": order.queue,
                "body": body_of(order.key).decode(),
            }
            for order in orders
        ]
        return session.post(f"{api.url}/v2/batch", data=msgspec.json.encode(items))
    [order] = orders
    verb = "publish" if order.queue is None else f"enqueue/{order.queue}"
    return session.post(f"{api.url}/v2/{verb}/{order.destination}", data=body_of(order.key), headers=order.headers)
