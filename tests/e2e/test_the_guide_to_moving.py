"""docs/howto/move-from-hosted-qstash.md: its commands, word for word, with another service for the hosted one."""

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from qstash.errors import SignatureError

from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "move-from-hosted-qstash.md"
HOSTED = "https://qstash.upstash.io"
THERE_KEYS = "sig_there_current_0123456789abcde", "sig_there_next_0123456789abcdefgh"


@pytest.fixture(scope="module")
def systems(e2e_redis: RedisServer) -> Iterator[tuple[System, System]]:
    """The hosted one, and ours."""
    current, following = THERE_KEYS
    with ExitStack() as stack:
        there = settings_for(
            e2e_redis.url,
            key_namespace="moving-there",
            token="token-of-the-hosted-one",
            current_signing_key=current,
            next_signing_key=following,
        )
        here = settings_for(e2e_redis.url, key_namespace="moving-here")
        yield stack.enter_context(System(there)), stack.enter_context(System(here))


@pytest.fixture
def clients(systems: tuple[System, System]) -> tuple[Client, Client]:
    there, here = systems
    return Client(there.url, there.settings), Client(here.url, here.settings)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


async def run(commands: str, systems: tuple[System, System], folder: Path) -> str:
    there, here = systems
    own = folder / "qstash-clone"
    own.write_text(f'#!/bin/sh\nexec {sys.executable} -m qstash_clone.cli "$@" --from {there.url}\n')
    own.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        "set -euo pipefail\n" + commands.replace(HOSTED, there.url),
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(PAGE.parents[2]),
            "UPSTASH_QSTASH_TOKEN": there.settings.token,
            "QSTASH_URL": here.url,
            "QSTASH_TOKEN": here.settings.token,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def paused_at(client: Client) -> dict[str, bool]:
    return {one["scheduleId"]: one["isPaused"] for one in await client.send("GET", "/v2/schedules")}


async def test_copying_and_switching_over(
    systems: tuple[System, System], clients: tuple[Client, Client], tmp_path: Path
) -> None:
    there, here = clients
    copy, switch_over = blocks("sh")
    for name in ("a", "b", "asleep"):
        headers = [("Upstash-Cron", "0 0 1 1 *"), ("Upstash-Schedule-Id", name)]
        answer = await there.call("POST", "/v2/schedules/https://example.com", headers)
        assert answer.status == 200, answer
    await there.send("PATCH", "/v2/schedules/asleep/pause")

    told = await run(copy, systems, tmp_path)
    assert "3 schedules" not in told
    assert "2 schedules fire at" in told
    assert await paused_at(there) == {"a": False, "b": False, "asleep": True}
    assert await paused_at(here) == {"a": True, "b": True, "asleep": True}

    await run(switch_over, systems, tmp_path)
    assert await paused_at(there) == {"a": True, "b": True, "asleep": True}
    assert await paused_at(here) == {"a": False, "b": False, "asleep": True}
    assert "schedules fire" not in await run(copy, systems, tmp_path)

    await run(switch_over, systems, tmp_path)
    assert await paused_at(here) == {"a": False, "b": False, "asleep": True}, "nothing is left to be switched over"


async def test_a_receiver_with_the_keys_of_both(
    systems: tuple[System, System],
    clients: tuple[Client, Client],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, here = systems
    monkeypatch.setenv("QSTASH_CURRENT_SIGNING_KEY", here.settings.current_signing_key)
    monkeypatch.setenv("QSTASH_NEXT_SIGNING_KEY", here.settings.next_signing_key)
    monkeypatch.setenv("UPSTASH_CURRENT_SIGNING_KEY", there.settings.current_signing_key)
    monkeypatch.setenv("UPSTASH_NEXT_SIGNING_KEY", there.settings.next_signing_key)
    [code] = blocks("python")
    names: dict[str, Any] = {}
    exec(code, names)
    verify: Callable[..., None] = names["verify"]
    for number, client in enumerate(clients, start=1):
        await client.publish(receiver.url + "/order", b"of %d" % number)
        request = (await receiver.wait_for(number))[-1]
        signature, body = request.header("upstash-signature"), request.body.decode()
        verify(signature=signature, body=body, url=receiver.url + "/order")
        with pytest.raises(SignatureError):
            verify(signature=signature, body="another", url=receiver.url + "/order")
