"""Calibrate: the ranges of activations over training rows, streamed.

onnxruntime's own calibrators keep what they saw of every row in memory, and when told to keep less
they forget rows; here each batch is reduced to two numbers a tensor, or in a second pass over the
same rows to counts in fixed bins: memory does not grow with them.

minmax      the extremes over all rows
percentile  what leaves out a share of the values, half of it at each end
entropy     the clipping whose rounded distribution is nearest to the whole one, by the
            Kullback-Leibler divergence (Migacz, 8-bit inference with TensorRT, 2017)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgedistill.errors import ModelError
from edgedistill.graph import session as sessions

Feed = Mapping[str, np.ndarray]
Range = tuple[float, float]

METHODS = ("minmax", "percentile", "entropy")
BINS = 2048
LEVELS = 255  # steps of a quantized tensor
EVERY = 4  # bins between two clippings that are tried
LEAST = 1e-4  # what an empty bin counts in a divergence, as in onnxruntime and MXNet


def chosen(
    model: Any,
    names: Sequence[str],
    calibration: Callable[[], Iterator[Feed]],
    *,
    method: str = "minmax",
    percentile: float = 99.99,
) -> dict[str, Range]:
    """Return the range of each named float tensor by one of `METHODS`; 0 is always inside.

    `calibration` gives a fresh pass over the same rows. Raises `ModelError` as `ranges` does.
    """
    whole = {
        n: (min(a, 0.0), max(b, 0.0)) for n, (a, b) in ranges(model, names, calibration()).items()
    }
    if method == "minmax":
        return whole
    counted = histograms(model, whole, calibration())
    if method == "percentile":
        return {name: percentile_range(counted[name], whole[name], percentile) for name in names}
    return {name: entropy_range(counted[name], whole[name]) for name in names}


def ranges(model: Any, names: Sequence[str], feeds: Iterable[Feed]) -> dict[str, Range]:
    """Return the smallest and largest value of each named float tensor over all feeds.

    Raises `ModelError` where there are no feeds, or a value is not finite.
    """
    from onnx import TensorProto, helper

    if not names:
        return {}
    opened = _without_outputs(model)
    wanted = []
    for name in names:
        for operator in ("ReduceMin", "ReduceMax"):
            wanted.append(f"{name}.{operator}")
            opened.graph.node.append(helper.make_node(operator, [name], [wanted[-1]], keepdims=0))
            opened.graph.output.append(
                helper.make_tensor_value_info(wanted[-1], TensorProto.FLOAT, [])
            )
    lows = np.full(len(names), np.inf)
    highs = np.full(len(names), -np.inf)
    for found in _runs(opened, wanted, feeds):
        lows = np.minimum(lows, np.array(found[0::2], dtype=np.float64))
        highs = np.maximum(highs, np.array(found[1::2], dtype=np.float64))
    if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
        raise ModelError("calibration found no rows, or activations that are not finite")
    return {
        name: (float(low), float(high)) for name, low, high in zip(names, lows, highs, strict=True)
    }


def peaks(model: Any, names: Sequence[str], feeds: Iterable[Feed]) -> dict[str, np.ndarray]:
    """Return the largest |value| of each channel (the last axis) of the named tensors."""
    if not names:
        return {}
    found: dict[str, np.ndarray] = {}
    for values in _runs(_opened(model, names), names, feeds):
        for name, one in zip(names, values, strict=True):
            peak = np.abs(one).reshape(-1, one.shape[-1]).max(axis=0)
            found[name] = np.maximum(found.get(name, peak), peak)
    return found


def histograms(
    model: Any, spans: Mapping[str, Range], feeds: Iterable[Feed]
) -> dict[str, np.ndarray]:
    """Count the values of each named tensor in `BINS` equal bins over its own range."""
    if not spans:
        return {}
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in spans}
    for values in _runs(_opened(model, list(spans)), list(spans), feeds):
        for (name, (low, high)), one in zip(spans.items(), values, strict=True):
            if high > low:
                places = (one.ravel() - np.float32(low)) * np.float32(BINS / (high - low))
                inside = np.clip(places, 0, BINS - 1).astype(np.int64)
                counts[name] += np.bincount(inside, minlength=BINS)
    return counts


def percentile_range(counts: np.ndarray, span: Range, percentile: float) -> Range:
    """Return the range that holds `percentile` % of the values, the rest cut half at each end."""
    edges = np.linspace(*span, len(counts) + 1)
    reached = np.cumsum(counts) / max(int(counts.sum()), 1)
    cut = (1.0 - percentile / 100) / 2
    low = float(edges[np.searchsorted(reached, cut, side="right")]) if counts.any() else span[0]
    high = float(edges[np.searchsorted(reached, 1.0 - cut) + 1]) if counts.any() else span[1]
    return min(low, 0.0), max(high, 0.0)


def entropy_range(counts: np.ndarray, span: Range, *, levels: int = LEVELS) -> Range:
    """Return the clipping [-t, t], inside the span, that loses least of the distribution.

    What is clipped counts at the ends of the reference; the candidate spreads each of its levels
    evenly over the bins that were not empty. The zeros of a ReLU are kept exactly, whatever the
    range: their bin counts no more than those beside it, as in TensorRT.
    """
    edges = np.linspace(*span, len(counts) + 1)
    zero = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, len(counts) - 1))
    counts = counts.copy()
    beside = np.delete(counts[max(0, zero - 1) : zero + 2], min(1, zero))
    counts[zero] = min(counts[zero], beside.max())
    most = max(zero, len(counts) - 1 - zero)
    best, least = span, np.inf
    for reach in range(most, levels // 2 - 1, -EVERY):
        start, stop = max(0, zero - reach), min(len(counts), zero + reach + 1)
        if stop - start < levels:
            break
        lost = _divergence(counts, start, stop, levels)
        if lost < least:
            best, least = (float(edges[start]), float(edges[stop])), lost
    return min(best[0], 0.0), max(best[1], 0.0)


def _divergence(counts: np.ndarray, start: int, stop: int, levels: int) -> float:
    """Return how much of a distribution is lost by clipping it to some bins, in nats."""
    inside = counts[start:stop].astype(np.float64)
    right = inside.copy()
    right[0] += counts[:start].sum()
    right[-1] += counts[stop:].sum()
    filled = right > 0
    firsts = np.arange(levels) * len(inside) // levels
    level = np.searchsorted(firsts, np.arange(len(inside)), side="right") - 1
    sums = np.bincount(level, inside, minlength=levels)
    used = np.bincount(level, filled, minlength=levels)
    spread = np.where(filled, (sums / np.maximum(used, 1))[level], 0.0)
    if not spread.any():
        return float(np.inf)
    p, q = _smooth(right), _smooth(spread)
    return float((p * np.log(p / q)).sum())


def _smooth(counts: np.ndarray) -> np.ndarray:
    """Return shares of which none is zero."""
    filled = np.maximum(counts, LEAST)
    return filled / filled.sum()


def _without_outputs(model: Any) -> Any:
    import onnx

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    return opened


def _opened(model: Any, names: Sequence[str]) -> Any:
    """Return the graph with the named tensors as its outputs."""
    opened = _without_outputs(model)
    for name in names:
        opened.graph.output.add().name = name
    return opened


def _runs(opened: Any, wanted: Sequence[str], feeds: Iterable[Feed]) -> Iterator[list[np.ndarray]]:
    """Run a graph feed by feed, so that one batch's activations are there at a time."""
    running = sessions.start(opened.SerializeToString(), {"optimization": "basic"})
    inputs = {each.name for each in running.get_inputs()}
    for feed in feeds:
        yield running.run(list(wanted), {name: feed[name] for name in inputs})
