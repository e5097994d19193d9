"""Names of the log events that only a worker writes; those shared with the api are in `observability`."""

from typing import Final

DELIVERY_CRASHED: Final = "delivery.crashed"
ATTEMPTS_RELEASED: Final = "attempts.released"
WINDOW_MISSED: Final = "window.missed"
