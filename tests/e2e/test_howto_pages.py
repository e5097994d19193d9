"""The how-to pages of the features, and theirs in the quickstart: every command and program, run as it stands."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.e2e import typescript_sdk
from tests.support.client import Client
from tests.support.processes import System
from tests.support.receiver import Receiver

DOCS = Path(__file__).parents[2] / "docs"
ARRIVE = {
    "limit-calls-with-flow-control": {"sh": 1, "python": 3, "js": 3},
    "process-in-order-with-queues": {"sh": 1, "python": 3, "js": 3},
    "publish-to-many": {"sh": 4, "python": 5, "js": 5},
    "run-on-a-schedule": {"sh": 0, "python": 0, "js": 0},
}
"""How many messages each page delivers, at least, before it is over."""
# What is shown as a command must succeed, and say why if it does not.
STRICT_CURL = 'set -euo pipefail\ncurl() { command curl --silent --show-error --fail-with-body "$@"; }\n'


def blocks_in(text: str, language: str, receiver: Receiver) -> list[str]:
    """All blocks of one language, for this receiver in place of the one on port 3000."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks, f"there is no {language}"
    return [block.replace("http://localhost:3000", receiver.url) for block in blocks]


def code_of(page: str, language: str, receiver: Receiver) -> str:
    """All blocks of one language in a page, one after the other."""
    return "\n".join(blocks_in((DOCS / "howto" / f"{page}.md").read_text(), language, receiver))


async def run(*command: str, system: System) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"QSTASH_URL": system.url, "QSTASH_TOKEN": system.settings.token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, output.decode()


@pytest.mark.parametrize("page", ARRIVE)
async def test_the_commands(page: str, system: System, receiver: Receiver) -> None:
    await run("bash", "-c", STRICT_CURL + code_of(page, "sh", receiver), system=system)
    await receiver.wait_for(ARRIVE[page]["sh"])


async def test_the_commands_of_the_quickstart(clocked: System, receiver: Receiver) -> None:
    _, _, text = (DOCS / "quickstart.md").read_text().partition("## 6.")
    publish, move_clock, clean_up = blocks_in(text, "sh", receiver)
    await run("bash", "-c", STRICT_CURL + publish + move_clock, system=clocked)
    await receiver.wait_for(1, path="/tick")
    await run("bash", "-c", STRICT_CURL + clean_up, system=clocked)
    for path, count in (("/first", 1), ("/second", 1), ("/charge", 1), ("/mail", 2), ("/crm", 2), ("/hello", 1)):
        await receiver.wait_for(count, path=path)
    client = Client(clocked.url, clocked.settings)
    assert sum(log["end"] for log in (await client.send("GET", "/topics/visits"))["logs"]) == 1
    await client.send("DELETE", "/topics/visits")


@pytest.mark.parametrize("page", ARRIVE)
async def test_the_python_program(page: str, system: System, receiver: Receiver) -> None:
    await run(sys.executable, "-c", code_of(page, "python", receiver), system=system)
    await receiver.wait_for(ARRIVE[page]["python"])


if typescript_sdk.IS_INSTALLED:

    @pytest.mark.parametrize("page", ARRIVE)
    async def test_the_node_program(page: str, system: System, receiver: Receiver) -> None:
        # Where Node finds the package.
        script = typescript_sdk.FOLDER / "node_modules" / f".{page}.mjs"
        script.write_text(code_of(page, "js", receiver))
        await run("node", str(script), system=system)
        await receiver.wait_for(ARRIVE[page]["js"])
