"""Export a torch model as an ONNX graph, by the TorchScript exporter.

That exporter gives the same bytes in every process and folder, opset 17 without conversion, and
graphs whose attention and normalisation onnxruntime fuses; the newer one does none of these. Its
traps are avoided here: every input is a tensor of its own, batch and length are 2 or more and
different, the outermost module is in eval mode, and the result is compared at other shapes
(`edgedistill.graph.compare`).
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgedistill.errors import ExportError, first_line
from edgedistill.graph import clean, first_token, simplify

Feed = Mapping[str, np.ndarray]
AXES = {0: "batch", 1: "length"}
OUTPUT = "logits"


def export(
    model: Any,
    forward: Callable[[Any, Mapping[str, Any]], Any],
    feeds: Sequence[Feed],
    *,
    opset: int = 17,
    ir: int = 8,
    integers: str = "int64",
) -> Any:
    """Trace a torch model on the first feed; returns a cleaned `onnx.ModelProto`.

    `forward(model, batch of tensors)` gives an object with `.logits`. The axes in which the feeds
    differ stay dynamic, the first always ("batch", "length"). `integers` is the type of integer
    inputs, int64 or int32. Raises `ExportError` where the model can't be traced.
    """
    import onnx
    import torch

    names = list(feeds[0])
    example = tuple(torch.from_numpy(_wide(feeds[0][name])) for name in names)
    if min(len(tensor) for tensor in example) < 2:
        raise ExportError("an example to trace needs two rows or more")
    _lengths_differ(feeds)
    fed = simplify.with_additive_mask(model, forward, feeds)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            return fed(self.model, dict(zip(names, tensors, strict=True))).logits

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what they warn of, the comparison finds
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                Logits().eval(),
                example,
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=opset,
                input_names=names,
                output_names=[OUTPUT],
                dynamic_axes={**dynamic_axes(feeds), OUTPUT: {0: AXES[0]}},
                do_constant_folding=True,
            )
        except Exception as error:  # the exporter raises whatever the traced code raises
            first = first_line(error)
            raise ExportError(
                f"{type(model).__name__} can't be exported: {type(error).__name__}: {first}"
            ) from error
    made = onnx.load_model_from_string(buffer.getvalue())
    if integers == "int32":
        clean.narrow(made)
    made = simplify.fold_shapes(clean.clean(made, opset=opset, ir=ir), feeds)
    return first_token.narrow(made, simplify.observed(made, feeds))


def torch_logits(
    model: Any, forward: Callable[[Any, Mapping[str, Any]], Any]
) -> Callable[[Feed], np.ndarray]:
    """Return a function from a feed to the torch model's float32 logits."""
    import torch

    model.eval()

    def run(feed: Feed) -> np.ndarray:
        with torch.no_grad():
            batch = {name: torch.from_numpy(_wide(value)) for name, value in feed.items()}
            return forward(model, batch).logits.float().numpy()

    return run


def dynamic_axes(feeds: Sequence[Feed]) -> dict[str, dict[int, str]]:
    """Name the axes of each input in which the feeds differ; the first axis always counts."""
    axes: dict[str, dict[int, str]] = {}
    for name, value in feeds[0].items():
        found = {
            axis
            for axis in range(1, value.ndim)
            if len({feed[name].shape[axis] for feed in feeds}) > 1
        }
        axes[name] = {axis: AXES.get(axis, f"axis_{axis}") for axis in sorted({0} | found)}
    return axes


def _lengths_differ(feeds: Sequence[Feed]) -> None:
    for name, value in feeds[0].items():
        tokens = value.ndim == 2 and np.issubdtype(value.dtype, np.integer)
        if tokens and len({feed[name].shape[1] for feed in feeds}) < 2:
            raise ExportError(f"all examples of '{name}' have one length: it would become fixed")


def _wide(value: np.ndarray) -> np.ndarray:
    """Return a copy (never shared between inputs) with integers as int64, as torch wants them."""
    kind = np.int64 if np.issubdtype(value.dtype, np.integer) else np.float32
    return np.array(value, dtype=kind)
