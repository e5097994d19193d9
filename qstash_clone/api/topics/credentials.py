"""What a caller of the Kafka REST APIs may do: the tokens of the service, and those that are for some topics only."""

import hmac
from collections.abc import Sequence
from enum import Flag, auto

import msgspec

from qstash_clone.errors import Forbidden
from qstash_clone.settings import Settings


class Right(Flag):
    """What can be done with topics."""

    PRODUCE = auto()
    READ = auto()
    """Look at records, offsets and commits without changing anything."""
    CONSUME = auto()
    """Take part in a consumer group."""
    ADMINISTER = auto()
    """Create, change and delete topics and schemas."""


ALL_TOPICS = "*"
_WORDS = {Right.PRODUCE: "produce to", Right.READ: "read", Right.CONSUME: "consume", Right.ADMINISTER: "administer"}


class Grant(msgspec.Struct, frozen=True):
    """What one credential allows."""

    rights: Right
    scope: str = ALL_TOPICS
    """A topic, or the first part of its name followed by `*`."""

    def covers(self, topic: str) -> bool:
        """Whether the topic is among those that the credential is for."""
        return topic.startswith(self.scope[:-1]) if self.scope.endswith("*") else topic == self.scope

    def covers_subject(self, subject: str) -> bool:
        """Whether the subject of the schema registry is surely that of a topic that the credential is for."""
        if self.scope.endswith("*"):
            return subject.startswith(self.scope[:-1])
        return subject in (f"{self.scope}-key", f"{self.scope}-value")

    def check(self, right: Right, topic: str | None = None) -> None:
        """Raise `Forbidden` unless this may be done, with this topic or, without one, with any at all."""
        if right not in self.rights:
            raise Forbidden(f"forbidden: the credential does not allow to {_WORDS[right]} topics")
        if topic is not None and not self.covers(topic):
            raise Forbidden(f"forbidden: the credential is not for topic {topic[:100]}")


_OF_TOKENS = (
    ("full_tokens", Right.PRODUCE | Right.READ | Right.CONSUME | Right.ADMINISTER),
    ("publish_only_tokens", Right.PRODUCE),
    ("read_only_tokens", Right.READ),
)
_OF_WORDS = {
    "full": Right.PRODUCE | Right.READ | Right.CONSUME,
    "produce-only": Right.PRODUCE,
    "consume-only": Right.READ | Right.CONSUME,
}


class Credentials:
    """Knows all tokens."""

    def __init__(self, settings: Settings) -> None:
        self._grants: Sequence[tuple[bytes, Grant]] = [
            (token.encode(), Grant(rights)) for field, rights in _OF_TOKENS for token in getattr(settings, field)
        ] + [_parse(word) for word in settings.topic_credentials]

    def find(self, secret: bytes) -> Grant | None:
        """What this token allows; None if it is unknown. All are compared, so that the time tells nothing."""
        found = None
        for token, grant in self._grants:
            if hmac.compare_digest(secret, token):
                found = grant
        return found


def _parse(word: str) -> tuple[bytes, Grant]:
    rights, scope, token = word.split(":", 2)
    return token.encode(), Grant(_OF_WORDS[rights], scope)
