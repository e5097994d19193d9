"""The reference for deliveries: a plain aiohttp loop that posts bodies and reads the answers, nothing else."""

import asyncio
from typing import Any

import aiohttp

from bench.tools.channel import serve
from bench.tools.samples import BODY


async def post(arguments: dict[str, Any]) -> dict[str, Any]:
    """Post `count` bodies with `headers` to `url`, `connections` at a time; each has an id of its own."""
    url, count = str(arguments["url"]), int(arguments["count"])
    headers: dict[str, str] = arguments["headers"]
    left = iter(range(count))
    wrong = 0

    async def one_at_a_time(session: aiohttp.ClientSession) -> None:
        nonlocal wrong
        for number in left:
            own = {**headers, "Upstash-Message-Id": f"msg_{number:020d}"}
            async with session.post(url, data=BODY, headers=own) as answer:
                await answer.read()
                wrong += answer.status != 200

    connections = int(arguments["connections"])
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        await asyncio.gather(*(one_at_a_time(session) for _ in range(connections)))
    return {"wrong": wrong}


if __name__ == "__main__":
    serve(lambda: {"post": post})
