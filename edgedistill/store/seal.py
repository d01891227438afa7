"""Seal a folder: a record of every file in it, and of itself, so that one flipped byte shows.

A sealed folder holds one more file, its record: JSON in its one spelling with
`files` {name: {bytes, sha256}}, `digest` (of `files` alone: what a reader of the folder can see)
and `seal` (of the whole record). Format checks are no substitute: a flipped weight bit passes
them all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgedistill.errors import InternalError
from edgedistill.store.keys import digest

FORMAT = 1
SETTLED_S = 0.1  # a file changed later than this before it was read may change unseen once more
_LOOKED_AT: dict[str, tuple[Any, ...]] = {}  # folder -> what its files looked like when they held


def close(folder: Path, record: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record of a folder, after all its files are on the disk for good."""
    files = {}
    for name, path in _files(folder, record.name):
        if path.is_symlink() or not path.is_file():
            raise InternalError(f"'{name}' is no file: what a step leaves is whole, never linked")
        path.chmod(0o600)
        files[name] = {"bytes": path.stat().st_size, "sha256": _sync(path)}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            sync_folder(path)
    made = {"format": FORMAT, **about, "files": files, "digest": digest(files)}
    made["seal"] = digest(made)
    write(record, render(made))
    return made


def render(record: Mapping[str, Any]) -> bytes:
    """Return a record in its one spelling, which people can read too."""
    return (json.dumps(record, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def read(record: Path) -> dict[str, Any] | str:
    """Return a record that holds by its own seal, else what is wrong with it.

    Raises `FileNotFoundError` where there is none.
    """
    raw = record.read_bytes()
    try:
        made = json.loads(raw)
        seal = made.pop("seal")
        if digest(made) == seal and render({**made, "seal": seal}) == raw:
            if made["format"] != FORMAT:
                return f"{record.name} is of format {made['format']}, not {FORMAT}"
            return {**made, "seal": seal}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return f"{record.name} is damaged"


def fault(folder: Path, record: Path, made: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the files of a sealed folder, or None.

    Every file is read and hashed; once in a process, then again only when a file's inode, size or
    times (that of its last change included, which no program can set) are not what they were.
    """
    found = dict(_files(folder, record.name))
    look = (made["seal"], *((name, *_look(path)) for name, path in found.items()))
    if _LOOKED_AT.get(str(folder)) == look:
        return None
    begun = time.time()
    missing = sorted(set(made["files"]) - set(found))
    if missing:
        return f"{missing[0]} is missing"
    for name, path in found.items():
        expected = made["files"].get(name)
        if expected is None or path.is_symlink():
            return f"{name} does not belong there"
        if path.stat().st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
            return f"{name} is damaged"
    if all(_look(path)[-1] < (begun - SETTLED_S) * 1e9 for path in found.values()):
        _LOOKED_AT[str(folder)] = look
    return None


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: aside, to the disk, then renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk for good."""
    if os.name == "nt":  # a folder can't be opened there, and renames need no help
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear(folder: Path, keep: str | None = None) -> None:
    """Remove all that lies in a folder but one name."""
    for path in folder.iterdir():
        if path.name == keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _files(folder: Path, but: str) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder by their names in it, without its record and `.resume`."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != but and not name.startswith(".resume/") and not _plain_folder(path):
            yield name, path


def _plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _look(path: Path) -> tuple[int, ...]:
    about = path.lstat()
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _sync(path: Path) -> str:
    """Bring a file to the disk for good; returns its sha256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
