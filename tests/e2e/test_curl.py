"""The first thing that a newcomer does; collected where there is a curl."""

import asyncio
from collections.abc import Callable

from tests.support.processes import System
from tests.support.receiver import ReceivedRequest, Receiver


async def test_a_curl_is_delivered_signed(
    system: System, receiver: Receiver, signed: Callable[[ReceivedRequest], dict[str, object]]
) -> None:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-X", "POST", f"{system.url}/v2/publish/{receiver.url}/hello",
        "-H", f"Authorization: Bearer {system.settings.token}", "-H", "Content-Type: application/json",
        "-d", '{"hello":"world"}',
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    (request,) = await receiver.wait_for(1)
    assert f'"{request.header("Upstash-Message-Id")}"'.encode() in out
    assert (request.method, request.target, request.body) == ("POST", "/hello", b'{"hello":"world"}')
    assert request.header("Content-Type") == "application/json"
    signed(request)
