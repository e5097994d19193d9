"""The `qstash-clone` command with less patience for slow requests, so that no test has to wait half a minute."""

import sys

from qstash_clone.api import protocol
from qstash_clone.cli import main

PATIENCE_S = 0.5

if __name__ == "__main__":
    protocol.HEAD_TIMEOUT_S = protocol.BODY_TIMEOUT_S = PATIENCE_S
    sys.exit(main())
