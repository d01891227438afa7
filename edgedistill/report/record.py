"""Make the report: the record of the contract, as one JSON document.

`make` takes three things: a `Build` (the conditions), the `Row`s (what was measured and judged),
and the `Choice`. Everything a face of the report shows is in what it returns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgedistill.errors import from_os_error
from edgedistill.judge.evidence import Evaluation, can_show
from edgedistill.judge.unseen import UnseenWords
from edgedistill.records import (
    Artifact,
    Check,
    Choice,
    Figures,
    Interval,
    OnProcessor,
    Score,
    Shape,
)
from edgedistill.report.html import html
from edgedistill.report.markdown import markdown

FORMAT = 1
SCHEMA = Path(__file__).with_name("report.schema.json")
_ORDER = (
    "baseline", "teacher_int8", "previous", "peer", "assistant", "control", "student_fp32",
    "candidate",
)  # fmt: skip
_NEVER_RAN = ("dropped", "skipped", "failed")  # unless it has figures: pruned in vain


@dataclass(frozen=True)
class Row:
    """One row of the report, before its state is known."""

    name: str
    role: str  # baseline | teacher_int8 | student_fp32 | control | candidate | previous | peer
    shape: Shape | None
    precision: str | None = None  # "fp32" | "int8"
    scheme: str | None = None
    parameters: int | None = None
    steps: tuple[str, ...] = ()  # keys
    train: Score | None = None
    validation: Evaluation | None = None
    test: Evaluation | None = None
    figures: Figures = Figures()
    graph: Mapping[str, Any] | None = None  # {"nodes", "operators", "fusions"}
    checks: tuple[Check, ...] = ()
    unseen: UnseenWords | None = None  # test rows with words that no training row holds
    own: Mapping[str, Evaluation] = field(default_factory=dict)  # validation and test of own rows


@dataclass(frozen=True)
class Build:
    """The conditions of a build; plain JSON values, without absolute paths or user names."""

    job: Mapping[str, Any]  # with everything inferred filled in, as a job file has it
    target: Mapping[str, Any]  # {"name", "about", "limits": {...}, "device": {...}, ...}
    data: Mapping[str, Any]  # {"name", "splits": {name: {rows, labels, origin}}, "warnings"}
    environment: Mapping[str, Any]  # {"processor", "flags", "cores", "versions"}
    source_model: Mapping[str, Any]  # {"name", "hash", "size_mb"}
    seconds: Mapping[str, float]  # {"total": ..., "measure": ...}
    version: str  # of edgedistill
    command: str | None = None  # what repeats the build
    about: Mapping[str, str] = field(default_factory=dict)  # step key -> what it did, one line
    warnings: tuple[str, ...] = ()
    teachers: Sequence[Mapping[str, Any]] = ()  # {"name", "hash", "weight", "validation": Score}
    strict: bool = False
    created: str | None = None  # ISO 8601, UTC; now when absent


@dataclass(frozen=True)
class Worth:
    """What the teacher was worth: a student's points above its control's, on the same rows."""

    row: str  # the student's name
    control: str  # the same shape, steps, export and scheme, trained on labels alone
    validation: Interval
    test: Interval
    rows: int  # of test


def make(
    build: Build,
    rows: Sequence[Row],
    *,
    choice: Choice,
    verdict: str,
    steps: Sequence[Artifact] = (),
    worth: Worth | None = None,
    processors: Sequence[OnProcessor] = (),
) -> dict[str, Any]:
    """Return the report of a build as plain JSON values; figures that are absent are null.

    `verdict` is `judge.verdict` of the chosen row's checks on test, and "misses" where none was
    chosen; `worth` is None where no student has its control beside it; `processors` are
    those that the target names, and what the chosen file answers there.
    """
    baseline = next((row for row in rows if row.role == "baseline"), None)
    size = baseline.figures.size_mb if baseline else None
    given = build.source_model.get("size_mb")
    made = [_row(row, choice, base_mb=size, given_mb=given) for row in rows]
    made.sort(key=lambda row: (_never_ran(row), _ORDER.index(row["role"])))
    shown = next((row for row in rows if row.name == (choice.chosen or choice.best_miss)), None)
    users = {
        key: [row.name for row in rows if key in row.steps] for row in rows for key in row.steps
    }
    report = {
        "format": FORMAT,
        "edgedistill": build.version,
        "created": build.created or datetime.now(UTC).isoformat(timespec="seconds"),
        "job": build.job,
        "target": build.target,
        "data": {"splits": {}, "warnings": [], **build.data},
        "environment": {
            "processor": None,
            "flags": [],
            "cores": None,
            "versions": {},
            **build.environment,
        },
        "source_model": {"name": None, "hash": None, "size_mb": None, **build.source_model},
        "teachers": list(build.teachers),
        "verdict": verdict,
        "strict": build.strict,
        "chosen": choice.chosen,
        "safer": choice.safer,
        "best_miss": choice.best_miss,
        "reason": choice.reason,
        "can_show": _can_show(build, shown),
        "teacher_worth": worth and {**asdict(worth), **_ends(worth)},
        "processors": list(processors),
        "rows": made,
        "steps": [
            {
                "stage": step.stage,
                "key": step.key,
                "seconds": step.seconds,
                "cached": step.cached,
                "about": _about(build, step),
                "rows": users.get(step.key, []),
            }
            for step in steps
        ],
        "seconds": {"total": None, **build.seconds},
        "command": build.command,
        "warnings": list(build.warnings),
    }
    return _plain(report)


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.json, report.md and report.html into a folder that exists."""
    try:
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
        (folder / "report.md").write_text(markdown(report), encoding="utf-8")
        (folder / "report.html").write_text(html(report), encoding="utf-8")
    except OSError as error:
        raise from_os_error(error, "writing the report") from error


def schema() -> dict[str, Any]:
    """Return the JSON schema of report.json."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def _never_ran(row: Mapping[str, Any]) -> bool:
    return row["state"] in _NEVER_RAN and row["latency_ms"] is None


def _row(
    row: Row, choice: Choice, *, base_mb: float | None, given_mb: float | None
) -> dict[str, Any]:
    state, reason = choice.states.get(row.name, ("measured", ""))
    figures, test, validation = row.figures, row.test, row.validation
    seen = test or validation
    drops = {"validation": _drop(validation), "test": _drop(test)}
    return {
        "name": row.name,
        "role": row.role,
        "shape": row.shape,
        "parameters": row.parameters,
        "precision": row.precision,
        "scheme": row.scheme,
        "steps": row.steps,
        "score": {
            "metric": seen.metric if seen else None,
            "unit": seen.unit if seen else None,
            "train": row.train,
            "validation": validation.score if validation else None,
            "test": test.score if test else None,
        },
        "scores": _scores(row),
        "drop_points": drops,
        "agreement": test.agreement if test else None,
        "unseen_words": _unseen(row.unseen),
        "worst_labels": test.worst_labels if test else None,
        "confidence": test.confidence if test else None,
        "latency_ms": figures.latency,
        "speedup": _interval(figures.speedup),
        "throughput": figures.throughput,
        "device": figures.device,
        "encode_ms": figures.encode_ms,
        "load_ms": figures.load_ms,
        "memory_mb": figures.memory_mb,
        "size_mb": figures.size_mb,
        "size_ratio": {
            "baseline": _ratio(base_mb, figures.size_mb),
            "source_model": _ratio(given_mb, figures.size_mb),
        },
        "graph": row.graph and {"nodes": None, "operators": None, "fusions": None, **row.graph},
        "checks": row.checks,
        "state": state,
        "reason": reason or figures.failed or None,
    }


def _scores(row: Row) -> dict[str, Any]:
    names = sorted(
        {*(row.validation.scores if row.validation else ()), *(row.test.scores if row.test else ())}
    )
    made: dict[str, dict[str, Any]] = {
        name: {
            "train": None,
            "validation": row.validation.scores.get(name) if row.validation else None,
            "test": row.test.scores.get(name) if row.test else None,
        }
        for name in names
    }
    if row.own:
        first = next(iter(row.own.values()))
        splits = {name: row.own.get(name) for name in ("validation", "test")}
        made["own"] = {
            "metric": first.metric,
            "unit": first.unit,
            "train": None,
            **{name: seen and seen.score for name, seen in splits.items()},
            "drop_points": {name: _drop(seen) for name, seen in splits.items()},
        }
    return made


def _drop(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return _interval(evaluation.drop) if evaluation else None


def _unseen(found: UnseenWords | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "rows": found.rows,
        "accuracy": found.accuracy,
        "baseline_accuracy": found.baseline_accuracy,
        "drop_points": _interval(found.drop),
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval._asdict()


def _about(build: Build, step: Artifact) -> str | None:
    """Say what a step did; where its facts hold a sentence of their own, that."""
    about, said = build.about.get(step.key), step.facts.get("said")
    return f"{about}; {said}" if about and said else said or about


def _ends(worth: Worth) -> dict[str, Any]:
    return {"validation": _interval(worth.validation), "test": _interval(worth.test)}


def _ratio(whole: float | None, part: float | None) -> float | None:
    return whole / part if whole and part else None


def _can_show(build: Build, shown: Row | None) -> str | None:
    test = build.data.get("splits", {}).get("test", {}).get("rows")
    if shown and shown.test:
        return can_show(shown.test.score.rows, shown.test.disagreement)
    return can_show(test) if test else None


def _plain(value: Any) -> Any:
    """Turn records into JSON values; a number that is none becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Path):
        return value.name
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
