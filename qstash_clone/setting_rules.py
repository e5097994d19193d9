"""How one setting is read from text, checked and described."""

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from typing import TypeVar, get_args
from urllib.parse import urlsplit

from qstash_clone.domain.host_overrides import parse_host_overrides
from qstash_clone.domain.urls import origin_of

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one setting is read, checked and described."""

    section: str
    help: str
    parse: Callable[[str], object]
    """Raises ValueError with what the value should have been."""
    minimum: float | None = None
    maximum: float | None = None
    secret: bool = False
    variables: tuple[str, ...] = ()
    """Names besides `QSTASH_CLONE_<FIELD>`, the preferred one first."""
    default_text: str | None = None
    """What the reference page says where the default is not a plain value."""


def setting(
    default: _T,
    section: str,
    help: str,  # noqa: A002 (the word argparse and click use for the same thing)
    *,
    parse: Callable[[str], object],
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
    variables: tuple[str, ...] = (),
    default_text: str | None = None,
) -> _T:
    """A dataclass field with a rule; its type is that of the default."""
    rule = Rule(
        section=section,
        help=help,
        parse=parse,
        minimum=minimum,
        maximum=maximum,
        secret=secret,
        variables=variables,
        default_text=default_text,
    )
    return dataclasses.field(default=default, metadata={"rule": rule})


def number(
    default: int,
    section: str,
    help: str,  # noqa: A002 (as above)
    *,
    bounds: tuple[int, int | None],
    default_text: str | None = None,
) -> int:
    """A setting that is a whole number within bounds, both included; None for no upper one."""
    minimum, maximum = bounds
    return setting(default, section, help, parse=whole, minimum=minimum, maximum=maximum, default_text=default_text)


def whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError("a whole number")
    return int(text)


def decimal(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError("a decimal number")
    return float(text)


def flag(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ValueError("true or false")


def one_of(choices: object) -> Callable[[str], str]:
    words = get_args(choices)

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(", ".join(words[:-1]) + " or " + words[-1])
        return text.lower()

    return parse


def path(text: str) -> str:
    if "\0" in text:
        raise ValueError("the name of a file")
    return text


def secret_word(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,1024}", text):
        raise ValueError("at most 1024 printable ASCII characters without blanks")
    return text


def secret_words(text: str) -> tuple[str, ...]:
    words = _words(text)
    if not all(re.fullmatch(r"[!-~]{1,1024}", word) for word in words):
        raise ValueError("words of at most 1024 printable ASCII characters, separated by commas")
    return tuple(dict.fromkeys(words))


def topic_credentials(text: str) -> tuple[str, ...]:
    words = _words(text)
    for word in words:
        if not re.fullmatch(r"(full|produce-only|consume-only):(\*|[A-Za-z0-9._-]{1,249}\*?):[!-~]{1,1024}", word):
            raise ValueError("words such as produce-only:orders*:the-token, separated by commas")
    return tuple(dict.fromkeys(words))


def namespace(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", text):
        raise ValueError("1 to 32 letters, digits, hyphens or underscores")
    return text


def region(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ValueError("1 to 64 letters, digits, dots, hyphens or underscores")
    return text


def host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:%-]{1,253}", text):
        raise ValueError("an address or a host name")
    return text


def redis_url(text: str) -> str:
    parts = urlsplit(text)
    usable = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname)
    if parts.scheme not in ("redis", "rediss", "unix") or not usable:
        raise ValueError("redis://, rediss:// or unix://, with a host or the path of a socket")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("a URL with a port from 1 to 65535") from None
    if parts.scheme != "unix" and not re.fullmatch(r"(/[0-9]{0,9})?", parts.path):
        raise ValueError("a URL whose path is the number of a database, or nothing")
    # Further parameters would reach the client library and could, say, turn its own repeats of scripts back on.
    if not re.fullmatch(r"(db=[0-9]{1,9})?", parts.query):
        raise ValueError("a URL without parameters other than db")
    return text


def base_url(text: str) -> str:
    base = text.rstrip("/")
    try:
        origin_of(base)
    except ValueError as error:
        raise ValueError(f"an http or https URL: {error}") from None
    if "?" in base or base.endswith("/v1"):
        raise ValueError("a URL without parameters and without /v1 at its end, which is added")
    return base


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def networks(text: str) -> tuple[str, ...]:
    words = _words(text)
    if not all(_is_network(word) for word in words):
        raise ValueError("addresses or networks such as 10.0.0.0/8, separated by commas")
    return words


def destinations(text: str) -> tuple[str, ...]:
    words = _words(text)
    if not all(_is_network(word) or re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", word) for word in words):
        raise ValueError("networks such as 10.0.0.0/8 or host names, separated by commas")
    return tuple(word.lower() for word in words)


def host_overrides(text: str) -> tuple[str, ...]:
    words = tuple(word.lower() for word in _words(text))
    try:
        parse_host_overrides(words)
    except ValueError:
        raise ValueError(
            "pairs such as example.com:443=127.0.0.1:9443, separated by commas, each host and port once"
        ) from None
    return words


def _is_network(word: str) -> bool:
    try:
        ipaddress.ip_network(word, strict=False)
    except ValueError:
        return False
    return True
