"""Plain commands: replies as they are, the library's errors as ours. Nothing here needs a real Redis."""

from collections.abc import AsyncIterator

import fakeredis
import pytest
import redis.exceptions

from qstash_clone.errors import StorageError, StorageFull, StorageTimeout, StorageUnavailable
from qstash_clone.storage.commands import RedisCommands, translate


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def commands(server: fakeredis.FakeServer) -> AsyncIterator[RedisCommands]:
    commands = RedisCommands(fakeredis.FakeAsyncRedis(server=server))
    yield commands
    await commands.aclose()


async def test_replies_are_not_decoded(commands: RedisCommands) -> None:
    await commands.send("SET", "k", b"\xff")
    assert await commands.ask("GET", "k") == b"\xff"
    assert await commands.ask_all([("GET", "k"), ("STRLEN", "k"), ("GET", "none")]) == [b"\xff", 1, None]


@pytest.mark.parametrize("atomically", [False, True])
async def test_who_does_not_answer_is_unavailable(
    commands: RedisCommands, server: fakeredis.FakeServer, *, atomically: bool
) -> None:
    server.connected = False
    with pytest.raises(StorageUnavailable, match="Redis cannot be used: ConnectionError"):
        await commands.ask("GET", "k")
    with pytest.raises(StorageUnavailable):
        await commands.ask_all([("GET", "k"), ("GET", "k")], atomically=atomically)
    with pytest.raises(redis.exceptions.ConnectionError):
        await commands.send("GET", "k")
    server.connected = True
    assert await commands.ask("GET", "k") is None


async def test_one_command_that_is_refused_fails_them_all(commands: RedisCommands) -> None:
    await commands.send("SET", "text", "x")
    with pytest.raises(StorageUnavailable, match="WRONGTYPE"):
        await commands.ask_all([("GET", "text"), ("LLEN", "text")])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), StorageFull),
        (redis.exceptions.ResponseError("Error: OOM command not allowed when used memory > 'maxmemory'."), StorageFull),
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), StorageUnavailable),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), StorageUnavailable),
        (TimeoutError("too late"), StorageTimeout),
        (redis.exceptions.TimeoutError("Timeout reading from socket"), StorageTimeout),
        (ConnectionResetError("gone"), StorageUnavailable),
    ],
)
def test_who_can_act_decides_what_an_error_becomes(error: Exception, kind: type[StorageError]) -> None:
    assert type(translate(error)) is kind
