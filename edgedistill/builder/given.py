"""An .onnx in a model's place: what a job may ask of it, and what people are told of it."""

from __future__ import annotations

from collections.abc import Iterator

from edgedistill.data import graph_files
from edgedistill.errors import JobError
from edgedistill.job import Job
from edgedistill.records import Given

TRAINS = (
    "there is nothing to train from a finished graph: give the checkpoint that it was exported from"
)
STEPS = ("adopt", "encode", "evaluate", "quantize")  # that a plan without training has


def refuse(job: Job) -> None:
    """Refuse what makes no sense with the model that the job names. Raises `JobError`."""
    model = job.model
    if not graph_files.is_graph(model.path):
        for name in ("encoder", "inputs"):
            if getattr(model, name):
                raise JobError(f"model.{name} is for an .onnx file as --model")
        return
    asked = {
        "--student": job.student.named() or job.student.assistant,
        "--recipe": job.recipe,
        "--prune": job.prune.kind != "none",
        "model.finetune=always": model.finetune == "always",
        "model.teachers": model.teachers,
        "model.revision": model.revision,
        **{f"{name}.{next(iter(told))}": True for name, told in job.stages.items()
           if name not in STEPS},
    }  # fmt: skip
    for name, wish in asked.items():
        if wish:
            raise JobError(f"{name} with an .onnx as --model: {TRAINS}, or leave {name} out")


def lines(name: str, given: Given, parameters: int, dtype: str) -> Iterator[tuple[str, str]]:
    """Yield what is told first of an .onnx: headings and texts."""
    nodes = sum(given.operators.values())
    fed = ", ".join(
        ours if ours == theirs else f"{theirs} ({ours})" for ours, theirs in given.inputs.items()
    )
    yield "model", f"{name} · {nodes:,} nodes · {parameters / 1e6:.1f} M · {dtype}"
    yield "", f"takes {fed}; answers by '{given.output}'; nothing is trained"
    if given.precision != "fp32":
        yield "", f"{WORDS[given.precision]}: it is measured as it is"


WORDS = {"int8": "it is quantized already", "fp16": "its weights are of 16 bits"}
