"""Runs the end-to-end tests twice and keeps in `recorded.json` what they saw both times: `make matrix`."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conformance.matrix import RECORDED, merge

VARIABLE = "QSTASH_CLONE_TEST_RECORD"
"""Names a folder, into which each test process writes a line for each test that passed: its name and its rows."""


def read_folder(folder: Path) -> dict[str, list[str]]:
    """What all processes of one run wrote."""
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return {entry["test"]: entry["rows"] for entry in map(json.loads, lines)}


def main() -> int:
    recordings: list[dict[str, list[str]]] = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(prefix="qc-record-") as folder:
            command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "tests/e2e", *sys.argv[1:]]
            status = subprocess.run(command, env=os.environ | {VARIABLE: folder}, check=False).returncode
            if status > 1:
                return status
            if status:
                print("matrix: tests that failed are not recorded", file=sys.stderr)
            recordings.append(read_folder(Path(folder)))
    RECORDED.write_text(json.dumps(merge(recordings), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
