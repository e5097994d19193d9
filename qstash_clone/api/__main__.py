"""Composes and runs the api: one process, or several that share a port and are restarted when they die."""

import os
import sys

from qstash_clone.api.processes import EXIT_CONFIGURATION, run_processes
from qstash_clone.api.server import listen, serve
from qstash_clone.errors import ConfigurationError, StoreIncompatible
from qstash_clone.observability import configure_logging, flush_logs
from qstash_clone.setting_layers import settings_of
from qstash_clone.settings import Settings


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was begun and return.

    Ends the process with one sentence on standard error and status 78 if the port, the settings or the Redis cannot
    be used. A Redis that is away is no reason: the api answers 503 until it is there.
    """
    configure_logging(
        log_format=settings.log_format,
        level=settings.log_level,
        role="api",
        secrets=settings.secrets,
    )
    try:
        if settings.processes > 1:
            run_processes(settings)
        else:
            with listen(settings) as listener:
                serve(settings, listener)
    except (ConfigurationError, StoreIncompatible) as error:
        flush_logs()
        print(f"qstash-clone api: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIGURATION) from None
    finally:
        flush_logs()


if __name__ == "__main__":
    run(settings_of(os.environ))
