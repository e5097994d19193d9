"""Under which subject of the registry the schema of a key or a value is kept."""

from typing import Final, Literal

from qstash_clone.errors import InvalidRequest

Strategy = Literal["topic", "record", "topicrecord"]
STRATEGIES: Final[dict[str, Strategy]] = {"topic": "topic", "record": "record", "topicrecord": "topicrecord"}
Part = Literal["key", "value"]


def name_subject(strategy: Strategy, topic: str, fullname: str | None, part: Part) -> str:
    """`<topic>-value`, `<fullname>-value` or `<topic>-<fullname>-value`.

    Raises `InvalidRequest` if the schema has no name and the strategy needs one.
    """
    if strategy == "topic":
        return f"{topic}-{part}"
    if fullname is None:
        raise InvalidRequest(f"the strategy {strategy} needs a schema that has a name: a record, an enum or a fixed")
    return f"{fullname}-{part}" if strategy == "record" else f"{topic}-{fullname}-{part}"
