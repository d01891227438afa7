"""Image folders and NPZ archives, as tables with the columns `image` and `label`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.data import images
from edgedistill.data.tables import Table
from edgedistill.errors import DataError, from_os_error

NPZ_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
}


def is_labelled_folder(folder: Path) -> bool:
    """Say whether a folder holds folders of images, one a label."""
    return any(next(_files(label), None) for label in _folders(folder))


def read_folder(folder: Path, *, place: str | None = None) -> Table:
    """Read `<folder>/<label>/*.png` (or another image format), labels and files by name."""
    files, labels = [], []
    for label in _folders(folder):
        for file in _files(label):
            files.append(file)
            labels.append(label.name)
    if not files:
        raise DataError(f"'{folder}' holds no images in folders named by label")
    return Table(place or folder.name, {"image": files, "label": labels}, folder)


def read_flat(folder: Path) -> Table:
    """Read all images of a folder, without labels."""
    files = list(_files(folder))
    if not files:
        raise DataError(f"'{folder}' holds no images")
    return Table(folder.name, {"image": files}, folder)


def _folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in images.SUFFIXES and not path.name.startswith("."):
            yield path


def read_npz(path: Path) -> dict[str, Table]:
    """Read `x` and `y`, or `x_train`, `y_train`, ... of an archive, by split.

    Pickled objects are never loaded. Raises `DataError` naming the archive and the array.
    """
    arrays = _arrays(path)
    found: dict[str, Table] = {}
    for name, array in arrays.items():
        stem, _, said = name.lower().partition("_")
        if stem != "x" or (said and said not in NPZ_SPLITS):
            continue
        split = NPZ_SPLITS[said] if said else "train"
        truth = arrays.get(f"y_{said}" if said else "y", arrays.get(name.replace("x", "y", 1)))
        if split in found:
            raise DataError(f"'{path}' has two arrays for the split '{split}'")
        place = f"{path.name} {name}"
        found[split] = Table(place, _columns(array, truth, place=f"'{path}', array '{name}'"))
    if not found:
        names = ", ".join(sorted(arrays)) or "none"
        raise DataError(f"'{path}' has no array 'x' (or 'x_train', 'x_test'); its arrays: {names}")
    return found


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(f"'{path}' is a single array, not an archive with 'x' and 'y'")
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        reason = str(error)
        if "pickle" in reason:  # numpy's guess of any file that is none of its own
            reason = "it holds pickled objects, which are not loaded"
            if not zipfile.is_zipfile(path):
                reason = "this is no NPZ archive, as numpy.savez(file, x=..., y=...) writes it"
        raise DataError(f"'{path}': {reason}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise DataError(f"'{path}' is no NPZ archive, or cut off or damaged: {error}") from None
    except MemoryError:
        raise DataError(f"'{path}' tells of an array larger than the memory") from None
    except OSError as error:
        raise from_os_error(error, f"reading '{path.name}'") from None


def _columns(array: np.ndarray, truth: np.ndarray | None, *, place: str) -> dict[str, Any]:
    pixels = images.pixels(array, place) if array.ndim > 2 else None
    if pixels is None:
        raise DataError(f"{place}: shape {array.shape}: expected (images, height, width)")
    columns: dict[str, Any] = {"image": list(pixels)}
    if truth is not None:
        truth = truth.reshape(len(truth)) if truth.ndim == 2 and truth.shape[1] == 1 else truth
        if truth.ndim != 1:
            raise DataError(f"{place}: labels of shape {truth.shape}: expected one an image")
        if len(truth) != len(pixels):
            raise DataError(f"{place}: {len(pixels)} images, but {len(truth)} labels")
        columns["label"] = truth.tolist()
    return columns
