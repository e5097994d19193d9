"""Signing keys: shown, rotated, kept over restarts, and what receivers with older keys make of it."""

from collections.abc import Iterator

import pytest
from qstash import Receiver as SignatureReceiver
from qstash.errors import SignatureError

from tests.conftest import CURRENT_KEY, NEXT_KEY
from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import ReceivedRequest, Receiver
from tests.support.redis_server import RedisServer


@pytest.fixture
def rotating(e2e_redis: RedisServer) -> Iterator[System]:
    """A system of its own, whose keys may change."""
    with System(settings_for(e2e_redis.url, key_namespace="rotating")) as system:
        yield system


def _verify(request: ReceivedRequest, url: str, current: str, following: str) -> None:
    signature = request.header("Upstash-Signature")
    assert signature is not None
    SignatureReceiver(current, following).verify(signature=signature, body=request.body.decode(), url=url)


async def test_keys_are_rotated_and_the_rotation_is_kept(rotating: System, receiver: Receiver) -> None:
    client = Client(rotating.url, rotating.settings)
    url = f"{receiver.url}/p"
    assert (await client.call("GET", "/v2/keys")).json() == {"current": CURRENT_KEY, "next": NEXT_KEY}
    await client.publish(url, b"0")

    once = (await client.call("POST", "/v2/keys/rotate")).json()
    assert once["current"] == NEXT_KEY
    assert once["next"].startswith("sig_")
    assert len(once["next"]) == 32
    assert (await client.call("GET", "/v2/keys")).json() == once
    await receiver.wait_for(1)
    await client.publish(url, b"1")
    (_, after_one) = await receiver.wait_for(2)
    _verify(after_one, url, once["current"], once["next"])
    _verify(after_one, url, CURRENT_KEY, NEXT_KEY)

    twice = (await client.call("POST", "/v2/rotate")).json()
    assert twice["current"] == once["next"]
    await client.publish(url, b"2")
    (_, _, after_two) = await receiver.wait_for(3)
    _verify(after_two, url, twice["current"], twice["next"])
    _verify(after_two, url, once["current"], once["next"])
    with pytest.raises(SignatureError):
        _verify(after_two, url, CURRENT_KEY, NEXT_KEY)

    # The configured keys only seeded the store.
    for process in rotating.processes:
        assert process.stop() == 0
    rotating.start()
    assert (await client.call("GET", "/v2/keys")).json() == twice
    await eventually(lambda: rotating.apis[0].events("signing_keys.differ"))
    await client.publish(url, b"3")
    (_, _, _, after_restart) = await receiver.wait_for(4)
    _verify(after_restart, url, twice["current"], twice["next"])
