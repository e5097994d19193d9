"""The LLM upstream: which URL it has, and which messages it takes."""

import msgspec
import pytest

from qstash_clone.domain.headers import parse_options
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.llm import LlmUpstream, check_llm_options, is_for_llm, llm_destination, llm_upstream
from qstash_clone.domain.message import Extras, Message
from qstash_clone.domain.urls import origin_of
from qstash_clone.errors import InvalidRequest

URL = "https://llm.example/v1/chat/completions"
LIMITS = Limits(
    default_retries=3, max_retries=10, default_timeout_ms=1000, max_timeout_ms=10_000, max_delay_ms=86_400_000
)


def test_the_settings_name_the_upstream() -> None:
    assert llm_upstream(None, "") is None
    assert llm_upstream("https://llm.example", "k3y") == LlmUpstream(URL, "k3y")


def test_a_message_goes_to_the_chat_completions_of_the_upstream() -> None:
    destination = llm_destination(LlmUpstream(URL))
    assert (destination.url, destination.origin) == (URL, origin_of(URL))


def test_without_an_upstream_there_is_no_destination() -> None:
    with pytest.raises(InvalidRequest, match="api/llm: no LLM upstream is configured"):
        llm_destination(None)


def test_a_callback_is_needed() -> None:
    check_llm_options(parse_options([(b"upstash-callback", b"https://e.com")], (), LIMITS))
    with pytest.raises(InvalidRequest, match="api/llm: Upstash-Callback is missing"):
        check_llm_options(parse_options([(b"upstash-failure-callback", b"https://e.com")], (), LIMITS))


def test_only_messages_to_the_api_and_for_this_url_are_taken() -> None:
    upstream = LlmUpstream(URL, "k3y")
    message = Message(url=URL, extras=Extras(api="llm"))
    assert is_for_llm(message)
    assert upstream.takes(message)
    for other in (
        Message(url=URL),
        Message(url=URL, extras=Extras(url_group="a")),
        msgspec.structs.replace(message, url="https://other.example/v1/chat/completions"),
    ):
        assert not upstream.takes(other)
