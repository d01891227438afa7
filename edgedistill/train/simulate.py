"""int8 arithmetic, simulated while a model trains, so that its weights learn to bear it.

Matrix products and convolutions compute with integers as the int8 file will: weights symmetric per
output channel, activations of each row of the batch by their own range, looked-up embeddings by the
largest of their row. Gradients pass as if nothing were rounded (the straight-through estimator:
Bengio et al., 2013; quantization-aware training: Jacob et al., 2018). Products between activations,
LayerNorm, GELU, softmax and the residual path stay in float, as in the file. The batch's padding
counts in a range; rows of one batch are alike in length, and the file runs without. That a large
table is in int4 there is not simulated.

Integers up to 255 are exact in bfloat16, so what is rounded is the same with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from edgedistill.graph.weights import FULL

ACTIVATION_STEPS = 255
SMALLEST = 1e-12  # of a range: of zeros nothing is rounded
TABLES = ("Embedding", "Compact")  # modules whose output is rows of a table


@contextmanager
def simulated(model: Any, largest: int) -> Iterator[None]:
    """Let a model compute with int8 weights of -largest to largest (0: as it is), and uint8 inputs.

    Its parameters, and their names, stay as they are. Inside another, this one changes nothing.
    """
    from torch import nn

    computes = {nn.Linear: _linear, nn.Conv2d: _convolution}
    changed: list[Any] = []
    hooks: list[Any] = []
    if largest and not any("forward" in vars(each) for each in model.modules()):
        for module in model.modules():
            if type(module) in computes:
                module.forward = partial(computes[type(module)], module, largest)
                changed.append(module)
            elif type(module).__name__ in TABLES:
                hooks.append(module.register_forward_hook(_looked_up))
    try:
        yield
    finally:
        for module in changed:
            del module.forward
        for hook in hooks:
            hook.remove()


def _linear(module: Any, largest: int, inputs: Any) -> Any:
    from torch.nn import functional

    return _product(module, largest, inputs, functional.linear)


def _convolution(module: Any, largest: int, inputs: Any) -> Any:
    from torch.nn import functional

    def convolve(values: Any, weights: Any) -> Any:
        return functional.conv2d(
            values, weights, None, module.stride, module.padding, module.dilation, module.groups
        )

    return _product(module, largest, inputs, convolve)


def _product(module: Any, largest: int, inputs: Any, product: Callable[[Any, Any], Any]) -> Any:
    """Return the product of integers, times both scales, plus the bias."""
    values, scale = _activations(inputs)
    weights, scales = _symmetric(module.weight, largest, range(1, module.weight.ndim))
    found = product(values, weights)
    place = [1] * found.ndim
    place[1 if found.ndim == 4 else -1] = -1
    exact = found.float() * scale * scales.reshape(place)
    if module.bias is not None:
        exact = exact + module.bias.reshape(place)
    return exact.to(found.dtype)


def _activations(inputs: Any) -> tuple[Any, Any]:
    """Return values as integers above or below their zero, and each row's step, (rows, 1, ...)."""
    import torch

    values = inputs.float()
    dims = tuple(range(1, values.ndim))
    with torch.no_grad():
        low = values.amin(dims, keepdim=True).clamp_(max=0)
        high = values.amax(dims, keepdim=True).clamp_(min=0)
        scale = ((high - low) / ACTIVATION_STEPS).clamp_(min=SMALLEST)
        zero = torch.round(-low / scale)
    scaled = values / scale
    return _through(scaled, lambda x: torch.round(x).clamp_(-zero, ACTIVATION_STEPS - zero)), scale


def _symmetric(values: Any, largest: int, dims: Any) -> tuple[Any, Any]:
    """Return values as integers of -largest to largest over `dims`, and the size of a step."""
    import torch

    with torch.no_grad():
        most = values.detach().float().abs().amax(tuple(dims), keepdim=True)
        scale = (most / largest).clamp_(min=SMALLEST)
    return _through(values.float() / scale, torch.round), scale


def _looked_up(module: Any, inputs: Any, rows: Any) -> Any:
    values, scale = _symmetric(rows, FULL, (-1,))
    return (values * scale).to(rows.dtype)


def _through(values: Any, rounded: Callable[[Any], Any]) -> Any:
    """Return rounded values whose gradient is that of the values."""
    return values + (rounded(values.detach()) - values.detach())
