"""Kernel locks on files: they end with the process that holds them, however it ends.

A step is made under an exclusive lock (`<key>.lock`); beside it lies who holds it, for people
alone. Who reads an artifact holds its shared lock (`<key>.reading.lock`); who drops one takes both
for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import filelock

try:
    import fcntl
except ImportError:  # Windows has no shared locks: there a drop looks at makers alone
    fcntl = None  # type: ignore[assignment]

SPARE = 256  # open files beside the locks: libraries, rows, pipes


@contextmanager
def exclusive(
    folder: Path, key: str, *, owner: str, waiting: Callable[[str], None]
) -> Iterator[None]:
    """Hold the lock of a step; while another holds it, tell `waiting` once whose it is."""
    lock = filelock.FileLock(folder / f"{key}.lock")
    holder = folder / f"{key}.holder"
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        waiting(_text(holder) or "another build")
        lock.acquire(poll_interval=0.1)
    try:
        holder.write_text(owner)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def allow(more: int) -> None:
    """Let this process hold so many shared locks more, where its limit of open files is lower.

    256 files is all that a macOS terminal gives, and a plan of a few students has more steps.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/dev/fd")) + more + SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # the kernel's own limit may be lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def shared(folder: Path, key: str) -> IO[bytes]:
    """Return an open file that holds the shared lock of an artifact or source until it is closed.

    The file's time tells the last use.
    """
    file = _open(folder, key)
    os.utime(file.fileno())
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


@contextmanager
def unused(folder: Path, key: str) -> Iterator[bool]:
    """Tell whether nobody makes or reads an artifact, and keep it so inside the block."""
    lock = filelock.FileLock(folder / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    with ExitStack() as stack:
        stack.callback(lock.release)
        if fcntl is not None:
            file = stack.enter_context(_open(folder, key))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        yield True


def _open(folder: Path, key: str) -> IO[bytes]:
    return (folder / f"{key}.reading.lock").open("ab")


def last_use(folder: Path, key: str) -> float | None:
    """Return when an artifact was last read, in seconds since the epoch."""
    try:
        return (folder / f"{key}.reading.lock").stat().st_mtime
    except OSError:
        return None
