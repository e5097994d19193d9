"""The reference for publishes: a Starlette route that reads the body, stores nothing and answers alike.

It is served exactly as the api is: same uvicorn flags, same protocol class, same structured log with one event a
request.
"""

import asyncio
import os
import time
from itertools import count

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from qstash_clone.api.server import ApiServer, listen, protocol_config
from qstash_clone.observability import REQUEST_SERVED, configure_logging, emit
from qstash_clone.setting_layers import settings_of

_numbers = count()


async def publish(request: Request) -> Response:
    started_s = time.perf_counter()
    body = await request.body()
    message_id = f"msg_{next(_numbers):020d}"
    response = JSONResponse({"messageId": message_id, "url": request.path_params["destination"]})
    emit(
        REQUEST_SERVED,
        message_id=message_id,
        body_bytes=len(body),
        duration_ms=round((time.perf_counter() - started_s) * 1000, 3),
    )
    return response


def main() -> None:
    settings = settings_of(os.environ)
    configure_logging(log_format=settings.log_format, level=settings.log_level, role="bare-api")
    app = Starlette(routes=[Route("/v2/publish/{destination:path}", publish, methods=["POST"])])
    with listen(settings) as listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ApiServer(protocol_config(app, settings)).serve([listener]))


if __name__ == "__main__":
    main()
