"""Describe a bundle, a report or a graph; the report's pages are made again, beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import bundle
from edgedistill import report as reports
from edgedistill.bundle import manifest as manifests
from edgedistill.bundle import schema, untrusted
from edgedistill.errors import BundleError, MissingPackage, ModelError, UsageError, from_os_error
from edgedistill.report import words

REPORT = "report.json"
REPORT_BYTES = 20_000_000


@dataclass(frozen=True)
class Inspected:
    """What was found, and where pages were written."""

    record: Mapping[str, Any]
    pages: Path | None = None
    warnings: tuple[str, ...] = ()  # why no pages were written

    def lines(self) -> Iterator[str]:
        """Tell it to people, a line a fact."""
        for name, value in self.record.items():
            if isinstance(value, Mapping):
                yield f"{name}"
                for key, each in value.items():
                    yield f"  {bundle.printable(key):<27} {_short(each)}"
            else:
                yield f"{name:<14}{_short(value)}"
        if self.pages:
            yield f"pages         {bundle.printable(self.pages, 1000)}"


def inspect(path: Path) -> Inspected:
    """Describe a bundle's folder, the report of a build without one, or an .onnx file.

    Raises `UsageError`, `BundleError`, `ModelError`.
    """
    if path.is_dir():
        return _bundle(path)
    if path.suffix == ".onnx" and path.is_file():
        try:
            from edgedistill.graph import inspect as graphs

            return Inspected({"file": path.name, **graphs.describe(path)})
        except ImportError:
            raise MissingPackage("onnx", "inspecting a graph") from None
        except ModelError as error:  # it quotes names out of the file
            raise ModelError(bundle.printable(error, 500)) from None
    if path.name == REPORT and (path.parent / "manifest.json").is_file():
        return _bundle(path.parent)  # pages beside it would lie in the bundle
    if path.name.endswith(REPORT) and path.is_file():
        return _report(path)
    wanted = "a bundle's folder, an .onnx or a report.json"
    if not path.exists():
        raise UsageError(f"'{bundle.printable(path)}' does not exist: expected {wanted}")
    raise UsageError(f"'{bundle.printable(path)}' is none of: {wanted}")


def _bundle(path: Path) -> Inspected:
    opened = bundle.load(path)
    manifest = opened.manifest
    record = {
        "bundle": path.resolve().name,
        "task": manifest["task"],
        "target": manifest["target"],
        "model": manifest["model"],
        "encode": manifest["encode"],
        "decide": manifest["decide"],
        "session": manifest["session"],
        "labels": f"{len(opened.labels)}",
        "checks": {
            each["limit"]: f"{each['state']} ({_short(each['value'])} of {_short(each['allowed'])})"
            for each in manifest.get("checks", [])
        },
        "files": {name: f"{each['bytes']:,} bytes" for name, each in manifest["files"].items()},
    }
    if REPORT not in manifest["files"]:
        return Inspected(record)
    manifests.check_files(path, manifest, [REPORT])
    pages, warnings = _pages(path, _drawn(_read(path / REPORT), path / REPORT))
    return Inspected(record, pages, warnings)


def _report(path: Path) -> Inspected:
    """Describe the report of a build that left no bundle: what it came to, row by row."""
    report = _read(path)
    drawn = _drawn(report, path)
    record = {
        "report": path.name,
        "verdict": words.headline(report),
        "target": report["target"],
        "created": report["created"],
        "rows": {
            row["name"]: f"{row['state']}: {row['reason']}" if row["reason"] else row["state"]
            for row in report["rows"]
        },
        "command": report["command"],
    }
    pages, warnings = _pages(path.with_suffix(""), drawn)
    return Inspected(record, pages, warnings)


def _pages(path: Path, pages: Mapping[str, str]) -> tuple[Path | None, tuple[str, ...]]:
    """Write the pages in a folder beside a bundle or a report.

    Returns that folder, or None and why nothing was written: it may lie where nobody may write.
    """
    folder = path.resolve().parent / f"{path.resolve().name}.inspect"
    try:
        folder.mkdir(exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        return None, (f"no pages: {from_os_error(error, 'writing them')}",)
    return folder, ()


def _read(path: Path) -> dict[str, Any]:
    """Read a report that anyone may have written. Raises `BundleError` where it is none."""
    report = untrusted.read_json(path.parent, path.name, most=REPORT_BYTES)
    for where, what in schema.problems(report, reports.schema()):
        at = f" at {bundle.printable(where)}" if where else ""
        place = bundle.printable(path)
        raise BundleError(f"'{place}' is no report of ours{at}: {bundle.printable(what)}")
    return report


def _drawn(report: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Return the pages of a report. Raises `BundleError` where it is none."""
    try:
        return {"report.md": reports.markdown(report), "report.html": reports.html(report)}
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        why = bundle.printable(f"{type(error).__name__}: {error}")
        raise BundleError(f"'{bundle.printable(path)}' is no report of ours: {why}") from None


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return bundle.printable(text, 160)
