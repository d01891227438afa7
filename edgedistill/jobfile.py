"""Read a job file: its tables, with places read from where the file lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgedistill import plugins
from edgedistill.errors import JobError, from_os_error


def read(path: Path) -> dict[str, Any]:
    """Read a job file's tables (TOML, or the JSON that `plan --json` prints).

    Paths in TOML are read from where the file lies. Raises `JobError` with file and line.
    """
    if not path.is_file():
        place = ": rows go to --data, a model goes to --model" if path.is_dir() else ""
        raise JobError(f"job file '{path}' {plugins.absent(path)}{place}")
    if path.suffix == ".json":
        try:
            tables = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise JobError(f"{path.name}: {error}") from None
        except OSError as error:
            raise from_os_error(error, "reading the job file") from None
    else:
        tables = plugins.read_toml(path, JobError)
    if isinstance(tables, dict) and isinstance(tables.get("job"), dict):
        tables = tables["job"]  # the document that `plan --json` prints
    if not isinstance(tables, dict):
        raise JobError(f"{path.name}: expected tables such as [model] and [data]")
    return tables if path.suffix == ".json" else _placed(tables, path.parent)


PATHS = {  # what a job file may name by its place: section, names, and how a file's name must end
    "model": (("path", "teachers", "encoder"), ""),
    "data": (("path", "train", "validation", "test", "unlabelled", "own"), ""),
    "task": (("name",), ".py"),
    "distill": (("recipe",), ".toml"),
    "quantize": (("schemes",), ".py"),
    "run": (("out", "store"), ""),
}


def _placed(tables: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return the tables of a job file, their paths read from where the file lies."""
    tables = dict(tables)
    if "target" in tables:
        tables["target"] = _beside(base, tables["target"], ".toml")
    for section, (keys, end) in PATHS.items():
        table = tables.get(section)
        if isinstance(table, dict):
            placed = {key: _beside(base, table[key], end) for key in keys if key in table}
            tables[section] = {**table, **placed}
    student = tables.get("student")
    if isinstance(student, dict) and "from" in student:
        told = student["from"] if isinstance(student["from"], list) else [student["from"]]
        placed = {"from": [each if each == "teacher" else _beside(base, each) for each in told]}
        tables["student"] = {**student, **placed}
    losses = isinstance(tables.get("distill"), dict) and tables["distill"].get("losses")
    if isinstance(losses, dict):
        placed = {_beside(base, name, ".py"): told for name, told in losses.items()}
        tables["distill"] = {**tables["distill"], "losses": placed}
    return tables


def _beside(base: Path, value: Any, end: str = "") -> Any:
    """Read a path of a job file from where the file lies; leave a name or a hub id as it is."""
    if isinstance(value, list):
        return [_beside(base, each, end) for each in value]
    if not isinstance(value, str) or not value.endswith(end):
        return value
    if value.startswith("~") or Path(value).is_absolute():
        return value
    near = base / value
    return str(near) if near.exists() or value.startswith(".") else value
