"""Calibration: hand-worked ranges, onnxruntime's own on the same rows, and memory that stays."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgedistill.graph import calibrate

DRAWS = np.random.default_rng(2)


def identity():
    """Return a graph whose tensor "h" is its input, ("n", 100)."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 100]) for name in "xy"]
    nodes = [helper.make_node("Identity", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(values, rows=10):
    stacked = np.asarray(values, np.float32).reshape(-1, 100)
    return lambda: ({"x": stacked[i : i + rows]} for i in range(0, len(stacked), rows))


def found(values, rows=10, **told):
    return calibrate.chosen(identity(), ["h"], feeds(values, rows), **told)["h"]


def test_percentile_leaves_out_what_it_says_at_both_ends():
    values = np.arange(-5000, 5000) / 100
    width = 100 / calibrate.BINS
    low, high = found(values, method="percentile", percentile=90.0)
    assert low == pytest.approx(-45, abs=width) and high == pytest.approx(45, abs=width)
    assert found(values, method="percentile", percentile=100.0) == found(values)


def test_percentile_of_what_is_never_negative_begins_at_zero():
    values = np.arange(10_000) / 100
    low, high = found(values, method="percentile", percentile=99.0)
    assert (low, round(high)) == (0.0, 100)  # half of the share is cut at the top: 99.5
    assert high == pytest.approx(99.5, abs=100 / calibrate.BINS)


def test_one_outlier_in_ten_thousand_costs_the_range_nothing():
    values = DRAWS.normal(size=10_000)
    values[7] = 1000.0
    assert found(values)[1] == 1000.0
    assert found(values, method="percentile", percentile=99.9)[1] < 5
    assert found(values, method="entropy")[1] < 200


def test_a_small_divergence_by_hand():
    """Four bins in two levels: (3, 1, 0, 4) is kept as (2, 2, 0, 4)."""
    counts = np.array([3, 1, 0, 4])
    p, q = np.array([3, 1, 1e-4, 4]), np.array([2, 2, 1e-4, 4])
    p, q = p / p.sum(), q / q.sum()
    expected = float((p * np.log(p / q)).sum())
    assert calibrate._divergence(counts, 0, 4, 2) == pytest.approx(expected)
    clipped = calibrate._divergence(np.array([3, 1, 2, 2, 9]), 0, 4, 2)
    p, q = np.array([3, 1, 2, 11.0]), np.array([2, 2, 2, 2.0])  # what is clipped counts at the end
    p, q = p / p.sum(), q / q.sum()
    assert clipped == pytest.approx(float((p * np.log(p / q)).sum()))


@pytest.mark.parametrize("method", calibrate.METHODS)
def test_ranges_do_not_depend_on_the_batch_and_hold_zero(method):
    values = DRAWS.gamma(2.0, size=20_000) + 1
    one, many = found(values, 1, method=method), found(values, 200, method=method)
    assert one == many and one[0] == 0.0 and 1 < one[1] <= float(np.float32(values.max()))


@pytest.mark.parametrize("method", calibrate.METHODS)
def test_one_batch_is_held_at_a_time(method):
    given: list[weakref.ref] = []
    held = []

    def counted():
        for _ in range(10):
            held.append(sum(each() is not None for each in given))
            rows = DRAWS.normal(size=(4, 100)).astype(np.float32)
            given.append(weakref.ref(rows))
            yield {"x": rows}
            del rows

    calibrate.chosen(identity(), ["h"], counted, method=method)
    assert len(held) >= 10 and max(held) <= 1


@pytest.mark.parametrize(
    ("method", "shape"), (("percentile", "normal"), ("percentile", "heavy"), ("entropy", "normal"))
)
def test_ranges_are_near_those_of_onnxruntime(method, shape):
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = DRAWS.normal(size=20_000) if shape == "normal" else DRAWS.standard_t(3, size=20_000)
    values = np.append(values, [values.max() + 1, -values.max() - 1]).astype(np.float32)
    values = np.append(values, np.zeros(98, np.float32))
    theirs = HistogramCollector(
        method=method,
        symmetric=False,
        num_bins=calibrate.BINS,
        num_quantized_bins=calibrate.LEVELS,
        percentile=99.5,
        scenario="same",
    )
    theirs.collect({"h": values})
    low, high = (float(each) for each in theirs.compute_collection_result()["h"][:2])
    ours = found(values, method=method, percentile=99.5)
    # entropy: their last level takes what does not divide evenly, so divergences differ a little
    near = 3 * 2 * float(values.max()) / calibrate.BINS if method == "percentile" else 0.2 * high
    assert ours == (pytest.approx(low, abs=near), pytest.approx(high, abs=near))


@pytest.mark.parametrize("at", (0.0, 1.3), ids=("half zeros", "nine tenths zeros"))
def test_the_zeros_of_a_relu_clip_nothing(at):
    """They are exact at any range; for their divergence a twentieth of the rest was clipped."""
    values = np.maximum(DRAWS.normal(size=20_000) - at, 0)
    low, high = found(values, method="entropy")
    above = values[values > 0]
    assert low == 0.0 and (above > high).mean() < 0.01
    assert high > 0.7 * values.max()


def test_nothing_to_look_at_is_nothing_found():
    assert calibrate.peaks(identity(), [], feeds(DRAWS.normal(size=100))()) == {}
    for method in calibrate.METHODS:
        assert calibrate.chosen(identity(), [], feeds(DRAWS.normal(size=100)), method=method) == {}


def test_peaks_are_by_channel():
    rows = DRAWS.normal(size=(30, 100)).astype(np.float32)
    seen = calibrate.peaks(identity(), ["h"], feeds(rows, 7)())["h"]
    np.testing.assert_array_equal(seen, np.abs(rows).max(axis=0))
