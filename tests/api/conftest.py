"""The application over an in-memory transport, and a real server on a free port, both with the real store.

Every complete answer of either is held against the OpenAPI document.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from qstash_clone import observability
from qstash_clone.api.app import Api, create_app
from qstash_clone.api.protocol import ProtocolConfig
from qstash_clone.api.server import ApiServer, protocol_config
from qstash_clone.domain.message import AttemptRecord, DeadLetter, Settlement, SettlementKind
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.api.raw import Connection
from tests.support import documented
from tests.support.eventually import eventually


@cache
def described() -> list[documented.Document]:
    """What an api may answer, with the clock of `dev` and without."""
    return [documented.build(Settings(dev=is_dev)) for is_dev in (False, True)]


@pytest.fixture(autouse=True)
def wrong_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What any api in this process answered otherwise than the document says; must be empty in the end."""
    found: list[str] = []
    serve = Api.__call__

    async def watched(api: Api, scope: Scope, receive: Receive, send: Send) -> None:
        sent: list[Message] = []

        async def watch(message: Message) -> None:
            sent.append(message)
            await send(message)

        await serve(api, scope, receive, watch)
        if sent and not sent[-1].get("more_body", False):
            start, *parts = sent
            headers = dict(start["headers"])
            body = b"".join(part.get("body", b"") for part in parts)
            request = scope["method"], scope["raw_path"].decode("latin-1")
            answer = start["status"], headers[b"content-type"].decode(), body
            complaints = min((each.complaints(*request, *answer) for each in described()), key=len)
            found.extend(f"{' '.join(request)}: {complaint}" for complaint in complaints)

    monkeypatch.setattr(Api, "__call__", watched)
    yield found
    assert not found, "answered otherwise than /openapi.json says"


@pytest.fixture
async def client(settings: Settings, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """Calls the application with the right token."""
    transport = httpx.ASGITransport(create_app(settings, store), raise_app_exceptions=True, client=("192.0.2.7", 4711))
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        yield client


Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def events() -> Iterator[Events]:
    """Everything that was logged so far, parsed."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    observability.configure_logging(log_format="json", level="debug", role="test", fd=writing)
    logged: list[dict[str, Any]] = []

    def read() -> list[dict[str, Any]]:
        observability.flush_logs()
        with contextlib.suppress(BlockingIOError):
            logged.extend(json.loads(line) for line in os.read(reading, 1 << 20).splitlines())
        # The client of these tests logs through the standard library.
        return [event for event in logged if event["event"] != observability.LOG_LINE]

    yield read
    observability.configure_logging(log_format="json", level="none", role="test")
    os.close(reading)
    os.close(writing)


FailMessage = Callable[..., Awaitable[DeadLetter]]


@pytest.fixture
def fail_message(client: httpx.AsyncClient, store: Store) -> FailMessage:
    """Publishes a message and dead-letters it with a given last attempt."""

    async def fail(attempt: AttemptRecord | None = None, url: str = "https://example.com/hook") -> DeadLetter:
        known = {letter.dlq_id for letter in await _letters(store)}
        answer = await client.post(f"/v2/publish/{url}", content=b"payload")
        assert answer.status_code == 200
        await store.delivery.heartbeat("test", 10)
        batch = await store.delivery.claim(0, "test", 10)
        for claim in batch.claims:
            await store.delivery.settle(Settlement(claim=claim, kind=SettlementKind.FAILED, attempt=attempt))
        return next(letter for letter in await _letters(store) if letter.dlq_id not in known)

    return fail


async def _letters(store: Store) -> list[DeadLetter]:
    return (await store.admin.list_dead_letters(cursor=None, count=100, newest_first=False)).entries


class RunningServer:
    """A server of this test's event loop."""

    def __init__(self, server: ApiServer, config: ProtocolConfig, address: tuple[str, int], task: "asyncio.Task[None]"):
        self.server = server
        self.config = config
        self.address = address
        self.task = task

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    async def connect(self) -> Connection:
        """A raw connection to it."""
        return Connection(*await asyncio.open_connection(*self.address))


@pytest.fixture
async def server(settings: Settings, store: Store) -> AsyncIterator[RunningServer]:
    """The application behind the real protocol class."""
    config = protocol_config(create_app(settings, store), settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server = ApiServer(config)
    task = asyncio.ensure_future(server.serve([listener]))
    await eventually(lambda: server.started and config.common_head)
    yield RunningServer(server, config, listener.getsockname()[:2], task)
    # Stopping in order takes uvicorn a quarter of a second.
    for accepting in server.servers:
        accepting.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    task.cancel()
    await asyncio.gather(task, *server.server_state.tasks, return_exceptions=True)
