"""Reads a file of settings, one `NAME=value` a line, as `docker compose` and shells do."""

import re

from qstash_clone.errors import ConfigurationError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_env_file(path: str) -> dict[str, str]:
    """Names and values of a file; raises ConfigurationError naming the line that is malformed.

    A value may stand in quotes; a `#` after a blank begins a comment; `export` is allowed; nothing is expanded.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "not text in UTF-8"
        raise ConfigurationError(f"--env-file: cannot read {path}: {reason}.") from error
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        value = _unquote(match[2]) if match else None
        if match is None or value is None:
            raise ConfigurationError(f"--env-file: line {number} of {path} is not of the form NAME=value.")
        values[match[1]] = value
    return values


def _unquote(text: str) -> str | None:
    """The value that a line's right side stands for; None if its quotes do not match."""
    if text[:1] == "'":
        match = re.fullmatch(r"'([^']*)'\s*(#.*)?", text)
        return match[1] if match else None
    if text[:1] == '"':
        match = re.fullmatch(r'"((?:[^"\\]|\\.)*)"\s*(#.*)?', text)
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), match[1]) if match else None
    return re.split(r"\s+#|^#", text, maxsplit=1)[0].strip()
