"""The arguments of `qstash-clone topics`."""

import argparse
from typing import Final

LOCAL: Final = "http://127.0.0.1:8080"
URL: Final = "QSTASH_URL"
TOKEN: Final = "QSTASH_TOKEN"
ACTIONS: Final = ("list", "describe", "create", "change", "delete")
TIMESTAMP_TYPES: Final = ("create", "append")
"""Those of `topics.records`, which is too much to load before it is known which command is wanted."""
_NUMBERS: Final = {
    "partitions": ("partitions", "how many; may grow, never shrink"),
    "retention-ms": ("retentionMs", "how long a record stays; -1: for ever"),
    "retention-bytes": ("retentionBytes", "most bytes of each partition; -1: no limit"),
}
FIELDS: Final = (*(field for field, _ in _NUMBERS.values()), "timestampType")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The token is none of them: what is on a command line can be read by every process of the machine."""
    # The metavar is what an error calls it.
    parser.add_argument("action", choices=ACTIONS, metavar=f"{{{','.join(ACTIONS)}}}", help="what to do")
    parser.add_argument("topic", nargs="?", help="its name; all but list need one")
    for option, (field, text) in _NUMBERS.items():
        parser.add_argument(f"--{option}", dest=field, type=int, metavar="NUMBER", help=text)
    parser.add_argument(
        "--timestamp-type",
        dest="timestampType",
        choices=TIMESTAMP_TYPES,
        help="create: a record has the time of its producer; append: that of its append",
    )
    parser.add_argument(
        "--url", metavar="URL", help=f"the service, {URL} by default, else {LOCAL}; {TOKEN} is its token"
    )
