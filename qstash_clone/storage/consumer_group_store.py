"""States of consumer groups, one string each; a change replaces what it was made from."""

import secrets
from collections.abc import Sequence
from typing import Final

from qstash_clone.errors import StorageUnavailable
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition
from qstash_clone.topics.interface import GroupState

_REVISION_BYTES: Final = 8
_HEAD_BYTES: Final = 16


class RedisGroupStore:
    """`GroupStore` on Redis."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    async def load_group(self, name: str) -> GroupState:
        stored, (seconds, micros) = await self._access.commands.ask_all(
            [("GET", self._keys_of(name).consumer_group(name)), ("TIME",)]
        )
        real_ms = seconds * 1000 + micros // 1000
        if stored is None:
            return GroupState(0, b"", real_ms)
        return GroupState(int.from_bytes(stored[:_REVISION_BYTES], "big"), stored[_HEAD_BYTES:], real_ms)

    async def save_group(self, name: str, revision: int, encoded: bytes, *, keep_ms: int, live_ms: int) -> bool:
        keys = self._keys_of(name)
        reply, may_have_run = await self._access.runner.run(
            "save_consumer_group",
            [keys.meta, keys.consumer_group(name), keys.consumers, keys.instances],
            [STORAGE_VERSION, name, revision, secrets.token_bytes(8), encoded, keep_ms, live_ms],
        )
        is_saved: bool = reply[0] == b"ok"
        if may_have_run and not is_saved:
            # An earlier try may have saved it, and somebody else the next one. Who started over would hand out what
            # lies behind records that nobody was handed.
            raise StorageUnavailable(f"Whether a change of the consumer group {name[:100]} was made is not known.")
        return is_saved

    async def list_groups(self) -> list[str]:
        return await self._list([keys.consumers for keys in self._access.keys])

    async def list_live_groups(self) -> list[str]:
        return await self._list([keys.instances for keys in self._access.keys])

    async def _list(self, indexes: Sequence[bytes]) -> list[str]:
        names: set[str] = set()
        for index in indexes:
            seconds, _ = await self._access.commands.ask("TIME")
            found = await self._access.commands.ask("ZRANGEBYSCORE", index, seconds * 1000, "+inf")
            names.update(name.decode() for name in found)
        return sorted(names)

    def _keys_of(self, name: str) -> PartitionKeys:
        return self._access.keys[lane_partition(f"g:{name}", self._access.partitions)]
