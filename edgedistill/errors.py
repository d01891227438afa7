"""Every error that a user can meet.

    EdgedistillError
    ├── UserError          2    the user can mend it
    │   ├── UsageError          a command line, a Python call
    │   ├── JobError            a job file, a setting
    │   ├── TargetError         a target file, a limit
    │   ├── DataError           rows, columns, labels, images
    │   ├── ModelError          a checkpoint, an .onnx, a shape that a family can't take
    │   ├── TrainingError       a loss that is not a number, a teacher that guesses
    │   ├── ExportError         a graph that does not compute what the model computes
    │   └── BundleError         a bundle that is damaged, an output folder that is none
    ├── SurroundingsError  3    disk, memory, permission, a device
    │   ├── MissingPackage      an optional package, with its pip line
    │   ├── NoMemory            an allocation failed
    │   └── WorkerDied          the worker process was killed (most often for memory)
    └── InternalError      4    our fault; the traceback goes to a log file
    Stopped                130 or 143: a KeyboardInterrupt, or the signal that asks to end

A message is one line: what was found, where, what was expected, what to do.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class EdgedistillError(Exception):
    """The root of all our errors; `exit_code` is what the command line exits with."""

    exit_code = 4


class UserError(EdgedistillError):
    """Something that the user can mend."""

    exit_code = 2


class UsageError(UserError):
    """A command line or a Python call that can't be understood."""


class JobError(UserError):
    """A job file or a setting that can't be taken."""


class TargetError(UserError):
    """A target file or a limit that can't be taken."""


class DataError(UserError):
    """Rows, columns, labels or images that can't be used."""


class ModelError(UserError):
    """A checkpoint or graph that can't be used, or a shape that it can't take."""


class TrainingError(UserError):
    """Training that can't go on, or should not start."""


class ExportError(UserError):
    """A graph that does not compute what its model computes."""


class BundleError(UserError):
    """A bundle that is damaged, or an output folder that is not a bundle."""


class SurroundingsError(EdgedistillError):
    """The disk, the memory, a permission, a device: not the user's input."""

    exit_code = 3


class MissingPackage(SurroundingsError):
    """A package that this command needs is not installed."""

    def __init__(self, package: str, what_for: str, pip: str | None = None) -> None:
        super().__init__(f"{what_for} needs the package '{package}': pip install {pip or package}")


class NoMemory(SurroundingsError):
    """An allocation failed."""


class WorkerDied(SurroundingsError):
    """The process that runs the stages was ended from outside."""


class InternalError(EdgedistillError):
    """A fault of ours."""


class Stopped(BaseException):
    """A signal asked the program to end (SIGTERM); not an Exception, so nothing swallows it."""

    exit_code = 143


def first_line(error: BaseException) -> str:
    """Return the first line of what another's error says; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the hint for an unknown name: the nearest right one, else all of them."""
    names = sorted(names)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(names) if names else "there are none"


def from_os_error(error: OSError, doing: str) -> EdgedistillError:
    """Turn an operating system's error into ours: which file, what happened, what to do.

    A file that is missing is the user's to mend, unless we were `doing` "writing ...": then the
    place is one where none can be made (such as /proc).
    """
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SurroundingsError(f"the disk is full while {doing}{where}: free some space")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SurroundingsError(f"no permission while {doing}{where}: {error.strerror}")
    if isinstance(error, FileNotFoundError) and doing.partition(" ")[0] != "writing":
        return UsageError(f"no such file while {doing}{where}")
    return SurroundingsError(f"{error.strerror or error} while {doing}{where}")
