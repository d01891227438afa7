"""Count fusions: what onnxruntime's session makes of a graph at the level that ships.

Fusing ahead of the session was measured and is not done: on these graphs the session's own
fusions are as fast or faster, and quantizing a fused Attention can lose its mask or leave its
weights in float.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.graph import session as sessions

FUSED = (
    "Attention",
    "QAttention",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "LayerNormalization",
    "EmbedLayerNormalization",
    "Gelu",
    "BiasGelu",
    "FastGelu",
    "QuickGelu",
    "BiasSoftmax",
    "FusedMatMul",
    "FusedGemm",
    "FusedConv",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "QLinearConv",
    "QLinearMatMul",
    "QLinearAdd",
    "QLinearGlobalAveragePool",
    "QGemm",
)


def optimized(model: Path | bytes, session: Mapping[str, Any] | None = None) -> Any:
    """Return the graph (`onnx.ModelProto`) that a session with these options runs.

    At the level "all" it may hold operators of this machine alone: it is for counting, never for
    shipping.
    """
    import onnx

    told = {**sessions.DEFAULT, **(session or {})}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        sessions.start(model, told, optimized=path)
        # What lay in another file than the model's is not beside this one, and needn't be.
        return onnx.load(path, load_external_data=False)


def count(model: Path | bytes, session: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Count the fused operators of the session's graph, by name; absent ones are left out."""
    found = Counter(node.op_type for node in optimized(model, session).graph.node)
    return {name: found[name] for name in FUSED if found[name]}
