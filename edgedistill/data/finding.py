"""Find the rows: which tables the user's path, files or live object hold, by split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.data import hub, imagesets, live, split, tables
from edgedistill.data.tables import Table
from edgedistill.errors import DataError, nearest
from edgedistill.sections import DataSpec

SPLIT_NAMES = {**imagesets.NPZ_SPLITS, "unsupervised": "unlabelled"}  # as public sets call it
SHARD = re.compile(r"(?P<stem>.+?)(?P<shard>-\d{5}-of-\d{5})?")
PAPERS = ("readme", "license", "licence", "citation", "dataset_info", "state", "dataset_dict")


@dataclass(frozen=True)
class Found:
    """Tables by split, as they were given."""

    name: str
    tables: Mapping[str, Table]
    ignored: tuple[str, ...] = ()  # files beside them that are not used


def find(spec: DataSpec) -> Found:
    """Find the tables by split: the path's, then those files that are named one by one."""
    found = _at(spec.path, spec.encoding) if spec.path is not None else Found("", {})
    named = {}
    for name in split.SPLITS:
        value = getattr(spec, name)
        if value is not None:
            path = hub.local(Path(value), DataError)
            assert path is not None  # a Path is never a hub id
            named[name] = _single(path, spec.encoding, flat=name == "unlabelled")
    if not found.tables and not named:
        raise DataError("no rows: name them with --data, or in a job file under [data]")
    used = {Path(getattr(spec, name)).name for name in named}
    return Found(
        found.name or Path(next(getattr(spec, name) for name in named)).stem,
        {**found.tables, **named},
        tuple(name for name in found.ignored if name not in used),
    )


def _at(path: Any, encoding: str | None) -> Found:
    if not isinstance(path, (str, Path)):
        return Found("live rows", _named(live.read(path), "the live rows"))
    place = hub.local(path, DataError)
    if place is None:
        return Found(str(path), _named(live.read_hub(str(path)), str(path)))
    name = place.resolve().name
    if not place.is_dir():
        if place.suffix.lower() == ".npz":
            return Found(name, imagesets.read_npz(place))
        return Found(name, {"train": tables.read(place, encoding=encoding)})
    if live.is_saved(place):
        return Found(name, _named(live.read_saved(place), name))
    return _folder(place, name, encoding)


def _named(parts: Mapping[str, Table], place: str) -> dict[str, Table]:
    """Bring a live object's own names of splits to ours."""
    found: dict[str, Table] = {}
    for name, table in parts.items():
        ours = SPLIT_NAMES.get(name.casefold())
        if ours is None and len(parts) == 1:
            ours = "train"
        if ours is None:
            hint = nearest(name, SPLIT_NAMES)
            raise DataError(f"{place}: '{name}' is no name of a split: {hint}")
        if ours in found:
            raise DataError(f"{place} has two splits that mean {ours}")
        found[ours] = table
    return found


def _folder(folder: Path, name: str, encoding: str | None) -> Found:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not entries:
        raise DataError(f"'{folder}' is empty")
    splits: dict[str, list[Path]] = {}
    for path in entries:
        ours = SPLIT_NAMES.get(_name(path)["stem"].casefold())
        folder_of_images = path.is_dir() and (
            imagesets.is_labelled_folder(path) or ours == "unlabelled"
        )
        lines = path.suffix.lower() == tables.LINES and ours == "unlabelled"
        file = path.suffix.lower() in (*tables.READERS, ".npz")
        if ours and (file or lines or folder_of_images):
            splits.setdefault(ours, []).append(path)
    if splits:
        found = {ours: _parts(ours, paths, encoding) for ours, paths in splits.items()}
        return Found(
            name, found, _rest(entries, [path for each in splits.values() for path in each])
        )
    files = [path for path in entries if path.suffix.lower() in (*tables.READERS, ".npz")]
    files = [path for path in files if path.stem.casefold() not in PAPERS]
    if len(files) == 1:
        inner = _at(files[0], encoding)
        return Found(name, inner.tables, _rest(entries, files))
    if files:
        names = ", ".join(path.name for path in files[:5])
        raise DataError(
            f"'{folder}' has no file named after a split (train, validation, test), but {names}: "
            f"choose with --set data.train={files[0]}"
        )
    if imagesets.is_labelled_folder(folder):
        labels = [path for path in entries if path.is_dir()]
        return Found(name, {"train": imagesets.read_folder(folder)}, _rest(entries, labels))
    if (folder / "data").is_dir():
        return _folder(folder / "data", name, encoding)
    raise DataError(
        f"'{folder}' holds no rows: expected train.csv (or .tsv, .jsonl, .parquet), an .npz, "
        "or images in folders named by label"
    )


def _parts(ours: str, paths: Sequence[Path], encoding: str | None) -> Table:
    """Read the one file or folder of a split, or its numbered shards."""
    names = {(match["stem"], match["shard"] is None) for match in map(_name, paths)}
    if len(paths) > 1 and (len(names) > 1 or next(iter(names))[1]):
        several = " and ".join(f"'{path.name}'" for path in paths)
        raise DataError(f"{several} both mean {ours}: choose with --set data.{ours}={paths[0]}")
    return tables.joined([_single(path, encoding, flat=ours == "unlabelled") for path in paths])


def _single(path: Path, encoding: str | None, *, flat: bool) -> Table:
    if not path.is_dir():
        if path.suffix.lower() == ".npz":
            parts = imagesets.read_npz(path)
            if len(parts) > 1:
                raise DataError(
                    f"'{path}' holds {', '.join(parts)}: name the archive itself, not its folder"
                )
            return next(iter(parts.values()))
        if flat and path.suffix.lower() == tables.LINES:
            return tables.read_lines(path, encoding=encoding)
        return tables.read(path, encoding=encoding)
    if flat and not imagesets.is_labelled_folder(path):
        return imagesets.read_flat(path)
    return imagesets.read_folder(path)


def _name(path: Path) -> re.Match[str]:
    match = SHARD.fullmatch(path.name if path.is_dir() else path.stem)
    assert match is not None
    return match


def _rest(entries: Iterable[Path], used: Sequence[Path]) -> tuple[str, ...]:
    return tuple(
        path.name for path in entries if path not in used and path.stem.casefold() not in PAPERS
    )
