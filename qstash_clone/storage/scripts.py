"""The Lua scripts: loaded from `lua/`, checked against their headers, run by digest, repeated when a reply is lost.

A script's header names its KEYS and ARGV; the loader refuses a body that uses others. `--@include name` joins a file
of `lua/include/`. Every script is safe to repeat with the same arguments, so a call whose connection broke or timed
out is made again here, and nowhere else: the client library's own retries are off.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, Final

from redis.exceptions import NoScriptError

from qstash_clone.errors import StorageUnavailable, StoreIncompatible
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.commands import MAY_HAVE_RUN, Argument, RedisCommands, RedisError, translate

MAX_TRIES: Final = 3
"""A connection pool may hold a stale connection for each of the first tries; more is for the caller to decide."""
RETRY_PAUSE_MS: Final = (20, 100)
REPLAY_WINDOW_MS: Final = 60_000
"""Longer than all tries of one call take, at 10 s each. For so long the record of a finished message stays: it is what
makes a repeated publish, settlement or cancellation recognise that it was done already."""

_INCLUDE = re.compile(r"^--@include ([a-z_]+)$", re.MULTILINE)
_HEADER = re.compile(r"--\[\[\n(?P<title>[a-z_]+)\.lua: (?P<text>.*?)\]\]\n(?P<body>.*)", re.DOTALL)
_SECTIONS = ("KEYS", "ARGV", "DERIVES", "RETURNS", "COST")


class Script:
    """One command file: text with its includes joined, and digest."""

    def __init__(self, name: str) -> None:
        directory = resources.files("qstash_clone.storage") / "lua"
        source = (directory / f"{name}.lua").read_text()
        check_header(name, source)
        self.name = name
        self.text = _INCLUDE.sub(lambda found: (directory / "include" / f"{found[1]}.lua").read_text().rstrip(), source)
        # Redis names a script by the SHA-1 of its text.
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def check_header(name: str, source: str) -> None:
    """Raise ValueError unless the header has this name and lists exactly the KEYS and ARGV that the body uses."""
    found = _HEADER.match(source)
    if found is None or found["title"] != name:
        raise ValueError(f"{name}.lua does not begin with a header of that name")
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in found["text"].splitlines():
        word = line.split(" ", 1)[0]
        if word in _SECTIONS:
            current = sections.setdefault(word, [line[len(word) :]])
        else:
            current.append(line)
    for section in ("RETURNS", "COST"):
        if section not in sections:
            raise ValueError(f"{name}.lua has no {section} in its header")
    for section in ("KEYS", "ARGV"):
        lines = sections.get(section, [])
        listed = {int(item[1]) for line in lines if (item := re.match(r" {2}(\d+)\+? ", line))}
        open_ended = any(re.match(r" {2}\d+\+ ", line) for line in lines)
        used = {int(index) for index in re.findall(rf"\b{section}\[(\d+)\]", found["body"])}
        if open_ended and f"#{section}" in found["body"]:
            used.add(max(listed))
        if listed != used or listed != set(range(1, len(listed) + 1)):
            raise ValueError(f"{name}.lua lists {section} {sorted(listed)} but uses {sorted(used)}")


class ScriptRunner:
    """Runs scripts on one Redis; raises only the project's own storage errors."""

    def __init__(self, commands: RedisCommands, initialise: Callable[[], Awaitable[None]]) -> None:
        self._commands = commands
        self._initialise = initialise
        self._scripts: dict[str, Script] = {}

    async def heal(self) -> None:
        """Make a store that was emptied under us usable again."""
        await self._initialise()

    def _script(self, name: str) -> Script:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = Script(name)
        return script

    async def run(self, name: str, keys: Sequence[bytes], args: Sequence[Argument]) -> tuple[list[Any], bool]:
        """The script's reply, and whether an earlier try of this very call may have run, so that the reply may describe
        what that one did.

        Raises `StorageUnavailable`, `StorageFull`, `StoreIncompatible`.
        """
        script = self._script(name)
        may_have_run = False
        for attempt in range(1, MAX_TRIES + 1):
            try:
                reply = await self._call(script, keys, args)
            except MAY_HAVE_RUN as error:
                if attempt == MAX_TRIES:
                    raise translate(error) from error
                may_have_run = True
                await asyncio.sleep(RETRY_PAUSE_MS[attempt - 1] / 1000)
                continue
            except RedisError as error:
                raise translate(error) from error
            word = reply[0]
            if word == b"no_store":
                # Redis was emptied under us (it keeps nothing over a restart, or somebody flushed it).
                await self._initialise()
                continue
            if word == b"version":
                raise StoreIncompatible(
                    f"The store in Redis has version {reply[1].decode()}; this release reads version"
                    f" {STORAGE_VERSION}. Start the release that wrote it, or use another key namespace."
                )
            return reply, may_have_run
        raise StorageUnavailable("Redis loses its data while it is being written to.")

    async def _call(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> list[Any]:
        send = self._commands.send
        try:
            return await send("EVALSHA", script.digest, len(keys), *keys, *args)
        except NoScriptError:
            await send("SCRIPT LOAD", script.text)
            return await send("EVALSHA", script.digest, len(keys), *keys, *args)
