"""Describe a bundle or a graph; a bundle's report pages are made again, beside it."""

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
                    yield f"  {bundle.printable(key):<28}{_short(each)}"
            else:
                yield f"{name:<14}{_short(value)}"
        if self.pages:
            yield f"pages         {bundle.printable(self.pages, 1000)}"


def inspect(path: Path) -> Inspected:
    """Describe a bundle's folder or an .onnx file.

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
    if not path.exists():
        raise UsageError(
            f"'{bundle.printable(path)}' does not exist: expected a bundle or an .onnx"
        )
    raise UsageError(f"'{bundle.printable(path)}' is neither a bundle's folder nor an .onnx file")


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
    pages, warnings = _pages(path, manifest)
    return Inspected(record, pages, warnings)


def _pages(path: Path, manifest: Mapping[str, Any]) -> tuple[Path | None, tuple[str, ...]]:
    """Write report.md and report.html again from report.json, in a folder beside the bundle.

    Returns that folder, or None and why nothing was written: the report may be absent, and the
    bundle may lie where nobody may write. Raises `BundleError` for a report that is none.
    """
    if REPORT not in manifest["files"]:
        return None, ()
    folder = path.resolve().parent / f"{path.resolve().name}.inspect"
    pages = _drawn(path, manifest)
    try:
        folder.mkdir(exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        return None, (f"no pages: {from_os_error(error, 'writing them')}",)
    return folder, ()


def _drawn(path: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the pages of a bundle's report. Raises `BundleError` where it is no report."""
    manifests.check_files(path, manifest, [REPORT])
    report = untrusted.read_json(path, REPORT, most=REPORT_BYTES)
    place = bundle.printable(path / REPORT)
    for where, what in schema.problems(report, reports.schema()):
        at = f" at {bundle.printable(where)}" if where else ""
        raise BundleError(f"'{place}' is no report of ours{at}: {bundle.printable(what)}")
    try:
        return {"report.md": reports.markdown(report), "report.html": reports.html(report)}
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        why = bundle.printable(f"{type(error).__name__}: {error}")
        raise BundleError(f"'{place}' is no report of ours: {why}") from None


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return bundle.printable(text, 160)
