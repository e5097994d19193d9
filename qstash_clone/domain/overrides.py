"""Other options for a message that is published again; see docs/protocol/dead-letters.md."""

import msgspec

from qstash_clone.domain.header_values import HeaderLines
from qstash_clone.domain.headers import parse_options
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import Extras, Headers, Message, Redaction
from qstash_clone.domain.planning import check_not_before
from qstash_clone.errors import InvalidRequest

_PREFIX = b"upstash-"
_CONTENT_TYPE = b"content-type"
_CRON = b"upstash-cron"


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """When the first attempt of a message is due; at once by default."""

    delay_ms: int = 0
    not_before_ms: int | None = None
    """Unix time; set if that was asked for instead."""


AT_ONCE = Delay()


def override(
    message: Message,
    headers: HeaderLines,
    query_config: HeaderLines,
    limits: Limits,
    *,
    authorization_is_payload: bool = False,
) -> Message:
    """The message with what the headers and parameters of a retry say about it; the same object if they say nothing.

    What is not mentioned stays; forwarded headers replace those of the same name. Redaction only grows. The content
    type of the request is that of its own body, deduplication does not apply, and for a delay there is `delay_of`.
    Raises as `parse_options`, and `InvalidRequest` for a schedule.
    """
    given = {name for lines in (headers, query_config) for name, _ in lines if name.startswith(_PREFIX)}
    if not given:
        return message
    if _CRON in given:
        raise InvalidRequest("Upstash-Cron: a retry is one message, it cannot become a schedule")
    lines = [line for line in headers if line[0] != _CONTENT_TYPE]
    options = parse_options(lines, query_config, limits, authorization_is_payload=authorization_is_payload)
    old = message.extras or Extras()
    extras = msgspec.structs.replace(
        old,
        callback=options.callback or old.callback,
        failure_callback=options.failure_callback or old.failure_callback,
        redaction=_both(old.redaction, options.redaction),
        flow_control=options.flow_control or old.flow_control,
    )
    return Message(
        url=message.url,
        method=options.method if b"upstash-method" in given else message.method,
        headers=_merged(message.headers, options.headers),
        caller_ip=message.caller_ip,
        max_retries=options.max_retries if b"upstash-retries" in given else message.max_retries,
        timeout_ms=options.timeout_ms if b"upstash-timeout" in given else message.timeout_ms,
        retry_delay_expression=options.retry_delay_expression or message.retry_delay_expression,
        labels=options.labels if b"upstash-label" in given else message.labels,
        extras=None if extras == Extras() else extras,
    )


def delay_of(headers: HeaderLines, query_config: HeaderLines, limits: Limits, *, now_ms: int) -> Delay:
    """The delay that the headers and parameters of a retry ask for: the one that the dead letter was published with is
    over. Raises as `plan_publish` and `parse_options`."""
    options = parse_options(headers, query_config, limits)
    if options.not_before_ms is None:
        return Delay(delay_ms=options.delay_ms)
    check_not_before(options.not_before_ms, limits, now_ms)
    return Delay(not_before_ms=options.not_before_ms)


def _merged(old: Headers, new: Headers) -> Headers:
    given = {name for name, _ in new}
    return (*(line for line in old if line[0] not in given), *new)


def _both(old: Redaction | None, new: Redaction | None) -> Redaction | None:
    """What either hides: redaction cannot be undone by a retry."""
    if old is None or new is None:
        return old or new
    all_headers = old.all_headers or new.all_headers
    names = () if all_headers else tuple(dict.fromkeys((*old.header_names, *new.header_names)))
    return Redaction(body=old.body or new.body, all_headers=all_headers, header_names=names)
