"""Opens the store: one client, all partitions made ready, and the three views that api and workers use."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from qstash_clone import observability
from qstash_clone.errors import StoreIncompatible
from qstash_clone.ids import MessageIdGenerator
from qstash_clone.settings import Settings
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.admin_store import RedisAdminStore
from qstash_clone.storage.codec import OLDEST_READABLE_VERSION, STORAGE_VERSION
from qstash_clone.storage.commands import Argument, RedisCommands
from qstash_clone.storage.connection import EngineFacts, check_engine, open_client
from qstash_clone.storage.consumer_group_store import RedisGroupStore
from qstash_clone.storage.delivery_store import DeliveryLimits, RedisDeliveryStore
from qstash_clone.storage.flow_control_store import RedisFlowControlStore
from qstash_clone.storage.keys import (
    CONSUMER_GROUP,
    PartitionKeys,
    store_key,
    topic_generation_key,
    topics_key,
    url_groups_key,
)
from qstash_clone.storage.publish_store import RedisPublishStore
from qstash_clone.storage.queue_store import RedisQueueStore
from qstash_clone.storage.schedule_store import RedisScheduleStore
from qstash_clone.storage.schema_store import RedisSchemaStore
from qstash_clone.storage.scripts import REPLAY_WINDOW_MS, Script, ScriptRunner
from qstash_clone.storage.signing_key_store import new_signing_key
from qstash_clone.storage.topic_catalogue import TopicCatalogue
from qstash_clone.storage.topic_log import RedisTopicLog
from qstash_clone.storage.url_group_store import RedisUrlGroupStore
from qstash_clone.storage.virtual_clock_store import RedisVirtualClockStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The store as seen by publishers, workers and administrators."""

    publishing: RedisPublishStore
    delivery: RedisDeliveryStore
    admin: RedisAdminStore
    queues: RedisQueueStore
    flow_controls: RedisFlowControlStore
    schedules: RedisScheduleStore
    url_groups: RedisUrlGroupStore
    virtual_clock: RedisVirtualClockStore
    topics: RedisTopicLog
    groups: RedisGroupStore
    schemas: RedisSchemaStore
    engine: EngineFacts
    commands: RedisCommands

    async def aclose(self) -> None:
        """Close all connections."""
        await self.commands.aclose()


async def open_store(settings: Settings, *, client_name: str = "qstash-clone") -> Store:
    """Connect, check that the engine is safe and the store of this version, and make an empty one ready.

    Raises `ConfigurationError` for an unsafe engine, `StoreIncompatible` for a store of another version or number of
    partitions, `StorageUnavailable` if Redis does not answer.
    """
    client = open_client(settings, client_name=client_name)
    commands = RedisCommands(client)
    try:
        engine = await check_engine(client, settings)
        keys = [
            PartitionKeys(settings.key_namespace, partition, settings.partitions)
            for partition in range(settings.partitions)
        ]
        initialise = _initialiser(commands, settings, keys)
        await initialise()
        runner = ScriptRunner(commands, initialise)
        ids = MessageIdGenerator()
        # With a log, finished records stay for it; in any case until no call is repeated any more.
        finished_grace_ms = max(settings.message_grace_ms, REPLAY_WINDOW_MS)
        finished_retention_ms = max(settings.log_retention_ms if settings.message_log else 0, finished_grace_ms)
        access = StoreAccess(
            commands=commands,
            runner=runner,
            keys=keys,
            ids=ids,
            message_grace_ms=settings.message_grace_ms,
            is_logged=settings.message_log,
            finished_retention_ms=finished_retention_ms,
        )
        publishing = RedisPublishStore(commands, runner, keys, ids, is_logged=settings.message_log)
        return Store(
            publishing=publishing,
            delivery=RedisDeliveryStore(
                commands,
                runner,
                keys,
                ids,
                DeliveryLimits(
                    lease_ms=settings.lease_ms,
                    max_claims=settings.max_claims,
                    finished_retention_ms=finished_retention_ms,
                    is_logged=settings.message_log,
                    dedup_max_bytes=settings.dedup_max_bytes or engine.max_memory_bytes // 10,
                    dlq_retention_ms=settings.dlq_retention_ms,
                    log_retention_ms=settings.log_retention_ms,
                    log_max_entries=settings.log_max_entries,
                    finished_max_bytes=settings.finished_max_bytes or engine.max_memory_bytes // 4,
                    finished_grace_ms=finished_grace_ms,
                    global_parallelism=settings.global_parallelism,
                ),
            ),
            admin=RedisAdminStore(
                commands,
                runner,
                keys,
                ids,
                message_grace_ms=settings.message_grace_ms,
                is_logged=settings.message_log,
                finished_retention_ms=finished_retention_ms,
            ),
            queues=RedisQueueStore(access),
            flow_controls=RedisFlowControlStore(access),
            schedules=RedisScheduleStore(access, publishing, max_schedules=settings.max_schedules),
            url_groups=RedisUrlGroupStore(commands, runner, url_groups_key(settings.key_namespace)),
            virtual_clock=RedisVirtualClockStore(commands, runner, keys),
            topics=RedisTopicLog(
                access,
                TopicCatalogue(
                    access,
                    topics_key(settings.key_namespace),
                    topic_generation_key(settings.key_namespace),
                    max_topics=settings.max_topics,
                ),
            ),
            groups=RedisGroupStore(access),
            schemas=RedisSchemaStore(access, settings.key_namespace, max_schemas=settings.max_schemas),
            engine=engine,
            commands=commands,
        )
    except BaseException:
        await commands.aclose()
        raise


def _initialiser(
    commands: RedisCommands, settings: Settings, keys: list[PartitionKeys]
) -> Callable[[], Awaitable[None]]:
    """Makes every partition ready; safe to call again, and from many processes at once."""
    lock = asyncio.Lock()
    script, rotation = Script("initialise"), Script("rotate_keys")
    configured = (settings.current_signing_key or new_signing_key(), settings.next_signing_key or new_signing_key())

    async def initialise() -> None:
        async with lock:
            await _check_partitions(commands, settings)
            current, following = configured
            newest = 0
            for partition in keys:
                args: list[Argument] = [STORAGE_VERSION, CONSUMER_GROUP, current, following, OLDEST_READABLE_VERSION]
                reply = await commands.ask("EVAL", script.text, 2, partition.meta, partition.ready, *args)
                if reply[0] == b"version":
                    raise StoreIncompatible(
                        f"The store in Redis has version {reply[1].decode()}, this release reads version"
                        f" {STORAGE_VERSION}: start the release that wrote it, or set another key namespace."
                    )
                _, seeded, stored_current, stored_next, revision = reply
                if int(revision) < newest:
                    # A rotation ended half-way, and this partition would go on signing with a key that is withdrawn.
                    args = [STORAGE_VERSION, newest, current, following]
                    await commands.ask("EVAL", rotation.text, 1, partition.meta, *args)
                else:
                    current, following, newest = stored_current.decode(), stored_next.decode(), int(revision)
                if seeded:
                    observability.emit(observability.STORE_INITIALISED, hash_tag=partition.prefix.decode())
            _warn_of_other_keys(settings, current)

    return initialise


async def _check_partitions(commands: RedisCommands, settings: Settings) -> None:
    """Raise `StoreIncompatible` if the store was made with another number of partitions."""
    key = store_key(settings.key_namespace)
    stored = await commands.ask("GET", key)
    if stored is None:
        _, stored = await commands.ask_all([("SET", key, settings.partitions, "NX"), ("GET", key)])
    if int(stored) != settings.partitions:
        raise StoreIncompatible(
            f"The store was made with {stored.decode()} partitions, but QSTASH_CLONE_PARTITIONS is"
            f" {settings.partitions}: set it to {stored.decode()}."
        )


def _warn_of_other_keys(settings: Settings, stored_current: str) -> None:
    if settings.current_signing_key and settings.current_signing_key != stored_current:
        observability.emit(
            observability.SIGNING_KEYS_DIFFER,
            level=logging.WARNING,
            detail="the signing keys in the store were rotated and win over the configured ones",
        )
