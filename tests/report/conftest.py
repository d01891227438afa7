"""An invented build, for the report's tests alone: none of its figures was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgedistill import judge
from edgedistill.judge.confidence import Confidence, Coverage
from edgedistill.judge.evidence import Evaluation, LabelRecall
from edgedistill.records import (
    Artifact,
    Choice,
    DeviceLatency,
    Figures,
    Interval,
    Latency,
    Score,
)
from edgedistill.report import Build, Row, Worth, make

LIMITS = {"max_drop_points": 1.0, "latency_p90_ms": 20.0, "memory_mb": 60.0, "size_mb": 25.0}
NAMES = ("transfer", "insurance change", "what is your name", "<b>tire</b> pressure", "תרגום\u202e")


def evaluation(score: float, drop: float | None, rows: int) -> Evaluation:
    """Invent what one split shows."""
    near = Score(score, score - 0.6, score + 0.6, rows)
    if drop is None:
        at = (Coverage(0.5, 98.1, 97.0), Coverage(0.7, 95.4, 98.0), Coverage(0.9, 90.2, 98.9))
        sure = Confidence(1.1, 0.92, at)
        return Evaluation("accuracy", "points", near, {"accuracy": near}, confidence=sure)
    worst = tuple(LabelRecall(n, 30, 90.0 - 3 * i, 96.7) for i, n in enumerate(NAMES))
    at = (Coverage(0.5, 97.6, 96.5), Coverage(0.7, 93.9, 97.8), Coverage(0.9, 86.0, None))
    return Evaluation(
        "accuracy",
        "points",
        near,
        {"accuracy": near},
        Interval(drop, drop - 0.4, drop + 0.4),
        0.2,
        97.5,
        2.1,
        worst,
        Interval(13.3, 2.0, 25.0),
        (),
        Confidence(1.8, 0.8, at),
    )


def figures(p90: float, size: float, memory: float) -> Figures:
    """Invent what one probe measured."""
    return Figures(
        latency=Latency(0.9 * p90, p90, 0.97 * p90, 1.04 * p90, 1.2 * p90, 3 * p90, 1000, 22, True),
        speedup=Interval(5.2 / p90, 5.0 / p90, 5.5 / p90),
        throughput=1111 / p90,
        device=DeviceLatency(3.1 * p90, 2 * p90, 4.7 * p90, "estimate", "phone"),
        encode_ms={"p50": 0.05, "p90": 0.09},
        load_ms=2 * size,
        memory_mb=memory,
        size_mb=size,
    )


ROWS = (
    # name, role, parent, validation, test, (p90, size, memory)
    ("teacher fp32", "baseline", None, (96.4, None), (96.0, None), (5.2, 91.0, 118.0)),
    ("teacher int8", "teacher_int8", "teacher fp32", (96.3, 0.1), (95.9, 0.1), (1.7, 23.0, 41.0)),
    ("student 2x384 fp32", "student_fp32", None, (95.8, 0.6), (95.4, 0.6), (1.4, 19.0, 44.0)),
    ("control 2x384 int8", "control", None, (94.2, 2.2), (93.9, 2.1), (0.65, 6.1, 19.0)),
    (
        "student 2x384 int8",
        "candidate",
        "student 2x384 fp32",
        (95.7, 0.7),
        (95.3, 0.7),
        (0.65, 6.1, 19.0),
    ),
)


def build_of(**changes) -> Build:
    """Invent the conditions."""
    job = {
        "model": {"path": "my-checkpoint", "finetune": "auto"},
        "data": {"path": "rows", "text": "text", "label": "label"},
        "task": {"name": "text-classification", "metric": "accuracy", "max_length": 32},
        "student": {"layers": [2, 3], "init": "teacher"},
        "run": {"objective": "latency", "seed": 0, "threads": 2, "time_limit": "30m"},
    }
    splits = {
        "train": {"rows": 15000, "labels": 150, "origin": "given"},
        "validation": {"rows": 3000, "labels": 150, "origin": "given"},
        "test": {"rows": 4500, "labels": 150, "origin": "given"},
    }
    made = Build(
        job=job,
        target={"name": "phone", "about": "one core of a mid-range phone", "limits": LIMITS},
        data={"name": "rows", "splits": splits, "warnings": ["3 test rows are also in train"]},
        environment={
            "processor": "an invented processor",
            "flags": ["avx2", "avx512_vnni"],
            "cores": 2,
            "versions": {"onnxruntime": "1.31.0", "torch": "2.13.0"},
        },
        source_model={"name": "my-checkpoint", "hash": "ab" * 32, "size_mb": 45.4},
        seconds={"total": 2210.0, "measure": 21.0},
        version="0.1.0",
        command="edgedistill build --target phone --model my-checkpoint --data rows",
        about={"k3": "2 layers of 6, 5,600 steps of 64", "k5": "dynamic int8, per channel"},
        created="2026-11-21T10:00:00+00:00",
    )
    return replace(made, **changes)


STEPS = (
    ("encode", 9.0),
    ("label", 212.0),
    ("initialize", 1.4),
    ("distill", 1480.0),
    ("export", 6.2),
    ("quantize", 2.1),
    ("evaluate", 14.0),
)


GAIN = Interval(1.4, 0.9, 1.9)


def invent(limits=LIMITS, *, gain: Interval | None = GAIN, **changes) -> dict:
    """Judge the invented figures by the real judge, and make the report."""
    rows, contenders = [], []
    for name, role, parent, val, test, measured in ROWS:
        seen, shown = evaluation(*val, 3000), evaluation(*test, 4500)
        found = figures(*measured)
        held = judge.checks(limits, *judge.figures_of(found, shown), rows=4500)
        shape = {"layers": 2 if "2x" in name else 6, "hidden": 384}
        precision = name.split()[-1]
        rows.append(
            Row(
                name,
                role,
                shape,
                precision,
                "dynamic_int8" if precision == "int8" else "none",
                22_700_000,
                tuple(f"k{i}" for i in range(len(STEPS))) if "2x" in name else ("k0",),
                None,
                seen,
                shown,
                found,
                {"nodes": 100, "operators": {"MatMul": 12}},
                held,
            )
        )
        contenders.append(judge.Contender(name, role, seen, found, parent))
    late = judge.Contender(
        "student 3x384 int8",
        "candidate",
        stopped=("skipped", "the first one that fits ended the search"),
    )
    rows.append(Row(late.name, late.role, {"layers": 3, "hidden": 384}, "int8", "dynamic_int8"))
    choice: Choice = judge.choose([*contenders, late], limits)
    chosen = next((row for row in rows if row.name == choice.chosen), None)
    strict = changes.pop("strict", False)
    steps = [
        Artifact(stage, f"k{i}", None, "", {}, took, stage == "encode")  # type: ignore[arg-type]
        for i, (stage, took) in enumerate(STEPS)
    ]
    target = {"name": "phone", "about": "one core of a mid-range phone", "limits": dict(limits)}
    build = build_of(**{"target": target, "strict": strict, **changes})
    return make(
        build,
        rows,
        choice=choice,
        steps=steps,
        verdict=judge.verdict(chosen and chosen.checks, strict=strict),
        worth=gain and Worth("student 2x384 int8", "control 2x384 int8", gain, gain, 4500),
    )


@pytest.fixture(name="invent")
def inventing():
    """The function that invents a report, for those that want it otherwise."""
    return invent


@pytest.fixture
def invented() -> dict:
    """A report of a build whose student fits closely."""
    return invent()


@pytest.fixture
def nothing_fits() -> dict:
    """A report of a build in which no row meets the limits."""
    return invent({**LIMITS, "size_mb": 5.0, "max_drop_points": 0.3})


@pytest.fixture
def make_report():
    """The inventor itself, for other limits and conditions."""
    return invent
