"""The limit on requests other than publishing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from qstash_clone.api.app import create_app
from qstash_clone.clock import SystemClock
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store

SECOND_S = 1_700_000_000


class StandingClock(SystemClock):
    """Tells a time that moves only when it is told to."""

    def __init__(self) -> None:
        self.ms = SECOND_S * 1000

    def now_ms(self) -> int:
        return self.ms


@asynccontextmanager
async def limited(
    settings: Settings, store: Store, limit: int
) -> AsyncGenerator[tuple[httpx.AsyncClient, StandingClock]]:
    clock = StandingClock()
    app = create_app(replace(settings, management_burst_limit=limit), store, clock)
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", headers=headers) as client:
        yield client, clock


def burst(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if "ratelimit" in name}


async def test_without_a_limit_nothing_is_said_about_it(client: httpx.AsyncClient) -> None:
    for _ in range(20):
        answer = await client.get("/v2/keys")
        assert (answer.status_code, burst(answer)) == (200, {})


async def test_one_too_many_in_a_second_is_refused(settings: Settings, store: Store) -> None:
    async with limited(settings, store, 2) as (client, clock):
        for remaining in ("1", "0"):
            answer = await client.get("/v2/keys")
            assert answer.status_code == 200
            assert burst(answer) == {
                "burst-ratelimit-limit": "2",
                "burst-ratelimit-remaining": remaining,
                "burst-ratelimit-reset": str(SECOND_S + 1),
            }
        for _ in range(2):
            answer = await client.get("/v2/dlq")
            assert answer.status_code == 429
            assert "2 requests" in answer.json()["error"]
            assert answer.headers["retry-after"] == "1"
            # Any other header of this kind would make clients take it for another limit.
            assert burst(answer) == {
                "burst-ratelimit-limit": "2",
                "burst-ratelimit-remaining": "0",
                "burst-ratelimit-reset": str(SECOND_S + 1),
            }
        clock.ms += 1000
        answer = await client.get("/v2/keys")
        assert (answer.status_code, answer.headers["burst-ratelimit-remaining"]) == (200, "1")


async def test_publishing_is_never_limited(settings: Settings, store: Store) -> None:
    async with limited(settings, store, 1) as (client, _):
        for _ in range(5):
            assert (await client.post("/v2/publish/https://example.com")).status_code == 200
            for path in ("/v2/enqueue/q/https://example.com", "/v2/batch"):
                assert (await client.post(path)).status_code != 429
        assert (await client.get("/v2/keys")).status_code == 200
        assert (await client.get("/v2/keys")).status_code == 429
        for _ in range(5):
            assert (await client.get("/livez")).status_code == 200


async def test_strangers_do_not_use_it_up(settings: Settings, store: Store) -> None:
    async with limited(settings, store, 1) as (client, _):
        for _ in range(3):
            assert (await client.get("/v2/keys", headers={"authorization": "Bearer x"})).status_code == 401
        assert (await client.get("/v2/keys")).status_code == 200
