"""The api as processes: start, stop, a Redis that comes and goes, a supervisor that dies, several at one port."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from qstash_clone.settings import PARENT_FD_VARIABLE
from tests.api.raw import Connection
from tests.conftest import CURRENT_KEY, NEXT_KEY, TOKEN
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer, find_engines

HEADERS = {"authorization": f"Bearer {TOKEN}"}


class ApiProcess:
    """`python -m qstash_clone.api` on a free port, its log in a file."""

    def __init__(self, folder: Path, redis_url: str, pass_fds: tuple[int, ...] = (), **settings: str) -> None:
        self._log = folder / "log"
        self._errors = folder / "errors"
        environ = {name: value for name, value in os.environ.items() if "QSTASH" not in name and name != "REDIS_URL"}
        environ |= {
            "REDIS_URL": redis_url,
            "QSTASH_TOKEN": TOKEN,
            "QSTASH_CURRENT_SIGNING_KEY": CURRENT_KEY,
            "QSTASH_NEXT_SIGNING_KEY": NEXT_KEY,
            "QSTASH_CLONE_PORT": "0",
            **settings,
        }
        with self._log.open("wb") as log, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qstash_clone.api"],
                stdout=log,
                stderr=errors,
                env=environ,
                pass_fds=pass_fds,
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        """The complete log lines with this event."""
        lines = self._log.read_bytes().splitlines(keepends=True)
        parsed = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [event for event in parsed if event["event"] == name]

    async def url(self, processes: int = 1) -> str:
        """Where it listens, once all its processes do."""
        started = await eventually(lambda: (found := self.events("server.started"))[processes - 1 :] and found)
        return f"http://127.0.0.1:{started[0]['port']}"

    async def ended(self) -> int:
        """The exit status, once there is one."""
        await eventually(lambda: self.process.poll() is not None)
        return self.process.returncode

    def close(self) -> str:
        """End it, and return what it wrote to standard error."""
        self.process.kill()
        self.process.wait()
        return self._errors.read_text()


Start = Callable[..., ApiProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[ApiProcess] = []

    def start(redis_url: str, pass_fds: tuple[int, ...] = (), **settings: str) -> ApiProcess:
        process = ApiProcess(tmp_path, redis_url, pass_fds, **settings)
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that the test starts, ends and starts again."""
    server = RedisServer(next(iter(find_engines().values())))
    yield server
    server.stop()


async def publish(client: httpx.AsyncClient, url: str) -> httpx.Response:
    return await client.post(f"{url}/v2/publish/https://example.com/", headers=HEADERS)


async def test_it_starts_without_redis_and_goes_on_when_redis_comes_and_comes_back(
    start: Start, own_redis: RedisServer
) -> None:
    api = start(own_redis.url)
    url = await api.url()
    async with httpx.AsyncClient() as client:

        async def publishes(status: int) -> bool:
            answer = await publish(client, url)
            if answer.status_code == 503:
                assert answer.headers["retry-after"] == "1"
                assert "error" in answer.json()
            return answer.status_code == status

        assert (await client.get(f"{url}/livez")).status_code == 200
        assert (await client.get(f"{url}/readyz")).status_code == 503
        assert await publishes(503)
        for _ in range(2):
            own_redis.start()
            await eventually(lambda: publishes(200))
            own_redis.kill()
            await eventually(lambda: publishes(503))
            assert (await client.get(f"{url}/livez")).status_code == 200


async def test_sigterm_ends_it_cleanly_and_its_log_is_complete(start: Start, redis_url: str) -> None:
    api = start(redis_url, QSTASH_CLONE_KEY_NAMESPACE="sigterm")
    url = await api.url()
    async with httpx.AsyncClient() as client:
        await eventually(lambda: api.events("store.opened"))
        answer = await publish(client, url)
        assert answer.status_code == 200
        api.process.terminate()
        assert await api.ended() == 0
        with pytest.raises(httpx.TransportError):
            await client.get(f"{url}/livez")
    [published] = api.events("message.published")
    assert published["message_id"] == answer.json()["messageId"]
    assert (published["role"], published["pid"]) == ("api", api.process.pid)
    assert api.events("server.stopped")
    assert api.close() == ""


async def test_a_stop_does_not_wait_longer_than_its_grace(start: Start, own_redis: RedisServer) -> None:
    """What Redis has not confirmed by then is answered as possibly carried out."""
    api = start(own_redis.start().url, QSTASH_CLONE_SHUTDOWN_GRACE_MS="1000")
    url = await api.url()
    await eventually(lambda: api.events("store.opened"))
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGSTOP)
    async with httpx.AsyncClient() as client:
        publishing = asyncio.ensure_future(publish(client, url))
        assert (await client.get(f"{url}/livez")).status_code == 200
        api.process.terminate()
        answer = await publishing
    assert answer.status_code == 503
    assert answer.json() == {"error": "the service is stopping; the request may have been carried out"}
    assert await api.ended() == 0
    assert api.close() == ""


async def test_ctrl_c_ends_it_cleanly(start: Start, redis_url: str) -> None:
    api = start(redis_url)
    await api.url()
    api.process.send_signal(signal.SIGINT)
    assert await api.ended() == 0
    assert api.close() == ""


@pytest.mark.parametrize("processes", [1, 2])
async def test_it_ends_when_its_supervisor_is_gone(start: Start, redis_url: str, processes: int) -> None:
    reading, writing = os.pipe()
    variables = {PARENT_FD_VARIABLE: str(reading), "QSTASH_CLONE_PROCESSES": str(processes)}
    api = start(redis_url, pass_fds=(reading,), **variables)
    os.close(reading)
    url = await api.url(processes)
    os.close(writing)
    assert await api.ended() == 1
    await eventually(lambda: not is_listening(url))


async def test_a_port_in_use_is_one_sentence(start: Start, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for processes in ("1", "2"):
            api = start(redis_url, QSTASH_CLONE_PORT=str(port), QSTASH_CLONE_PROCESSES=processes)
            assert await api.ended() == 78
            said = api.close()
            assert said.startswith(f"qstash-clone api: Cannot listen on 127.0.0.1, port {port}: it is in use;")
            assert said.count("\n") == 1


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_redis_that_evicts_is_one_sentence(start: Start, processes: str) -> None:
    server = RedisServer(next(iter(find_engines().values())), "--maxmemory-policy", "allkeys-lru")
    with contextlib.closing(_Stopping(server.start())):
        api = start(server.url, QSTASH_CLONE_PROCESSES=processes)
        assert await api.ended() == 78
        # A process that is told to stop before it has looked at Redis says that it stops.
        said = [line for line in api.close().splitlines() if not line.startswith("{")]
        assert said
        assert [line for line in said if not line.startswith("qstash-clone api: Redis would evict messages")] == []


async def test_a_broken_supervisor_pipe_is_one_sentence(start: Start, redis_url: str) -> None:
    api = start(redis_url, **{PARENT_FD_VARIABLE: "77"})
    assert await api.ended() == 78
    assert "unset it" in api.close()


async def test_several_processes_share_a_port_and_count_together(start: Start, redis_url: str) -> None:
    api = start(redis_url, QSTASH_CLONE_PROCESSES="3", QSTASH_CLONE_KEY_NAMESPACE="several")
    url = await api.url(3)
    await eventually(lambda: len(api.events("store.opened")) == 3)
    for _ in range(40):
        async with httpx.AsyncClient() as client:
            assert (await publish(client, url)).status_code == 200
    for _ in range(5):
        async with httpx.AsyncClient() as client:
            lines = (await client.get(f"{url}/metrics")).text.splitlines()
            assert "qstash_clone_messages_published_total 40.0" in lines
    assert len({event["pid"] for event in api.events("server.started")}) == 3

    victim = api.events("server.started")[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    ended = await eventually(lambda: api.events("process.ended"))
    assert (ended[0]["ended_pid"], ended[0]["exit_code"]) == (victim, -signal.SIGKILL)
    await eventually(lambda: len(api.events("store.opened")) == 4)
    for _ in range(20):
        async with httpx.AsyncClient() as client:
            lines = (await client.get(f"{url}/metrics")).text.splitlines()
            assert "qstash_clone_messages_published_total 40.0" in lines

    api.process.terminate()
    assert await api.ended() == 0
    assert not is_listening(url)
    assert api.close() == ""


@contextlib.asynccontextmanager
async def publish_under_way(url: str) -> AsyncGenerator[Connection]:
    """A connection whose request lacks nothing but the two bytes of its body."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {TOKEN}\r\n"
    async with Connection(*await asyncio.open_connection(host, int(port))) as connection:
        answer = await connection.exchange(f"{head}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
        assert answer.status == 100
        yield connection


async def test_a_signal_to_every_process_lets_each_finish(start: Start, redis_url: str) -> None:
    """As a terminal and systemd send it; the parent passes it on besides."""
    api = start(redis_url, QSTASH_CLONE_PROCESSES="2")
    url = await api.url(2)
    await eventually(lambda: len(api.events("store.opened")) == 2)
    async with publish_under_way(url) as connection:
        api.process.terminate()
        await eventually(lambda: not is_listening(url))
        idle, busy = set[int](), {event["pid"] for event in api.events("server.started")}
        await eventually(lambda: idle.update(event["pid"] for event in api.events("server.stopped")) or idle)
        for pid in busy - idle:
            os.kill(pid, signal.SIGTERM)
        with pytest.raises(AssertionError, match="not within"):
            await eventually(lambda: api.process.poll() is not None, timeout=0.5)
        assert (await connection.exchange(b"hi")).status == 200
        assert await api.ended() == 0
    assert api.close() == ""


async def test_a_second_signal_ends_several_processes_at_once(start: Start, redis_url: str) -> None:
    api = start(redis_url, QSTASH_CLONE_PROCESSES="2")
    url = await api.url(2)
    await eventually(lambda: len(api.events("store.opened")) == 2)
    async with publish_under_way(url) as connection:
        api.process.terminate()
        await eventually(lambda: not is_listening(url))
        assert api.process.poll() is None, "it waits for what is under way"
        api.process.terminate()
        assert await api.ended() == 0
        assert (await connection.receive()).status == 503


async def test_processes_end_with_the_one_that_started_them(start: Start, redis_url: str) -> None:
    api = start(redis_url, QSTASH_CLONE_PROCESSES="2")
    url = await api.url(2)
    api.process.kill()
    await eventually(lambda: not is_listening(url))


def is_listening(url: str) -> bool:
    port = int(url.rpartition(":")[2])
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class _Stopping:
    def __init__(self, server: RedisServer) -> None:
        self.close = server.stop
