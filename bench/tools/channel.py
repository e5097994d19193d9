"""Requests to a tool's process and its answers: one JSON object a line, over its standard input and output."""

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
import uvloop

from bench.processes import Child, Nursery
from bench.report import BenchFailure

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Tool:
    """The side that asks."""

    def __init__(self, child: Child) -> None:
        self.child = child

    @classmethod
    async def start(cls, nursery: Nursery, name: str) -> "Tool":
        """Run the module `bench.tools.<name>`."""
        return cls(await nursery.start(name, ["-m", f"bench.tools.{name}"], piped=True))

    async def ask(self, command: str, /, *, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """The answer to one command. Raises `BenchFailure` if there is none in time."""
        process = self.child.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode({"command": command, **arguments}) + b"\n")
        try:
            async with asyncio.timeout(timeout_s):
                line = await process.stdout.readline()
        except TimeoutError:
            raise BenchFailure(f"{self.child.name}: no answer to {command} within {timeout_s:g} s") from None
        if not line:
            await process.wait()
            self.child.check()
        answer = cast("dict[str, Any]", msgspec.json.decode(line))
        if "failure" in answer:
            raise BenchFailure(f"{self.child.name}: {command}: {answer['failure']}")
        return answer


def serve(make_handlers: Callable[[], Mapping[str, Handler]]) -> None:
    """The side that answers: runs until its standard input ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(make_handlers))


async def _serve(make_handlers: Callable[[], Mapping[str, Handler]]) -> None:
    handlers = make_handlers()
    reader = asyncio.StreamReader(limit=256 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = cast("dict[str, Any]", msgspec.json.decode(line))
        try:
            answer = await handlers[request.pop("command")](request)
        except Exception as error:
            traceback.print_exc()
            answer = {"failure": f"{type(error).__name__}: {error}"}
        data = memoryview(msgspec.json.encode(answer) + b"\n")
        while data:
            data = data[os.write(1, data) :]
