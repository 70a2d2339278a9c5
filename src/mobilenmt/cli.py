"""The command line: parse, call, print. Every command is a function of :mod:`mobilenmt.commands`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import inspect
import os
import signal
import sys
import threading
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
EXIT_BROKEN_PIPE = 141

_EPILOG = (
    "Exit codes: 0 done, 2 an error of input or usage (one line on stderr), 130 Ctrl-C,\n"
    "141 the reader of our output left, 143 terminated, 129 the terminal was closed, 1 a fault of mobilenmt."
)
_METAVARS = {
    "set": "KEY=VALUE",
    "work": "FOLDER",
    "out": "FOLDER",
    "test": "TSV",
    "peer": "NAME=FILE",
    "against": "NAME=FOLDER",
    "dev": "TSV",
    "forms": "FORM,...",
    "until": "STAGE",
    "keep": "NAME=REGEX",
    "no_keep": "NAME",
    "time_limit": "SECONDS",
    "from_": "CHECKPOINT",
    "packs": "FOLDER",
    "vocabulary": "FOLDER",
}
_STOPPING = ("SIGTERM", "SIGHUP")  # SIGHUP: the terminal was closed; Windows has none


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Never a traceback, unless MOBILENMT_DEBUG=1 asks for it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else ""
    if name in COMMANDS:  # one parser instead of all (a fiftieth of the cold start), and one that takes TEXT anywhere
        options = vars(build_command_parser(name).parse_intermixed_args(arguments[1:]))
    else:
        options = vars(build_parser().parse_args(arguments))  # --help, --version or a usage error: it ends here
        name = options.pop("command")
    previous = _catch_signals()
    try:
        code = COMMANDS[name](**options)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk is still reported in one line
        return code
    except MobileNMTError as error:
        _fail(str(error))
        return int(getattr(error, "exit_code", EXIT_ERROR))  # a stage that was told to stop knows its own
    except BrokenPipeError:
        _discard_stdout()  # whoever read our output has enough
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG):
            _discard_stdout()
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except MemoryError:
        return _fail("the system gives no more memory")
    except Exception as error:
        if os.environ.get("MOBILENMT_DEBUG") == "1":
            raise
        _fail(f"unexpected {type(error).__name__}: {error} (set MOBILENMT_DEBUG=1 for the traceback, and report it)")
        return EXIT_BUG
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def entry() -> NoReturn:
    """Run as a program: like :func:`main`, but leave without freeing what the system frees anyway.

    Taking a session and a tokenizer apart piece by piece takes as long as several translations.
    """
    try:
        code = main()
    except KeyboardInterrupt:  # before or behind the part of main that waits for it
        code = EXIT_INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # None if it was closed; main has flushed and told already
            stream.flush()
    os._exit(code)


class _Parser(argparse.ArgumentParser):
    """One whose errors are a line, like all others: programs read them, and people find the usage under --help."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        _fail(f"{message} ({self.prog} --help lists what there is)")
        sys.exit(EXIT_ERROR)


def build_parser() -> argparse.ArgumentParser:
    """The parser of what stands before a command; the commands have their own, see :func:`build_command_parser`."""
    parser = _Parser(prog="mobilenmt", description="Offline machine translation that fits a phone.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"mobilenmt {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands", dest="command")
    for name, function in COMMANDS.items():
        subparsers.add_parser(name, help=parse_docstring(function)[0])
    return parser


def build_command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command, built from the signature and the docstring of its function."""
    function = COMMANDS[name]
    summary, details, helps = parse_docstring(function)
    parser = _Parser(
        prog=f"mobilenmt {name}",
        description=f"{summary}\n\n{details}".strip(),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviation breaks in scripts when a later version adds an option
    )
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        _add_argument(parser, parameter, hints[parameter.name], helps[parameter.name])
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
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # X | None; a Literal makes the second kind
        hint = next(item for item in typing.get_args(hint) if item is not type(None))
    help_text = help_text.replace("%", "%%")
    flag = f"--{parameter.name.rstrip('_').replace('_', '-')}"  # from_: Python keeps some words for itself
    shown: dict[str, Any] = {"metavar": parameter.name.upper()}
    if parameter.name.endswith("_"):
        shown["dest"] = parameter.name
    if typing.get_origin(hint) is list and parameter.default is None:  # repeatable; files also several at once
        item = typing.get_args(hint)[0]
        shown["metavar"] = _METAVARS.get(parameter.name, parameter.name.upper())
        shown |= {"nargs": "+", "action": "extend"} if item is Path else {"action": "append"}
        parser.add_argument(flag, type=item, help=help_text, **shown)
    elif typing.get_origin(hint) is list:
        parser.add_argument(parameter.name, nargs="*", type=typing.get_args(hint)[0], help=help_text, **shown)
    elif parameter.default is inspect.Parameter.empty:
        parser.add_argument(parameter.name, type=hint, help=help_text, **shown)
    elif hint is bool:
        two = parameter.default is not False  # True, or None for what something else says: --x and --no-x
        action: Any = argparse.BooleanOptionalAction if two else "store_true"
        parser.add_argument(flag, action=action, default=parameter.default, help=help_text)
    elif typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        parser.add_argument(flag, choices=choices, default=parameter.default, help=help_text)
    else:
        metavar = {Path: "FILE", int: "N"}.get(hint, parameter.name.upper())
        shown["metavar"] = _METAVARS.get(parameter.name) or metavar
        if parameter.name == "vocabulary" and hint is str:  # of plan: numbers to try
            shown["metavar"] = "N,..."
        parser.add_argument(flag, type=hint, default=parameter.default, help=help_text, **shown)


def _fail(message: str) -> int:
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))  # no escape sequences
    print(f"mobilenmt: error: {line}", file=sys.stderr)
    return EXIT_ERROR


def _discard_stdout() -> None:
    """Let what stdout still holds go nowhere: Python flushes it at exit, and would complain a second time."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _catch_signals() -> dict[signal.Signals, Any]:
    """Make SystemExit of signals that end us, so that temporary files are removed; returns the old handlers."""
    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python takes handlers from no other
        for name in _STOPPING:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: so do we
                previous[number] = signal.signal(number, _terminate)
    return previous


def _terminate(number: int, frame: types.FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
