"""The schema registry in four hashes beside the partitions."""

from collections.abc import Sequence
from typing import Any, Final

from qstash_clone.errors import QuotaExceeded, StorageError
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.keys import schema_ids_key, schema_levels_key, schema_texts_key, subjects_key
from qstash_clone.topics.schemas import Level, SubjectVersion, Versions

_SCAN_TOGETHER: Final = 100
_COMMON: Final = ""
"""The field of the level of subjects that have none; no subject is called so."""


class RedisSchemaStore:
    """`SchemaStore` on Redis."""

    def __init__(self, access: StoreAccess, namespace: str, *, max_schemas: int) -> None:
        self._access = access
        self._max_schemas = max_schemas
        self._subjects = subjects_key(namespace)
        self._ids = schema_ids_key(namespace)
        self._texts = schema_texts_key(namespace)
        self._levels = schema_levels_key(namespace)

    async def list_subjects(self) -> dict[str, Versions]:
        found: dict[str, Versions] = {}
        cursor = 0
        while True:
            cursor, page = await self._ask("HSCAN", self._subjects, cursor, "COUNT", _SCAN_TOGETHER)
            found |= {name.decode(): _decode(name.decode(), encoded) for name, encoded in page.items()}
            if cursor == 0:
                return found

    async def get_subject(self, subject: str) -> Versions:
        return _decode(subject, await self._ask("HGET", self._subjects, subject))

    async def find_schema(self, subject: str, digest: bytes) -> tuple[int | None, Versions]:
        schema_id, encoded = await self._access.commands.ask_all(
            [("HGET", self._ids, digest), ("HGET", self._subjects, subject)]
        )
        return None if schema_id is None else int(schema_id), _decode(subject, encoded)

    async def get_schemas(self, schema_ids: Sequence[int]) -> list[str | None]:
        texts = await self._ask("HMGET", self._texts, *schema_ids)
        return [None if text is None else text.decode() for text in texts]

    async def register_schema(
        self, subject: str, digest: bytes, text: str, expected: Versions | None
    ) -> SubjectVersion | None:
        args: list[Argument] = [
            subject,
            digest,
            text,
            int(expected is not None),
            _encode(expected or ()),
            self._max_schemas,
        ]
        reply, _ = await self._access.runner.run("register_schema", [self._subjects, self._ids, self._texts], args)
        match reply:
            case [b"registered", schema_id, version]:
                return SubjectVersion(version, schema_id)
            case [b"full", what]:
                raise QuotaExceeded(
                    f"there are {self._max_schemas} {what.decode()} already, which is as many as there may be"
                )
            case _:
                return None

    async def replace_subject(self, subject: str, expected: Versions, wanted: Versions) -> bool:
        reply, _ = await self._access.runner.run(
            "replace_entry", [self._subjects], [subject, _encode(expected), _encode(wanted), 0]
        )
        if reply[0] != b"ok":
            return False
        if not wanted:
            await self.set_level(subject, None)
        return True

    async def get_levels(self, subject: str) -> tuple[str | None, str | None]:
        own, common = await self._ask("HMGET", self._levels, subject, _COMMON)
        return None if own is None else own.decode(), None if common is None else common.decode()

    async def set_level(self, subject: str | None, level: Level | None) -> str | None:
        field = subject or _COMMON
        change: tuple[Argument, ...] = (
            ("HDEL", self._levels, field) if level is None else ("HSET", self._levels, field, level)
        )
        before, _ = await self._access.commands.ask_all([("HGET", self._levels, field), change], atomically=True)
        return None if before is None else before.decode()

    async def _ask(self, *command: Argument) -> Any:
        return await self._access.commands.ask(*command)


def _encode(versions: Versions) -> str:
    return ",".join(f"{one.version}:{one.schema_id}{'d' if one.is_deleted else ''}" for one in versions)


def _decode(subject: str, encoded: bytes | None) -> Versions:
    if not encoded:
        return ()
    try:
        return tuple(_decode_version(one) for one in encoded.decode().split(","))
    except ValueError as error:
        raise StorageError(f"The subject {subject[:100]} cannot be read: {error}") from error


def _decode_version(encoded: str) -> SubjectVersion:
    version, _, schema_id = encoded.partition(":")
    return SubjectVersion(int(version), int(schema_id.removesuffix("d")), schema_id.endswith("d"))
