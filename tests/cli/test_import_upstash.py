"""`qstash-clone import-upstash` between two real services, and against some that do not behave like one."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from qstash_clone import cli
from qstash_clone.settings import PREFIX, Settings
from tests.conftest import CURRENT_KEY, NEXT_KEY
from tests.support.processes import Api, System

SOURCE_TOKEN = "token-of-the-source-0123456789"
TARGET_TOKEN = "token-of-the-target-0123456789"
URL = "https://example.com/nightly?a=%2F&upstash-retries=9"
EVERYTHING = {
    "Upstash-Cron": "CRON_TZ=Europe/Berlin 0 4 * * *",
    "Upstash-Method": "PUT",
    "Content-Type": "application/json",
    "Upstash-Forward-X-Shop": "shöp, north",
    "Upstash-Retries": "0",
    "Upstash-Retry-Delay": "pow(retried, 2) * 1000",
    "Upstash-Delay": "1h",
    "Upstash-Timeout": "90s",
    "Upstash-Callback": "https://cb.example/?a=1",
    "Upstash-Callback-Forward-X-Cb": "1",
    "Upstash-Failure-Callback": "https://fcb.example",
    "Upstash-Failure-Callback-Forward-X-Fcb": "2",
    "Upstash-Queue-Name": "orders",
    "Upstash-Label": "eu, vip\u00e9",
    "Upstash-Flow-Control-Key": "tenant-7",
    "Upstash-Flow-Control-Value": "rate=3, period=1d",
}
HOURLY = {"Upstash-Cron": "0 * * * *"}
OF_THIS_SERVICE = {"createdAt", "updatedAt", "nextScheduleTime", "callerIP", "callerIp", "isPaused", "lag"}


class Service:
    """One of the two, as its owner uses it."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"})

    def get(self, path: str) -> Any:
        answer = self._http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, method: str, path: str, **options: Any) -> None:
        answer = self._http.request(method, path, **options)
        assert answer.status_code == 200, answer.text

    def schedule(self, schedule_id: str, headers: dict[str, str], body: bytes = b"", url: str = URL) -> None:
        lines = {name: value.encode() for name, value in (headers | {"Upstash-Schedule-Id": schedule_id}).items()}
        self.send("POST", f"/v2/schedules/{url.replace('%', '%25').replace('?', '%3F')}", headers=lines, content=body)

    def group(self, name: str, *endpoints: dict[str, str]) -> None:
        self.send("POST", f"/v2/topics/{name}/endpoints", json={"endpoints": endpoints})

    def queue(self, name: str, **fields: object) -> None:
        self.send("POST", "/v2/queues", json={"queueName": name} | fields)

    def everything(self) -> Any:
        """All that a run may change."""
        return [self.get(path) for path in ("/v2/schedules", "/v2/topics", "/v2/queues")]

    def copies(self) -> Any:
        """Without what belongs to each service alone."""
        return [
            sorted(({k: v for k, v in one.items() if k not in OF_THIS_SERVICE} for one in kind), key=repr)
            for kind in self.everything()
        ]

    def clear(self) -> None:
        for path, name in (("schedules", "scheduleId"), ("topics", "name"), ("queues", "name")):
            for one in self.get(f"/v2/{path}"):
                self.send("DELETE", f"/v2/{path}/{one[name]}")

    def close(self) -> None:
        self._http.close()


def settings_of(redis_url: str, namespace: str, token: str) -> Settings:
    return Settings(
        redis_url=redis_url,
        key_namespace=namespace,
        token=token,
        current_signing_key=CURRENT_KEY,
        next_signing_key=NEXT_KEY,
    )


@pytest.fixture(scope="module")
def services(redis_server: Any) -> Iterator[tuple[Service, Service]]:
    with (
        System(settings_of(redis_server.url, "import-source", SOURCE_TOKEN), workers=0) as there,
        System(settings_of(redis_server.url, "import-target", TARGET_TOKEN), workers=0) as here,
    ):
        pair = Service(there.url, SOURCE_TOKEN), Service(here.url, TARGET_TOKEN)
        yield pair
        for service in pair:
            service.close()


@pytest.fixture
def source(services: tuple[Service, Service]) -> Service:
    services[0].clear()
    return services[0]


@pytest.fixture
def target(services: tuple[Service, Service]) -> Service:
    services[1].clear()
    return services[1]


Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; exit code, lines, and what it said about an error. No token is in any of it."""
    for name in list(cli.os.environ):
        if name.startswith((PREFIX, "QSTASH_", "UPSTASH_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UPSTASH_QSTASH_TOKEN", SOURCE_TOKEN)
    monkeypatch.setenv("QSTASH_TOKEN", TARGET_TOKEN)

    def run(source: Service | str, target: Service | str | None, *arguments: str) -> tuple[int, list[str], str]:
        command = ["import-upstash", "--from", source if isinstance(source, str) else source.url]
        if target is not None:
            command += ["--to", target if isinstance(target, str) else target.url]
        try:
            code = cli.main([*command, *arguments])
        except SystemExit as ended:
            code = int(str(ended.code))
        out, err = capsys.readouterr()
        assert SOURCE_TOKEN not in out + err
        assert TARGET_TOKEN not in out + err
        return code, out.splitlines(), err

    return run


def actions(lines: list[str]) -> dict[str, tuple[str, str]]:
    """What became of each object, and why, by its name."""
    found: dict[str, tuple[str, str]] = {}
    for line in lines[: lines.index("")]:
        action, _, name, *note = (part.strip() for part in line.split("  ") if part.strip())
        assert name not in found
        found[name] = action, note[0] if note else ""
    return found


def fill(source: Service) -> None:
    source.group("fan", {"url": "https://b.example", "name": "a b"}, {"url": "https://a.example"})
    source.send("PATCH", "/v2/topics/fan", json={"headers": {"Upstash-Retries": "5", "Upstash-Label": ["a", "b"]}})
    source.queue("mail", parallelism=7)
    source.queue("held", paused=True)
    source.schedule("everything", EVERYTHING, '{"\u00e4": 1}'.encode())
    source.schedule("to-the-group", HOURLY, b"\xff\x00", url="fan")
    source.schedule("asleep", HOURLY)
    source.send("PATCH", "/v2/schedules/asleep/pause")


def test_everything_is_copied_and_nothing_fires(source: Service, target: Service, run: Run) -> None:
    fill(source)
    code, lines, err = run(source, target)
    assert (code, err) == (0, "")
    assert target.copies() == source.copies()
    [group] = target.get("/v2/topics")
    assert group["endpoints"] == [{"url": "https://b.example", "name": "a b"}, {"url": "https://a.example"}]
    assert {queue["name"]: queue["paused"] for queue in target.get("/v2/queues")} == {"mail": False, "held": True}
    assert [one["isPaused"] for one in target.get("/v2/schedules")] == [True, True, True]
    assert actions(lines) == {
        "fan": ("created", ""),
        "mail": ("created", ""),
        "held": ("created", ""),
        "everything": ("created", "paused"),
        "to-the-group": ("created", "paused"),
        "asleep": ("created", "paused, as at the source"),
    }
    assert lines[-2:] == [
        f"From {source.url} to {target.url}: 6 created, 0 changed, 0 unchanged, 0 skipped, 0 failed.",
        f"2 schedules fire at {source.url} only: pause there before you resume here.",
    ]
    assert run(source, target)[1][-2].endswith("0 created, 0 changed, 6 unchanged, 0 skipped, 0 failed.")


def test_a_dry_run_changes_nothing(source: Service, target: Service, run: Run) -> None:
    fill(source)
    target.queue("mail", parallelism=2)
    target.queue("held", paused=True)
    target.schedule("asleep", HOURLY | {"Upstash-Schedule-Paused": "true"})
    source.send("PATCH", "/v2/schedules/asleep/resume")
    before = source.everything(), target.everything()
    code, lines, _ = run(source, target, "--dry-run", "--activate")
    assert code == 0
    assert (source.everything(), target.everything()) == before
    told = actions(lines)
    assert told["fan"] == ("would create", "")
    assert told["mail"] == ("would change", "parallelism")
    assert told["held"] == ("unchanged", "")
    assert told["everything"] == ("would create", "active")
    assert told["asleep"] == ("would change", "active")
    assert lines[-2].startswith(
        f"A dry run, nothing was changed. From {source.url} to {target.url}: 3 created, 2 changed"
    )


def test_only_some_kinds(source: Service, target: Service, run: Run) -> None:
    fill(source)
    assert list(actions(run(source, target, "--only", "queues")[1])) == ["mail", "held"]
    assert list(actions(run(source, target, "--only", " url-groups, queues")[1])) == ["fan", "mail", "held"]
    assert target.get("/v2/schedules") == []
    code, lines, err = run(source, target, "--only", "queues,topics")
    assert (code, lines) == (2, [])
    assert 'invalid value "topics"; give some of url-groups,queues,schedules' in err


def test_activate_takes_over_what_fires(source: Service, target: Service, run: Run) -> None:
    fill(source)
    run(source, target)
    code, lines, _ = run(source, target, "--activate")
    assert code == 0
    assert actions(lines)["everything"] == ("changed", "active")
    assert actions(lines)["asleep"] == ("unchanged", "paused, as at the source")
    assert lines[-1] == "2 schedules fire at both services: pause there, or here."
    assert {one["scheduleId"]: one["isPaused"] for one in target.get("/v2/schedules")} == {
        "everything": False,
        "to-the-group": False,
        "asleep": True,
    }
    source.send("PATCH", "/v2/schedules/everything/pause")
    assert actions(run(source, target, "--activate")[1])["everything"] == ("unchanged", "active"), (
        "moved, not copied back"
    )


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_second_run_overwrites_and_keeps_what_was_resumed_here(
    source: Service, target: Service, run: Run, is_paused: bool
) -> None:
    source.schedule("s", EVERYTHING, b"old")
    run(source, target)
    if not is_paused:
        target.send("PATCH", "/v2/schedules/s/resume")
    source.schedule("s", HOURLY | {"Upstash-Retries": "2"}, b"new")
    assert actions(run(source, target)[1])["s"][0] == "changed"
    assert target.copies() == source.copies()
    assert target.get("/v2/schedules/s")["isPaused"] is is_paused
    _, lines, _ = run(source, target)
    assert actions(lines) == {"s": ("unchanged", "paused" if is_paused else "active")}
    assert lines[-1].startswith("1 schedule fires at " + (source.url if is_paused else "both services"))


def test_a_group_gets_the_endpoints_and_names_of_the_source(source: Service, target: Service, run: Run) -> None:
    one, two, three = ({"url": f"https://{name}.example"} for name in ("one", "two", "three"))
    source.group("g", three | {"name": "3"}, one, two)
    target.group("g", one | {"name": "uno"}, two, {"url": "https://old.example", "name": "3"})
    target.send("PATCH", "/v2/topics/g", json={"headers": {"Upstash-Retries": "1"}})
    assert actions(run(source, target)[1]) == {"g": ("changed", "endpoints")}
    [group] = target.get("/v2/topics")
    assert sorted(group["endpoints"], key=repr) == sorted([three | {"name": "3"}, one, two], key=repr)
    assert group["headers"] == {"Upstash-Retries": ["1"]}, "the source shows none, which may mean that it cannot"
    assert actions(run(source, target)[1]) == {"g": ("unchanged", "")}
    source.send("PATCH", "/v2/topics/g", json={"headers": {"Upstash-Retries": "2"}})
    assert actions(run(source, target)[1]) == {"g": ("changed", "headers")}
    assert target.get("/v2/topics/g")["headers"] == {"Upstash-Retries": ["2"]}


def test_a_group_whose_only_endpoint_loses_its_name(source: Service, target: Service, run: Run) -> None:
    source.group("g", {"url": "https://one.example"})
    target.group("g", {"url": "https://one.example", "name": "uno"})
    assert actions(run(source, target)[1]) == {"g": ("changed", "endpoints")}
    assert target.copies() == source.copies()


def test_what_is_redacted_is_named_and_skipped(source: Service, target: Service, run: Run) -> None:
    callback = {"Upstash-Callback": "https://cb.example", "Upstash-Callback-Forward-X-Key": "secret"}
    source.schedule("body", HOURLY | {"Upstash-Redact-Fields": "body"}, b"secret")
    source.schedule(
        "headers", HOURLY | callback | {"Upstash-Redact-Fields": "header", "Upstash-Forward-Authorization": "secret"}
    )
    source.schedule("plain", HOURLY)
    code, lines, _ = run(source, target)
    assert code == 1
    assert actions(lines) == {
        "body": ("skipped", "redacted: its body"),
        "headers": ("skipped", "redacted: the header Authorization, the header X-Key of its callback"),
        "plain": ("created", "paused"),
    }
    assert actions(run(source, target, "--dry-run")[1])["body"][0] == "would skip"
    assert [one["scheduleId"] for one in target.get("/v2/schedules")] == ["plain"]
    # Made by hand, as it was made at the source, it has the same hash.
    target.schedule("body", HOURLY | {"Upstash-Redact-Fields": "body"}, b"secret")
    assert actions(run(source, target)[1])["body"] == ("unchanged", "active")


def test_what_is_refused_is_named_and_the_rest_is_copied(
    source: Service, target: Service, run: Run, redis_url: str, tmp_path: Any
) -> None:
    source.queue("wide", parallelism=50)
    source.queue("narrow", parallelism=2)
    source.group("gone", {"url": "https://one.example"})
    source.schedule("a-to-a-lost-group", HOURLY, url="gone")
    source.send("DELETE", "/v2/topics/gone")
    source.schedule("b", HOURLY)
    settings = replace(settings_of(redis_url, "import-strict", TARGET_TOKEN), max_queue_parallelism=10)
    strict = Api(settings=settings, log=tmp_path / "api.log")
    try:
        strict.start().wait_ready()
        code, lines, _ = run(source, strict.url)
    finally:
        strict.end()
    assert code == 1
    told = actions(lines)
    assert told["wide"][0] == "failed"
    assert "parallelism" in told["wide"][1]
    assert told["a-to-a-lost-group"] == ("failed", "topic gone not found")
    assert (told["narrow"], told["b"]) == (("created", ""), ("created", "paused"))


def test_a_limit_on_requests_is_waited_for(source: Service, run: Run, redis_url: str, tmp_path: Any) -> None:
    for number in range(6):
        source.queue(f"q{number}")
    settings = replace(settings_of(redis_url, "import-slow", TARGET_TOKEN), management_burst_limit=15)
    slow = Api(settings=settings, log=tmp_path / "api.log")
    try:
        slow.start().wait_ready()
        assert run(source, slow.url)[1][-1].endswith("6 created, 0 changed, 0 unchanged, 0 skipped, 0 failed.")
    finally:
        slow.end()


class Script:
    """A server that answers as it is told: by method and path, status, headers and body; 404 for the rest."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, dict[str, str], bytes]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                script.requests.append((self.command, self.path, dict(self.headers.items())))
                key = (self.command, self.path)
                status, headers, body = script.answers.get(key, (404, {}, b'{"error": "nothing here"}'))
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def shows(self, kind: str, *objects: object) -> None:
        self.answers["GET", f"/v2/{kind}"] = (200, {}, json.dumps(objects).encode())

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    for kind in ("topics", "queues", "schedules"):
        script.shows(kind)
    yield script
    script.close()


SHOWN = {"scheduleId": "s", "destination": URL, "cron": "0 * * * *", "method": "POST", "retries": 3}


NO_HEADERS: dict[str, str] = {}


@pytest.mark.parametrize(
    ("answer", "code", "complaint"),
    [
        ((401, NO_HEADERS, b'{"error": "no"}'), 2, "does not accept the token of UPSTASH_QSTASH_TOKEN"),
        ((403, NO_HEADERS, b"{}"), 2, "does not allow this with the token of UPSTASH_QSTASH_TOKEN"),
        ((404, NO_HEADERS, b"{}"), 1, "has no /v2/topics: is this the address of a QStash service?"),
        ((302, {"Location": "/elsewhere"}, b""), 1, "answers 302 to GET /v2/topics"),
        (
            (503, NO_HEADERS, f"cannot serve {SOURCE_TOKEN}".encode()),
            1,
            "answers 503 to GET /v2/topics: cannot serve ***",
        ),
        ((429, {"RateLimit-Limit": "1"}, b'{"error": "enough for today"}'), 1, "answers 429 to GET /v2/topics: enough"),
        ((429, {"Burst-RateLimit-Reset": "1"}, b"{}"), 1, "its limit is reached again and again"),
        ((200, NO_HEADERS, b"<html>"), 1, "answers something that is not JSON"),
        (
            (200, NO_HEADERS, b'{"topics": []}'),
            1,
            "answers GET /v2/topics with something that is not a list of objects",
        ),
        ((200, NO_HEADERS, b"[1]"), 1, "answers GET /v2/topics with something that is not a list of objects"),
    ],
)
def test_a_source_that_is_none(
    script: Script, target: Service, run: Run, answer: tuple[int, dict[str, str], bytes], code: int, complaint: str
) -> None:
    script.answers["GET", "/v2/topics"] = answer
    ended, lines, err = run(script.url, target)
    assert ended == code
    assert err.startswith(f"qstash-clone: {script.url} ")
    assert complaint in err
    assert err.count("\n") == 1
    assert lines[-1].startswith(f"Ended early. From {script.url} to {target.url}: 0 created")


def test_nobody_listens(target: Service, run: Run, script: Script) -> None:
    script._server.server_close()  # pyright: ignore[reportPrivateUsage]
    code, _, err = run(script.url, target)
    assert code == 1
    assert f"{script.url} cannot be reached: " in err


def test_wrong_tokens_of_real_services(
    source: Service, target: Service, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.queue("q")
    monkeypatch.setenv("QSTASH_TOKEN", "some-other-token")
    code, _, err = run(source, target)
    assert (code, err) == (2, f"qstash-clone: {target.url} does not accept the token of QSTASH_TOKEN.\n")


@pytest.mark.parametrize(
    ("arguments", "environ", "complaint"),
    [
        (("--from", "https://a.example"), {}, "QSTASH_URL is not set"),
        ((), {"QSTASH_URL": "https://qstash.upstash.io/"}, "is both the service to copy from and the one to copy into"),
        (("--to", "https://a.example"), {"UPSTASH_QSTASH_TOKEN": ""}, "UPSTASH_QSTASH_TOKEN is not set"),
        (("--to", "https://a.example"), {"QSTASH_TOKEN": " "}, "QSTASH_TOKEN is not set"),
        (("--to", "https://a.example"), {"QSTASH_TOKEN": "a b"}, "QSTASH_TOKEN: there is a character in it"),
        (("--to", "a.example"), {}, "--to: give the address of a service"),
        (("--from", "https://"), {"QSTASH_URL": "https://a.example"}, "--from: give the address of a service"),
        ((), {"QSTASH_URL": "https://user:word@a.example"}, "QSTASH_URL: the address must not have a user"),
        (("--only", ""), {}, "give some of url-groups,queues,schedules"),
    ],
)
def test_wrong_use_is_one_sentence_and_code_2(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    complaint: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    try:
        code = cli.main(["import-upstash", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("qstash-clone: ")
    assert err.count("\n") == 1
    assert complaint in err


def test_addresses_and_tokens_from_a_file(
    source: Service, target: Service, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    source.queue("q")
    monkeypatch.delenv("UPSTASH_QSTASH_TOKEN")
    file = tmp_path / "import.env"
    file.write_text(f"UPSTASH_QSTASH_TOKEN={SOURCE_TOKEN}\nQSTASH_URL={target.url}\n")
    assert run(source, None, "--env-file", str(file))[0] == 0
    assert [queue["name"] for queue in target.get("/v2/queues")] == ["q"]


def test_a_target_that_fails_in_the_middle(source: Service, run: Run, script: Script) -> None:
    source.queue("first")
    source.queue("second")
    shown = {"name": "first", "parallelism": 1, "paused": False}
    script.answers["POST", "/v2/queues"] = (200, {}, b"{}")
    script.answers["GET", "/v2/queues/first"] = (200, {}, json.dumps(shown).encode())
    script.answers["GET", "/v2/queues/second"] = (500, {}, b'{"error": "out of order"}')
    code, lines, err = run(source, script.url)
    assert code == 1
    assert lines[0].split() == ["created", "queue", "first"]
    assert lines[-1] == (
        f"Ended early. From {source.url} to {script.url}: 1 created, 0 changed, 0 unchanged, 0 skipped, 0 failed."
    )
    assert err == f"qstash-clone: {script.url} answers 500 to GET /v2/queues/second: out of order\n"


def test_a_run_that_was_ended_goes_on_from_there(source: Service, target: Service, run: Run, script: Script) -> None:
    """The source is away after its groups were copied."""
    group = {"name": "g", "endpoints": [{"url": "https://one.example"}]}
    script.shows("topics", group)
    script.answers["GET", "/v2/queues"] = (503, {}, b"")
    code, lines, _ = run(script.url, target)
    assert (code, lines[0].split()) == (1, ["created", "url-group", "g"])
    script.shows("queues", {"name": "q", "parallelism": 3, "paused": False})
    code, lines, _ = run(script.url, target)
    assert (code, actions(lines)) == (0, {"g": ("unchanged", ""), "q": ("created", "")})


def test_a_target_that_cannot_create_paused_is_asked_to_pause(source: Service, run: Run, script: Script) -> None:
    source.schedule("s", HOURLY, url="https://example.com")
    [shown] = source.get("/v2/schedules")
    script.answers["POST", "/v2/schedules/https%3A%2F%2Fexample.com"] = (200, {}, b'{"scheduleId": "s"}')
    script.answers["GET", "/v2/schedules/s"] = (200, {}, json.dumps(shown).encode())
    script.answers["PATCH", "/v2/schedules/s/pause"] = (200, {}, b"{}")
    code, lines, _ = run(source, script.url)
    assert (code, actions(lines)) == (0, {"s": ("created", "paused")})
    assert [path for method, path, _ in script.requests if method == "PATCH"] == ["/v2/schedules/s/pause"]
    [creation] = [headers for method, _, headers in script.requests if method == "POST"]
    assert creation["Upstash-Schedule-Paused"] == "true"


def test_a_target_that_keeps_less_than_it_was_given(source: Service, run: Run, script: Script) -> None:
    source.queue("q", parallelism=5)
    script.answers["POST", "/v2/queues"] = (200, {}, b"{}")
    script.answers["GET", "/v2/queues/q"] = (200, {}, b'{"name": "q", "parallelism": 3, "paused": false}')
    code, lines, _ = run(source, script.url)
    assert (code, actions(lines)) == (1, {"q": ("failed", "it is here now, but not as at the source: parallelism")})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"scheduleId": None}, "not shown: scheduleId"),
        ({"destination": None}, "not shown: destination"),
        ({"cron": None, "method": ""}, "not shown: cron, method"),
        ({"retries": "3"}, "retries is not a whole number"),
        ({"retries": True}, "retries is not a whole number"),
        ({"header": ["a"]}, "header is not a map of headers"),
        ({"header": {"A": "b"}}, "A is not a list of texts"),
        ({"header": {"A": [1]}}, "A is not a list of texts"),
        ({"bodyBase64": "%"}, "bodyBase64 is not in base64"),
        ({"labels": "a"}, "labels is not a list of texts"),
    ],
)
def test_what_no_service_shows_is_skipped(
    script: Script, target: Service, run: Run, changes: dict[str, object], complaint: str
) -> None:
    script.shows("schedules", SHOWN | changes, SHOWN | {"scheduleId": "next"})
    code, lines, _ = run(script.url, target)
    assert code == 1
    assert actions(lines) == {
        str(changes.get("scheduleId", "s")).replace("None", "?"): ("skipped", complaint),
        "next": ("created", "paused"),
    }


def test_objects_of_another_release(script: Script, target: Service, run: Run) -> None:
    script.shows("topics", {"name": "empty", "endpoints": []}, {"name": "odd", "endpoints": ["https://one.example"]})
    script.shows("queues", {"name": "q", "parallelism": 2}, {"name": "unknown"})
    body = b64encode(b"text").decode()
    script.shows("schedules", SHOWN | {"label": "l", "bodyBase64": body, "colour": "red", "extra": None, "delay": 0})
    code, lines, _ = run(script.url, target)
    assert code == 1
    assert actions(lines) == {
        "empty": ("skipped", "it has no endpoint, and here every group has one"),
        "odd": ("skipped", "endpoints is not a list of objects"),
        "q": ("created", ""),
        "unknown": ("skipped", "its parallelism is not shown"),
        "s": ("created", "paused; not copied: colour"),
    }
    stored = target.get("/v2/schedules/s")
    assert (stored["labels"], stored["body"]) == (["l"], "text")


def test_text_from_elsewhere_does_not_steer_the_terminal_nor_the_requests(
    script: Script, target: Service, run: Run
) -> None:
    script.shows("queues", {"name": "\x1b[2J/../../v2/schedules", "parallelism": 1})
    script.shows("schedules", SHOWN | {"header": {"X": ["a\r\nUpstash-Cron: * * * * *"]}})
    code, lines, _ = run(script.url, target)
    assert code == 1
    assert "\x1b" not in "".join(lines)
    assert [line.split()[0] for line in lines[:2]] == ["failed", "failed"]
    assert target.everything() == [[], [], []]


def test_a_target_that_lists_something_else(source: Service, run: Run, script: Script) -> None:
    source.queue("q")
    script.shows("queues", {"id": 1})
    code, _, err = run(source, script.url)
    assert (code, "lists a queue without a name" in err) == (1, True)
