"""Look after a store: list what lies there, show it, drop it, verify it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgedistill.errors import UsageError, nearest
from edgedistill.progress import bar, silent
from edgedistill.records import Progress
from edgedistill.store import Store, keys, locks

RECORDS = ("artifact.json", "source.json")
VERSION = 1  # of what `v1` holds
BESIDE = {"arm64"}  # what else the default place may hold: the system that is emulated
SHOWN = 8  # keys that an error names


@dataclass(frozen=True)
class Entry:
    """One folder of the store."""

    stage: str  # "sources" for what the user brought
    key: str
    path: Path
    state: str  # "whole" (not looked into) | "unfinished" | "damaged" (moved aside)
    bytes: int
    seconds: float | None  # what it took to make
    created: str | None
    used: float  # seconds since the epoch, when a build last used it


@dataclass(frozen=True)
class Dropped:
    """What a drop removed, and what it left because a running build makes or reads it."""

    dropped: tuple[Entry, ...]
    in_use: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.dropped)


def remark(store: Store, *, named: bool) -> str | None:
    """Look at a store's place before it is read; returns what else lies there to be said.

    A place that no build has made yet is an empty store, unless the user `named` it. Raises
    `UsageError` for what is no store, and for one of another version.
    """
    root = store.root
    with store.shelf.surroundings("reading"):
        held = {path.name for path in root.iterdir()} if root.is_dir() else set()
        there = os.path.lexists(root)
    versions = sorted(int(name[1:]) for name in held if re.fullmatch(r"v\d{1,6}", name))
    others = [each for each in versions if each != VERSION]
    if VERSION not in versions and others:
        raise UsageError(
            f"'{root}' is a store of version {others[-1]}, this edgedistill reads {VERSION}: "
            "update it"
        )
    if there and not root.is_dir():
        raise UsageError(f"'{root}' is no store: it is a file")
    if not there and named:
        raise UsageError(f"'{root}' is no store: there is no such folder")
    if VERSION not in versions and held - BESIDE:
        raise UsageError(f"'{root}' is no store: it holds no 'v{VERSION}'")
    if others:
        return f"'{root}' holds version {others[-1]} too, which this edgedistill does not read"
    return None


def entries(store: Store) -> list[Entry]:
    """List what lies in a store, the least recently used first; no file is looked into."""
    found = []
    with store.shelf.surroundings("reading"):
        for place in _folders(store.root / "v1", 2):
            found.append(_entry(store, place, place.parent.name, place.name, "whole"))
        for place in _folders(store.root / "work", 1):
            found.append(_entry(store, place, "work", place.name, "unfinished"))
        for place in _folders(store.root / "damaged", 1):
            stage, _, key = place.name.rpartition("-")
            found.append(_entry(store, place, stage, key, "damaged"))
    return sorted(found, key=lambda entry: (entry.used, entry.stage, entry.key))


def show(store: Store, key: str) -> tuple[Entry, dict[str, Any]]:
    """Return the entry whose key begins so, with its record ({} where it has none).

    Its files are read: where they do not hold, its state is "damaged: REASON".

    Raises `UsageError` where there is none, or more than one.
    """
    entry = _only(entries(store), key, store)
    with store.shelf.surroundings("reading"):
        reason = _wrong(store, entry) if entry.state == "whole" else None
        entry = replace(entry, state=f"damaged: {reason}") if reason else entry
        for name in RECORDS:
            record = store.shelf.record(entry.path / name)
            if isinstance(record, dict):
                return entry, record
    return entry, {}


def verify(store: Store, progress: Progress = silent) -> list[tuple[Entry, str]]:
    """Read and hash everything; returns what does not hold, each with the reason.

    Nothing is moved: the next build that uses such an entry moves it aside and makes it again.
    """
    wrong = []
    whole = [entry for entry in entries(store) if entry.state == "whole"]
    with store.shelf.surroundings("reading"):
        for entry in bar(whole, progress, total=len(whole), unit="entries"):
            reason = _wrong(store, entry)
            if reason and entry.path.exists():  # else another process dropped it meanwhile
                wrong.append((entry, reason))
    return wrong


def drop(
    store: Store,
    names: Iterable[str] = (),
    *,
    stages: Iterable[str] = (),
    unused_for_s: float | None = None,
    total_bytes: int | None = None,
) -> Dropped:
    """Remove entries by keys (or their beginnings), by stages, by age, or down to a total size.

    Each condition narrows; a total size takes the least recently used until the store is no
    larger. Never what a running build makes or reads.
    """
    names, stages = list(names), list(stages)
    if not names and not stages and unused_for_s is None and total_bytes is None:
        raise UsageError("nothing to drop: name keys, a stage, an age or a total size")
    every = entries(store)
    known = {entry.stage for entry in every}
    for stage in stages:
        if stage not in known:
            raise UsageError(f"no stage '{stage}' in the store: {nearest(stage, known)}")
    picked = [_only(every, name, store) for name in names] if names else every
    if stages:
        picked = [entry for entry in picked if entry.stage in stages]
    if unused_for_s is not None:
        before = time.time() - unused_for_s
        picked = [entry for entry in picked if entry.used < before]
    left = sum(entry.bytes for entry in every)
    dropped: list[Entry] = []
    in_use: list[Entry] = []
    for entry in sorted(picked, key=lambda entry: entry.state != "damaged"):
        if total_bytes is not None and left <= total_bytes:
            break
        if _remove(store, entry):
            dropped.append(entry)
            left -= entry.bytes
        else:
            in_use.append(entry)
    return Dropped(tuple(dropped), tuple(in_use))


def _remove(store: Store, entry: Entry) -> bool:
    """Remove an entry that nobody uses: out of its place first, so that no half of it stays."""
    with store.shelf.surroundings("writing to"):
        store.shelf.ready()
        with locks.unused(store.shelf.locks, entry.key) as free:
            if not free:
                return False
            aside = store.root / "work" / f"dropped-{os.getpid()}-{entry.key}"
            try:
                os.rename(entry.path, aside)
            except FileNotFoundError:  # another drop was faster
                return True
            shutil.rmtree(aside)
    return True


def _wrong(store: Store, entry: Entry) -> str | None:
    """Return why an entry does not hold; every file of it is read."""
    record = "source.json" if entry.stage == "sources" else "artifact.json"
    return store.shelf.wrong(entry.path, record) or _misplaced(store, entry, record)


def _misplaced(store: Store, entry: Entry, record: str) -> str | None:
    """Return why an entry is not what its folder's name says: the name is the hash of a recipe."""
    made = store.shelf.record(entry.path / record)
    if not isinstance(made, dict):
        return None
    if record == "source.json":
        return None if made["hash"] == entry.key else "it lies under another hash"
    names = ("stage", "settings", "code", "packages")
    inputs = {name: each["key"] for name, each in made["inputs"].items()}
    if keys.digest({**{name: made[name] for name in names}, "inputs": inputs}) != entry.key:
        return "it lies under another key"
    return None


def _only(every: list[Entry], key: str, store: Store) -> Entry:
    found = [entry for entry in every if entry.key.startswith(key)] if key else []
    whole = [entry for entry in found if entry.state == "whole"] or found
    if len(whole) == 1:
        return whole[0]
    if whole:
        some = ", ".join(f"{entry.stage} {entry.key[:12]}" for entry in whole[:3])
        raise UsageError(f"'{key}' is the beginning of {len(whole)} keys: {some}")
    hint = nearest(key, [entry.key[: max(len(key), 8)] for entry in every])
    if hint.startswith("known: ") and len(every) > SHOWN:
        hint = f"it has {len(every)}: edgedistill store list"
    raise UsageError(f"no entry '{key}' in the store '{store.root}': {hint}")


def _folders(root: Path, depth: int) -> Iterator[Path]:
    if not root.is_dir():
        return
    for path in sorted(root.iterdir()):
        if path.is_dir() and depth > 1:
            yield from _folders(path, depth - 1)
        elif path.is_dir():
            yield path


def _entry(store: Store, place: Path, stage: str, key: str, state: str) -> Entry:
    record: Any = {}
    if state == "whole":
        record = store.shelf.record(
            place / ("source.json" if stage == "sources" else "artifact.json")
        )
    record = record if isinstance(record, dict) else {}
    size, changed = 0, 0.0
    for path in (place, *place.rglob("*")):
        try:
            about = path.lstat()
        except FileNotFoundError:  # dropped or finished while we look
            continue
        size += about.st_size if not path.is_dir() else 0
        changed = max(changed, about.st_mtime)
    used = max(changed, locks.last_use(store.shelf.locks, key) or 0.0)
    return Entry(stage, key, place, state, size, record.get("seconds"), record.get("created"), used)
