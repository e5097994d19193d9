"""URL groups in one hash beside the partitions; a change replaces what it was made from, or is made again."""

from collections.abc import Callable
from typing import Final

import msgspec

from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.errors import StorageError, StorageUnavailable
from qstash_clone.storage.commands import RedisCommands
from qstash_clone.storage.scripts import ScriptRunner

MAX_RACES: Final = 200
"""Every lost race means that somebody else's change was made, so only as many changes at once can get here."""
_SCAN_TOGETHER: Final = 50

_encode = msgspec.msgpack.Encoder().encode
_decode_group = msgspec.msgpack.Decoder(UrlGroup).decode


class RedisUrlGroupStore:
    """Implements `UrlGroupStore`; `key` is that of the hash."""

    def __init__(self, commands: RedisCommands, runner: ScriptRunner, key: bytes) -> None:
        self._commands = commands
        self._runner = runner
        self._key = key

    async def list_url_groups(self) -> list[UrlGroup]:
        """All, in the order of their creation; those made or deleted meanwhile may be among them."""
        groups: dict[str, UrlGroup] = {}
        cursor = 0
        while True:
            cursor, found = await self._commands.ask("HSCAN", self._key, cursor, "COUNT", _SCAN_TOGETHER)
            for name, encoded in found.items():
                group = _decode(name.decode(), encoded)
                # The same one comes twice if the hash grew or shrank meanwhile.
                groups[group.name] = group
            if cursor == 0:
                return sorted(groups.values(), key=lambda group: (group.created_ms, group.name))

    async def get_url_group(self, name: str) -> UrlGroup | None:
        encoded = await self._commands.ask("HGET", self._key, name)
        return None if encoded is None else _decode(name, encoded)

    async def change_url_group(
        self, name: str, change: Callable[[UrlGroup | None, int], UrlGroup | None]
    ) -> UrlGroup | None:
        for _ in range(MAX_RACES):
            encoded, (seconds, micros) = await self._commands.ask_all([("HGET", self._key, name), ("TIME",)])
            # Redis's own time: groups are no messages, whose clock can be moved.
            now_ms = seconds * 1000 + micros // 1000
            group = change(None if encoded is None else _decode(name, encoded), now_ms)
            expected, wanted = encoded or b"", b"" if group is None else _encode(group)
            if wanted == expected:
                return group
            reply, _ = await self._runner.run("replace_entry", [self._key], [name, expected, wanted, 0])
            if reply[0] == b"ok":
                return group
        raise StorageUnavailable(f"The URL group {name[:100]} is changed by too many others at once.")


def _decode(name: str, encoded: bytes) -> UrlGroup:
    try:
        return _decode_group(encoded)
    except msgspec.DecodeError as error:
        raise StorageError(f"The URL group {name[:100]} cannot be read: {error}") from error
