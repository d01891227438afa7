"""What goes into a bundle, as the driver hands it over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Graph:
    """The chosen graph: a folder with model.onnx and its encoder's file."""

    folder: Path
    precision: str  # "fp32" | "int8"
    onnxruntime: str  # the oldest that it must load in: "1.17"
    processors: tuple[str, ...] = ()  # instruction sets on which its arithmetic is exact
    batch: int = 1  # rows a run, as it was evaluated: an int8 answer depends on its batch-mates
    fixed: Path | None = None  # an .onnx of one shape, for runtimes that want it
    ort: bool = False  # onnxruntime's own format beside, for apps that map it


@dataclass(frozen=True)
class Decide:
    """How outputs become an answer."""

    temperature: float = 1.0  # fitted on validation; never distillation's
    threshold: float | None = None
    softmax: bool = True


@dataclass(frozen=True)
class Evidence:
    """The test rows behind the score, in the order of the rows; never shipped.

    `digests` are `evidence.digest(example)`; `truth` indexes the labels; outputs are
    (rows, labels) float32.
    """

    digests: Sequence[str]
    truth: np.ndarray
    baseline: np.ndarray
    chosen: np.ndarray


@dataclass(frozen=True)
class Proof:
    """What was measured and judged of the chosen row."""

    figures: Mapping[str, Any]  # the chosen row's figures, plain JSON
    checks: Sequence[Mapping[str, Any]]
    report: Mapping[str, Any]  # report.json
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Contents:
    """All that a bundle is made of."""

    task: str
    labels: tuple[str, ...]  # in output order
    graph: Graph
    encoder: Mapping[str, Any]  # the settings with which the task opens the encoder
    target: str
    limits: Mapping[str, float]
    session: Mapping[str, Any]
    proof: Proof
    decide: Decide = field(default_factory=Decide)
    provenance: Mapping[str, Any] = field(default_factory=dict)  # teacher, data, plan, seed, ...
    licence: str | None = None  # the model's, when known
