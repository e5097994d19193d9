"""Connects to Redis as the settings say, and refuses an engine that would lose or evict messages."""

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 (the library's error, not the operating system's)
    NoPermissionError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from qstash_clone.errors import ConfigurationError, StorageUnavailable
from qstash_clone.settings import Durability, Settings
from qstash_clone.storage.commands import MAX_AT_ONCE, Argument

CONNECT_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 10.0
"""Longer than the longest blocking read of a worker, which must end first."""
OLDEST_VERSION = (6, 2)

_serializer: Any = HiredisRespSerializer()
_REFUSALS = (AuthenticationError, AuthorizationError, AuthenticationWrongNumberOfArgsError)
_RANKS: dict[Durability, int] = {"none": 0, "everysec": 1, "always": 2}
_PROMISES: dict[Durability, str] = {
    "always": "every acknowledged message is on disk (appendfsync always)",
    "everysec": "a crash of Redis may lose the last second (appendfsync everysec)",
    "none": "a crash of Redis may lose acknowledged messages (redis_durability=none)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the engine behind `REDIS_URL` is, and how much it promises."""

    engine: Literal["redis", "valkey"]
    version: str
    mode: str
    """`standalone`, `cluster` or `sentinel`, in the engine's own words."""
    durability: Durability
    """What may be relied on: what the engine says, or the setting where the engine does not tell."""
    is_durability_verified: bool
    """False if only the setting vouches for it."""
    max_memory_bytes: int
    """0 is no limit."""

    @property
    def promise(self) -> str:
        """What an acknowledgement means here, in words for the start-up line and for /readyz."""
        return _PROMISES[self.durability] + ("" if self.is_durability_verified else ", by the settings' word")


def open_client(settings: Settings, *, client_name: str = "qstash-clone") -> Redis:
    """A client for `settings.redis_url`; it connects when first used and never repeats a command by itself.

    Replies are bytes, in the shapes of protocol version 2: with hiredis neither version is faster, and this one has
    the same shapes on every engine. Raises ConfigurationError if the certificate file cannot be read.
    """
    options: dict[str, Any] = {}
    scheme = urlsplit(settings.redis_url).scheme
    if scheme != "unix":
        options["socket_keepalive"] = True
    if settings.redis_ca_file is not None:
        if scheme != "rediss":
            raise ConfigurationError("QSTASH_CLONE_REDIS_CA_FILE is set, but REDIS_URL does not begin with rediss://.")
        if not os.access(settings.redis_ca_file, os.R_OK):
            raise ConfigurationError(f"QSTASH_CLONE_REDIS_CA_FILE: cannot read {settings.redis_ca_file!r}.")
        options["ssl_ca_certs"] = settings.redis_ca_file
    client = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        settings.redis_url,
        protocol=2,
        decode_responses=False,
        # A script that outlives the time-out may have run: whether to repeat it is the store's decision.
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=COMMAND_TIMEOUT_S,
        client_name=client_name,
        # Beyond it the library refuses a command as if Redis were away. A few are for what is not `RedisCommands`.
        max_connections=MAX_AT_ONCE + 10,
        **options,
    )
    pool: Any = client.connection_pool
    pool.connection_class = _packing_in_c(pool.connection_class)
    return client


def _packing_in_c(connection_class: Any) -> Any:
    """The library's blocking connections pack commands with hiredis, its others in Python: for a call that stores a
    hundred messages that is a quarter of this process's time."""

    class Connection(connection_class):
        def pack_command(self, *args: Argument) -> list[bytes]:
            return _serializer.pack(*args)

    return Connection


async def check_engine(client: Redis, settings: Settings) -> EngineFacts:
    """What `INFO` says about the engine, if it is safe to store messages in.

    Raises ConfigurationError, one sentence that says what to change, for an engine that is too old, a replica,
    evicting, or less durable than `redis_durability`; StorageUnavailable if it does not answer.
    """
    info = await _read_info(client)
    if "1" in (info.get("loading"), info.get("async_loading")):
        # Until it has read its append-only file, the engine says that it has none.
        raise StorageUnavailable("Redis is still loading its data.")
    version = info.get("redis_version", "")
    engine: Literal["redis", "valkey"] = "valkey" if info.get("server_name") == "valkey" else "redis"
    shown = info.get("valkey_version", version) if engine == "valkey" else version
    if _parsed(version) < OLDEST_VERSION:
        raise ConfigurationError(f"Redis {shown or 'of unknown version'} is too old; version 6.2 or newer is needed.")
    if info.get("role") == "slave":
        raise ConfigurationError("REDIS_URL names a replica, which accepts no writes; name its master.")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigurationError(
            f"Redis would evict messages when it is full (maxmemory-policy {policy}); set maxmemory-policy noeviction."
        )
    durability, is_verified = await _find_durability(client, info, settings.redis_durability)
    return EngineFacts(
        engine=engine,
        version=shown,
        mode=info.get("redis_mode", "standalone"),
        durability=durability,
        is_durability_verified=is_verified,
        max_memory_bytes=int(info.get("maxmemory", "0")),
    )


async def _find_durability(client: Redis, info: dict[str, str], wanted: Durability) -> tuple[Durability, bool]:
    """The durability to rely on, and whether the engine itself vouches for it."""
    is_logged = {"0": False, "1": True}.get(info.get("aof_enabled", ""))
    found: Durability | None = None
    if is_logged is False:
        found = "none"
    elif is_logged:
        found = await _read_appendfsync(client)
    if found is None:
        if wanted == "always":
            raise ConfigurationError(
                "Redis does not tell whether appendfsync is always; allow CONFIG GET, or accept the loss of up to a "
                "second of messages in a crash with QSTASH_CLONE_REDIS_DURABILITY=everysec."
            )
        return wanted, False
    if _RANKS[found] < _RANKS[wanted]:
        reason = "has no append-only file" if not is_logged else "does not write each message to disk at once"
        remedy = "appendonly yes and appendfsync " + wanted
        raise ConfigurationError(
            f"Redis {reason} and may lose acknowledged messages; set {remedy}, or accept the loss with "
            f"QSTASH_CLONE_REDIS_DURABILITY={found}."
        )
    return found, True


async def _read_appendfsync(client: Redis) -> Durability | None:
    """The engine's `appendfsync`; None if it may not be asked, as with most managed services."""
    values: list[str | None] = []
    for name in ("appendfsync", "no-appendfsync-on-rewrite"):
        try:
            values.append((await _ask(client, "CONFIG GET", name)).get(name))
        except ResponseError:
            return None
    match values:
        case [None, _]:
            return None
        case ["always", "no" | None]:
            return "always"
        case ["always" | "everysec", _]:
            return "everysec"
        case _:
            return "none"


async def _read_info(client: Redis) -> dict[str, str]:
    fields: dict[str, str] = {}
    for section in ("server", "persistence", "memory", "replication"):
        try:
            fields |= await _ask(client, "INFO", section)
        except NoPermissionError:
            raise ConfigurationError(
                "The user of REDIS_URL may not run INFO, which tells whether messages are safe; grant it +info."
            ) from None
        except ResponseError as error:
            raise StorageUnavailable(f"Redis answers INFO with an error: {error}.") from error
    return fields


async def _ask(client: Redis, *command: str) -> dict[str, str]:
    """The reply to a command that answers with names and values."""
    try:
        execute = cast("Callable[..., Awaitable[object]]", client.execute_command)  # pyright: ignore[reportUnknownMemberType]
        reply = await execute(*command)
    except (ConnectionError, TimeoutError, AuthenticationWrongNumberOfArgsError) as error:
        # While connecting, the library wraps what it was refused for.
        if isinstance(error.__cause__ or error, _REFUSALS):
            raise ConfigurationError("Redis refuses the user or the password of REDIS_URL.") from error
        raise StorageUnavailable(f"Redis does not answer: {error}") from error
    if not isinstance(reply, dict):
        return {}
    return {_text(name): _text(value) for name, value in cast("dict[object, object]", reply).items()}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _parsed(version: str) -> tuple[int, int]:
    match = re.match(r"([0-9]+)\.([0-9]+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)
