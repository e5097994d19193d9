"""The schema registry: schemas under ids, and under the versions of subjects, as Confluent's registry keeps them."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal, Protocol, get_args

import msgspec

from qstash_clone.errors import CallerError, InvalidRequest, NotFound, StorageUnavailable
from qstash_clone.topics.avro_resolution import why_unreadable
from qstash_clone.topics.avro_schema import AvroSchema, parse_schema
from qstash_clone.topics.avro_types import AvroType

Level = Literal["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"]
"""Which schemas of a subject a new one must get along with: BACKWARD can read what those before it wrote."""
LEVELS: Final[dict[str, Level]] = {level: level for level in get_args(Level)}
DEFAULT_LEVEL: Final = "NONE"
MAX_SUBJECT_CHARACTERS: Final = 512
_MAX_RACES: Final = 50
"""Every lost race means that somebody else has changed the subject."""
_CACHE_BYTES: Final = 1024 * 1024


class SubjectVersion(msgspec.Struct, frozen=True):
    """One version of a subject."""

    version: int
    schema_id: int
    is_deleted: bool = False
    """Hidden, until it is deleted for good."""


Versions = tuple[SubjectVersion, ...]
"""All of a subject in their order; none if there is no such subject."""


class SchemaStore(Protocol):
    """What is stored; raises `StorageError`."""

    async def list_subjects(self) -> dict[str, Versions]: ...

    async def get_subject(self, subject: str) -> Versions: ...

    async def find_schema(self, subject: str, digest: bytes) -> tuple[int | None, Versions]:
        """The id of a schema, and the versions of a subject."""
        ...

    async def get_schemas(self, schema_ids: Sequence[int]) -> list[str | None]:
        """Their texts."""
        ...

    async def register_schema(
        self, subject: str, digest: bytes, text: str, expected: Versions | None
    ) -> SubjectVersion | None:
        """The version of the subject that has this schema; a new one, and a new id, where there is none.

        None if the versions are others than those expected, which matters to new ones only. Raises `QuotaExceeded`.
        """
        ...

    async def replace_subject(self, subject: str, expected: Versions, wanted: Versions) -> bool:
        """False if its versions are others than those expected. Without any the subject is gone, its level too."""
        ...

    async def get_levels(self, subject: str) -> tuple[str | None, str | None]:
        """That of a subject, and that of all which have none."""
        ...

    async def set_level(self, subject: str | None, level: Level | None) -> str | None:
        """Set that of a subject, or of all which have none; None takes it away. Returns the one before."""
        ...


class UnknownSubject(NotFound):
    """There is no such subject."""


class UnknownVersion(NotFound):
    """The subject has no such version."""


class UnknownSchema(NotFound):
    """There is no such schema."""


class UnknownLevel(NotFound):
    """The subject has no level of its own."""


class AlreadyDeleted(NotFound):
    """It is deleted already, though not for good."""

    def __init__(self, text: str, *, is_version: bool) -> None:
        self.is_version = is_version
        super().__init__(text)


class NotDeletedFirst(NotFound):
    """Only what is deleted can be deleted for good."""

    def __init__(self, text: str, *, is_version: bool) -> None:
        self.is_version = is_version
        super().__init__(text)


class Incompatible(CallerError):
    """The schema does not get along with those that the subject has."""


class NamedVersion(msgspec.Struct, frozen=True):
    """A version with its schema."""

    subject: str
    version: int
    schema_id: int
    text: str


class SchemaStores(Protocol):
    """A store that may not be there yet; raises `StorageUnavailable` while it is not."""

    @property
    def schemas(self) -> SchemaStore: ...


class SchemaRegistry:
    """Registers, finds and deletes."""

    def __init__(self, stores: SchemaStores) -> None:
        self._stores = stores

    @property
    def _store(self) -> SchemaStore:
        return self._stores.schemas

    async def register(self, subject: str, schema: AvroSchema, *, may_register: bool = True) -> SubjectVersion | None:
        """The version of a subject that has this schema, made if there is none; None if it may not be.

        Raises `Incompatible`, `QuotaExceeded`.
        """
        check_subject(subject)
        digest = digest_of(schema)
        for _ in range(_MAX_RACES):
            schema_id, versions = await self._store.find_schema(subject, digest)
            found = _live_version(versions, schema_id)
            if found is not None:
                return found
            if not may_register:
                return None
            level = await self.effective_level(subject)
            reasons = await self._conflicts(level, versions, schema)
            if reasons:
                raise Incompatible(
                    f"the schema does not get along with those of subject {subject[:100]} at the level {level}:"
                    f" {reasons[0][:300]}"
                )
            expected = None if level == "NONE" else versions
            made = await self._store.register_schema(subject, digest, schema.text, expected)
            if made is not None:
                return made
        raise _too_many_races(subject)

    async def find_version(self, subject: str, schema: AvroSchema, *, deleted: bool) -> NamedVersion:
        """The version of a subject that has this schema. Raises `UnknownSubject`, `UnknownSchema`."""
        schema_id, versions = await self._store.find_schema(subject, digest_of(schema))
        shown = _shown(versions, deleted=deleted)
        if not shown:
            raise UnknownSubject(f"Subject '{subject[:100]}' not found.")
        for one in reversed(shown):
            if one.schema_id == schema_id:
                return NamedVersion(subject, one.version, one.schema_id, schema.text)
        raise UnknownSchema("Schema not found")

    async def list_subjects(self, *, deleted: bool) -> list[str]:
        subjects = await self._store.list_subjects()
        return sorted(name for name, versions in subjects.items() if _shown(versions, deleted=deleted))

    async def list_versions(self, subject: str, *, deleted: bool) -> list[int]:
        """Raises `UnknownSubject`."""
        return [one.version for one in await self._versions(subject, deleted=deleted)]

    async def get_version(self, subject: str, version: int | None, *, deleted: bool = False) -> NamedVersion:
        """None is the latest. Raises `UnknownSubject`, `UnknownVersion`."""
        one = _pick(await self._versions(subject, deleted=deleted), version)
        return NamedVersion(subject, one.version, one.schema_id, await self.get_text(one.schema_id))

    async def get_text(self, schema_id: int) -> str:
        """Raises `UnknownSchema`."""
        (text,) = await self._store.get_schemas([schema_id])
        if text is None:
            raise UnknownSchema(f"Schema {schema_id} not found")
        return text

    async def list_uses(self, schema_id: int, *, deleted: bool) -> list[tuple[str, int]]:
        """Subjects and versions that have a schema. Raises `UnknownSchema`."""
        await self.get_text(schema_id)
        subjects = await self._store.list_subjects()
        return sorted(
            (name, one.version)
            for name, versions in subjects.items()
            for one in _shown(versions, deleted=deleted)
            if one.schema_id == schema_id
        )

    async def delete_subject(self, subject: str, *, permanent: bool) -> list[int]:
        """The versions that were deleted. Raises `UnknownSubject`, `AlreadyDeleted`, `NotDeletedFirst`."""
        for _ in range(_MAX_RACES):
            versions = await self._store.get_subject(subject)
            if not versions:
                raise UnknownSubject(f"Subject '{subject[:100]}' not found.")
            live = _shown(versions, deleted=False)
            if permanent and live:
                raise NotDeletedFirst(
                    f"Subject '{subject[:100]}' was not deleted first before being permanently deleted",
                    is_version=False,
                )
            if not permanent and not live:
                raise AlreadyDeleted(
                    f"Subject '{subject[:100]}' was soft deleted. Set permanent=true to delete permanently",
                    is_version=False,
                )
            wanted = () if permanent else tuple(SubjectVersion(one.version, one.schema_id, True) for one in versions)
            if await self._store.replace_subject(subject, versions, wanted):
                return [one.version for one in (versions if permanent else live)]
        raise _too_many_races(subject)

    async def delete_version(self, subject: str, version: int | None, *, permanent: bool) -> int:
        """The version that was deleted; None is the latest.

        Raises `UnknownSubject`, `UnknownVersion`, `AlreadyDeleted`, `NotDeletedFirst`.
        """
        for _ in range(_MAX_RACES):
            versions = await self._store.get_subject(subject)
            if not versions:
                raise UnknownSubject(f"Subject '{subject[:100]}' not found.")
            one = _pick(versions if version is not None else _shown(versions, deleted=permanent), version)
            if permanent and not one.is_deleted:
                raise NotDeletedFirst(
                    f"Subject '{subject[:100]}' Version {one.version} was not deleted first before being permanently"
                    " deleted",
                    is_version=True,
                )
            if one.is_deleted and not permanent:
                raise AlreadyDeleted(
                    f"Subject '{subject[:100]}' Version {one.version} was soft deleted. Set permanent=true to delete"
                    " permanently",
                    is_version=True,
                )
            hidden = SubjectVersion(one.version, one.schema_id, True)
            wanted = tuple(hidden if other is one else other for other in versions if other is not one or not permanent)
            if await self._store.replace_subject(subject, versions, wanted):
                return one.version
        raise _too_many_races(subject)

    async def effective_level(self, subject: str) -> str:
        """What holds for new versions of a subject."""
        own, common = await self._store.get_levels(subject)
        return own or common or DEFAULT_LEVEL

    async def get_level(self, subject: str | None, *, default_to_global: bool = False) -> str:
        """That of a subject, or of all that have none. Raises `UnknownLevel`."""
        if subject is None or default_to_global:
            return await self.effective_level(subject or "")
        own, _ = await self._store.get_levels(subject)
        if own is None:
            raise UnknownLevel(f"Subject '{subject[:100]}' does not have subject-level compatibility configured")
        return own

    async def set_level(self, subject: str | None, level: Level) -> None:
        if subject is not None:
            check_subject(subject)
        await self._store.set_level(subject, level)

    async def clear_level(self, subject: str | None) -> str:
        """Take away what was set, and return it. Raises `UnknownLevel`."""
        before = await self._store.set_level(subject, None)
        if before is None and subject is not None:
            raise UnknownLevel(f"Subject '{subject[:100]}' does not have subject-level compatibility configured")
        return before or DEFAULT_LEVEL

    async def why_incompatible(
        self, subject: str, schema: AvroSchema, version: int | None, *, all_versions: bool
    ) -> list[str]:
        """Why a schema could not follow a version, or all of them, at the level of the subject.

        Raises `UnknownSubject`, `UnknownVersion`.
        """
        versions = await self._store.get_subject(subject)
        if all_versions:
            return await self._conflicts(await self.effective_level(subject), versions, schema)
        shown = _shown(versions, deleted=False)
        if not shown:
            raise UnknownSubject(f"Subject '{subject[:100]}' not found.")
        return await self._conflicts(await self.effective_level(subject), (_pick(shown, version),), schema)

    async def _conflicts(self, level: str, versions: Versions, schema: AvroSchema) -> list[str]:
        shown = _shown(versions, deleted=False)
        if level == "NONE" or not shown:
            return []
        compared = shown if level.endswith("_TRANSITIVE") else shown[-1:]
        texts = await self._store.get_schemas([one.schema_id for one in compared])
        reasons: list[str] = []
        for one, text in zip(compared, texts, strict=True):
            other = parse_schema(text or "").type
            for reader, writer, direction in _directions(level, schema.type, other):
                reason = why_unreadable(reader, writer)
                if reason is not None:
                    reasons.append(f"{direction} version {one.version}: {reason}")
        return reasons

    async def _versions(self, subject: str, *, deleted: bool) -> Versions:
        shown = _shown(await self._store.get_subject(subject), deleted=deleted)
        if not shown:
            raise UnknownSubject(f"Subject '{subject[:100]}' not found.")
        return shown


class ParsedSchemas:
    """Schemas by their texts, the ones used last, so many bytes of them."""

    def __init__(self) -> None:
        self._parsed: OrderedDict[str, AvroSchema] = OrderedDict()
        self._bytes = 0

    def parse(self, text: str) -> AvroSchema:
        """Raises `InvalidSchema`."""
        found = self._parsed.get(text)
        if found is not None:
            self._parsed.move_to_end(text)
            return found
        found = self._parsed[text] = parse_schema(text)
        self._bytes += len(text)
        while self._bytes > _CACHE_BYTES:
            oldest, _ = self._parsed.popitem(last=False)
            self._bytes -= len(oldest)
        return found


def digest_of(schema: AvroSchema) -> bytes:
    """The same for equal schemas."""
    return hashlib.sha256(schema.equality).digest()


def check_subject(subject: str) -> None:
    """Raise `InvalidRequest` for what cannot be the name of a subject."""
    if not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS or not subject.isprintable():
        raise InvalidRequest(
            f"subject: {subject[:100]!r} is no name of a subject: use 1 to {MAX_SUBJECT_CHARACTERS} characters that can"
            " be printed"
        )


def _directions(level: str, new: AvroType, old: AvroType) -> list[tuple[AvroType, AvroType, str]]:
    """Who must be able to read whom."""
    found: list[tuple[AvroType, AvroType, str]] = []
    if level.startswith(("BACKWARD", "FULL")):
        found.append((new, old, "it cannot read what was written with"))
    if level.startswith(("FORWARD", "FULL")):
        found.append((old, new, "what is written with it cannot be read with"))
    return found


def _shown(versions: Versions, *, deleted: bool) -> Versions:
    return versions if deleted else tuple(one for one in versions if not one.is_deleted)


def _live_version(versions: Versions, schema_id: int | None) -> SubjectVersion | None:
    return next((one for one in _shown(versions, deleted=False) if one.schema_id == schema_id), None)


def _pick(versions: Versions, version: int | None) -> SubjectVersion:
    """One of the versions, the last one for None. Raises `UnknownVersion`."""
    for one in reversed(versions):
        if version is None or one.version == version:
            return one
    raise UnknownVersion(f"Version {'latest' if version is None else version} not found.")


def _too_many_races(subject: str) -> StorageUnavailable:
    return StorageUnavailable(f"The subject {subject[:100]} is changed by too many others at once.")
