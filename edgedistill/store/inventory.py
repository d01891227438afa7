"""Look after a store: list what lies there, show it, drop it, verify it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.errors import UsageError, nearest
from edgedistill.progress import bar, silent
from edgedistill.records import Progress
from edgedistill.store import Store, keys, locks

RECORDS = ("artifact.json", "source.json")
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

    Raises `UsageError` where there is none, or more than one.
    """
    entry = _only(entries(store), key, store)
    with store.shelf.surroundings("reading"):
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
            record = "source.json" if entry.stage == "sources" else "artifact.json"
            reason = store.shelf.wrong(entry.path, record) or _misplaced(store, entry, record)
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
