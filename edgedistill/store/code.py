"""Read which first-party code a file runs, without running it."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from edgedistill.errors import JobError, from_os_error

PACKAGE = Path(__file__).parent.parent
ITSELF = ""  # the label of the file that was asked for


def content(path: Path) -> str:
    """Return the sha256 of a source file's newline-normalised bytes."""
    return hashlib.sha256(_read(path)).hexdigest()


def closure(path: Path) -> dict[str, str]:
    """Return {module: sha256} of a file and all first-party modules that it imports.

    Through any number of steps, imports inside functions and packages above a module included.
    First-party is this package and, for a stranger's file, what lies beside it. Only this
    package's own `__init__` is left out unless it is itself what is imported: it is the public
    door, and leads to everything.
    """
    start = path.expanduser().resolve()
    found: dict[str, str] = {}
    todo: list[tuple[str, Path]] = [(ITSELF, start)]
    while todo:
        name, file = todo.pop()
        if name in found or (name != ITSELF and file == start):
            continue
        source = _read(file)
        found[name] = hashlib.sha256(source).hexdigest()
        module = name or _module(start)
        for wanted in _imports(source, module, file.name == "__init__.py", str(file)):
            todo += _resolve(wanted, start.parent)
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    except FileNotFoundError:
        raise JobError(f"the file '{path}' does not exist") from None
    except OSError as error:
        raise from_os_error(error, f"reading the code of '{path.name}'") from error


def _module(path: Path) -> str:
    """Return the dotted name of a file of this package, of a stranger's file nothing."""
    try:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
    except ValueError:
        return ""
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join((PACKAGE.name, *parts))


@cache
def _imports(source: bytes, module: str, is_package: bool, file: str) -> tuple[str, ...]:
    """Return what a file imports that may be first-party; "a.b:c" for `from a.b import c`."""
    try:
        tree = ast.parse(source, file)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise JobError(f"'{file}', line {line}: not Python: {error.args[0]}") from None
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, is_package)
            names += [f"{base}:{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call):  # importlib.import_module("a.b"), __import__("a.b")
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                names.append(str(first.value))
    tops = {name: name.partition(":")[0].partition(".")[0] or name[1:] for name in names}
    if module.partition(".")[0] == PACKAGE.name:
        return tuple(name for name in tops if tops[name] == PACKAGE.name)
    return tuple(name for name in tops if tops[name] not in sys.stdlib_module_names)


def _base(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Return the module that a `from` import reads, relative ones resolved."""
    if not node.level:
        return node.module or ""
    above = module.split(".") if module else []
    above = above[: len(above) - node.level + is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def _resolve(wanted: str, beside: Path) -> Iterator[tuple[str, Path]]:
    """Yield the first-party modules behind one imported name, with their files."""
    base, _, attribute = wanted.partition(":")
    parts = [part for part in base.split(".") if part] or [attribute]
    ours = parts[0] == PACKAGE.name
    root = PACKAGE.parent if ours else beside
    names = [parts[: depth + 1] for depth in range(len(parts))]  # importing a.b.c runs a.b too
    if attribute and _file(root, [*parts, attribute]):
        names.append([*parts, attribute])
    if ours and len(names) > 1:
        del names[0]
    for name in names:
        file = _file(root, name)
        if file:
            yield ".".join(name), file


def _file(root: Path, parts: list[str]) -> Path | None:
    path = root.joinpath(*parts)
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return file
    return None
