"""Callers' values as they appear in error texts: short, on one line, in quotes."""

_SHOWN_CHARACTERS = 100


def quoted(text: str) -> str:
    """The first 100 characters in double quotes; what cannot be printed becomes U+FFFD."""
    shown = text[:_SHOWN_CHARACTERS]
    if not shown.isprintable():
        shown = "".join(character if character.isprintable() else "\ufffd" for character in shown)
    return f'"{shown}"'
