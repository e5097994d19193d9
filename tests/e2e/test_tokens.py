"""Tokens with fewer rights, their rotation without downtime, and the limit on management requests."""

from dataclasses import replace

import pytest
from qstash.errors import QStashError, RateLimitExceededError

from tests.e2e.conftest import connected, settings_for
from tests.support.client import Client
from tests.support.processes import Api, System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer


async def test_roles(e2e_redis: RedisServer, receiver: Receiver) -> None:
    settings = settings_for(
        e2e_redis.url, key_namespace="roles", publish_only_tokens=("publish-t",), read_only_tokens=("read-t", "read-u")
    )
    with System(settings, workers=1) as system:
        async with connected(system.url, "publish-t") as sdk:
            result = await sdk.message.publish(url=receiver.url)
            assert not isinstance(result, list)
            await receiver.wait_for(1)
            for refused in (
                sdk.message.get(result.message_id),
                sdk.dlq.list(),
                sdk.log.list(),
                sdk.message.cancel_all(),
            ):
                with pytest.raises(QStashError, match="403"):
                    await refused
        for token in settings.read_only_tokens:
            async with connected(system.url, token) as sdk:
                assert (await sdk.message.get(result.message_id)).url == receiver.url
                assert (await sdk.dlq.list()).messages == []
                assert (await sdk.log.list()).logs
                for refused in (
                    sdk.message.publish(url=receiver.url),
                    sdk.message.cancel(result.message_id),
                    sdk.message.cancel_all(),
                    sdk.dlq.delete_many([]),
                    sdk.signing_key.rotate(),
                ):
                    with pytest.raises(QStashError, match="403"):
                        await refused
        async with connected(system.url, "read") as sdk:
            with pytest.raises(QStashError, match="401"):
                await sdk.log.list()
        for process in system.processes:
            for token in ("publish-t", "read-t", "read-u"):
                assert token not in process.log_text()


async def test_a_rotation_needs_no_downtime(e2e_redis: RedisServer, receiver: Receiver) -> None:
    settings = settings_for(e2e_redis.url, key_namespace="rotate", token="old-token")
    with System(settings, apis=2, workers=0) as system:

        async def statuses() -> set[int]:
            """What every api says to every token that is in use."""
            answers = [
                await Client(api.url, replace(settings, token=token)).call("GET", "/v2/keys")
                for api in system.apis
                for token in in_use
            ]
            return {answer.status for answer in answers}

        in_use = ["old-token"]
        steps = [
            (replace(settings, tokens=("new-token",)), ["old-token", "new-token"]),
            (replace(settings, token="new-token"), ["new-token"]),
        ]
        for step, usable_afterwards in steps:
            # Publishers change over between the steps: until then only what all apis know may be used.
            in_use = [token for token in in_use if token in usable_afterwards]
            for number, api in enumerate(system.apis):
                api.stop()
                system.apis[number] = Api(settings=step, log=api.log).start().wait_ready()
                assert await statuses() == {200}
            in_use = usable_afterwards
            assert await statuses() == {200}
        in_use = ["old-token"]
        assert await statuses() == {401}


async def test_a_burst_is_told_apart_from_a_daily_limit(e2e_redis: RedisServer, receiver: Receiver) -> None:
    settings = settings_for(e2e_redis.url, key_namespace="burst", management_burst_limit=3)
    with System(settings, workers=0) as system:
        async with connected(system.url, settings.token) as sdk:

            async def ask_often() -> None:
                for _ in range(100):
                    await sdk.signing_key.get()

            with pytest.raises(RateLimitExceededError) as caught:
                await ask_often()
            assert (caught.value.limit, caught.value.remaining) == ("3", "0")
            for _ in range(20):
                await sdk.message.publish(url=receiver.url)
