"""What fault runs of topics share: a producer that keeps account, and the kills."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.redis_server import RedisServer


@dataclass(slots=True, kw_only=True)
class Produced:
    """What a producer was told."""

    acknowledged: set[str] = field(default_factory=set[str])
    is_enough: bool = False


async def produce(client: Client, producer: int, produced: Produced) -> None:
    """Ten records a request, each once, until it is enough."""
    number = 0
    while not produced.is_enough:
        values = [f"{producer}-{number + place}" for place in range(10)]
        number += len(values)
        body = msgspec.json.encode([{"value": value, "key": value} for value in values])
        try:
            answer = await client.call("POST", "/produce/orders", body=body)
        except (OSError, EOFError, ValueError):
            await asyncio.sleep(0.02)
            continue
        if answer.status == 200:
            produced.acknowledged.update(values)
        await asyncio.sleep(0.02)


async def kill_in_turn(
    system: System, redis: RedisServer, rng: random.Random, kills: int, progress: Callable[[], int], between: int
) -> Counter[str]:
    """So many kills of apis and Redis, each after `progress` has grown by so much since the last one."""
    kinds = [("api", "redis")[number % 2] for number in range(kills)]
    rng.shuffle(kinds)
    for kind in kinds:
        goal = progress() + between
        await eventually(lambda goal=goal: progress() >= goal, timeout=60, what="some more was done")
        if kind == "redis":
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
        else:
            api = rng.choice(system.apis)
            await asyncio.to_thread(api.kill)
            api.start()
            await asyncio.to_thread(api.wait_ready)
    return Counter(kinds)
