"""The arrows between packages, and the purity of the domain."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# package -> what it may import of ours; everything may import the shared modules at the top of qstash_clone.
SHARED = {"errors", "ids", "clock", "settings", "setting_layers", "observability", "instruments", "parent_watch"}
MAY_IMPORT = {
    "qstash_clone/domain": {"domain"},
    "qstash_clone/topics": {"domain", "topics"},
    "qstash_clone/storage": {"domain", "topics", "storage"},
    "qstash_clone/api": {"domain", "storage", "topics", "api"},
    "worker": {"domain", "topics", "storage", "worker"},
    "qstash_clone/dev": {"domain", "storage", "dev"},
}
PURE = {"errors", "ids"}
"""What the domain may use of the shared modules."""
IMPURE_MODULES = {"asyncio", "os", "random", "secrets", "socket", "time", "redis", "aiohttp", "httpx", "logging"}


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "qstash_clone")


def part_of(module: str) -> str | None:
    """`storage` of `qstash_clone.storage.keys`; None for what is not ours."""
    first, _, rest = module.partition(".")
    if first == "worker":
        return "worker"
    return rest.partition(".")[0] or None if first == "qstash_clone" else None


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package] | (PURE if package.endswith("domain") else SHARED) | {"__version__"}
    for path in sorted((ROOT / package).rglob("*.py")):
        wrong = {module for module in imports_of(path) if part_of(module) not in allowed | {None}}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_the_domain_does_no_io_and_asks_nobody_for_time_or_chance() -> None:
    for path in sorted((ROOT / "qstash_clone/domain").glob("*.py")):
        impure = {module.partition(".")[0] for module in imports_of(path)} & IMPURE_MODULES
        assert not impure, f"{path.name} imports {sorted(impure)}"


def test_a_module_holds_one_concept() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for package in ("qstash_clone", "worker")
        for path in (ROOT / package).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not {name: lines for name, lines in too_long.items() if not name.endswith("settings.py")}
