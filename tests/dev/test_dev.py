"""`qstash-clone dev` with real processes: starting, dying, going on, and stopping."""

import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

from qstash_clone.settings import (
    DEVELOPMENT_CURRENT_SIGNING_KEY,
    DEVELOPMENT_NEXT_SIGNING_KEY,
    DEVELOPMENT_TOKEN,
    Settings,
)
from qstash_clone.storage.embedded import EmbeddedRedis
from qstash_clone.storage.engine_program import EngineProgram, find_programs
from qstash_clone.storage.keys import PartitionKeys
from tests.dev.running import Dev
from tests.support.eventually import eventually
from tests.support.receiver import HANG, Receiver

ENGINES = find_programs(None)
TOMORROW = {"Upstash_Delay": "1d"}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.mark.parametrize("engine", ENGINES, ids=str)
async def test_first_start_delivers_and_ctrl_c_leaves_nothing(
    engine: EngineProgram, tmp_path: Path, receiver: Receiver
) -> None:
    async with Dev(tmp_path / "data", redis_server=engine.path) as dev:
        await dev.start()
        for line in (
            f"export QSTASH_URL={dev.url}",
            f"export QSTASH_TOKEN={DEVELOPMENT_TOKEN}",
            f"export QSTASH_CURRENT_SIGNING_KEY={DEVELOPMENT_CURRENT_SIGNING_KEY}",
            f"export QSTASH_NEXT_SIGNING_KEY={DEVELOPMENT_NEXT_SIGNING_KEY}",
            f"curl {dev.url}/v2/publish/http://localhost:3000",
            f"appendfsync always, {engine}",
            "compat=reference",
        ):
            assert line in dev.new_output
        await dev.publish(f"{receiver.url}/first", b"\x00hello")
        (request,) = await receiver.wait_for(1)
        assert request.body == b"\x00hello"
        assert request.header("Upstash-Signature")
        assert await dev.stop() == 0


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", workers="1") as dev:
        await dev.start()
        message_id = await dev.publish("http://localhost:9/later", b"x", **TOMORROW)
        assert await dev.stop() == 0
        await dev.start()
        assert (await dev.request("GET", f"/v2/messages/{message_id}")).status_code == 200
        assert await dev.stop() == 0


async def test_everything_killed_goes_on_with_the_next_start(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", workers="1") as dev:
        await dev.start()
        message_id = await dev.publish("http://localhost:9/later", b"x", **TOMORROW)
        dev.kill_everything()
        await eventually(lambda: dev.survivors() == [])
        await dev.start()
        assert (await dev.request("GET", f"/v2/messages/{message_id}")).status_code == 200
        assert await dev.stop() == 0


async def test_killed_supervisor_takes_its_children_along_and_its_redis_is_replaced(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", workers="1") as dev:
        await dev.start()
        message_id = await dev.publish("http://localhost:9/later", b"x", **TOMORROW)
        (orphan,) = dev.children("redis")
        dev.kill_supervisor()
        await eventually(lambda: dev.survivors() == ["redis"], what="the children to end")
        await dev.start()
        assert not orphan.is_running()
        assert len(dev.children("redis")) == 1
        assert (await dev.request("GET", f"/v2/messages/{message_id}")).status_code == 200
        assert await dev.stop() == 0


async def test_whatever_dies_is_started_again(tmp_path: Path, receiver: Receiver) -> None:
    async with Dev(tmp_path / "data", workers="1") as dev:
        await dev.start()
        for role in ("api", "worker", "redis"):
            (before,) = dev.children(role)
            before.kill()
            await eventually(lambda role=role, pid=before.pid: [p.pid for p in dev.children(role)] not in ([], [pid]))
            await dev.publish(f"{receiver.url}/after/{role}", b"x")
            await receiver.wait_for(1, path=f"/after/{role}", timeout_s=20)
        assert await dev.stop() == 0


async def test_second_ctrl_c_does_not_wait_for_deliveries(tmp_path: Path, receiver: Receiver) -> None:
    receiver.always(HANG)
    async with Dev(tmp_path / "data", workers="1", shutdown_grace_ms="3600000") as dev:
        await dev.start()
        await dev.publish(f"{receiver.url}/hang", b"x")
        await receiver.wait_for(1)
        dev.signal(signal.SIGTERM)
        await dev.expect("worker.draining")
        dev.signal(signal.SIGTERM)
        assert await dev.ended() == 0
        await eventually(lambda: dev.survivors() == [])


async def test_too_little_disk_space_refuses_new_messages_and_delivers_the_old_ones(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with Dev(tmp_path / "data", workers="1") as dev:
        await dev.start()
        await dev.publish(f"{receiver.url}/old", b"x", Upstash_Delay="2s")
        assert await dev.stop() == 0
    async with Dev(tmp_path / "data", workers="1", min_free_disk_bytes=str(10**17)) as dev:
        await dev.start()
        assert "new messages are answered 503" in dev.new_output
        await receiver.wait_for(1, path="/old")
        refused = await dev.request("POST", f"/v2/publish/{receiver.url}/new", content=b"x")
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert (await dev.request("GET", "/v2/keys")).status_code == 200
        assert await dev.stop() == 0


async def refusal(dev: Dev) -> str:
    """The one sentence of a start that fails."""
    dev.launch()
    assert await dev.ended() == 2
    assert dev.survivors() == []
    (sentence,) = [line for line in dev.new_output.splitlines() if line.startswith("qstash-clone: ")]
    assert "Traceback" not in dev.new_output
    return sentence


async def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with Dev(tmp_path / "data", "--port", str(port)) as dev:
            sentence = await refusal(dev)
    assert f"Port {port} of 127.0.0.1 is in use" in sentence
    assert "--port" in sentence


async def test_folder_in_use(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", workers="1") as dev, Dev(tmp_path / "x" / ".." / "data") as second:
        (tmp_path / "x").mkdir()
        await dev.start()
        assert "Another `qstash-clone dev` is using" in await refusal(second)
        assert (await dev.request("GET", "/v2/keys")).status_code == 200
        assert await dev.stop() == 0


async def test_data_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with Dev(tmp_path / "file") as dev:
        assert "is not a folder; choose another --data-dir" in await refusal(dev)


async def test_data_dir_that_cannot_be_made(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", "--data-dir", "/proc/qstash-clone") as dev:
        assert "Cannot make the folder /proc/qstash-clone" in await refusal(dev)


async def test_damaged_append_only_file(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", workers="1", redis_server=ENGINES[-1].path) as dev:
        await dev.start()
        await dev.publish("http://localhost:9/later", b"x" * 100, **TOMORROW)
        assert await dev.stop() == 0
        (log,) = [
            path for path in (tmp_path / "data" / "redis").rglob("*") if path.name.endswith(("incr.aof", "y.aof"))
        ]
        log.write_bytes(b"garbage" + log.read_bytes()[7:])
        assert "is damaged" in await refusal(dev)


async def test_folder_of_a_newer_engine(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data") as dev:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "engine.json").write_text(json.dumps({"engine": "redis", "version": "99.1.0"}))
        sentence = await refusal(dev)
    assert "was written by Redis 99.1.0" in sentence


async def test_store_of_a_newer_release(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", workers="1") as dev:
        await dev.start()
        assert await dev.stop() == 0
        engine = EmbeddedRedis(tmp_path / "data", ENGINES)
        engine.start()
        meta = PartitionKeys(Settings().key_namespace, 0, 1).meta
        with Redis.from_url(engine.url) as client:  # pyright: ignore[reportUnknownMemberType]
            assert client.hset(meta.decode(), "v", "99") == 0
        engine.stop()
        dev.launch()
        assert await dev.ended() == 2
        assert "Traceback" not in dev.new_output
        assert re.search(r"^qstash-clone (api|worker): .*99", dev.new_output, re.MULTILINE)
        assert "its reason is in the lines above" in dev.new_output


async def test_missing_program(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", redis_server=str(tmp_path / "redis-server")) as dev:
        assert "is no redis-server that can be run" in await refusal(dev)


async def test_public_credentials_off_the_loopback_address(tmp_path: Path) -> None:
    async with Dev(tmp_path / "data", "--host", "0.0.0.0") as dev:
        assert "QSTASH_CLONE_TOKEN is the public development one" in await refusal(dev)
