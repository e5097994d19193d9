"""Lets `python -m qstash_clone.cli` stand for the `qstash-clone` command, as the children of `dev` do."""

import sys

from qstash_clone.cli import main

if __name__ == "__main__":
    sys.exit(main())
