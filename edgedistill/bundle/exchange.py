"""Put a finished folder in the place of an old one, so that there is always a whole bundle.

Beside `<out>` lie `.<name>.new` (being written) and, only where the system can't exchange two
folders in one call, for a moment `.<name>.old`. Both belong to whoever holds `<out>.lock`; what a
killed build left of them is mended at the next start.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgedistill.bundle import manifest as manifests
from edgedistill.bundle.untrusted import printable
from edgedistill.errors import BundleError, SurroundingsError, from_os_error

DESKTOP = (".DS_Store", "Thumbs.db", "desktop.ini")  # what looking at a folder leaves in it
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def replaceable(out: Path) -> None:
    """Make sure that a bundle may be written to `out`; builds ask in their first seconds.

    Mends a half exchange first. Raises `BundleError` (naming the files) for a folder that is not a
    bundle or holds files that its manifest does not list, `SurroundingsError` where nothing can be
    written.
    """
    out = Path(os.path.abspath(out))
    if not out.name:
        raise BundleError(f"the output '{out}' is no folder of its own: choose another with --out")
    if any(os.path.lexists(path) for path in (_new(out), _old(out))):
        with locked(out, wait=0) as ours:
            if ours:
                mend(out)
    _require_replaceable(out)
    parent = next(path for path in out.parents if path.exists())
    if not parent.is_dir():
        raise BundleError(f"the output '{printable(out)}' lies under '{parent}', which is a file")
    _require_writable(parent)
    if out.is_dir():
        _require_writable(out)  # its files are removed when the new ones are in its place


def _require_writable(folder: Path) -> None:
    """Make a file and remove it: to root all is permitted, even where nothing can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise from_os_error(error, f"writing under '{folder}'") from None
        told = "no permission to" if isinstance(error, PermissionError) else "can't"
        raise SurroundingsError(
            f"{told} write the bundle's folder under '{folder}': {error.strerror}"
        ) from None


def _require_replaceable(out: Path) -> None:
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise BundleError(f"the output '{printable(out)}' is no folder: choose another with --out")
    inside = sorted(path.name for path in out.iterdir())
    if not inside:
        return  # an empty folder: there is nothing to lose
    if manifests.NAME not in inside:
        raise BundleError(
            f"the output '{printable(out)}' is a folder but not a bundle (it holds "
            f"{_named(inside)}): choose another with --out"
        )
    listed = {*manifests.read(out)["files"], manifests.NAME}
    inside = [name for name in inside if name not in DESKTOP]
    foreign = [name for name in inside if name not in listed or not _regular(out / name)]
    if foreign:
        raise BundleError(
            f"the output '{printable(out)}' holds files that are not the bundle's: "
            f"{_named(foreign)}: move them, or choose another folder with --out"
        )


def _regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _named(names: list[str]) -> str:
    shown = ", ".join(f"'{printable(name, 60)}'" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


@contextlib.contextmanager
def locked(out: Path, *, wait: float = 600.0) -> Iterator[bool]:
    """Hold `<out>.lock`, a kernel lock that ends with its process; gives whether it is held.

    `wait` is in seconds; 0 goes on without it when another holds it (who mends for itself).
    """
    from filelock import FileLock, Timeout

    lock = FileLock(out.with_name(out.name + ".lock"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except Timeout:
        if wait:
            raise SurroundingsError(
                f"another build has been writing '{printable(out)}' for over {wait:.0f} s: "
                "wait for it, or choose another folder with --out"
            ) from None
        yield False
        return
    except OSError as error:
        raise from_os_error(error, "locking the bundle's folder") from None
    try:
        yield True
    finally:
        lock.release()


def mend(out: Path) -> None:
    """Undo what a killed build left: an old bundle goes back, unfinished work goes.

    The caller holds the lock.
    """
    try:
        if _old(out).exists() and not out.exists():
            _old(out).rename(out)
        for left in (_old(out), _new(out)):
            if left.exists():
                shutil.rmtree(left)
    except OSError as error:
        raise from_os_error(error, "mending an unfinished bundle") from None


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Give a new folder beside `out`, and exchange the two when the block ends well.

    Any error leaves what lay in `out` as it was.
    """
    out = Path(os.path.abspath(out))
    with locked(out):
        mend(out)
        _require_replaceable(out)
        new = _new(out)
        try:
            new.mkdir()
            new.chmod(0o755)
            yield new
            _settle(new)
            _require_replaceable(out)  # a build takes an hour: look again
            swap(new, out)
        except OSError as error:
            raise from_os_error(error, "writing the bundle") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)


def swap(new: Path, out: Path) -> None:
    """Put the folder `new` in the place of `out`; what lay there is deleted."""
    if not out.exists():
        new.rename(out)
    elif _exchange(new, out):
        shutil.rmtree(new)
    else:
        out.rename(_old(out))
        new.rename(out)
        shutil.rmtree(_old(out))
    _sync(out.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one call (Linux); say whether that was possible."""
    if sys.platform != "linux":
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    done = call(
        ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(os.fsencode(one)),
        ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(os.fsencode(other)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )  # fmt: skip
    return done == 0


def _settle(folder: Path) -> None:
    """Bring a folder's bytes to the disk, with modes that everyone may read."""
    for path in folder.iterdir():
        path.chmod(0o644)
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new(out: Path) -> Path:
    return out.with_name(f".{out.name}.new")


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")
