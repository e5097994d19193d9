"""`/dev/clock`."""

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.domain.virtual_clock import LATEST_MS
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store

DAY_MS = 86_400_000
PATIENCE_MS = 20_000
NINES = "9" * 250


@pytest.fixture
async def dev(settings: Settings, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """Calls an api that `dev` has started, with a token for everything."""
    settings = replace(settings, dev=True, read_only_tokens=("a-token-that-only-reads",))
    headers = {"authorization": f"Bearer {settings.token}"}
    transport = httpx.ASGITransport(create_app(settings, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        yield client


async def test_at_first_it_is_the_time_of_redis(dev: httpx.AsyncClient, store: Store) -> None:
    for path in ("/dev/clock", "/DEV/Clock"):
        answer = await dev.get(path)
        assert answer.status_code == 200
        clock = answer.json()
        assert clock.keys() == {"now", "offset", "frozen"}
        assert (clock["offset"], clock["frozen"]) == (0, False)
        assert abs(clock["now"] - (await store.virtual_clock.read_clock()).real_ms) < PATIENCE_MS


@pytest.mark.parametrize(
    ("text", "ms"),
    [('"7d"', 7 * DAY_MS), ('"1h30m"', 5_400_000), ('"90"', 90_000), ("250", 250), ("0", 0), ('"0s"', 0)],
)
async def test_it_is_advanced(dev: httpx.AsyncClient, text: str, ms: int) -> None:
    await dev.post("/dev/clock", json={"freeze": True})
    before = (await dev.get("/dev/clock")).json()
    answer = await dev.post("/dev/clock", content=f'{{"advance": {text}}}')
    assert answer.status_code == 200
    assert answer.json()["now"] == before["now"] + ms
    assert (await dev.get("/dev/clock")).json()["now"] == before["now"] + ms


async def test_advances_add_up_while_it_runs(dev: httpx.AsyncClient) -> None:
    for number in (1, 2):
        clock = (await dev.post("/dev/clock", json={"advance": "1d"})).json()
        assert (clock["offset"], clock["frozen"]) == (number * DAY_MS, False)


async def test_it_goes_to_a_moment(dev: httpx.AsyncClient) -> None:
    at_ms = (await dev.get("/dev/clock")).json()["now"] + DAY_MS
    clock = (await dev.post("/dev/clock", json={"to": at_ms})).json()
    assert at_ms <= clock["now"] < at_ms + PATIENCE_MS
    assert 0 < clock["offset"] <= DAY_MS


async def test_it_stands_still_and_goes_on(dev: httpx.AsyncClient) -> None:
    frozen = (await dev.post("/dev/clock", json={"freeze": True})).json()
    assert frozen["frozen"]
    assert (await dev.get("/dev/clock")).json()["now"] == frozen["now"]
    assert (await dev.post("/dev/clock", json={"freeze": True})).json()["now"] == frozen["now"]
    thawed = (await dev.post("/dev/clock", json={"freeze": False})).json()
    assert not thawed["frozen"]
    assert frozen["now"] <= thawed["now"] < frozen["now"] + PATIENCE_MS


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "exactly one of advance, to and freeze"),
        ("{}", "exactly one of advance, to and freeze"),
        ('{"advance": "1d", "freeze": true}', "exactly one of advance, to and freeze"),
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ('{"forward": "1d"}', '"forward" is not a move'),
        ('{"advance": "soon"}', '"soon"'),
        ('{"advance": "-1d"}', '"-1d"'),
        ('{"advance": ""}', 'invalid duration ""'),
        ('{"advance": -1}', "-1"),
        ('{"advance": 1.5}', "1.5"),
        ('{"advance": true}', "true"),
        ('{"advance": null}', "null"),
        ('{"advance": "1000000d"}', "year 3000"),
        (f'{{"advance": {10**60}}}', "year 3000"),
        (f'{{"advance": "{NINES[:150]}"}}', "year 3000"),
        (f'{{"advance": "{NINES}"}}', "at most 200 characters"),
        ('{"to": "tomorrow"}', "tomorrow"),
        ('{"to": true}', "true"),
        ('{"to": 0}', "never goes back"),
        (f'{{"to": {LATEST_MS + 1}}}', "year 3000"),
        ('{"freeze": 1}', "use true or false"),
        ('{"freeze": "true"}', "use true or false"),
    ],
)
async def test_anything_else_is_refused_and_changes_nothing(dev: httpx.AsyncClient, body: str, text: str) -> None:
    await dev.post("/dev/clock", json={"freeze": True})
    before = (await dev.get("/dev/clock")).json()
    answer = await dev.post("/dev/clock", content=body)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert len(answer.json()["error"]) < 400
    assert (await dev.get("/dev/clock")).json()["now"] == before["now"]


async def test_a_token_is_needed(dev: httpx.AsyncClient) -> None:
    """Any page in a developer's browser can send a request to this machine."""
    for method in ("GET", "POST"):
        del dev.headers["authorization"]
        assert (await dev.request(method, "/dev/clock")).status_code == 401
        dev.headers["authorization"] = "Bearer wrong"
        assert (await dev.request(method, "/dev/clock")).status_code == 401
    dev.headers["authorization"] = "Bearer a-token-that-only-reads"
    assert (await dev.get("/dev/clock")).status_code == 200
    assert (await dev.post("/dev/clock", json={"advance": 1})).status_code == 403


async def test_other_methods_and_paths(dev: httpx.AsyncClient) -> None:
    assert (await dev.delete("/dev/clock")).status_code == 405
    assert (await dev.get("/dev/clocks")).status_code == 404


async def test_outside_of_dev_there_is_none(client: httpx.AsyncClient, store: Store) -> None:
    assert (await client.get("/dev/clock")).status_code == 404
    assert (await client.post("/dev/clock", json={"advance": "7d"})).status_code == 404
    assert (await store.virtual_clock.read_clock()).offset_ms == 0


async def test_previews_go_by_it(dev: httpx.AsyncClient) -> None:
    await dev.post("/dev/clock", json={"freeze": True})
    now_ms = (await dev.post("/dev/clock", json={"advance": "400d"})).json()["now"]
    cron = (await dev.post("/v2/preview/cron", json={"cron": "* * * * *", "count": 1})).json()
    assert cron["now"] == now_ms
    assert 0 < cron["firings"][0]["time"] - now_ms <= 60_000
    retries = (await dev.post("/v2/preview/retries", json={"expression": "5000", "count": 1})).json()
    assert (retries["now"], retries["retries"][0]["time"]) == (now_ms, now_ms + 5000)
