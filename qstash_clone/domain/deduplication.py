"""What makes two publishes one: an id that the publisher gives, or the content; see docs/protocol/deduplication.md."""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Literal, TypeAlias

import msgspec

from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest

ContentScope: TypeAlias = Literal["all-upstash", "forwarded"]
"""Which headers belong to the content: every `Upstash-*` one, or those that go to the destination."""

_DIGEST_BYTES = 16
_LENGTH_BYTES = 8
_ID = b"deduplication-id"
_CONTENT = b"publish-content"
_SCHEDULE = b"schedule"
"""At most 16 bytes each. They keep an id from ever standing for a content, and a message for a schedule."""
_COLON_OR_BLANK = re.compile(r"[:\s]")
_UPSTASH = b"upstash-"
_FORWARD = b"upstash-forward-"
_TELEMETRY = b"upstash-telemetry-"
_ABOUT_DEDUPLICATION = frozenset(
    {b"upstash-deduplication-id", b"upstash-content-based-deduplication", b"upstash-deduplication-window"}
)


class DeduplicationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """That repeats of a publish are to be recognised, and by what."""

    window_ms: int
    id: str | None = None
    """Wins over the content."""
    scope: ContentScope = "all-upstash"
    content_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Without an id: the lines of `content_headers`."""

    def digest(self, *, destination: str, body: bytes, queue_name: str | None = None) -> bytes:
        """16 bytes, equal for a publish and its repeats only."""
        if self.id is not None:
            return digest_of_id(self.id)
        return digest_of_content(
            scope=self.scope,
            destination=destination,
            queue_name=queue_name,
            headers=self.content_headers,
            body=body,
        )


def check_id(header: str, text: str, *, strict: bool) -> None:
    """Raise `InvalidRequest` for an empty id and, if `strict`, for one with a colon or white space."""
    if not text:
        raise InvalidRequest(f"{header}: the id is empty")
    if strict and _COLON_OR_BLANK.search(text) is not None:
        raise InvalidRequest(f"{header}: {quoted(text)} contains a colon or a blank")


def digest_of_id(text: str) -> bytes:
    """16 bytes that stand for a deduplication id; ids are shared by all destinations."""
    # Whatever text a path holds gets a digest, also one that no publish can have given.
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES, person=_ID).digest()


def digest_of_schedule(digest: bytes) -> bytes:
    """16 bytes that stand for the creation of a schedule where `digest` would stand for a message: the two are never
    taken for each other's repeats."""
    return blake2b(digest, digest_size=_DIGEST_BYTES, person=_SCHEDULE).digest()


def digest_of_content(
    *,
    scope: ContentScope,
    destination: str,
    queue_name: str | None,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
) -> bytes:
    """16 bytes that stand for what a publish says.

    `destination` is the URL as published or a URL group's name, which never look alike; `headers` are those of
    `content_headers`.
    """
    digest = blake2b(digest_size=_DIGEST_BYTES, person=_CONTENT)
    for piece in content_pieces(
        scope=scope, destination=destination, queue_name=queue_name, headers=headers, body=body
    ):
        digest.update(piece)
    return digest.digest()


def content_pieces(
    *,
    scope: ContentScope,
    destination: str,
    queue_name: str | None,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
) -> Iterator[bytes]:
    """What `digest_of_content` hashes. Each value follows its length, so different contents never read the same."""
    lines = [value for line in headers for value in line]
    for value in (scope.encode(), destination.encode(), (queue_name or "").encode(), *lines, body):
        yield len(value).to_bytes(_LENGTH_BYTES, "big")
        yield value


def content_headers(
    scope: ContentScope, headers: Sequence[tuple[bytes, bytes]], query_config: Sequence[tuple[bytes, bytes]]
) -> tuple[tuple[bytes, bytes], ...]:
    """The lines of a publish that belong to its content: lower-case names in order, blanks around values dropped.

    A header wins over the query parameter of the same name, as it does where they are obeyed.
    """
    lines = [line for line in headers if _belongs(scope, line[0])]
    if query_config:
        given = {name for name, _ in lines}
        lines += [line for line in query_config if line[0] not in given and _belongs(scope, line[0])]
    # Stable: the lines of one name stay in order, which is a part of their meaning.
    return tuple(sorted(((name, value.strip(b" \t")) for name, value in lines), key=lambda line: line[0]))


def _belongs(scope: ContentScope, name: bytes) -> bool:
    if scope == "forwarded":
        return name == b"content-type" or name.startswith(_FORWARD)
    return name.startswith(_UPSTASH) and not name.startswith(_TELEMETRY) and name not in _ABOUT_DEDUPLICATION
