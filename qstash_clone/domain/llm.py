"""The LLM upstream: where messages to `api/llm` go, and the key that only their delivery adds."""

from typing import Final

import msgspec

from qstash_clone.domain.destination import UrlDestination
from qstash_clone.domain.headers import PublishOptions
from qstash_clone.domain.message import Message
from qstash_clone.domain.urls import origin_of
from qstash_clone.errors import InvalidRequest

LLM_API: Final = "llm"
_PATH: Final = "/v1/chat/completions"


class LlmUpstream(msgspec.Struct, frozen=True):
    """A service that speaks OpenAI's protocol."""

    url: str
    """Of its chat completions."""
    key: str = ""
    """Empty if it wants none."""

    def takes(self, message: Message) -> bool:
        """Whether this upstream is the one that a message to `api/llm` was accepted for: nothing else gets the key."""
        return is_for_llm(message) and message.url == self.url


def llm_upstream(base_url: str | None, key: str) -> LlmUpstream | None:
    """The upstream that the settings name, if they do."""
    return None if base_url is None else LlmUpstream(base_url + _PATH, key)


def is_for_llm(message: Message) -> bool:
    """Whether it was published to `api/llm`."""
    return message.extras is not None and message.extras.api == LLM_API


def llm_destination(upstream: LlmUpstream | None) -> UrlDestination:
    """Where a message to `api/llm` goes. Raises `InvalidRequest` if that is nowhere."""
    if upstream is None:
        raise InvalidRequest("api/llm: no LLM upstream is configured (QSTASH_CLONE_LLM_BASE_URL)")
    return UrlDestination(upstream.url, origin_of(upstream.url))


def check_llm_options(options: PublishOptions) -> None:
    """Raise `InvalidRequest` for a message to `api/llm` whose answer nobody would get."""
    if options.callback is None:
        raise InvalidRequest("api/llm: Upstash-Callback is missing, it is where the answer goes")
