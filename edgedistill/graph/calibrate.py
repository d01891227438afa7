"""Calibrate: the ranges of activations over training rows, streamed.

onnxruntime's own calibrator keeps what it saw of every row in memory, and when told to keep less
it forgets rows; here each batch is reduced inside the graph to two numbers a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgedistill.errors import ModelError
from edgedistill.graph import session as sessions


def ranges(
    model: Any, names: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value of each named float tensor over all feeds.

    Raises `ModelError` where there are no feeds, or a value is not finite.
    """
    import onnx
    from onnx import TensorProto, helper

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    wanted = []
    for name in names:
        for operator in ("ReduceMin", "ReduceMax"):
            wanted.append(f"{name}.{operator}")
            opened.graph.node.append(helper.make_node(operator, [name], [wanted[-1]], keepdims=0))
            opened.graph.output.append(
                helper.make_tensor_value_info(wanted[-1], TensorProto.FLOAT, [])
            )
    running = sessions.start(opened.SerializeToString(), {"optimization": "basic"})
    inputs = {each.name for each in running.get_inputs()}
    lows = np.full(len(names), np.inf)
    highs = np.full(len(names), -np.inf)
    for feed in feeds:
        found = running.run(wanted, {name: feed[name] for name in inputs})
        lows = np.minimum(lows, np.array(found[0::2], dtype=np.float64))
        highs = np.maximum(highs, np.array(found[1::2], dtype=np.float64))
    if names and not (np.isfinite(lows).all() and np.isfinite(highs).all()):
        raise ModelError("calibration found no rows, or activations that are not finite")
    return {
        name: (float(low), float(high)) for name, low, high in zip(names, lows, highs, strict=True)
    }
