"""Initialize: a student from the teacher's own layers, before any training.

Or from another checkpoint, or from a config alone; the head is made new unless its labels are ours:
then its outputs are put in our order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import plugins as doors
from edgedistill.errors import JobError, ModelError
from edgedistill.records import Progress
from edgedistill.settings import setting

INPUTS = {"teacher": "model", "encoder": "encoder"}  # an encoder where it is not the teacher's
OUTPUT = "model"
PACKAGES = ("torch", "transformers", "safetensors")


@dataclass(frozen=True)
class Settings:
    """The settings of this stage."""

    task: str = setting("text-classification", "the task, by name")
    family: str = setting("encoder", "the student's family, by name")
    origin: str = setting("", "the teacher's family, where it is another")
    shape: Mapping[str, int] = setting({}, "the student's dimensions, as the family names them")
    layers: tuple[int, ...] = setting((), "the teacher's layers that start it; none: the family's")
    init: str = setting(
        "teacher", "weights from the teacher's layers, or none", choices=("teacher", "random")
    )
    width: str = setting(
        "family",
        "a narrower student's dimensions: the teacher's weightiest (select), its principal "
        "components (pca), or as its family does best",
        choices=("family", "select", "pca"),
    )
    labels: tuple[str, ...] = setting((), "the labels, in the order of the model's outputs")
    seed: int = setting(0, "of weights that are not the teacher's", low=0)


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    families = dict.fromkeys([settings["family"], settings["origin"] or settings["family"]])
    return [("tasks", settings["task"]), *(("families", name) for name in families)]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Write the student.

    Facts: shape, layers, parameters, which were copied and fresh, head ("kept" or "new").
    Raises `ModelError` for a config without weights, unless the start is to be random.
    """
    import numpy as np
    import torch

    from edgedistill.train import weights

    task: Any = doors.find("tasks", settings.task, allow_code=True)
    family: Any = doors.find("families", settings.family, allow_code=True)
    folder = inputs["teacher.0"]
    theirs: Any = doors.find("families", settings.origin or settings.family, allow_code=True)
    teacher_shape = theirs.shape(weights.config_of(folder))
    shape = {**(teacher_shape if theirs is family else {}), **settings.shape}
    layers = settings.layers or tuple(family.layers(shape, teacher_shape))
    folded = inputs.get("encoder.0")
    if settings.init != "random" and not weights.has_weights(folder):
        raise ModelError(
            "a config without weights can only start from random ones: --set student.init=random"
        )
    torch.manual_seed(settings.seed)  # a head that the checkpoint lacks
    named = weights.labelled(settings.labels) if settings.labels else {}
    teacher = weights.load(folder, task, **named)
    was = weights.labels_of(folder)
    kept = not settings.labels or sorted(was or ()) == sorted(settings.labels)
    if kept and was and settings.labels and was != list(settings.labels):
        weights.order_head(teacher, was, settings.labels)
    if not kept:
        weights.new_head(teacher, seed=settings.seed)
    whole = weights.parameters(teacher)
    if folded is not None:
        theirs.fold(teacher, np.load(folded / "kept.npy").tolist())
    _same_vocabulary(shape, theirs.shape(teacher.config.to_dict()))
    how: dict[str, Any] = {"layers": layers, "init": settings.init, "seed": settings.seed}
    if hasattr(family, "WIDTHS"):
        how["width"] = settings.width
    elif settings.width != "family":
        raise JobError(f"initialize.width: {settings.family} students have one way alone: 'family'")
    student, told = family.shrink(teacher, shape, **how)
    weights.save(student, out, beside=folder, labels=settings.labels or None)
    if folded is not None:
        task.folded_files(out, folded, np.load(folded / "kept.npy").tolist())
    if settings.init == "random":
        progress(
            {
                "kind": "note",
                "text": "the student starts from random weights: it needs "
                "far more rows and steps than one from the teacher's own layers",
            }
        )
    return {
        "shape": dict(shape),
        "name": family.name(shape, teacher_shape),
        "layers": list(layers),
        "init": settings.init,
        "head": "kept" if kept and theirs is family and settings.init == "teacher" else "new",
        "parameters": weights.parameters(student),
        "teacher_parameters": whole,
        **told,
    }


def _same_vocabulary(shape: Mapping[str, int], found: Mapping[str, int]) -> None:
    wanted, there = shape.get("vocabulary"), found.get("vocabulary")
    if wanted != there:
        raise ModelError(f"a vocabulary of {wanted} is wanted, and the encoder has {there} pieces")
