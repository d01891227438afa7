"""Smooth activations before static int8: outliers of channels move into the weights behind them.

Each channel j of an activation is divided by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), and the
rows of all weights that read it are multiplied by the same, so that products stay what they were
(Xiao et al., SmoothQuant, 2023). Where the activation is a LayerNormalization's result that nothing
else reads, the division goes into its scale and bias; where a residual path reads it too, and
behind attention and GELU, it is one Mul.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgedistill.graph import calibrate
from edgedistill.graph.weights import Additions, Constants, attributes
from edgedistill.schemes import Calibration, _shared

SMALLEST = 1e-5  # of a channel that is always zero


def smooth(
    model: Any,
    calibration: Calibration,
    alpha: float,
    *,
    leave: tuple[str, ...] = (),
) -> None:
    """Balance the activations of matrix products against their weights, in place.

    `leave` names the results of products that stay as they are.
    """
    graph = model.graph
    constants, additions = Constants(graph), Additions(graph)
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    groups: dict[str, list[Any]] = {}
    for node in graph.node:
        if _shared.is_product(constants, node) and node.output[0] not in leave:
            groups.setdefault(node.input[0], []).append(node)
    peaks = calibrate.peaks(model, list(groups), calibration())
    before: dict[int, Any] = {}
    for name, products in groups.items():
        factors = _factors(peaks[name], [_weights(constants, one) for one in products], alpha)
        for one in products:
            turned = bool(attributes(one).get("transB"))
            values = _weights(constants, one) * factors[:, None]
            one.input[1] = additions.add(
                f"{one.output[0]}.balanced", (values.T if turned else values).astype(np.float32)
            )
        norm = _norm(graph, name) if len(readers[name]) == len(products) else None
        if norm is not None and _fold(constants, additions, norm, factors):
            continue
        before[id(products[0])] = _divided(additions, name, factors)
        for one in products:
            one.input[0] = f"{name}.balanced"
    nodes = []
    for node in graph.node:
        nodes += [before[id(node)], node] if id(node) in before else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _factors(peak: np.ndarray, weights: list[np.ndarray], alpha: float) -> np.ndarray:
    """Return what each channel is divided by, (channels,)."""
    largest = np.max([np.abs(each).max(axis=1) for each in weights], axis=0)
    upper = np.maximum(peak, SMALLEST) ** alpha
    factors = upper / np.maximum(largest, SMALLEST) ** (1.0 - alpha)
    return (factors / np.exp(np.log(factors).mean())).astype(np.float32)


def _weights(constants: Constants, node: Any) -> np.ndarray:
    """Return the weights of a product as (inputs, outputs)."""
    values = constants.floats(node.input[1], rank=2)
    assert values is not None
    return values.T if attributes(node).get("transB") else values


def _norm(graph: Any, name: str) -> Any:
    return next(
        (n for n in graph.node if n.op_type == "LayerNormalization" and n.output[0] == name), None
    )


def _fold(constants: Constants, additions: Additions, norm: Any, factors: np.ndarray) -> bool:
    """Divide a LayerNormalization's scale and bias; False where they are no constants."""
    told = [constants.floats(name, rank=1) for name in norm.input[1:3]]
    if any(each is None for each in told):
        return False
    for index, values in enumerate(told, start=1):
        assert values is not None
        norm.input[index] = additions.add(f"{norm.output[0]}.balanced.{index}", values / factors)
    return True


def _divided(additions: Additions, name: str, factors: np.ndarray) -> Any:
    from onnx import helper

    inverse = additions.add(f"{name}.balance", (1.0 / factors).astype(np.float32))
    return helper.make_node("Mul", [name, inverse], [f"{name}.balanced"], name=f"{name}.Balance")
