"""The embedded Redis: one server on a folder, none lost, none forgetful."""

import fcntl
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from qstash_clone.errors import ConfigurationError
from qstash_clone.storage import embedded, engine_program
from qstash_clone.storage.embedded import EmbeddedRedis, Interrupted, process_start, socket_path_of
from qstash_clone.storage.engine_program import EngineProgram, can_read, choose_program, find_programs

PROGRAMS = find_programs(None)


@pytest.fixture(params=PROGRAMS, ids=str)
def programs(request: pytest.FixtureRequest) -> list[EngineProgram]:
    return [request.param]


@pytest.fixture
def engine(programs: list[EngineProgram], tmp_path: Path) -> Iterator[EmbeddedRedis]:
    engine = EmbeddedRedis(tmp_path / "data", programs, max_memory_bytes=64 * 1024 * 1024)
    yield engine
    engine.kill()


def client(engine: EmbeddedRedis) -> Redis:
    return Redis.from_url(engine.url, decode_responses=True)  # pyright: ignore[reportUnknownMemberType]


def test_server_is_durable_bounded_and_private(engine: EmbeddedRedis) -> None:
    engine.start()
    with client(engine) as connection:
        for name, value in {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "maxmemory": str(64 * 1024 * 1024),
            "save": "",
            "port": "0",
        }.items():
            assert connection.config_get(name) == {name: value}  # pyright: ignore[reportUnknownMemberType]
    path = socket_path_of(engine.folder)
    assert os.stat(os.path.dirname(path)).st_mode & 0o077 == 0
    assert os.stat(path).st_mode & 0o077 == 0
    engine.stop()
    assert not os.path.exists(path)
    assert not engine.is_running()


def test_acknowledged_writes_survive_a_kill(engine: EmbeddedRedis) -> None:
    engine.start()
    with client(engine) as connection:
        connection.set("kept", "yes")
    engine.kill()
    assert engine.exit_code == -signal.SIGKILL
    assert os.path.exists(socket_path_of(engine.folder)), "a stale socket"
    engine.start()
    with client(engine) as connection:
        assert connection.get("kept") == "yes"


def test_orphan_ends_before_another_server_starts(engine: EmbeddedRedis, programs: list[EngineProgram]) -> None:
    engine.start()
    orphan = engine.pid
    assert orphan is not None
    with client(engine) as connection:
        connection.set("kept", "yes")
    successor = EmbeddedRedis(engine.folder, programs)
    try:
        successor.start()
        assert engine.exit_code == 0
        assert not engine.is_running()
        with client(successor) as connection:
            assert connection.get("kept") == "yes"
    finally:
        successor.kill()


def test_orphan_is_found_by_its_process_when_its_socket_is_gone(
    engine: EmbeddedRedis, programs: list[EngineProgram]
) -> None:
    engine.start()
    os.unlink(socket_path_of(engine.folder))
    successor = EmbeddedRedis(engine.folder, programs)
    try:
        successor.start()
        assert not engine.is_running()
        assert successor.is_serving()
    finally:
        successor.kill()


def test_recorded_number_of_another_process_is_left_alone(
    engine: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ORPHAN_PATIENCE_S", 0.2)
    engine.folder.mkdir()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        record = {"engine": "redis", "version": "6.2.0", "pid": bystander.pid, "started": "long ago"}
        (engine.folder / "engine.json").write_text(json.dumps(record))
        with open(engine.folder / "engine.lock", "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(ConfigurationError, match="Another Redis is using"):
                engine.start()
        assert bystander.poll() is None
        assert process_start(bystander.pid) not in (None, "long ago")
    finally:
        bystander.kill()
        bystander.wait()
    assert process_start(bystander.pid) is None


def test_start_can_be_interrupted(tmp_path: Path) -> None:
    never_ready = tmp_path / "redis-server"
    never_ready.write_text("#!/bin/sh\nexec sleep 60\n")
    never_ready.chmod(0o755)
    program = EngineProgram(path=str(never_ready), kind="redis", version="7.0.0")
    engine = EmbeddedRedis(tmp_path / "data", [program], pause=lambda _: True)
    with pytest.raises(Interrupted):
        engine.start()
    assert engine.is_running()
    engine.stop()
    assert not engine.is_running()
    with open(engine.folder / "engine.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Interrupted):
            engine.start()


def test_refusing_writes_leaves_reading_and_deleting(engine: EmbeddedRedis) -> None:
    engine.start()
    with client(engine) as connection:
        connection.set("a", "1")
        assert engine.refuse_writes(True)
        with pytest.raises(ResponseError, match="memory"):
            connection.set("b", "1")
        assert connection.get("a") == "1"
        assert connection.delete("a") == 1
        assert engine.refuse_writes(False)
        connection.set("b", "1")
    engine.stop()
    assert not engine.refuse_writes(True)


def test_damaged_file_is_named(engine: EmbeddedRedis) -> None:
    engine.start()
    with client(engine) as connection:
        connection.set("a", "x" * 100)
    engine.stop()
    for log in (engine.folder / "redis").rglob("*.aof"):
        if log.stat().st_size > 100 and not log.name.endswith("base.aof"):
            log.write_bytes(b"garbage" + log.read_bytes()[7:])
    with pytest.raises(ConfigurationError, match=r"is damaged.*redis-check-aof"):
        engine.start()


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("Error writing to the AOF file: No space left on device", "is full"),
        ("Can't handle RDB format version 12", "newer engine"),
        ("Can't open the append-only file: Permission denied", "cannot write"),
        ("# Something else\n", "ended by itself, see .*redis.log: # Something else"),
        ("", "ended by itself"),
    ],
)
def test_cause_of_death_is_one_sentence(programs: list[EngineProgram], tmp_path: Path, log: str, expected: str) -> None:
    engine = EmbeddedRedis(tmp_path, programs)
    if log:
        (tmp_path / "redis.log").write_text(log)
    cause = engine.cause_of_death()
    assert "\n" not in cause
    with pytest.raises(ConfigurationError, match=expected):
        raise ConfigurationError(cause)


def test_folder_is_not_shared_with_a_program_that_reads_nothing_of_it(tmp_path: Path) -> None:
    old, new = (EngineProgram(path="/x", kind="redis", version=version) for version in ("6.2.14", "7.0.15"))
    assert choose_program([old, new], written_by=None, folder=tmp_path) is old
    assert choose_program([old, new], written_by=("redis", "6.2.6"), folder=tmp_path) is old
    assert choose_program([old, new], written_by=("redis", "7.0.1"), folder=tmp_path) is new
    with pytest.raises(ConfigurationError, match=r"was written by Redis 7\.0\.15 and Redis 6\.2\.14 cannot read that"):
        choose_program([old], written_by=("redis", "7.0.15"), folder=tmp_path)


@pytest.mark.parametrize(
    ("kind", "version", "written_kind", "written_version", "is_readable"),
    [
        ("valkey", "8.0.1", "redis", "7.2.5", True),
        ("valkey", "8.0.1", "redis", "7.4.0", False),
        ("redis", "8.0.0", "valkey", "7.2.5", False),
        ("valkey", "8.1.0", "valkey", "8.0.0", True),
        ("redis", "7.0.1", "redis", "7.0.15", True),
    ],
)
def test_engines_read_their_own_and_what_came_before_the_split(
    kind: str, version: str, written_kind: str, written_version: str, is_readable: bool
) -> None:
    program = EngineProgram(path="/x", kind=kind, version=version)  # pyright: ignore[reportArgumentType]
    assert can_read(program, written_kind, written_version) is is_readable  # pyright: ignore[reportArgumentType]


def test_folder_without_a_record_is_judged_by_its_layout(tmp_path: Path) -> None:
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "engine.json").write_text("{torn")
    old = EngineProgram(path="/x", kind="redis", version="6.2.14")
    with pytest.raises(ConfigurationError, match=r"written by Redis 7\.0"):
        EmbeddedRedis(tmp_path, [old]).start()


def test_socket_path_is_short_and_follows_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    (tmp_path / "link").symlink_to(deep)
    assert socket_path_of(deep) == socket_path_of(tmp_path / "link") != socket_path_of(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert len(socket_path_of(deep)) <= embedded.MAX_SOCKET_PATH_BYTES
    runtime = tmp_path / "r"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    if len(str(runtime)) < 60:
        assert socket_path_of(deep).startswith(str(runtime))


def test_socket_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_short_name = Path("/tmp") / f"qc{os.getpid()}"
    with_short_name.mkdir()
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(with_short_name))
        planted = with_short_name / f"qstash-clone-{os.getuid()}"
        planted.mkdir(mode=0o777)
        planted.chmod(0o777)
        with pytest.raises(ConfigurationError, match="not this user's alone"):
            socket_path_of(tmp_path)
        planted.rmdir()
        planted.symlink_to(tmp_path)
        with pytest.raises(ConfigurationError, match="not this user's alone"):
            socket_path_of(tmp_path)
        planted.unlink()
    finally:
        with_short_name.rmdir()


def test_memory_limit_is_half_of_what_there_is() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < embedded.default_max_memory_bytes() <= total // 2


def test_long_log_is_set_aside(engine: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MAX_LOG_BYTES", 10)
    engine.folder.mkdir()
    (engine.folder / "redis.log").write_text("x" * 11)
    engine.start()
    assert (engine.folder / "redis.log.1").read_text() == "x" * 11
    assert "x" * 11 not in (engine.folder / "redis.log").read_text()


def test_program_on_the_path_comes_first_and_the_bundled_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "valkey-server"
    script.write_text("#!/bin/sh\necho 'Valkey server v=8.1.3 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    monkeypatch.setattr(engine_program, "_bundled_program", lambda: [PROGRAMS[-1].path])
    assert str(find_programs(None)[0]) == "Valkey 8.1.3"
    assert find_programs(None)[-1] == PROGRAMS[-1]
    assert find_programs(str(script))[0].release == (8, 1)


def test_too_old_program_is_named_with_the_command_that_installs_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "redis-server"
    script.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64'\n")
    script.chmod(0o755)
    (tmp_path / "apk").write_text("#!/bin/sh\n")
    (tmp_path / "apk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere:/bin")
    monkeypatch.setattr(engine_program, "_bundled_program", list[str])
    monkeypatch.setattr(engine_program, "_INSTALL_COMMANDS", (("apk", "sudo apk add valkey"),))
    with pytest.raises(ConfigurationError, match=r"Redis 5\.0\.7 is too old .* install one with: sudo apk add valkey"):
        find_programs(None)
    with pytest.raises(ConfigurationError, match="too old"):
        find_programs(str(script))
    script.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="No redis-server was found; install one with: sudo apk add valkey"):
        find_programs(None)
    (tmp_path / "apk").unlink()
    with pytest.raises(ConfigurationError, match="package manager"):
        find_programs(None)


def test_program_that_is_something_else_is_refused(tmp_path: Path) -> None:
    for path in ("/bin/true", str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(ConfigurationError, match="QSTASH_CLONE_REDIS_SERVER"):
            find_programs(path)


def test_server_that_hangs_up_is_no_answer(tmp_path: Path, programs: list[EngineProgram]) -> None:
    engine = EmbeddedRedis(tmp_path, programs)
    path = socket_path_of(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.close()
    assert not engine.is_serving()
    os.unlink(path)
