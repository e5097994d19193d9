"""The receivers of docs/howto/receive-messages.md, word for word."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.e2e import typescript_sdk
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import free_port
from tests.support.raw_http import RawHttp

GUIDE = Path(__file__).parents[2] / "docs" / "howto" / "receive-messages.md"


def code_of(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, language
    return found[0]


@asynccontextmanager
async def running(*command: str, client: Client) -> AsyncGenerator[tuple[int, asyncio.StreamReader]]:
    """The port of a receiver and what it prints."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ
        | {
            "PORT": str(port),
            "QSTASH_CURRENT_SIGNING_KEY": client.settings.current_signing_key,
            "QSTASH_NEXT_SIGNING_KEY": client.settings.next_signing_key,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(listens)
        assert process.stdout is not None
        yield port, process.stdout
    finally:
        process.kill()
        await process.wait()


async def _try_out(client: Client, port: int, printed: asyncio.StreamReader) -> None:
    message_id = await client.publish(f"http://127.0.0.1:{port}/orders?a=b", b'{"order": 1}')
    assert await asyncio.wait_for(printed.readline(), 10) == f'{message_id} {{"order": 1}}\n'.encode()
    answer = await RawHttp(port).request("POST", "/orders", body=b"forged")
    assert answer.status == 401
    assert (await asyncio.wait_for(printed.readline(), 10)).startswith(b"refused")


async def test_the_python_receiver(client: Client, tmp_path: Path) -> None:
    script = tmp_path / "receiver.py"
    script.write_text(code_of("python"))
    async with running(sys.executable, str(script), client=client) as (port, printed):
        await _try_out(client, port, printed)


if typescript_sdk.IS_INSTALLED:

    async def test_the_node_receiver(client: Client) -> None:
        # Where Node finds the package.
        script = typescript_sdk.FOLDER / "node_modules" / ".receiver-of-the-guide.mjs"
        script.write_text(code_of("js"))
        async with running("node", str(script), client=client) as (port, printed):
            await _try_out(client, port, printed)
