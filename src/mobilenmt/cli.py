"""The command line: parse, call, print. Every command is a function of :mod:`mobilenmt.commands`."""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from mobilenmt import __version__
from mobilenmt.commands import COMMANDS
from mobilenmt.runtime.errors import MobileNMTError

EXIT_ERROR = 2
EXIT_BUG = 1
EXIT_INTERRUPTED = 130  # as a shell reports Ctrl-C
EXIT_TERMINATED = 143
EXIT_BROKEN_PIPE = 141

_EPILOG = "Exit codes: 0 done, 2 an error of input or usage (one line on stderr), 130 Ctrl-C, 1 a fault of mobilenmt."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Never a traceback, unless MOBILENMT_DEBUG=1 asks for it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = vars(build_parser(given[0] if given else None).parse_args(given))
    command: Callable[..., int] = options.pop("command")
    previous = signal.signal(signal.SIGTERM, _terminate)  # so that temporary files are removed
    try:
        return command(**options)
    except MobileNMTError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has enough. Python flushes stdout at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        if os.environ.get("MOBILENMT_DEBUG") == "1":
            raise
        _fail(f"unexpected {type(error).__name__}: {error} (set MOBILENMT_DEBUG=1 for the traceback, and report it)")
        return EXIT_BUG
    finally:
        signal.signal(signal.SIGTERM, previous)


def entry() -> NoReturn:
    """Run as a program: like :func:`main`, but leave without freeing what the system frees anyway.

    Taking a session and a tokenizer apart piece by piece takes as long as several translations.
    """
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or EXIT_BROKEN_PIPE
    os._exit(code)


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser, built from signatures and docstrings of the table of commands.

    With ``only`` the name of a command, the arguments of the others are left out, which nobody will see.
    """
    parser = argparse.ArgumentParser(
        prog="mobilenmt", description="Offline machine translation that fits a phone.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"mobilenmt {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, function in COMMANDS.items():
        summary, details, helps = parse_docstring(function)
        sub = subparsers.add_parser(name, help=summary, description=f"{summary}\n\n{details}".strip(), epilog=_EPILOG)
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        sub.set_defaults(command=function)
        if only in COMMANDS and only != name:
            continue
        hints = typing.get_type_hints(function)
        for parameter in inspect.signature(function).parameters.values():
            _add_argument(sub, parameter, hints[parameter.name], helps[parameter.name])
    return parser


def parse_docstring(function: Callable[..., Any]) -> tuple[str, str, dict[str, str]]:
    """Summary, further paragraphs, and the line under ``Args:`` for each parameter."""
    text = inspect.getdoc(function) or ""
    head, _, tail = text.partition("\nArgs:\n")
    summary, _, details = head.partition("\n")
    helps: dict[str, str] = {}
    name = ""
    for line in tail.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            name, _, helps[name] = line.strip().partition(": ")
        elif line.strip() and name:
            helps[name] += f" {line.strip()}"
    return summary, details.strip(), helps


def _add_argument(parser: argparse.ArgumentParser, parameter: inspect.Parameter, hint: Any, help_text: str) -> None:
    if isinstance(hint, types.UnionType):  # X | None
        hint = next(item for item in typing.get_args(hint) if item is not type(None))
    help_text = help_text.replace("%", "%%")
    flag = f"--{parameter.name.replace('_', '-')}"
    shown: dict[str, Any] = {"metavar": parameter.name.upper()}
    if typing.get_origin(hint) is list:
        parser.add_argument(parameter.name, nargs="*", type=typing.get_args(hint)[0], help=help_text, **shown)
    elif parameter.default is inspect.Parameter.empty:
        parser.add_argument(parameter.name, type=hint, help=help_text, **shown)
    elif hint is bool:
        parser.add_argument(flag, action="store_true", help=help_text)
    elif typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        parser.add_argument(flag, choices=choices, default=parameter.default, help=help_text)
    else:
        shown["metavar"] = {Path: "FILE", int: "N"}.get(hint, parameter.name.upper())
        parser.add_argument(flag, type=hint, default=parameter.default, help=help_text, **shown)


def _fail(message: str) -> int:
    line = " ".join(message.split())
    print(f"mobilenmt: error: {line}", file=sys.stderr)
    return EXIT_ERROR


def _terminate(number: int, frame: types.FrameType | None) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)
