"""Queues and flow-control keys cost nothing while they are idle or held up, however many there are."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from operator import attrgetter
from typing import Any

import pytest

from qstash_clone.domain.message import Claim
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from tests.storage.conftest import ENGINES, IS_LONG, Look
from tests.support.lanes import KEY, QUEUE, enqueue, publish_keyed, put_queue, shown_key, shown_queue
from tests.support.messages import claim_all, delivered, publish, retry
from tests.support.meter import FORBIDDEN, Meter
from tests.support.redis_server import RedisServer

LANES = 5_000
"""Of each kind."""
MOST_LOOKED_AT = 8
"""Blocked lanes that a heartbeat gives a turn, in case nobody else does."""
TURN_COMMANDS = 10


@pytest.fixture(scope="session", params=ENGINES if IS_LONG else ENGINES[:1])
def redis_server(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """Scripts are the same on every engine, and ten thousand lanes take a while."""
    return redis_servers(request.param)


@pytest.fixture
def meter(redis_client: Any, store: Store) -> Meter:
    return Meter(redis_client)


async def together(steps: Iterable[Awaitable[object]]) -> None:
    """All of these, some at once."""
    waiting = list(steps)
    for start in range(0, len(waiting), 40):
        await asyncio.gather(*waiting[start : start + 40])


async def every_step(store: Store, meter: Meter) -> dict[str, Counter[str]]:
    """The commands of each step of a plain message, a member of a queue and a message with a key."""
    used: dict[str, Counter[str]] = {}
    claims: list[Claim] = []

    async def measure(name: str, step: Callable[[], Awaitable[object]]) -> None:
        used[name] = await meter.count(step)

    async def claim() -> None:
        # Retries that are due together come in any order.
        claims[:] = sorted(await claim_all(store, limit=3), key=lambda claim: claim.lane)
        assert len(claims) == 3

    async def settle(claim: Claim, *, is_last: bool) -> None:
        await store.delivery.settle(delivered(claim) if is_last else retry(claim, delay_ms=0))

    await measure("publish", lambda: publish(store))
    await measure("publish to a queue", lambda: enqueue(store))
    await measure("publish with a key", lambda: publish_keyed(store, parallelism=5, rate=100, period_s=60))
    await measure("claim", claim)
    await measure("release", lambda: store.delivery.release(claims))
    await claim()
    for is_last in (False, True):
        for one in sorted(claims, key=attrgetter("lane")):
            await measure(f"settle {one.lane} {is_last}", lambda c=one, last=is_last: settle(c, is_last=last))
        if not is_last:
            await measure("promote", lambda: store.delivery.promote(0, 10))
            await claim()
    await measure("pause a queue", lambda: put_queue(store, is_paused=True))
    delayed = await enqueue(store, delay_ms=60_000)
    await measure("cancel a member", lambda: store.admin.cancel(delayed))
    await measure("resume a queue", lambda: put_queue(store, is_paused=False))
    await measure("pause a key", lambda: store.flow_controls.set_flow_control_paused(KEY, True))
    await measure("resume a key", lambda: store.flow_controls.set_flow_control_paused(KEY, False))
    await measure("read a queue", lambda: shown_queue(store))
    await measure("read a key", lambda: shown_key(store))
    await measure("expire", lambda: store.delivery.expire(0, 500))
    await measure("heartbeat", lambda: store.delivery.heartbeat("w1", 100))
    await claim_all(store)  # doorbells
    return used


def assert_no_more(used: dict[str, Counter[str]], before: dict[str, Counter[str]]) -> None:
    for name, commands in used.items():
        assert commands == before[name], (name, commands - before[name], before[name] - commands)
        assert not commands.keys() & FORBIDDEN, name


async def test_no_step_costs_more_with_many_idle_lanes(store: Store, meter: Meter, look: Look) -> None:
    await every_step(store, meter)
    few = await every_step(store, meter)
    await together(put_queue(store, f"{QUEUE}-{n}") for n in range(LANES))
    await together(
        store.flow_controls.pin_flow_control(f"{KEY}-{n}", parallelism=1, rate=None, period_ms=1000)
        for n in range(LANES)
    )
    assert_no_more(await every_step(store, meter), few)


async def test_no_step_costs_more_with_many_lanes_held_up(
    store: Store, meter: Meter, redis_client: Any, keys: PartitionKeys
) -> None:
    await every_step(store, meter)
    few = await every_step(store, meter)
    await together(put_queue(store, f"{QUEUE}-{n}", is_paused=True) for n in range(LANES))
    await together(enqueue(store, f"{QUEUE}-{n}") for n in range(LANES))
    await together(store.flow_controls.set_flow_control_paused(f"{KEY}-{n}", True) for n in range(LANES))
    await together(publish_keyed(store, f"{KEY}-{n}") for n in range(LANES))
    assert await redis_client.scard(keys.blocked) == 2 * LANES
    many = await every_step(store, meter)
    looked_at = many.pop("heartbeat").total() - few["heartbeat"].total()
    assert 0 < looked_at <= MOST_LOOKED_AT * TURN_COMMANDS
    assert_no_more(many, few)


@pytest.mark.parametrize(
    ("step", "most"), [("publish", 15), ("publish to a queue", 32), ("publish with a key", 34), ("release", 25)]
)
async def test_what_one_message_costs(store: Store, meter: Meter, step: str, most: int) -> None:
    await every_step(store, meter)
    used = await every_step(store, meter)
    assert used[step].total() <= most, used[step]
    assert used[step]["evalsha"] == 1
