"""Sessions of onnxruntime: the one place that turns a session mapping into options.

A session mapping is plain JSON: threads, spinning, arena, prepacking, optimization and config
(further keys of onnxruntime's own). The runtime that scores must be the runtime that ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgedistill.errors import JobError, ModelError, first_line, nearest

DEFAULT: Mapping[str, Any] = {
    "threads": 1,
    "spinning": False,
    "arena": True,
    "prepacking": True,
    "optimization": "all",
    "config": {},
}
LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def options(session: Mapping[str, Any]) -> Any:
    """Return the `onnxruntime.SessionOptions` of a session mapping; absent keys are `DEFAULT`'s.

    Raises `JobError` for an unknown key or optimization level.
    """
    import onnxruntime

    for name in session:
        if name not in DEFAULT:
            raise JobError(f"session: unknown setting '{name}': {nearest(name, DEFAULT)}")
    told = {**DEFAULT, **session}
    if told["optimization"] not in LEVELS:
        hint = nearest(told["optimization"], LEVELS)
        raise JobError(f"session.optimization: '{told['optimization']}' is no level: {hint}")
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 3
    made.intra_op_num_threads = int(told["threads"])
    made.inter_op_num_threads = 1
    made.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    made.enable_cpu_mem_arena = bool(told["arena"])
    made.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, LEVELS[told["optimization"]]
    )
    entries = {
        "session.intra_op.allow_spinning": "1" if told["spinning"] else "0",
        "session.disable_prepacking": "0" if told["prepacking"] else "1",
        **told["config"],
    }
    for name, value in sorted(entries.items()):
        made.add_session_config_entry(name, str(value))
    return made


def start(
    model: Path | bytes,
    session: Mapping[str, Any] | None = None,
    *,
    optimized: Path | None = None,
) -> Any:
    """Start an `onnxruntime.InferenceSession` on the CPU for a file or serialized graph.

    `optimized` is where to write the graph that the session made of it. Raises `ModelError` with
    onnxruntime's own first line where the graph can't be loaded.
    """
    import onnxruntime

    name = model.name if isinstance(model, Path) else "the graph"
    told = options(session or DEFAULT)
    if optimized is not None:
        told.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            told,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # onnxruntime's exceptions share no class but this one
        first = first_line(error)
        raise ModelError(f"{name} can't be loaded by onnxruntime: {first}") from error


def logits(running: Any, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """Run one batch; returns the first output as float32. Inputs that the graph lacks are left out.

    An exporter drops inputs that the model never reads, so a feed may hold more than the graph.
    """
    names = {each.name for each in running.get_inputs()}
    outputs: Sequence[Any] = running.run(None, {k: v for k, v in feed.items() if k in names})
    return np.asarray(outputs[0], dtype=np.float32)


class Fixed(NamedTuple):
    """The batch and length that a graph's inputs are fixed to; 0 where any will do."""

    batch: int
    length: int


def fixed(running: Any) -> Fixed:
    """Read from a session's inputs which batch and length they are fixed to."""
    return fixed_by([each.shape for each in running.get_inputs()])


def fixed_by(shapes: Sequence[Sequence[Any]]) -> Fixed:
    """Read from shapes (numbers and names) which batch and length they are fixed to."""
    batch = max((shape[0] for shape in shapes if isinstance(shape[0], int)), default=0)
    length = max(
        (shape[1] for shape in shapes if len(shape) == 2 and isinstance(shape[1], int)), default=0
    )
    return Fixed(batch, length)
