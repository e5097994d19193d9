"""Writes the reference page of all settings to standard output, from where `make docs` takes it."""

import dataclasses

from qstash_clone.settings import RULES, Settings, variable_of

_HEAD = """\
# Settings

Every setting is an environment variable. `qstash-clone config` shows the value of each and where it comes from. The
first of these places that sets a value wins: the command line, the environment, the file named by `--env-file`, the
default. An empty value counts as not set; a malformed one, and a variable `QSTASH_CLONE_...` that is not listed here,
stops the start with a sentence that names it.

Names that end in `_MS` are milliseconds, in `_BYTES` bytes. Where two names are given, the one that begins with
`QSTASH_CLONE_` wins; `qstash-clone dev` does not read the `QSTASH_...` names of the SDKs, which in a developer's
shell may belong to another service.

This page is generated from `qstash_clone/settings.py` by `make docs`.
"""


def render() -> str:
    """The page, in the order of the fields of `Settings`."""
    lines = [_HEAD]
    section = ""
    for field in dataclasses.fields(Settings):
        rule = RULES[field.name]
        if rule.section != section:
            section = rule.section
            lines += [f"\n## {section}\n", "| variable | default | meaning |", "|---|---|---|"]
        names = f"`{variable_of(field.name)}`"
        if rule.variables:
            names += f" or `{variable_of(field.name, own=True)}`"
        default = rule.default_text or f"`{_shown(field.default)}`"
        lines.append(f"| {names} | {default} | {rule.help}{_bounds(rule.minimum, rule.maximum)} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _bounds(minimum: float | None, maximum: float | None) -> str:
    match minimum, maximum:
        case None, None:
            return ""
        case _, None:
            return f" At least {_number(minimum)}."
        case None, _:
            return f" At most {_number(maximum)}."
        case _:
            return f" From {_number(minimum)} to {_number(maximum)}."


def _number(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    print(render(), end="")
