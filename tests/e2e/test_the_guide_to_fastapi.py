"""The program of docs/howto/local-development-fastapi.md, word for word, served by uvicorn as the page says."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

from tests.e2e import fastapi_stand_in
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import free_port
from tests.support.raw_http import RawHttp

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "local-development-fastapi.md"


async def test_the_program(client: Client, tmp_path: Path) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "app.py").write_text(code)
    shutil.copy(fastapi_stand_in.__file__, tmp_path / "fastapi.py")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "critical"),
        cwd=tmp_path,
        env=os.environ
        | {
            "QSTASH_URL": client.url,
            "QSTASH_TOKEN": client.settings.token,
            "QSTASH_CURRENT_SIGNING_KEY": client.settings.current_signing_key,
            "QSTASH_NEXT_SIGNING_KEY": client.settings.next_signing_key,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    application = RawHttp(port)

    async def refuses_what_is_forged() -> bool:
        try:
            return (await application.request("POST", "/jobs/order", body=b"forged")).status == 401
        except OSError:
            return False

    try:
        await eventually(refuses_what_is_forged)
        answer = await application.request("POST", "/orders", body=b'{"order": 1}')
        assert answer.status == 200, answer
        assert process.stdout is not None
        printed = await asyncio.wait_for(process.stdout.readline(), 10)
        assert printed.decode() == f"working on {{'order': 1}} as {answer.json()['messageId']}\n"
    finally:
        process.kill()
        await process.wait()
