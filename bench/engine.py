"""The Redis of one measure: on a real disk, as `qstash-clone dev` runs it, and asked what it really does."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import redis

from bench.machine import filesystem_of
from bench.report import BenchFailure, percentile
from qstash_clone.ids import parse_message_id
from qstash_clone.settings import Settings
from qstash_clone.storage.embedded import EmbeddedRedis
from qstash_clone.storage.engine_program import find_programs
from qstash_clone.storage.keys import PartitionKeys

TOKEN = "bench-token-0123456789abcdef"
SIGNING_KEY = "sig_benchcurrent0123456789abcdefg"
NEXT_SIGNING_KEY = "sig_benchnext0123456789abcdefghij"
_IDS_PER_COMMAND = 1000
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


class Engine:
    """A redis-server on a fresh folder; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._redis = EmbeddedRedis(folder, find_programs(os.environ.get("QSTASH_CLONE_REDIS_SERVER")))
        self._folder = folder
        self._client: Any = None
        self.keys = PartitionKeys("q", 0, 1)

    def __enter__(self) -> "Engine":
        self._folder.mkdir(parents=True)
        kind = filesystem_of(self._folder)
        if kind in _IN_MEMORY:
            raise BenchFailure(f"the data folder is in memory ({kind}); choose one on a disk with --data-dir")
        self._redis.start()
        self._client = redis.Redis.from_url(self._redis.url)  # pyright: ignore[reportUnknownMemberType]
        if self.durability() != "appendonly yes, appendfsync always":
            raise BenchFailure(f"Redis runs with {self.durability()}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        self._redis.stop()

    @property
    def url(self) -> str:
        return self._redis.url

    @property
    def pid(self) -> int:
        assert self._redis.pid is not None
        return self._redis.pid

    def settings(self) -> Settings:
        """The service's settings on this engine: its defaults, with local destinations allowed and a short stop."""
        return Settings(
            redis_url=self.url,
            token=TOKEN,
            current_signing_key=SIGNING_KEY,
            next_signing_key=NEXT_SIGNING_KEY,
            allow_private_destinations=True,
            shutdown_grace_ms=1000,
        )

    def durability(self) -> str:
        """How durable a write is, in Redis's own words."""
        appendfsync = cast("dict[str, str]", self._client.config_get("appendfsync"))["appendfsync"]
        enabled = self._info("persistence")["aof_enabled"]
        return f"appendonly {'yes' if enabled else 'no'}, appendfsync {appendfsync}"

    def facts(self) -> dict[str, str]:
        """What it is, for the report."""
        server = self._info("server")
        return {
            "engine": f"Redis {server['redis_version']}, {self._info('memory')['mem_allocator']}, unix socket",
            "durability": f"{self.durability()}, on {filesystem_of(self._folder)}",
            "one durable write": f"{self._durable_write_ms():.2f} ms (median of 200 SETs, one after the other)",
        }

    def used_memory(self) -> int:
        """`used_memory` when no rewrite of the append-only file is under way."""
        deadline = time.monotonic() + 60
        while self._info("persistence")["aof_rewrite_in_progress"]:
            if time.monotonic() > deadline:
                raise BenchFailure("the rewrite of the append-only file does not end")
            time.sleep(0.1)
        return int(self._info("memory")["used_memory"])

    def calls(self) -> dict[str, int]:
        """How often each command ran so far, those inside scripts included."""
        stats = self._info("commandstats")
        return {name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in stats.items()}

    def workers(self) -> int:
        """Live workers."""
        return int(self._client.zcard(self.keys.workers))

    def created(self) -> int:
        """Messages ever stored, by the log of transitions; only while nothing has been delivered or expired."""
        return int(self._client.xlen(self.keys.log))

    def begun_ms(self) -> list[int]:
        """When each attempt began, by the log of transitions: the moments that count for a rate."""
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", self._client.xrange(self.keys.log))
        return [int(entry_id.split(b"-")[0]) for entry_id, fields in entries if fields[b"e"].startswith(b"A")]

    def unfinished(self) -> int:
        """Messages that wait or are in flight."""
        keys, pipeline = self.keys, self._client.pipeline(transaction=False)
        lanes = cast(
            "list[bytes]",
            [
                *self._client.lrange(keys.ring, 0, -1),
                *self._client.smembers(keys.parked),
                *self._client.smembers(keys.blocked),
            ],
        )
        for lane in lanes:
            pipeline.llen(keys.lane(lane.decode()))
            pipeline.llen(keys.returning(lane.decode()))
        waiting = sum(cast("list[int]", pipeline.execute()))
        return waiting + int(self._client.xlen(keys.ready)) + int(self._client.zcard(keys.timers))

    def dead_letters(self) -> int:
        return int(self._client.xlen(self.keys.dlq))

    def missing(self, message_ids: Sequence[str]) -> int:
        """How many of these are not in the store."""
        keys: list[bytes] = []
        for text in message_ids:
            message_id = parse_message_id(text)
            if message_id is None:
                raise BenchFailure(f"the api answered with the id {text!r}")
            keys.append(self.keys.message(message_id))
        found = 0
        for at in range(0, len(keys), _IDS_PER_COMMAND):
            found += int(self._client.exists(*keys[at : at + _IDS_PER_COMMAND]))
        return len(keys) - found

    def _info(self, section: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self._client.info(section))

    def _durable_write_ms(self) -> float:
        times: list[float] = []
        for number in range(200):
            started_s = time.perf_counter()
            self._client.set("bench", number)
            times.append((time.perf_counter() - started_s) * 1000)
        self._client.delete("bench")
        return percentile(times, 0.5)
