"""The `qstash-clone` command: reads arguments and settings, then hands over to the role that was asked for."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import qstash_clone
from qstash_clone.cli.import_arguments import add_arguments as add_import_arguments
from qstash_clone.cli.topic_arguments import add_arguments as add_topic_arguments
from qstash_clone.errors import ConfigurationError, QstashCloneError, ServiceFailed, StorageError, StoreIncompatible

# Everything else is imported by the role that needs it: `--version` and a child's start should not wait for it.

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_INTERRUPTED = 130

_SETTINGS_OF_FLAGS = {
    "--host": "host",
    "--port": "port",
    "--processes": "processes",
    "--data-dir": "data_dir",
    "--workers": "workers",
    "--log-format": "log_format",
    "--log-level": "log_level",
}
_HELP = {
    "--host": "address to listen on",
    "--port": "port to listen on",
    "--processes": "processes of the api",
    "--data-dir": "folder of the embedded Redis",
    "--workers": "number of workers",
    "--log-format": "json or text",
    "--log-level": "debug, info, warning, error or none",
}
_FLAGS_OF_COMMANDS = {
    "dev": tuple(_SETTINGS_OF_FLAGS),
    "api": ("--host", "--port", "--processes", "--log-format", "--log-level"),
    "worker": ("--log-format", "--log-level"),
    "config": (),
    "import-upstash": (),
    "topics": (),
}
_COMMANDS = {
    "dev": "run everything on this machine: embedded Redis, api and workers",
    "api": "accept messages; needs REDIS_URL and credentials",
    "worker": "deliver messages; needs REDIS_URL and credentials",
    "config": "show every setting, its value and where it comes from, secrets masked",
    "import-upstash": "copy schedules, URL groups and queues from another QStash service into this one",
    "topics": "make, show and change the topics of a running service",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failure, 2 for something the operator must change."""
    parsed = _parser().parse_args(arguments)
    try:
        return _run(parsed)
    except (ConfigurationError, StoreIncompatible) as error:
        return _fail(error, EXIT_CONFIGURATION)
    except (StorageError, ServiceFailed) as error:
        return _fail(error, EXIT_FAILED)
    except SystemExit as ended:
        # The api ends with EX_CONFIG of sysexits.h, so that its processes can tell it from a failure.
        return EXIT_CONFIGURATION if ended.code == os.EX_CONFIG else _exit_code(ended)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of `config` has seen enough; Python must not complain about it once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _run(parsed: argparse.Namespace) -> int:
    from qstash_clone.cli import loading

    flags = {
        _SETTINGS_OF_FLAGS[flag]: (flag, value)
        for flag in _FLAGS_OF_COMMANDS[parsed.command]
        if (value := getattr(parsed, _SETTINGS_OF_FLAGS[flag])) is not None
    }
    layers = loading.find_layers(flags, env_file=parsed.env_file)
    match parsed.command:
        case "dev":
            from qstash_clone.dev import supervisor

            return supervisor.run(loading.load_dev(layers), os.environ)
        case "api":
            from qstash_clone.api.__main__ import run as run_api

            run_api(loading.load(layers))
        case "worker":
            from worker.__main__ import run as run_worker

            run_worker(loading.load(layers))
        case "import-upstash":
            from qstash_clone.cli import import_upstash

            return import_upstash.run(parsed, layers)
        case "topics":
            from qstash_clone.cli import topics

            return topics.run(parsed, layers)
        case _:
            print(loading.describe(layers, as_dev=parsed.dev))
    return 0


def _exit_code(ended: SystemExit) -> int:
    return ended.code if isinstance(ended.code, int) else EXIT_FAILED if ended.code else 0


def _fail(error: QstashCloneError, code: int) -> int:
    print(f"qstash-clone: {error}", file=sys.stderr, flush=True)
    return code


class _Parser(argparse.ArgumentParser):
    """Answers a wrong argument with one sentence instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_CONFIGURATION, f"qstash-clone: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="qstash-clone",
        description="A self-hosted message queue over HTTP that speaks the QStash v2 API.",
        epilog="Every setting is an environment variable too; `qstash-clone config` lists them.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"qstash-clone {qstash_clone.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        command.add_argument(
            "--env-file", metavar="FILE", help="read settings from a file of NAME=value lines; the environment wins"
        )
        for flag in _FLAGS_OF_COMMANDS[name]:
            setting = _SETTINGS_OF_FLAGS[flag]
            command.add_argument(flag, dest=setting, metavar=setting.upper(), help=_HELP[flag])
        if name == "config":
            command.add_argument("--dev", action="store_true", help="show what `qstash-clone dev` would use")
        if name == "import-upstash":
            add_import_arguments(command)
        if name == "topics":
            add_topic_arguments(command)
    return parser
