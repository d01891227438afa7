"""Float16 weights: half the download, the same arithmetic. Tried only when it is named.

Weights are stored as float16 and cast back: matrices once, when the session folds constants at
load; rows of an embedding table after they were looked up. What runs is float32 on every processor,
so it is no faster than the float graph (float16 arithmetic on a CPU mostly is slower, where it
exists), takes as much memory at work, and rounds each weight to 11 bits. Weights that float16
can't hold (beyond 65,504) stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedistill.graph.weights import Additions, attributes, captured, to_float
from edgedistill.schemes import Calibration
from edgedistill.target import PROCESSORS

PRECISION = "fp16"
CALIBRATES = False
PACKAGES = ("onnx", "numpy")

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = 256  # values: of fewer, the Cast costs more bytes than it saves


@dataclass(frozen=True)
class Settings:
    """Nothing to set."""


def valid(facts: Mapping[str, Any], target: Any, processor: str) -> str | None:
    """Return why the scheme can't serve, or None: it runs wherever float32 does."""
    return None if processor in PROCESSORS else f"no processor of ours is called '{processor}'"


def spared(facts: Mapping[str, Any], target: Any) -> str | None:
    """Return why `auto` leaves the scheme to be named."""
    return "half the download and nothing faster: name it where that is what counts"


def word(facts: Mapping[str, Any]) -> str:
    """Return what rows of this scheme are called by."""
    return PRECISION


def for_processors(processors: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the settings under which the arithmetic is exact on all of these processors."""
    return {}


def exact_on(settings: Settings) -> tuple[str, ...]:
    """Name the processors on which the arithmetic is exact: all, since it is float32's."""
    return tuple(PROCESSORS)


def milder(made: Any, settings: Settings) -> Sequence[Mapping[str, Any]]:
    """Return nothing to set."""
    return []


def quantizable(model: Any, settings: Settings) -> list[str]:
    """Name the operators that can be int8: none."""
    return []


def apply(model: Any, calibration: Calibration | None, settings: Settings) -> Any:
    """Return the graph with float16 weights; `model` is not changed."""
    from onnx import TensorProto, numpy_helper

    made = type(model)()
    made.CopyFrom(model)
    graph = made.graph
    held = {name for node in graph.node for name in captured(node)}
    held |= {value.name for value in (*graph.output, *graph.input)}
    half: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in held:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size >= SMALLEST and float(np.abs(values).max()) <= LARGEST:
            half[tensor.name] = values.astype(np.float16)
    additions, nodes, cast = Additions(graph), [], set()
    for node in graph.node:
        copy = type(node).FromString(node.SerializeToString())
        behind = None
        for place, name in enumerate(node.input):
            if name not in half:
                continue
            stored = additions.add(f"{name}.float16", half[name])
            if node.op_type == "Gather" and place == 0 and not attributes(node).get("axis", 0):
                copy.input[0], copy.output[0] = stored, f"{node.output[0]}.float16"
                behind = (copy.output[0], node.output[0])
                continue
            copy.input[place] = f"{name}.float32"
            if name not in cast:
                cast.add(name)
                nodes.append(to_float(stored, copy.input[place]))
        nodes.append(copy)
        if behind:
            nodes.append(to_float(*behind))
    left = [tensor for tensor in graph.initializer if tensor.name not in half]
    kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in left]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.node[:]
    graph.node.extend(nodes)
    return made
