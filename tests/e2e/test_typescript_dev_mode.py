"""`QSTASH_DEV=true` of the official TypeScript SDK uses `qstash-clone dev`, instead of a server of its own."""

import asyncio
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from tests.dev.running import Dev
from tests.e2e.typescript_sdk import FOLDER


async def test_the_development_mode_uses_our_server(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("QSTASH", "UPSTASH"))}
    async with Dev(tmp_path / "data", workers="1") as dev:
        await dev.start()
        port = str(urlsplit(dev.url).port)
        process = await asyncio.create_subprocess_exec(
            "node",
            str(FOLDER / "dev-mode.mjs"),
            env=environ | {"QSTASH_DEV": "true", "QSTASH_DEV_PORT": port, "HOME": str(home), "NODE_ENV": "development"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode()
        assert process.returncode == 0, text
        assert f"Server already running at http://127.0.0.1:{port}" in text
        published = re.search(r"^published (msg_\w+)$", text, re.MULTILINE)
        assert published, text
        assert f'arrived {published[1]} {{"order":1}} genuine' in text
        # Where it would put the program that it downloads and starts if it found nothing on the port.
        assert list(home.rglob("*")) == []
        assert await dev.stop() == 0
