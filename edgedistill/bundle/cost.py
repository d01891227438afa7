"""What one run costs in matrix products, as a curve over the length, told in the manifest.

A device has no `onnx` to count with, and an estimate of its time starts from these products. Over
the length they are a polynomial of second degree (attention is its square), so three lengths say
all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Point = Mapping[str, float]  # {"length", "fp32", "int8"}


def curve(model: Path, inputs: Sequence[Mapping[str, Any]], most: int | None) -> list[dict]:
    """Count the products of one run of one row at three lengths, or at the only one there is.

    `inputs` as the manifest has them: open dimensions but the first are lengths; `most` is
    max_length, None where no dimension is open.
    """
    from edgedistill.graph import count

    lengths = sorted({1, max(1, (most or 1) // 2), most or 1})
    points = []
    for length in lengths:
        shapes = {
            each["name"]: [
                side if isinstance(side, int) else (1 if place == 0 else length)
                for place, side in enumerate(each["shape"])
            ]
            for each in inputs
        }
        points.append({"length": length, **count.products(model, shapes)})
    return points


def at(points: Sequence[Point], length: float) -> dict[str, float]:
    """Return the products {"fp32", "int8"} of one run at a length (Lagrange's polynomial)."""
    made = {}
    for kind in ("fp32", "int8"):
        total = 0.0
        for one in points:
            share = 1.0
            for other in points:
                if other is not one:
                    share *= (length - other["length"]) / (one["length"] - other["length"])
            total += share * one[kind]
        made[kind] = max(0.0, total)
    return made


def of_run(model: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the products of one run with inputs of these shapes, by the manifest's `model`."""
    first = model["inputs"][0]
    shape = shapes[first["name"]]
    counted = isinstance(first["shape"][0], int)  # a fixed batch is in the curve
    found = at(model["products"], shape[-1])
    return {kind: count * (1 if counted else shape[0]) for kind, count in found.items()}
