"""The pages of the documentation: what they link to and the files they name are there, and every page can be found."""

import re
from pathlib import Path

import pytest

from qstash_clone.settings import PREFIX, RULES, variable_of

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
KNOWN = {variable_of(name, own=True) for name in RULES}
# Documentation names modules as an import does, from their package on.
SOURCES = [ROOT, ROOT / "qstash_clone", ROOT / "qstash_clone" / "storage"]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose_of(page: Path) -> str:
    """A page without its blocks of code, which may hold anything."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def links_of(page: Path) -> list[tuple[Path, str]]:
    """The file and the anchor of each link to another place in this repository."""
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose_of(page)))
    pairs = [link.partition("#") for link in links if not link.startswith(("https://", "http://"))]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in pairs]


def anchors_of(page: Path) -> set[str]:
    """What a heading can be linked by, made as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    dead = [
        f"{target.relative_to(ROOT)}#{anchor}"
        for target, anchor in links_of(page)
        if not target.exists() or (anchor and anchor not in anchors_of(target))
    ]
    assert dead == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    found, new = set[Path](), {README}
    while new:
        found |= new
        linked = {target for page in new for target, _ in links_of(page)}
        # A link to a folder shows all that is in it.
        files = {file for target in linked for file in (target.glob("*.md") if target.is_dir() else [target])}
        new = {file for file in files if file.suffix == ".md" and file.exists()} - found
    assert set(PAGES) - found == set()


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|lua|md|toml))`", prose_of(page))
    assert [name for name in named if not any((source / name).exists() for source in SOURCES)] == []


@every_page
def test_addresses_with_a_query_are_quoted(page: Path) -> None:
    """In zsh, which macOS has, a question mark outside of quotes is a pattern: the command ends before it begins."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    bare = [re.sub(r"""'[^']*'|"(?:\\.|[^"\\])*\"""", "''", block) for block in blocks]
    assert [address for block in bare for address in re.findall(r"(?:https?://|\$\w+/)\S*[?&*]\S*", block)] == []


@every_page
def test_settings_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]", page.read_text()))
    assert named <= KNOWN
