"""Leave what a build is for: a bundle where something fits, a report in any case."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill import bundle
from edgedistill.builder import figures
from edgedistill.builder.course import Course
from edgedistill.builder.record import Judged
from edgedistill.builder.shortlist import plan_key
from edgedistill.builder.tuning import Tuned
from edgedistill.errors import from_os_error

PROVEN = (
    "score", "drop_points", "latency_ms", "device", "encode_ms", "load_ms", "memory_mb", "size_mb",
)  # fmt: skip


def ship(
    course: Course,
    out: Path,
    *,
    one: Judged,
    report: Mapping[str, Any],
    licence: str | None,
    tuned: Tuned | None = None,
) -> Path:
    """Write the bundle of one row, reloaded and proven on the test rows; returns its folder."""
    before = _other(out, report)
    made = bundle.write(
        out,
        _contents(course, report, one, licence=licence, tuned=tuned),
        prove=lambda loaded: figures.prove(course, one.row, loaded),
    )
    beside(out).unlink(missing_ok=True)
    if before:
        course.note(f"the bundle that lay in '{out}' was of {before}: replaced")
    return made.folder


def _other(out: Path, report: Mapping[str, Any]) -> str | None:
    """Return what the bundle that lies there is of, where it is of another model or other rows."""
    try:
        told = json.loads((out / "manifest.json").read_text("utf-8"))["provenance"]
        name, data = told["teacher"]["name"], told["data"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ours = report["source_model"]["name"], report["data"]["name"]
    return None if (name, data) == ours else bundle.printable(f"'{name}' and the rows '{data}'")


def beside(out: Path) -> Path:
    """Return where the report lies when no bundle was written."""
    return out.parent / f"{out.name}.report.json"


def leave_report(out: Path, report: Mapping[str, Any]) -> Path:
    """Write report.json beside the bundle's place, which stays as it is."""
    path = beside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".json.new")
        fresh.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
        fresh.replace(path)
    except OSError as error:
        raise from_os_error(error, "writing the report") from error
    return path


def earlier(out: Path) -> str | None:
    """Return of which day the bundle is that lies there untouched, if one does."""
    manifest = out / "manifest.json"
    if not manifest.is_file():
        return None
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.stat().st_mtime))


def _contents(
    course: Course,
    report: Mapping[str, Any],
    one: Judged,
    *,
    licence: str | None,
    tuned: Tuned | None,
) -> bundle.Contents:
    differs = {each["name"] for each in report["processors"] if each["state"] == "differs"}
    row, facts, target = one.row, course.facts, course.target
    own = row.test.settings["session"]
    told = next(each for each in report["rows"] if each["name"] == row.name)
    graph = course.artifact(row.graph)
    outputs, truth = figures.outputs_of(course, row, "test")
    theirs, _ = figures.outputs_of(course, course.plan.baseline, "test")
    return bundle.Contents(
        task=facts.task,
        labels=facts.labels,
        graph=bundle.Graph(
            folder=graph.path,
            precision=told["precision"],
            onnxruntime=target.runtime.onnxruntime,
            processors=tuple(
                each
                for each in graph.facts.get("processors", target.processors)
                if each not in differs
            ),
            batch=target.runtime.batch,
            ort=course.job.bundle.ort,
            fixed=course.folder(row.fixed) / "model.onnx" if row.fixed else None,
        ),
        encoder=figures.encoded(row).settings["encoder"],
        target=target.name,
        limits=target.limits,
        session=tuned.session(row.name, own) if tuned else own,
        decide=bundle.Decide(temperature=one.temperature),
        proof=bundle.Proof(
            figures={name: told[name] for name in PROVEN},
            checks=told["checks"],
            report=report,
            evidence=bundle.Evidence(
                digests=figures.digests(course, row),
                truth=truth,
                baseline=theirs,
                chosen=outputs,
            ),
        ),
        provenance={
            "teacher": report["source_model"],
            "data": {name: report["data"][name] for name in ("name", "hash")},
            "plan": plan_key(course),
            "seed": course.job.run.seed,
            "packages": report["environment"].get("versions", {}),
        },
        licence=licence,
    )
