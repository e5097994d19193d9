"""The arguments of `qstash-clone topics`."""

import argparse
from typing import Final

LOCAL: Final = "http://127.0.0.1:8080"
URL: Final = "QSTASH_URL"
TOKEN: Final = "QSTASH_TOKEN"
ACTIONS: Final = ("list", "describe", "create", "change", "delete")
_CONFIGURATION: Final = {
    "partitions": ("partitions", int, "number of partitions; may grow, never shrink"),
    "retention-ms": ("retentionMs", int, "how long a record stays; -1: for ever"),
    "retention-bytes": ("retentionBytes", int, "most bytes of each partition; -1: no limit"),
    "timestamp-type": (
        "timestampType",
        str,
        "create: a record has the time of its producer; append: that of its append",
    ),
}
FIELDS: Final = tuple(field for field, _, _ in _CONFIGURATION.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The token is none of them: what is on a command line can be read by every process of the machine."""
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("topic", nargs="?", help="the topic; not of list")
    for option, (field, kind, text) in _CONFIGURATION.items():
        parser.add_argument(f"--{option}", dest=field, type=kind, metavar=kind.__name__.upper(), help=text)
    parser.add_argument(
        "--url", metavar="URL", help=f"the service, {URL} by default, else {LOCAL}; its token is {TOKEN}"
    )
