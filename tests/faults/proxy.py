"""A way to Redis that loses replies: the command is carried out, and nobody hears of it."""

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from qstash_clone.storage.scripts import Script

_CHUNK_BYTES = 65_536


class LossyProxy:
    """Listens on a Unix socket of its own and passes everything on, except the replies that it was told to lose."""

    def __init__(self, upstream: Path, socket: Path) -> None:
        self.url = f"unix://{socket}"
        self._upstream = upstream
        self._socket = socket
        self._to_lose: dict[bytes, int] = {}
        self.lost: dict[str, int] = {}
        """Replies lost so far, by script."""
        self._names: dict[bytes, str] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def lose_replies(self, script: str, count: int) -> None:
        """The next replies to this script are lost, and their connections with them."""
        digest = Script(script).digest.encode()
        self._names[digest] = script
        self._to_lose[digest] = count

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            upstream_reader, upstream_writer = await asyncio.open_unix_connection(self._upstream)
            try:
                with contextlib.suppress(ConnectionError):
                    await self._pass_on(reader, writer, upstream_reader, upstream_writer)
            finally:
                upstream_writer.close()
        except asyncio.CancelledError:
            pass  # only the end of the proxy cancels
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream_writer: asyncio.StreamWriter,
    ) -> None:
        replies = asyncio.create_task(_copy(upstream_reader, writer))
        try:
            while data := await reader.read(_CHUNK_BYTES):
                digest = next((each for each, count in self._to_lose.items() if count and each in data), None)
                if digest is None:
                    upstream_writer.write(data)
                    continue
                # A connection of the client carries one command at a time, so the next bytes are its reply.
                self._to_lose[digest] -= 1
                replies.cancel()
                await asyncio.gather(replies, return_exceptions=True)
                upstream_writer.write(data)
                await upstream_reader.read(_CHUNK_BYTES)
                name = self._names[digest]
                self.lost[name] = self.lost.get(name, 0) + 1
                return
        finally:
            replies.cancel()
            await asyncio.gather(replies, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
