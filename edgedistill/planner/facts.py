"""What is known before anything runs: the sources, the host, the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgedistill import plugins
from edgedistill.records import Given, Shape, Source, Step
from edgedistill.train.recipe import Recipe


@dataclass(frozen=True)
class Host:
    """What was decided on this host and can change a result."""

    threads: int
    dtype: str
    device: str
    instructions: str  # the int8 instruction set, as a processor's name
    opset: int
    ir: int
    processes: int = 1  # that train together
    gpu_dtype: str = "float32"  # of what runs on another device than the processor


@dataclass(frozen=True)
class Model:
    """A model that the user brought: the teacher, or a student from another checkpoint."""

    source: Source
    encoder_source: Source | Step  # a step, where a student has an encoder of its own making
    encoder: Mapping[str, Any]  # what opens the encoder: {"max_length": 64, ...}
    config: Mapping[str, Any]
    family: str
    shape: Shape
    has_head: bool
    labels: tuple[str, ...] = ()  # in the order of its outputs; none: in that of the job's
    given: Given | None = None  # an .onnx in a model's place: it has no family, and no shape

    @property
    def convolutional(self) -> bool:
        """Whether its products are convolutions: decides the int8 schemes."""
        if self.given is not None:
            return self.given.convolutional
        return bool(plugins.find("families", self.family).CONVOLUTIONAL)


@dataclass(frozen=True)
class Facts:
    """What is known of the sources before anything runs."""

    task: str
    metric: str
    labels: tuple[str, ...]
    rows: Mapping[str, int]  # by split
    splits: Mapping[str, Source]
    teacher: Model
    host: Host
    recipe: Recipe
    further: tuple[Model, ...] = ()  # teachers beside the first
    students: Mapping[str, Model] = field(default_factory=dict)  # by the path that named them
    starter: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings by stage

    def split_of(self, encoded: Step) -> str:
        """Name the split whose rows a step encodes."""
        return next(n for n, source in self.splits.items() if source == encoded.inputs["rows.0"])
