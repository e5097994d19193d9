"""The how-to pages of the features: every command and every program in them, run as it stands."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.e2e import typescript_sdk
from tests.support.processes import System
from tests.support.receiver import Receiver

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
ARRIVE = {
    "limit-calls-with-flow-control": {"sh": 1, "python": 3, "js": 3},
    "process-in-order-with-queues": {"sh": 1, "python": 3, "js": 3},
    "publish-to-many": {"sh": 4, "python": 5, "js": 5},
    "run-on-a-schedule": {"sh": 0, "python": 0, "js": 0},
}
"""How many messages each page delivers, at least, before it is over."""
# What is shown as a command must succeed, and say why if it does not.
STRICT_CURL = 'set -euo pipefail\ncurl() { command curl --silent --show-error --fail-with-body "$@"; }\n'


def code_of(page: str, language: str, receiver: Receiver) -> str:
    """All blocks of one language, for this receiver in place of the one on port 3000."""
    text = (HOWTO / f"{page}.md").read_text()
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks, f"{page} has no {language}"
    return "\n".join(blocks).replace("http://localhost:3000", receiver.url)


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
