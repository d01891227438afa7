"""Find a plugin: a file in its folder, named after itself.

Nothing else in the code knows a plugin's name. Python plugins (stages, tasks, families, losses,
schemes) are modules; TOML plugins (recipes, targets, cases) are data. Wherever a name does, a path
to such a file does too, so built-ins and strangers come through the same door; a stranger's
Python runs only when the user allowed it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

from edgedistill.errors import (
    JobError,
    TargetError,
    UserError,
    from_os_error,
    nearest,
)

HOUSE = Path(__file__).parent
SINGULAR = {
    "stages": "stage",
    "tasks": "task",
    "families": "family",
    "losses": "loss",
    "schemes": "quantization scheme",
    "recipes": "recipe",
    "targets": "target",
    "cases": "suite",
}
DATA = {"recipes": "recipes", "targets": "targets", "cases": "benchmarks/cases"}


def folder(kind: str) -> Path:
    """Return the folder that holds the plugins of a kind, in a checkout or in a wheel."""
    if kind not in ("targets", "cases"):
        return HOUSE / DATA.get(kind, kind)
    inside = HOUSE / kind  # in a wheel they lie inside the package, in a checkout beside it
    return inside if inside.is_dir() else HOUSE.parent / DATA[kind]


def names(kind: str) -> list[str]:
    """List the names of a kind's plugins, as users write them."""
    suffix = ".toml" if kind in DATA else ".py"
    found = (path for path in folder(kind).glob(f"*{suffix}") if not path.stem.startswith("_"))
    dash = kind == "tasks"
    return sorted(path.stem.replace("_", "-") if dash else path.stem for path in found)


def find(kind: str, name: str, *, allow_code: bool = False) -> ModuleType:
    """Import the Python plugin of that name, or the file at that path.

    Raises `JobError` with the nearest right name, or where a path is given without `allow_code`.
    """
    if name.endswith(".py"):
        return _stranger(kind, Path(name), allow_code)
    stem = name.replace("-", "_")
    if name.startswith("_") or not (folder(kind) / f"{stem}.py").is_file():
        raise JobError(f"unknown {SINGULAR[kind]} '{name}': {nearest(name, names(kind))}")
    return importlib.import_module(f"edgedistill.{kind}.{stem}")


def find_file(kind: str, name: str) -> Path:
    """Return the path of the TOML plugin of that name, or the file at that path."""
    error: type[UserError] = TargetError if kind == "targets" else JobError
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise error(f"{SINGULAR[kind]} file '{name}' {absent(path)}")
        return path
    path = folder(kind) / f"{name}.toml"
    if name.startswith("_") or "/" in name or not path.is_file():
        raise error(f"unknown {SINGULAR[kind]} '{name}': {nearest(name, names(kind))}")
    return path


def absent(path: Path) -> str:
    """Say why there is no such file: "is a folder", or "does not exist" with what is near."""
    return "is a folder" if path.is_dir() else f"does not exist{near(path)}"


def near(path: Path) -> str:
    """Return the hint for a missing path: what in its folder is called nearly so, if anything."""
    folder = path.parent
    if not folder.is_dir():
        return f": there is no folder '{folder}'"
    close = difflib.get_close_matches(path.name, [each.name for each in folder.iterdir()], n=1)
    return f": did you mean '{path.with_name(close[0])}'?" if close else ""


def read_toml(path: Path, error: type[UserError] = JobError) -> dict[str, Any]:
    """Read a TOML file that a person wrote; what is malformed raises `error` with file and line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = fault.object[: fault.start].count(b"\n") + 1
        raise error(f"'{path}', line {line}: bytes that are not UTF-8 text") from None
    except IsADirectoryError:
        raise error(f"'{path}' is a folder, expected a TOML file") from None
    except OSError as fault:
        raise from_os_error(fault, f"reading '{path}'") from fault
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        what, _, where = str(fault).rpartition(" (at ")
        last = text.count("\n") + 1
        where = where.rstrip(")") if where.startswith("line") else f"line {last}, the end"
        raise error(f"'{path}', {where}: malformed TOML: {what}") from None


def file_of(kind: str, name: str) -> Path:
    """Return the source file of a Python plugin, without importing it."""
    if name.endswith(".py"):
        return Path(name).expanduser()
    return folder(kind) / f"{name.replace('-', '_')}.py"


def _stranger(kind: str, path: Path, allow_code: bool) -> ModuleType:
    given, path = path, path.expanduser().resolve()
    if not path.is_file():
        raise JobError(f"{SINGULAR[kind]} file '{given}' {absent(given.expanduser())}")
    if not allow_code:
        raise JobError(
            f"{SINGULAR[kind]} file '{path.name}' is code that would run here: "
            "read it, then allow it with --allow-code"
        )
    source = path.read_bytes()
    digest = hashlib.sha256(bytes(path) + b"\0" + source).hexdigest()[:16]
    name = f"edgedistill_stranger_{kind}_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    # Compiled from the bytes that keys hash: a stale .pyc beside the file can't slip in.
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException as fault:
        del sys.modules[name]
        line = fault.lineno if isinstance(fault, SyntaxError) else None
        where = f"'{path}', line {line}" if line else f"'{path}'"
        if not isinstance(fault, Exception):
            raise
        raise JobError(f"{where} can't be run: {type(fault).__name__}: {fault}") from fault
    return module
