"""Steps of messages' lives over the application and its store: publish, take, settle."""

import random
from typing import Any

import httpx

from qstash_clone.clock import SystemClock
from qstash_clone.domain.message import AttemptRecord, Claim, Settlement, SettlementKind
from qstash_clone.storage.store import Store
from worker.health import Health
from worker.scheduler import ScheduleLoop

NOT_FOUND = AttemptRecord(
    status=404,
    error="destination answered 404",
    headers=(("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")),
    body=b"404 Not Found",
    duration_ms=12,
)


async def publish(
    client: httpx.AsyncClient, url: str = "https://example.com/hook", body: bytes = b"", **headers: str
) -> str:
    """A message's id; header names are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.post(f"/v2/publish/{url}", content=body, headers=named)
    assert answer.status_code == 200, answer.text
    return answer.json()["messageId"]


async def claims(store: Store) -> list[Claim]:
    """Everything that is due."""
    await store.delivery.heartbeat("test", 10)
    return (await store.delivery.claim(0, "test", 10)).claims


async def settle(
    store: Store, claim: Claim, kind: SettlementKind, attempt: AttemptRecord | None = None, delay_ms: int = 0
) -> None:
    """End an attempt."""
    await store.delivery.settle(Settlement(claim=claim, kind=kind, attempt=attempt, delay_ms=delay_ms))


async def deliver(store: Store) -> None:
    """Everything that is due succeeds."""
    for claim in await claims(store):
        await settle(store, claim, SettlementKind.DELIVERED)


async def fail(store: Store, attempt: AttemptRecord = NOT_FOUND) -> None:
    """Everything that is due becomes a dead letter."""
    for claim in await claims(store):
        await settle(store, claim, SettlementKind.FAILED, attempt)


async def fire(store: Store) -> int:
    """Fire the schedules that are due, as a worker does; how many there were."""
    clock = SystemClock()
    loop = ScheduleLoop(
        store=store.schedules,
        url_groups=store.url_groups,
        partition=0,
        max_lateness_ms=None,
        clock=clock,
        health=Health(clock),
        rng=random.Random(1),
    )
    return (await loop.step()).fired


async def dead_letters(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    """As the api lists them."""
    answer = await client.get(f"/v2/dlq?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["messages"]


async def log_of(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    """Entries of the log, oldest first."""
    answer = await client.get(f"/v2/events?order=earliestFirst&{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["events"]
