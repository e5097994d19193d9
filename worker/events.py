"""Names of the log events that only a worker writes; those shared with the api are in `observability`."""

from typing import Final

STORE_RECOVERED: Final = "store.recovered"
CLOCK_JUMPED: Final = "clock.jumped"
DELIVERY_CRASHED: Final = "delivery.crashed"
ATTEMPTS_RELEASED: Final = "attempts.released"
