"""`/v2/keys`."""

import httpx

from tests.conftest import CURRENT_KEY, NEXT_KEY


async def test_the_configured_keys_are_shown(client: httpx.AsyncClient) -> None:
    for path in ("/v2/keys", "/V2/Keys", "/v2/keys/"):
        assert (await client.get(path)).json() == {"current": CURRENT_KEY, "next": NEXT_KEY}


async def test_a_rotation_moves_the_next_key_up(client: httpx.AsyncClient) -> None:
    following = NEXT_KEY
    for path in ("/v2/keys/rotate", "/v2/rotate"):
        rotated = (await client.post(path)).json()
        assert rotated["current"] == following
        assert rotated["next"].startswith("sig_")
        assert len(rotated["next"]) == 32
        assert (await client.get("/v2/keys")).json() == rotated
        following = rotated["next"]


async def test_a_rotation_is_no_get(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v2/keys/rotate")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert (await client.get("/v2/keys")).json()["current"] == CURRENT_KEY
