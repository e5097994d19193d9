"""Kill -9 under load, again and again: nothing acknowledged is lost, and every duplicate has a reason.

FAULT_KILLS, FAULT_MESSAGES, FAULT_SEED and FAULT_TIMEOUT_S make it longer or another one.
"""

import os
from pathlib import Path

from tests.e2e.conftest import settings_for
from tests.faults.chaos import MIN_IN_FLIGHT, Chaos, Plan
from tests.faults.load import PARALLELISM, Kind
from tests.support.processes import System
from tests.support.redis_server import RedisServer

PLAN = Plan(
    kills=int(os.environ.get("FAULT_KILLS", "24")),
    messages=int(os.environ.get("FAULT_MESSAGES", "10000")),
    seed=int(os.environ.get("FAULT_SEED", "1")),
)


async def test_everything_acknowledged_arrives(own_redis: RedisServer, tmp_path: Path, accounts: list[str]) -> None:
    settings = settings_for(own_redis.url, lease_ms=2000, worker_concurrency=64)
    with System(settings, apis=2, workers=3) as system:
        chaos = Chaos(PLAN, system, own_redis, tmp_path)
        try:
            account = await chaos.run()
        finally:
            accounts.append(chaos.account.table())
    assert account.kills.count.total() == PLAN.kills
    assert min(account.kills.in_flight_at) >= MIN_IN_FLIGHT
    assert len(account.answers.acknowledged) >= PLAN.messages
    assert set(account.answers.acknowledged.values()) == set(Kind)
    assert account.lost == set()
    assert account.unreported == set()
    assert account.wrongly_dead == set()
    assert account.corrupt == 0
    assert account.needless_retries == 0
    assert account.unexplained == set()
    assert account.published_twice <= account.answers.asked_again
    assert account.most_at_once <= PARALLELISM
    assert account.remains is not None
    assert account.remains.is_empty
