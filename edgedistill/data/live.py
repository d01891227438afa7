"""Live objects and what only `datasets` reads, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.data.tables import Table
from edgedistill.errors import DataError, MissingPackage, first_line


def read(value: Any) -> dict[str, Table]:
    """Read a `DatasetDict`, `Dataset`, pandas frame, or a mapping of such, by the names given."""
    if _is_frame(value) or _is_dataset(value):
        return {"train": _table(value, "train")}
    if isinstance(value, Mapping) and value:
        return {str(name): _table(part, str(name)) for name, part in value.items()}
    raise DataError(
        f"rows of type {type(value).__name__} can't be read: expected a path, a hub id, "
        "a datasets.DatasetDict or a dict of pandas frames by split"
    )


def read_saved(folder: Path) -> dict[str, Table]:
    """Read a folder written by `datasets`' `save_to_disk`."""
    try:
        import datasets
    except ImportError:
        raise MissingPackage("datasets", f"reading '{folder.name}'") from None
    try:
        return read(datasets.load_from_disk(str(folder)))
    except DataError:
        raise
    except Exception as error:  # datasets and Arrow raise many kinds on damaged files
        reason = first_line(error)
        raise DataError(f"'{folder}' can't be read by datasets: {reason}") from None


def is_saved(folder: Path) -> bool:
    """Say whether a folder was written by `datasets`' `save_to_disk`."""
    names = ("dataset_dict.json", "state.json")
    return any((folder / name).is_file() for name in names)


def read_hub(name: str) -> dict[str, Table]:
    """Fetch a data set from the hub, at the commit that stands there now."""
    try:
        import datasets
        import huggingface_hub
    except ImportError as error:
        raise MissingPackage(str(error.name), f"fetching '{name}' from the hub") from None
    try:
        commit = huggingface_hub.HfApi().dataset_info(name).sha
        return read(datasets.load_dataset(name, revision=commit))
    except DataError:
        raise
    except Exception as error:  # network, permission, format: the libraries raise many kinds
        reason = first_line(error)
        raise DataError(
            f"'{name}' is no file or folder here, and can't be fetched from the hub: {reason}"
        ) from None


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "to_dict") and hasattr(value, "iloc")


def _is_dataset(value: Any) -> bool:
    return hasattr(value, "features") and hasattr(value, "column_names")


def _table(part: Any, name: str) -> Table:
    if _is_frame(part):
        return Table(name, {str(column): _cells(part[column]) for column in part.columns})
    if _is_dataset(part):
        return _of_dataset(part, name)
    raise DataError(
        f"the split '{name}' is a {type(part).__name__}: expected a pandas frame or a Dataset"
    )


def _cells(column: Any) -> list[Any]:
    """Return a frame's column with None for whatever pandas calls missing (NaN, NA, NaT)."""
    return column.astype(object).where(column.notna(), None).tolist()


def _of_dataset(part: Any, name: str) -> Table:
    import datasets

    columns, names = {}, {}
    lists = getattr(datasets, "List", None) or datasets.Sequence  # List came with 4.0
    part = part.with_format(None)
    for column, feature in part.features.items():
        if isinstance(feature, datasets.Image):  # as bytes: decoding is ours
            part = part.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.ClassLabel):
            names[column] = feature.names
        elif not isinstance(feature, (datasets.Value, lists, list, dict)):
            continue  # audio, video, arrays of arrays: no task reads them
        columns[column] = list(part[column])
    return Table(name, columns, None, names)
