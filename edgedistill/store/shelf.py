"""The folders of a store: made, filled, sealed, renamed, moved aside."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.errors import UsageError, from_os_error
from edgedistill.store import seal

RESUME = ".resume"


def default_root() -> Path:
    """Return EDGEDISTILL_STORE, else the platform's user cache folder."""
    told = os.environ.get("EDGEDISTILL_STORE")
    if told:
        return Path(told)
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "edgedistill"


@dataclass(frozen=True)
class Shelf:
    """The folders of one store."""

    root: Path

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    def ready(self) -> None:
        """Make the store's own folders, for its user alone. Raises `UsageError` for a file."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            wrong = next(one for one in (self.root, *self.root.parents) if one.exists())
            raise UsageError(f"the store '{self.root}': '{wrong}' is no folder") from None
        for name in ("v1", "work", "locks"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)

    def work(self, key: str) -> Path:
        """Return the folder of unfinished work."""
        return self.root / "work" / key

    def fresh(self, key: str) -> Path:
        """Return the folder for unfinished work, empty but for its checkpoints."""
        work = self.work(key)
        work.mkdir(mode=0o700, exist_ok=True)
        seal.clear(work, keep=RESUME)
        return work

    def place(self, work: Path, place: Path) -> None:
        """Rename sealed work into its place; its checkpoints go first."""
        if (work / RESUME).exists():
            shutil.rmtree(work / RESUME)
            seal.sync_folder(work)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(work, place)
        seal.sync_folder(place.parent)
        seal.sync_folder(work.parent)

    def move_aside(self, place: Path) -> Path:
        """Take what does not hold out of its place; returns where it lies now."""
        aside = self.root / "damaged" / f"{place.parent.name}-{place.name}"
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        if aside.exists():
            shutil.rmtree(aside)
        os.rename(place, aside)
        return aside

    def record(self, path: Path) -> dict[str, Any] | str | None:
        """Return a record, None where there is none, or why it does not hold."""
        try:
            return seal.read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:
                return f"{path.name} can't be read: {error.strerror}"
            raise

    def wrong(self, place: Path, record: str) -> str | None:
        """Return what is wrong with a sealed folder, None where it holds or is not there."""
        made = self.record(place / record)
        if made is None:
            return f"{record} is missing" if place.exists() else None
        if isinstance(made, str):
            return made
        try:
            return seal.fault(place, place / record, made)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno == errno.EIO:
                return f"it can't be read: {error.strerror}"
            raise

    def free_bytes(self) -> int:
        """Return the free space where the store is, or will be."""
        place = self.root
        while not place.exists() and place != place.parent:
            place = place.parent
        with self.surroundings("reading"):
            return shutil.disk_usage(place).free

    @contextmanager
    def surroundings(self, doing: str) -> Iterator[None]:
        """Turn what the system refuses into one clear line that names the store."""
        try:
            yield
        except OSError as error:
            doing = f"{doing} the store '{self.root}' (--store names another place)"
            raise from_os_error(error, doing) from error
