"""Files of settings."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.cli.env_file import read_env_file
from qstash_clone.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB = two words \n", {"A": "1", "B": "two words"}),
        ("# comment\n\n  # another\nA=1 # why\nB=a#b\n", {"A": "1", "B": "a#b"}),
        ("export A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A='$HOME # \"x\"' # c\n", {"A": '$HOME # "x"'}),
        ('A="a\\nb\\"c\\\\ # \'" # c\n', {"A": "a\nb\"c\\ # '"}),
        ("A=\nB=''\nC= # nothing\n", {"A": "", "B": "", "C": ""}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=b=c\n", {"A": "b=c"}),
        ("", {}),
    ],
)
def test_values(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    (tmp_path / "env").write_text(text, newline="")
    assert read_env_file(str(tmp_path / "env")) == expected


@pytest.mark.parametrize("line", ["A", "1A=x", "A-B=x", "=x", "A='x", 'A="x', "A='x'y", "export", 'A="x\\"'])
def test_malformed_line_is_named_without_its_value(tmp_path: Path, line: str) -> None:
    (tmp_path / "env").write_text(f"# first\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"line 2 of .* is not of the form NAME=value") as caught:
        read_env_file(str(tmp_path / "env"))
    assert str(caught.value).startswith("--env-file: ")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not text in UTF-8"):
        read_env_file(str(tmp_path / "binary"))
    with pytest.raises(ConfigurationError, match="is a directory"):
        read_env_file(str(tmp_path))


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,10}", fullmatch=True), st.text(st.characters(codec="utf-8"))))
def test_any_text_survives_in_quotes(tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'

    path = tmp_path_factory.mktemp("env") / "env"
    path.write_text("".join(f"{name}={quoted(value)}\n" for name, value in values.items()), encoding="utf-8")
    assert read_env_file(str(path)) == values
