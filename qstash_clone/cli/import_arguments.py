"""The arguments of `qstash-clone import-upstash`."""

import argparse
from typing import Final

HOSTED: Final = "https://qstash.upstash.io"
SOURCE_TOKEN: Final = "UPSTASH_QSTASH_TOKEN"
TARGET_URL: Final = "QSTASH_URL"
TARGET_TOKEN: Final = "QSTASH_TOKEN"
KINDS: Final = ("url-groups", "queues", "schedules")
"""In the order in which they are copied: a schedule needs the group that it publishes to."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tokens are none of them: what is on a command line can be read by every process of the machine."""
    parser.add_argument(
        "--from",
        dest="source_url",
        metavar="URL",
        default=HOSTED,
        help=f"the service to copy from, {HOSTED} by default; its token is {SOURCE_TOKEN}",
    )
    parser.add_argument(
        "--to",
        dest="target_url",
        metavar="URL",
        help=f"the service to copy into, {TARGET_URL} by default; its token is {TARGET_TOKEN}",
    )
    parser.add_argument(
        "--only", type=_kinds, default=KINDS, metavar="KINDS", help=f"some of {','.join(KINDS)}; all by default"
    )
    parser.add_argument(
        "--dry-run", dest="is_dry_run", action="store_true", help="say what would be done, and change nothing"
    )
    parser.add_argument(
        "--activate",
        dest="activates",
        action="store_true",
        help="let schedules fire here if they fire at the source; without it, new ones are created paused",
    )


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = next((kind for kind in kinds if kind not in KINDS), None)
    if unknown is not None or not kinds:
        raise argparse.ArgumentTypeError(f'invalid value "{unknown or text}"; give some of {",".join(KINDS)}')
    return kinds
