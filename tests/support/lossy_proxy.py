"""A proxy before Redis that loses what it is told to: a request on its way, or the reply to one that was executed."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

CHUNK_BYTES = 1 << 20


class LossyProxy:
    """Listens on a Unix socket of its own; `async with LossyProxy(url) as proxy` and connect to `proxy.url`."""

    def __init__(self, redis_url: str) -> None:
        self._upstream = redis_url.removeprefix("unix://")
        self._folder = tempfile.TemporaryDirectory(prefix="qc-proxy-")
        self._path = str(Path(self._folder.name) / "s")
        self._listener = socket.socket(socket.AF_UNIX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost_requests: list[bytes] = []
        self._lost_replies: list[bytes] = []
        self.losses = 0
        self.url = f"unix://{self._path}"

    async def __aenter__(self) -> "LossyProxy":
        self._listener.setblocking(False)
        self._listener.bind(self._path)
        self._listener.listen(100)
        self._start(self._accept(), self._listener)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._folder.cleanup()

    def _start(self, work: Coroutine[Any, Any, None], *sockets: socket.socket) -> None:
        """Run, and close the sockets afterwards whatever happens."""

        def close(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for one in sockets:
                one.close()

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(close)

    def lose_request(self, word: bytes | str, times: int = 1) -> None:
        """The next requests with this word never reach Redis; their connections break."""
        self._lost_requests += [word.encode() if isinstance(word, str) else word] * times

    def lose_reply(self, word: bytes | str, times: int = 1) -> None:
        """The next requests with this word are executed, but nobody hears about it: their connections break."""
        self._lost_replies += [word.encode() if isinstance(word, str) else word] * times

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            upstream = socket.socket(socket.AF_UNIX)
            for one in (client, upstream):
                one.setblocking(False)
            self._start(self._relay(client, upstream), client, upstream)

    async def _relay(self, client: socket.socket, upstream: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        is_reply_lost = False

        async def backwards() -> None:
            while data := await loop.sock_recv(upstream, CHUNK_BYTES):
                if is_reply_lost:
                    return
                await loop.sock_sendall(client, data)

        async def forwards() -> None:
            nonlocal is_reply_lost
            while data := await loop.sock_recv(client, CHUNK_BYTES):
                if self._is_hit(self._lost_requests, data):
                    return
                is_reply_lost = is_reply_lost or self._is_hit(self._lost_replies, data)
                await loop.sock_sendall(upstream, data)

        # Either side may break while data is under way; that is the point.
        with contextlib.suppress(OSError):
            await loop.sock_connect(upstream, self._upstream)
            pumps = [asyncio.create_task(backwards()), asyncio.create_task(forwards())]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)

    def _is_hit(self, words: list[bytes], data: bytes) -> bool:
        for word in words:
            if word in data:
                words.remove(word)
                self.losses += 1
                return True
        return False
