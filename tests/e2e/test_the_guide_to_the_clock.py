"""The tests of docs/howto/test-with-the-clock.md, word for word, run as a user runs them."""

import asyncio
import os
import re
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "howto" / "test-with-the-clock.md"
NAMED = re.compile(r"^Save as `([a-z_]+\.py)`.*?^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


async def test_the_tests_of_the_guide_pass(tmp_path: Path) -> None:
    files = dict(NAMED.findall(GUIDE.read_text()))
    assert list(files) == ["conftest.py", "test_reminders.py"]
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "QSTASH"))}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "temporary")),
        cwd=tmp_path,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    count = files["test_reminders.py"].count("\ndef test_")
    assert f"{count} passed" in output.decode()
