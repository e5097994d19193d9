"""What is counted and logged of a request that was refused, whichever API it was for."""

import logging

from qstash_clone.api.requests import Head
from qstash_clone.observability import REQUEST_FAILED, REQUEST_REFUSED, REQUESTS, describe, emit


def note_departure(label: str, head: Head, error: BaseException) -> None:
    """The caller left before its request was complete: there is nobody to answer."""
    emit(REQUEST_REFUSED, route=label, method=head.method, error=str(error), request_id=head.request_id.decode())


def note_refusal(label: str, head: Head, status: int, error: BaseException, text: str, **fields: str) -> None:
    """A request was answered with an error; `text` is what there is to say where the error itself says nothing."""
    request_id = head.request_id.decode()
    REQUESTS.inc(label, f"{status // 100}xx")
    if status == 500:
        emit(
            REQUEST_FAILED,
            level=logging.ERROR,
            route=label,
            method=head.method,
            request_id=request_id,
            traceback=describe(error),
            **fields,
        )
        return
    emit(
        REQUEST_REFUSED,
        level=logging.WARNING if status >= 500 else logging.INFO,
        route=label,
        method=head.method,
        status=status,
        error=str(error) or text,
        request_id=request_id,
        **fields,
    )
