"""The command line: exit codes, sentences, and what is imported when."""

import subprocess
import sys
from pathlib import Path

import pytest

import qstash_clone
from qstash_clone import cli
from qstash_clone.cli import loading
from qstash_clone.errors import ConfigurationError, StorageUnavailable, StoreIncompatible
from qstash_clone.setting_layers import settings_of
from qstash_clone.settings import DEVELOPMENT_TOKEN, PREFIX, Settings

CREDENTIALS = {"QSTASH_TOKEN": "own-t0ken", "QSTASH_CURRENT_SIGNING_KEY": "sig_a", "QSTASH_NEXT_SIGNING_KEY": "sig_b"}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(cli.os.environ):
        if name.startswith((PREFIX, "QSTASH_", "REDIS_")):
            monkeypatch.delenv(name)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = int(str(ended.code))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"qstash-clone {qstash_clone.__version__}\n", "")


def test_version_does_not_wait_for_the_service() -> None:
    script = """
import sys
from qstash_clone.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
heavy = {"asyncio", "redis", "aiohttp", "starlette", "uvicorn", "qstash_clone.settings", "worker"} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    subprocess.run([sys.executable, "-S", "-c", script], check=True, cwd=Path(cli.__file__).parents[2])


def test_an_api_that_writes_no_avro_does_not_load_its_library() -> None:
    script = """
import sys
import qstash_clone.api.app
from qstash_clone.topics.avro_schema import parse_schema
schema = parse_schema('"int"')
assert "fastavro" not in sys.modules
assert schema.encode_json("1") == bytes([2])
assert "fastavro" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(cli.__file__).parents[2])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "required: COMMAND"),
        (("serve",), "invalid choice: 'serve'"),
        (("dev", "--prot", "1"), "unrecognized arguments: --prot 1"),
        (("dev", "--port", "eighty"), '--port: invalid value "eighty"; give a whole number'),
        (("dev", "--port", ""), "--port: give a value"),
        (("dev", "--host", "0.0.0.0"), "0.0.0.0 can be reached from other machines"),
        (("dev", "--log-format", "xml"), '--log-format: invalid value "xml"; give json or text'),
        (("api",), "QSTASH_TOKEN is not set; make one with: openssl rand -hex 32"),
        (("worker",), "QSTASH_TOKEN is not set"),
        (("worker", "--env-file", "/none/.env"), "--env-file: cannot read /none/.env: no such file or directory"),
        (("worker", "--host", "x"), "unrecognized arguments"),
    ],
)
def test_wrong_use_is_one_sentence_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("qstash-clone: ")
    assert err.count("\n") == 1
    assert expected in err


def test_api_refuses_the_public_token(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**CREDENTIALS, "QSTASH_TOKEN": DEVELOPMENT_TOKEN}.items():
        monkeypatch.setenv(name, value)
    code, _, err = run(capsys, "api")
    assert code == 2
    assert "QSTASH_TOKEN is the public one" in err


@pytest.mark.parametrize(
    ("raised", "code", "err"),
    [
        (ConfigurationError("Change this."), 2, "qstash-clone: Change this.\n"),
        (StoreIncompatible("Too new."), 2, "qstash-clone: Too new.\n"),
        (StorageUnavailable("Away."), 1, "qstash-clone: Away.\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(cli.os.EX_CONFIG), 2, ""),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
        (SystemExit("said"), 1, ""),
        (None, 0, ""),
    ],
)
@pytest.mark.parametrize("role", ["api", "worker"])
def test_every_end_of_a_role_has_its_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    raised: BaseException | None,
    code: int,
    err: str,
) -> None:
    seen: list[Settings] = []

    def pretended(settings: Settings) -> None:
        seen.append(settings)
        if raised is not None:
            raise raised

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    module = {"api": "qstash_clone.api.__main__", "worker": "worker.__main__"}[role]
    monkeypatch.setattr(f"{module}.run", pretended)
    assert run(capsys, role, "--log-level", "debug") == (code, "", err)
    assert (seen[0].token, seen[0].log_level) == ("own-t0ken", "debug")


def test_config_shows_values_and_origins_but_no_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text("QSTASH_CLONE_REGION=eu\nREDIS_URL=redis://q:hunter2@redis:6379/0\nQSTASH_CLONE_PORT=1\n")
    monkeypatch.setenv("QSTASH_TOKEN", "own-t0ken")
    monkeypatch.setenv("QSTASH_CLONE_PORT", "9000")
    code, out, _ = run(capsys, "config", "--env-file", str(env_file))
    assert code == 0
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines() if line}
    assert rows["QSTASH_CLONE_PORT"] == ["9000", "environment, QSTASH_CLONE_PORT"]
    assert rows["QSTASH_CLONE_REGION"] == ["eu", f"{env_file}, QSTASH_CLONE_REGION"]
    assert rows["REDIS_URL"][0] == "redis://q:***@redis:6379/0"
    assert rows["QSTASH_TOKEN"][0] == "***"
    assert rows["QSTASH_CLONE_LEASE_MS"] == ["20000", "default"]
    assert "own-t0ken" not in out
    assert "hunter2" not in out
    assert "Not ready to serve: QSTASH_CURRENT_SIGNING_KEY is not set" in out


def test_config_of_dev_uses_the_public_credentials(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QSTASH_TOKEN", "of-some-other-service")
    code, out, _ = run(capsys, "config", "--dev")
    assert code == 0
    assert DEVELOPMENT_TOKEN in out
    assert "of-some-other-service" not in out
    assert "Not ready" not in out


def test_config_survives_a_reader_that_leaves() -> None:
    shell = f"{sys.executable} -m qstash_clone.cli config | true"
    ended = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, cwd=Path(cli.__file__).parents[2])
    assert ended.stderr == ""


def test_dev_differs_from_production_in_what_it_allows() -> None:
    settings = loading.load_dev([])
    assert settings.dev
    assert settings.token == DEVELOPMENT_TOKEN
    assert settings.allow_private_destinations
    assert (settings.shutdown_grace_ms, settings.log_format) == (3000, "text")
    assert settings_of(settings.to_environ()) == settings, "what its children get"


def test_dev_serves_other_machines_with_credentials_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "CURRENT_SIGNING_KEY", "NEXT_SIGNING_KEY"):
        monkeypatch.setenv(PREFIX + name, f"own-{name}")
    settings = loading.load_dev(loading.find_layers({"host": ("--host", "0.0.0.0")}, env_file=None))
    assert (settings.host, settings.token) == ("0.0.0.0", "own-TOKEN")
