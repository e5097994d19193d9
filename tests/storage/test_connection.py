"""Connecting to Redis, and refusing one that would lose or evict messages."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.asyncio import Redis, UnixDomainSocketConnection
from redis.exceptions import RedisError

from qstash_clone.errors import ConfigurationError, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.connection import EngineFacts, check_engine, open_client
from tests.support.redis_server import RedisServer, find_engines

ENGINES = find_engines()
MakeServer = Callable[..., RedisServer]


@pytest.fixture(params=ENGINES)
def make_server(request: pytest.FixtureRequest) -> Iterator[MakeServer]:
    """Starts servers of each engine with more options."""
    servers: list[RedisServer] = []

    def make(*options: str) -> RedisServer:
        servers.append(RedisServer(ENGINES[request.param], *options).start())
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Redis]:
    client = open_client(settings)
    try:
        yield client
    finally:
        await client.aclose()


async def facts(url: str, **settings: object) -> EngineFacts:
    changed = Settings(redis_url=url, **settings)  # pyright: ignore[reportArgumentType]
    async with opened(changed) as client:
        return await check_engine(client, changed)


async def refusal(url: str, **settings: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        await facts(url, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_durable_engine_is_described(make_server: MakeServer) -> None:
    found = await facts(make_server("--maxmemory", "100mb").url)
    assert (found.durability, found.is_durability_verified, found.mode) == ("always", True, "standalone")
    assert found.max_memory_bytes == 100 * 1024 * 1024
    assert found.version.startswith(("6.", "7.", "8.", "9."))
    assert found.promise == "every acknowledged message is on disk (appendfsync always)"


async def test_more_than_asked_for_is_fine(make_server: MakeServer) -> None:
    found = await facts(make_server().url, redis_durability="none")
    assert (found.durability, found.is_durability_verified) == ("always", True)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--appendfsync", "everysec"), "everysec"),
        (("--appendfsync", "no"), "none"),
        (("--appendonly", "no"), "none"),
        (("--no-appendfsync-on-rewrite", "yes"), "everysec"),
    ],
)
async def test_less_durable_engine_needs_the_setting(
    make_server: MakeServer, options: tuple[str, ...], found: str
) -> None:
    url = make_server(*options).url
    assert f"QSTASH_CLONE_REDIS_DURABILITY={found}" in await refusal(url)
    assert (await facts(url, redis_durability=found)).durability == found
    if found == "none":
        assert "QSTASH_CLONE_REDIS_DURABILITY=none" in await refusal(url, redis_durability="everysec")


@pytest.mark.parametrize("durability", ["always", "none"])
async def test_evicting_engine_is_refused_in_any_case(make_server: MakeServer, durability: str) -> None:
    url = make_server("--maxmemory-policy", "allkeys-lru").url
    assert "maxmemory-policy noeviction" in await refusal(url, redis_durability=durability)


async def test_replica_is_refused(make_server: MakeServer) -> None:
    url = make_server().url
    async with opened(Settings(redis_url=url)) as admin:
        await admin.replicaof("127.0.0.1", 1)  # pyright: ignore
    assert "replica" in await refusal(url)


async def test_acl_user_without_config_needs_the_setting(make_server: MakeServer) -> None:
    server = make_server()
    async with opened(Settings(redis_url=server.url)) as admin:
        for name, commands in (("managed", ("+@all", "-config")), ("blind", ("+@all", "-info"))):
            await admin.acl_setuser(  # pyright: ignore[reportUnknownMemberType]
                name, enabled=True, passwords=["+p@ss"], keys=["*"], commands=list(commands)
            )
    path = server.socket
    managed = f"unix://managed:p%40ss@{path}"
    assert "does not tell" in await refusal(managed)
    found = await facts(managed, redis_durability="everysec")
    assert (found.durability, found.is_durability_verified) == ("everysec", False)
    assert "by the settings' word" in found.promise
    assert "+info" in await refusal(f"unix://blind:p%40ss@{path}")
    wrong = await refusal(f"unix://managed:wrong@{path}")
    assert "user or the password" in wrong
    assert "wrong" not in wrong


async def test_missing_password_is_told_from_a_missing_server(make_server: MakeServer) -> None:
    url = make_server().url
    async with opened(Settings(redis_url=url)) as admin:
        await admin.config_set("requirepass", "s3cret")  # pyright: ignore
    assert "user or the password" in await refusal(url)


async def test_no_server_is_unavailable(tmp_path: Path) -> None:
    settings = Settings(redis_url=f"unix://{tmp_path}/none.sock")
    async with opened(settings) as client:
        with pytest.raises(StorageUnavailable, match="does not answer"):
            await check_engine(client, settings)


class OldEngine:
    """Answers INFO as engines do that are not on this machine."""

    def __init__(self, **info: str) -> None:
        self._info = info

    async def execute_command(self, *command: str) -> dict[str, str]:
        return self._info if command[0] == "INFO" else {"appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"redis_version": "6.0.16", "aof_enabled": "1"}, "6.0.16 is too old"),
        ({"aof_enabled": "1"}, "of unknown version is too old"),
        ({"redis_version": "7.0.0"}, "does not tell"),
    ],
)
async def test_engine_that_is_too_old_or_too_silent(info: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        await check_engine(OldEngine(**info), Settings())  # pyright: ignore[reportArgumentType]


async def test_engine_that_is_still_loading_is_not_judged_by_what_it_says() -> None:
    info = {"redis_version": "7.0.15", "aof_enabled": "0", "loading": "1"}
    with pytest.raises(StorageUnavailable, match="loading"):
        await check_engine(OldEngine(**info), Settings())  # pyright: ignore[reportArgumentType]


async def test_valkey_is_named_by_its_own_version() -> None:
    info = {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.1", "aof_enabled": "1"}
    found = await check_engine(OldEngine(**info), Settings())  # pyright: ignore[reportArgumentType]
    assert (found.engine, found.version, found.durability) == ("valkey", "8.1.1", "always")


async def test_command_is_never_repeated_by_the_library(redis_server: RedisServer) -> None:
    """A server that takes a command and hangs up has seen it once."""
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while data := await reader.read(65_536):
            if b"INCR" in data:
                seen += 1
                break
            writer.write(b"+OK\r\n" * data.count(b"*"))
        writer.close()
        await writer.wait_closed()

    folder = tempfile.mkdtemp()
    server = await asyncio.start_unix_server(serve, f"{folder}/s")
    async with server, opened(Settings(redis_url=f"unix://{folder}/s")) as client:
        with pytest.raises(RedisError):
            await client.incr("n")  # pyright: ignore[reportGeneralTypeIssues]
    shutil.rmtree(folder)
    assert seen == 1


def tls_files(folder: Path) -> tuple[Path, Path]:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return folder / "ca.pem", folder / "server.pem"


async def test_tls_with_an_authority_of_our_own(redis_server: RedisServer, tmp_path: Path) -> None:
    ca, pem = tls_files(tmp_path)
    async with tls_front(redis_server, pem) as port:
        found = await facts(f"rediss://localhost:{port}", redis_ca_file=str(ca))
        assert found.durability == "always"
        settings = Settings(redis_url=f"rediss://localhost:{port}")
        async with opened(settings) as client:
            with pytest.raises(StorageUnavailable, match="certificate"):
                await check_engine(client, settings)


@asynccontextmanager
async def tls_front(redis_server: RedisServer, pem: Path) -> AsyncGenerator[int]:
    """A TLS port in front of the server, as not every build of Redis can do it itself."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_unix_connection(str(redis_server.socket))
        await asyncio.gather(copy(reader, back_writer), copy(back_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_certificate_file_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        open_client(Settings(redis_url="rediss://localhost", redis_ca_file=str(tmp_path / "none.pem")))
    with pytest.raises(ConfigurationError, match="does not begin with rediss"):
        open_client(Settings(redis_url="redis://localhost", redis_ca_file=os.devnull))


async def test_commands_are_packed_as_the_library_packs_them(make_server: MakeServer) -> None:
    commands: tuple[tuple[Argument, ...], ...] = (
        ("SET", b"k\x00\r\n", b""),
        ("CONFIG GET", "appendfsync"),
        (b"SET", "k\x00\u00e9", -1, 2**40),
        ("SET", b"k" * 7000, b"v" * 100_000),
    )
    theirs: Any = UnixDomainSocketConnection()
    async with opened(Settings(redis_url=make_server().url)) as client:
        pool: Any = client.connection_pool
        ours = pool.make_connection()
        assert isinstance(ours, UnixDomainSocketConnection)
        for command in commands:
            assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))
        assert await client.set("k\x00\u00e9", b"\xff\r\n")  # pyright: ignore
        assert await client.get("k\x00\u00e9".encode()) == b"\xff\r\n"  # pyright: ignore
