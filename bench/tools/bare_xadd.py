"""The reference for batches of records: pipelines of XADD, one after the other, and nothing else."""

import asyncio
import time
from typing import Any

from redis.asyncio import Redis

from bench.tools.channel import serve
from bench.tools.samples import BODY


async def append(arguments: dict[str, Any]) -> dict[str, Any]:
    """`connections` append `together` records at a time to `streams` of `redis_url` for `seconds`."""
    together, seconds = int(arguments["together"]), float(arguments["seconds"])
    client: Any = Redis.from_url(str(arguments["redis_url"]), protocol=2)  # pyright: ignore[reportUnknownMemberType]
    ends_s = time.perf_counter() + seconds
    appended = 0

    async def one_at_a_time(stream: str) -> None:
        nonlocal appended
        while time.perf_counter() < ends_s:
            async with client.pipeline(transaction=False) as pipeline:
                for _ in range(together):
                    pipeline.execute_command("XADD", stream, "*", "r", BODY)
                await pipeline.execute()
            appended += together

    connections = int(arguments["connections"])
    started_s = time.perf_counter()
    await asyncio.gather(
        *(one_at_a_time(f"bare-{number % int(arguments['streams'])}") for number in range(connections))
    )
    took_s = time.perf_counter() - started_s
    await client.aclose()
    return {"per_second": appended / took_s}


if __name__ == "__main__":
    serve(lambda: {"append": append})
