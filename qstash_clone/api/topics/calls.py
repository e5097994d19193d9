"""One request to a Kafka REST API, and its answer."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.types import Receive

from qstash_clone.api.errors import Header
from qstash_clone.api.requests import Head, read_body
from qstash_clone.api.topics.content_coding import decode_content
from qstash_clone.api.topics.credentials import Grant

JSON_UTF8: Final = b"application/json; charset=utf-8"


class Call(msgspec.Struct, frozen=True):
    """A request that belongs to one of these APIs."""

    head: Head
    segments: tuple[str, ...]
    """What stands for the braces in the path of its row, undecoded."""
    receive: Receive
    grant: Grant
    """What the credential of the request allows."""

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body. Raises `BodyTooLarge`, `ClientGone`."""
        return await read_body(self.receive, self.head, limit_bytes)

    async def decoded_body(self, limit_bytes: int) -> bytes:
        """The whole body, unpacked if it was compressed with gzip; the limit holds before and after.

        Raises as `body`, and `InvalidRequest` for a compression that is not understood.
        """
        return decode_content(self.head, await self.body(limit_bytes), limit_bytes)


class Answer(msgspec.Struct, frozen=True):
    """What to answer; never without a body, because clients parse it before they look at the status."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    content_type: bytes = JSON_UTF8
    trace: str = ""
    """Names an error in its body and in the log, where an API has it so."""


def json_answer(content: object, status: int = 200, headers: tuple[Header, ...] = ()) -> Answer:
    """An answer in JSON."""
    return Answer(status, msgspec.json.encode(content), headers)


Handler = Callable[[Call], Awaitable[Answer]]
"""Raises what the `ErrorShape` of its API turns into an answer."""
ErrorShape = Callable[[BaseException, Head], Answer]
