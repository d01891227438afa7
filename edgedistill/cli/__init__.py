"""The command line: parse, call the API, print. No logic that the API lacks."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import signal
import sys
import tempfile
import traceback
from types import FrameType
from typing import Any, NoReturn

import click

from edgedistill import __version__
from edgedistill.cli.build import build, plan
from edgedistill.cli.bundles import bench, check, eval_, inspect, predict, verify
from edgedistill.cli.options import Commands
from edgedistill.cli.show import plainly
from edgedistill.cli.store import store
from edgedistill.cli.targets import targets
from edgedistill.errors import (
    EdgedistillError,
    InternalError,
    MissingPackage,
    Stopped,
    SurroundingsError,
    UsageError,
    from_os_error,
)


@click.group(
    cls=Commands,
    no_args_is_help=False,  # a call without a command is an error of one line, not a page
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgedistill")
def cli() -> None:
    """Turn a trained model into a bundle that fits a device, with the measurements that prove it.

    \b
    edgedistill build --target mobile                              the starter job: digits, a minute
    edgedistill build --target phone --model DIR --data DIR        your model, your rows
    """


GOES_ON = ("build", "bench")  # what they made is kept in the store
WHOLE = ("build", "plan")  # what needs all dependencies, one as the other

for command in (build, plan, check, bench, eval_, predict, verify, inspect, targets, store):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit with a code that means something."""
    run(cli, "edgedistill")


def run(command: click.Command, name: str) -> NoReturn:
    """Run a command, ours or a benchmark's, and exit; what ends it is one line, no traceback."""
    signal.signal(signal.SIGTERM, _terminated)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _forgiving(sys.stdout, (BrokenPipeError,))
        sys.stderr = _forgiving(sys.stderr, (OSError,))  # nowhere is left to complain to
    context = None
    try:
        # Not cli.main(): it ends any broken pipe with exit 1, which means "a limit is missed".
        with command.make_context(name, sys.argv[1:]) as context:
            code = command.invoke(context)
    except SystemExit as end:
        raise end
    except BaseException as error:
        code = _tell(error, (context and context.invoked_subcommand) or "")
    sys.exit(code if isinstance(code, int) else 0)


class _Forgiving(io.FileIO):
    """A stream whose reader may go away (head, less): the work and its exit code still count.

    Any other trouble, a full disk say, is raised once. What was not written then is not tried
    again when the process ends: Python would say so in its own words, and exit with 120.
    """

    def __init__(self, descriptor: int, forgiven: tuple[type[OSError], ...]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.forgiven, self.gone = forgiven, False

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        if self.gone:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self.gone = not isinstance(error, BrokenPipeError)
            if not isinstance(error, self.forgiven):
                raise
            return len(data)


def _forgiving(stream: Any, forgiven: tuple[type[OSError], ...]) -> Any:
    if stream is None:  # closed before we began
        return None
    stream.flush()
    raw = io.BufferedWriter(_Forgiving(stream.fileno(), forgiven))
    # A terminal that lacks a character shows its escape.
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=True)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped()


def _tell(error: BaseException, verb: str) -> int:
    """Print one line on stderr (and a document on stdout where --json asks); return the code.

    `verb`: the command of ours that met the error.
    """
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.exceptions.Abort, Stopped)):
        code = 143 if isinstance(error, Stopped) else 130
        after = "; the same command goes on where it stopped" if verb in GOES_ON else ""
        return _said("Interrupted", f"interrupted{after}", code)
    ours = _ours(error)
    message = " ".join(str(ours).split())
    if isinstance(ours, MissingPackage) and verb in WHOLE:
        message = _with_all(message)
    if isinstance(ours, InternalError):
        message = f"{message} (a fault of edgedistill; details: {_log(error)})"
    return _said(type(ours).__name__, message, ours.exit_code)


def _ours(error: BaseException) -> EdgedistillError:
    if isinstance(error, EdgedistillError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context else ""
        return UsageError(error.format_message() + hint)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            pip = {"PIL": "pillow", "sklearn": "scikit-learn"}.get(package)
            return MissingPackage(package, "this command", pip)
    if isinstance(error, MemoryError):
        return SurroundingsError("out of memory: close other programs or take a smaller job")
    if isinstance(error, OSError):
        return from_os_error(error, "working")
    return InternalError(f"{type(error).__name__}: {error}")


def _with_all(message: str) -> str:
    """Advise all dependencies where one is missing: on a device none but a few are there."""
    try:
        lines = importlib.metadata.requires("edgedistill") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    ours = {re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line}
    before, pip, package = message.partition(": pip install ")
    return f"{before}{pip}edgedistill (with its dependencies)" if package in ours else message


def _said(kind: str, message: str, code: int) -> int:
    if "--json" in sys.argv or "--format=json" in sys.argv or _follows("--format", "json"):
        document: dict[str, Any] = {"error": {"type": kind, "message": message, "exit_code": code}}
        with contextlib.suppress(OSError):  # a full disk, perhaps the error itself
            click.echo(json.dumps(document))
    click.echo(f"edgedistill: {plainly(message)}", err=True)
    return code


def _follows(flag: str, value: str) -> bool:
    return (flag, value) in zip(sys.argv, sys.argv[1:], strict=False)


def _log(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    handle, path = tempfile.mkstemp(prefix="edgedistill-", suffix=".log")
    with os.fdopen(handle, "w") as file:
        file.write(f"edgedistill {__version__}, Python {sys.version}\n{sys.argv}\n\n{text}")
    return path
