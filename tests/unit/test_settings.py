"""Settings: where each comes from, what is refused, and what may be shown."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.cli import settings_page
from qstash_clone.errors import ConfigurationError
from qstash_clone.setting_layers import Layer, resolve, settings_of
from qstash_clone.settings import (
    DEVELOPMENT_CURRENT_SIGNING_KEY,
    DEVELOPMENT_NEXT_SIGNING_KEY,
    DEVELOPMENT_TOKEN,
    PARENT_FD_VARIABLE,
    RULES,
    Settings,
    is_loopback,
    masked,
    variable_of,
)

CREDENTIALS = {"QSTASH_TOKEN": "t0ken", "QSTASH_CURRENT_SIGNING_KEY": "sig_a", "QSTASH_NEXT_SIGNING_KEY": "sig_b"}
PUBLIC = {
    "QSTASH_CLONE_TOKEN": DEVELOPMENT_TOKEN,
    "QSTASH_CLONE_CURRENT_SIGNING_KEY": DEVELOPMENT_CURRENT_SIGNING_KEY,
    "QSTASH_CLONE_NEXT_SIGNING_KEY": DEVELOPMENT_NEXT_SIGNING_KEY,
}


def load(**environ: str) -> Settings:
    return settings_of({**CREDENTIALS, **environ})


def test_defaults_need_only_credentials() -> None:
    settings = load()
    assert settings == Settings(token="t0ken", current_signing_key="sig_a", next_signing_key="sig_b")
    assert (settings.host, settings.port, settings.redis_durability) == ("127.0.0.1", 8080, "always")


def test_every_setting_is_read_from_its_own_variable() -> None:
    environ = {
        "QSTASH_CLONE_PARTITIONS": "4",
        "QSTASH_CLONE_LOG_FORMAT": "TEXT",
        "QSTASH_CLONE_ALLOW_PRIVATE_DESTINATIONS": "yes",
        "QSTASH_CLONE_ALLOWED_DESTINATIONS": "10.0.0.0/8, Hooks.Internal,fd00::/8",
        "QSTASH_CLONE_HOST_OVERRIDES": "Example.com:443=127.0.0.1:9443, b.example:80=[::1]:80",
        "QSTASH_CLONE_LLM_BASE_URL": "https://llm.example/openai/",
        "QSTASH_CLONE_LLM_API_KEY": "k3y",
        "QSTASH_CLONE_TRUSTED_PROXIES": "192.0.2.1",
        "QSTASH_CLONE_REGION": " eu-central-1 ",
        "QSTASH_CLONE_RETRY_BACKOFF_COEFFICIENT": "1.5",
        "REDIS_URL": "rediss://user:secret@redis.internal:6380/2",
    }
    settings = load(**environ)
    assert settings.partitions == 4
    assert settings.log_format == "text"
    assert settings.allow_private_destinations is True
    assert settings.allowed_destinations == ("10.0.0.0/8", "hooks.internal", "fd00::/8")
    assert settings.host_overrides == ("example.com:443=127.0.0.1:9443", "b.example:80=[::1]:80")
    assert (settings.llm_base_url, settings.llm_api_key) == ("https://llm.example/openai", "k3y")
    assert settings.trusted_proxies == ("192.0.2.1",)
    assert settings.region == "eu-central-1"
    assert settings.retry_backoff_coefficient == 1.5
    assert settings.redis_url.endswith("6380/2")


def test_own_name_wins_over_the_shared_one() -> None:
    settings = load(
        QSTASH_CLONE_TOKEN="own", REDIS_URL="redis://a", QSTASH_CLONE_REDIS_URL="redis://b", QSTASH_CLONE_REGION=""
    )
    assert (settings.token, settings.redis_url, settings.region) == ("own", "redis://b", None)


@pytest.mark.parametrize(
    ("compat", "coefficient", "expected"),
    [("reference", "", 2.0), ("current", "", 2.5), ("current", "2.0", 2.0), ("reference", "3", 3.0)],
)
def test_preset_decides_the_backoff_unless_it_is_set(compat: str, coefficient: str, expected: float) -> None:
    settings = load(QSTASH_CLONE_COMPAT=compat, QSTASH_CLONE_RETRY_BACKOFF_COEFFICIENT=coefficient)
    assert settings.retry_backoff_coefficient == expected


@pytest.mark.parametrize(
    ("environ", "window_ms", "scope"),
    [
        ({}, 90 * 86_400_000, "all-upstash"),
        ({"QSTASH_CLONE_COMPAT": "current"}, 600_000, "forwarded"),
        ({"QSTASH_CLONE_COMPAT": "current", "QSTASH_CLONE_DEDUPLICATION_WINDOW_MS": "5000"}, 5000, "forwarded"),
        ({"QSTASH_CLONE_CONTENT_HASH_SCOPE": "forwarded"}, 90 * 86_400_000, "forwarded"),
    ],
)
def test_preset_decides_about_deduplication_unless_it_is_set(
    environ: dict[str, str], window_ms: int, scope: str
) -> None:
    settings = load(**environ)
    assert (settings.deduplication_window_ms, settings.content_hash_scope) == (window_ms, scope)


def test_tokens_are_lists() -> None:
    settings = load(
        QSTASH_CLONE_TOKENS="second, third",
        QSTASH_CLONE_PUBLISH_ONLY_TOKENS="p1,p1,p2",
        QSTASH_CLONE_READ_ONLY_TOKENS="r1",
    )
    assert settings.full_tokens == ("t0ken", "second", "third")
    assert settings.publish_only_tokens == ("p1", "p2")
    assert settings.read_only_tokens == ("r1",)
    assert {"t0ken", "second", "third", "p1", "p2", "r1", "sig_a", "sig_b"} <= set(settings.secrets)


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"QSTASH_CLONE_READ_ONLY_TOKENS": "t0ken"}, "QSTASH_CLONE_READ_ONLY_TOKENS"),
        ({"QSTASH_CLONE_TOKENS": "a,b", "QSTASH_CLONE_PUBLISH_ONLY_TOKENS": "b"}, "QSTASH_CLONE_PUBLISH_ONLY_TOKENS"),
        (
            {"QSTASH_CLONE_PUBLISH_ONLY_TOKENS": "a", "QSTASH_CLONE_READ_ONLY_TOKENS": "a"},
            "QSTASH_CLONE_READ_ONLY_TOKENS",
        ),
    ],
)
def test_one_token_has_one_role(environ: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        load(**environ)


def test_the_main_token_may_be_among_the_further_ones() -> None:
    assert load(QSTASH_CLONE_TOKENS="t0ken,new").full_tokens == ("t0ken", "t0ken", "new")


@pytest.mark.parametrize(
    "variable", ["QSTASH_CLONE_TOKENS", "QSTASH_CLONE_PUBLISH_ONLY_TOKENS", "QSTASH_CLONE_READ_ONLY_TOKENS"]
)
def test_public_tokens_are_refused_in_every_list(variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        load(**{variable: f"own,{DEVELOPMENT_TOKEN}"})


@pytest.mark.parametrize("name", ["tokens", "publish_only_tokens", "read_only_tokens"])
def test_lists_of_tokens_are_masked(name: str) -> None:
    assert masked(name, ("hunter2", "hunter3")) == "***"
    assert masked(name, ()) == ""


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QSTASH_CLONE_PORT", "http"),
        ("QSTASH_CLONE_PORT", "65536"),
        ("QSTASH_CLONE_PORT", "-1"),
        ("QSTASH_CLONE_PORT", "\N{FULLWIDTH DIGIT ONE}"),
        ("QSTASH_CLONE_LEASE_MS", "20s"),
        ("QSTASH_CLONE_LEASE_MS", "0"),
        ("QSTASH_CLONE_COMPAT", "upstash"),
        ("QSTASH_CLONE_DEV", "maybe"),
        ("QSTASH_CLONE_REDIS_CA_FILE", "a\0b"),
        ("QSTASH_CLONE_KEY_NAMESPACE", "a{b}"),
        ("QSTASH_CLONE_REGION", "eu central"),
        ("QSTASH_CLONE_HOST", "http://localhost"),
        ("QSTASH_CLONE_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("QSTASH_CLONE_TRUSTED_PROXIES", "proxy.internal"),
        ("QSTASH_CLONE_ALLOWED_DESTINATIONS", "https://a.b/"),
        ("QSTASH_CLONE_HOST_OVERRIDES", "example.com=127.0.0.1"),
        ("QSTASH_CLONE_LLM_BASE_URL", "llm.example"),
        ("QSTASH_CLONE_LLM_BASE_URL", "https://llm.example/v1/"),
        ("QSTASH_CLONE_LLM_BASE_URL", "https://llm.example/?v=1"),
        ("QSTASH_CLONE_LLM_API_KEY", "k3y"),
        ("QSTASH_CLONE_RETRY_BACKOFF_COEFFICIENT", "0"),
        ("QSTASH_CLONE_RETRY_BACKOFF_COEFFICIENT", "-1.0"),
        ("QSTASH_CLONE_RETRY_BACKOFF_COEFFICIENT", "nan"),
        ("QSTASH_CLONE_DEFAULT_RETRIES", "1001"),
        ("QSTASH_CLONE_MAX_TIMEOUT_MS", "1000"),
        ("QSTASH_CLONE_MAX_MESSAGE_BYTES", "9" * 20),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "redis://localhost:99999"),
        ("REDIS_URL", "redis://localhost/zero"),
        ("REDIS_URL", "redis://localhost/0?retry_on_timeout=true"),
        ("QSTASH_TOKEN", "two words"),
        ("QSTASH_TOKEN", "tökén"),
        ("QSTASH_CLONE_TOKENS", "good,b\xe4d"),
        ("QSTASH_CLONE_CONTENT_HASH_SCOPE", "body"),
        ("QSTASH_CLONE_DEDUPLICATION_WINDOW_MS", "0"),
        ("QSTASH_CLONE_DEDUPLICATION_WINDOW_MS", "-1"),
        ("QSTASH_CLONE_MANAGEMENT_BURST_LIMIT", "-1"),
    ],
)
def test_malformed_value_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**{variable: value})
    sentence = str(caught.value)
    assert sentence.startswith(variable) or variable in ("QSTASH_CLONE_MAX_TIMEOUT_MS",)
    assert "\n" not in sentence


@pytest.mark.parametrize("variable", ["QSTASH_TOKEN", "REDIS_URL", "QSTASH_NEXT_SIGNING_KEY"])
def test_refusal_does_not_show_a_secret(variable: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**{variable: "http://user:hunter2@host/ x"})
    assert "hunter2" not in str(caught.value)


def test_misspelled_setting_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigurationError, match=r"QSTASH_CLONE_LEASE_M is not a setting.*QSTASH_CLONE_LEASE_MS\?"):
        load(QSTASH_CLONE_LEASE_M="1")
    with pytest.raises(ConfigurationError, match="qstash-clone config"):
        load(QSTASH_CLONE_XYZZY_PLUGH_NOTHING="1")


def test_variables_of_kubernetes_and_of_the_supervisor_are_no_settings() -> None:
    settings = load(
        QSTASH_CLONE_PORT="tcp://10.0.0.1:8080",
        QSTASH_CLONE_SERVICE_HOST="10.0.0.1",
        QSTASH_CLONE_SERVICE_PORT_HTTP="8080",
        QSTASH_CLONE_PORT_8080_TCP_ADDR="10.0.0.1",
        **{PARENT_FD_VARIABLE: "7"},
    )
    assert settings.port == 8080


@pytest.mark.parametrize("missing", CREDENTIALS)
def test_start_without_a_credential_says_how_to_make_one(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{missing} is not set; make one with: .*openssl rand -hex"):
        load(**{missing: ""})


@pytest.mark.parametrize("public", PUBLIC)
def test_public_credentials_are_refused_outside_of_dev(public: str) -> None:
    with pytest.raises(ConfigurationError, match="public"):
        load(**{public: PUBLIC[public]})


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.com", False),
    ],
)
def test_public_credentials_are_served_on_loopback_only(host: str, is_served: bool) -> None:
    environ = {**PUBLIC, "QSTASH_CLONE_DEV": "1", "QSTASH_CLONE_HOST": host}
    assert is_loopback(host) is is_served
    if is_served:
        assert settings_of(environ).token == DEVELOPMENT_TOKEN
    else:
        with pytest.raises(ConfigurationError, match="QSTASH_CLONE_TOKEN is the public"):
            settings_of(environ)


def test_earlier_layer_wins_and_is_named() -> None:
    resolved = resolve(
        [
            Layer(name="--port", values={"QSTASH_CLONE_PORT": "1"}),
            Layer(name="environment", values={"QSTASH_CLONE_PORT": "2", "REDIS_URL": "redis://a"}),
            Layer(name=".env", values={"REDIS_URL": "redis://b", "QSTASH_TOKEN": "x"}),
        ]
    )
    assert (resolved.settings.port, resolved.settings.redis_url) == (1, "redis://a")
    assert resolved.origins == {
        "port": "--port",
        "redis_url": "environment, REDIS_URL",
        "token": ".env, QSTASH_TOKEN",
    }


def test_names_of_the_sdks_can_be_left_alone() -> None:
    layers = [Layer(name="environment", values={**CREDENTIALS, "REDIS_URL": "redis://a"})]
    settings = resolve(layers, sdk_names=False).settings
    assert (settings.token, settings.redis_url) == ("", "redis://a")


def test_secrets_are_masked() -> None:
    assert masked("token", "t0ken") == "***"
    assert masked("token", "") == ""
    assert masked("llm_api_key", "k3y") == "***"
    assert "k3y" in load(QSTASH_CLONE_LLM_BASE_URL="https://llm.example", QSTASH_CLONE_LLM_API_KEY="k3y").secrets
    assert masked("token", DEVELOPMENT_TOKEN) == DEVELOPMENT_TOKEN
    assert masked("redis_url", "redis://user:hunter2@host:1/0") == "redis://user:***@host:1/0"
    assert masked("redis_url", "redis://:hunter2@host") == "redis://:***@host"
    assert masked("redis_url", "redis://:p%40@ss@host") == "redis://:***@host"
    assert masked("redis_url", "unix:///run/redis.sock") == "unix:///run/redis.sock"
    assert masked("allowed_destinations", ("a", "b")) == "a,b"
    assert masked("dev", True) == "true"


WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20)


@given(
    port=st.integers(0, 65_535),
    token=WORDS,
    coefficient=st.sampled_from([0.5, 2.0, 2.5, 3.75]),
    dev=st.booleans(),
    region=st.none() | WORDS,
    allowed=st.lists(WORDS, max_size=3).map(tuple),
)
def test_written_settings_are_read_back(
    port: int, token: str, coefficient: float, dev: bool, region: str | None, allowed: tuple[str, ...]
) -> None:
    settings = Settings(
        port=port,
        token=token,
        current_signing_key="a",
        next_signing_key="b",
        retry_backoff_coefficient=coefficient,
        dev=dev,
        region=region,
        allowed_destinations=allowed,
    )
    assert settings_of(settings.to_environ()) == settings


def test_preset_survives_being_written() -> None:
    settings = load(QSTASH_CLONE_COMPAT="current")
    assert settings_of(settings.to_environ()) == settings


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(load(), "port", 1)  # noqa: B010 (the type checker knows better than to allow an assignment)


def test_reference_page_is_generated_from_the_fields() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    assert page.read_text() == settings_page.render(), "run `make docs`"


def test_example_file_names_only_settings_that_exist() -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    names = {line.lstrip("# ").partition("=")[0] for line in example.splitlines() if "=" in line}
    assert names <= {variable_of(name) for name in RULES} | {variable_of(name, own=True) for name in RULES}
