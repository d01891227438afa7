from __future__ import annotations

import json

import numpy as np
import pytest

from edgedistill.measure import yardstick
from edgedistill.records import Latency, Yardstick
from edgedistill.target import Device

HOST = Yardstick(fp32_gflops=100.0, int8_gops=400.0, node_us=0.5)
DEVICE = Device(int8_gops=100.0, fp32_gflops=25.0, node_us=None, uncertainty=1.5)


def latency(p90, low=None, high=None):
    low, high = low or p90, high or p90
    return Latency(p90, p90, low, high, None, p90, 200, 20, True)


def estimate(p90, products, device=DEVICE, **more):
    return yardstick.estimate(latency(p90, **more), products, HOST, device=device, on="phone")


def test_the_shipped_graphs_are_what_generate_makes(tmp_path):
    yardstick.generate(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(made) == {f"{graph}.onnx" for graph in yardstick.GRAPHS}
    for name, content in made.items():
        assert content == (yardstick.FOLDER / name).read_bytes(), f"{name}: generate it again"


@pytest.mark.parametrize(
    ("graph", "expected"),
    [("fp32", {"MatMul": 1}), ("int8", {"MatMulInteger": 1}), ("nodes", None)],
)
def test_onnxruntime_folds_the_weights_and_keeps_the_chain(graph, expected, tmp_path):
    import onnx
    import onnxruntime

    told = onnxruntime.SessionOptions()
    told.log_severity_level = 3
    told.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(
        yardstick.FOLDER / f"{graph}.onnx", told, providers=["CPUExecutionProvider"]
    )
    found = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    if expected is None:
        assert len(found) == yardstick.NODES
    else:
        assert {name: found.count(name) for name in found} == expected
    for feed in yardstick.inputs(graph):
        (output,) = session.run(None, feed)
        assert np.isfinite(output).all() and np.abs(output).max() > 1e-3  # no denormals
        if graph != "nodes":
            assert output.shape == (feed["x"].shape[0], yardstick.OUTER)


def test_rates_are_operations_over_time():
    blocks = {
        "fp32": [1.0] * yardstick.RUNS + [3.0] * yardstick.RUNS,
        "int8": [0.25] * yardstick.RUNS + [0.75] * yardstick.RUNS,
        "nodes": [0.3] * yardstick.RUNS,
    }
    found = yardstick.rates(blocks)
    work = 2 * 384 * 1536 * (16 + 64)
    assert found.fp32_gflops == pytest.approx(work / 4e-3 / 1e9)
    assert found.int8_gops == pytest.approx(work / 1e-3 / 1e9)
    assert found.node_us == pytest.approx(1.0)


def test_the_blocks_that_rates_reads_are_those_that_order_runs():
    for graph in yardstick.GRAPHS:
        order = yardstick.order(graph, 3)
        sizes = len(yardstick.inputs(graph))
        timed = np.reshape(order[3:], (sizes, yardstick.RUNS))
        assert timed.tolist() == [[size] * yardstick.RUNS for size in range(sizes)]


def test_a_host_twice_as_slow_has_twice_the_slowness():
    half = Yardstick(HOST.fp32_gflops / 2, HOST.int8_gops / 2, HOST.node_us * 2)
    assert yardstick.slowness(half) == pytest.approx(2 * yardstick.slowness(HOST))


def test_the_median_is_taken_rate_by_rate():
    rounds = [Yardstick(1.0, 30.0, 5.0), Yardstick(2.0, 10.0, 6.0), Yardstick(3.0, 20.0, 4.0)]
    assert yardstick.median(rounds) == Yardstick(2.0, 20.0, 5.0)


def test_products_scale_by_their_arithmetic_and_the_rest_by_small_nodes():
    # int8: 0.4 GOP are 1 ms here, 4 ms there; the other 2 ms times 100/25 (the float ratio)
    found = estimate(3.0, {"fp32": 0.0, "int8": 0.4e9})
    assert found.latency_p90_ms == pytest.approx(4.0 + 2.0 * 4)
    # fp32: 0.1 GFLOP are 1 ms here, 4 ms there
    both = estimate(3.0, {"fp32": 0.1e9, "int8": 0.4e9})
    assert both.latency_p90_ms == pytest.approx(4.0 + 4.0 + 1.0 * 4)
    assert (found.source, found.on) == ("estimate", "phone")


def test_a_target_that_knows_its_node_time_uses_it():
    device = Device(int8_gops=100.0, fp32_gflops=25.0, node_us=5.0, uncertainty=1.5)
    found = estimate(3.0, {"int8": 0.4e9}, device)
    assert found.latency_p90_ms == pytest.approx(4.0 + 2.0 * 10)


def test_the_rest_is_never_negative():
    # the products alone would take 2 ms at the yardstick's rate, the run took 1
    assert estimate(1.0, {"int8": 0.8e9}).latency_p90_ms == pytest.approx(8.0)


def test_the_interval_is_the_run_s_own_widened_both_ways():
    found = estimate(3.0, {"int8": 0.4e9}, low=2.0, high=5.0)
    assert found.low == pytest.approx((4.0 + 1.0 * 4) / 1.5)
    assert found.high == pytest.approx((4.0 + 4.0 * 4) * 1.5)


def test_unknown_products_give_no_estimate():
    assert estimate(3.0, None) is None


def test_put_writes_what_a_probe_loads(tmp_path):
    yardstick.put(tmp_path)
    for graph in yardstick.GRAPHS:
        assert (tmp_path / f"{graph}.onnx").is_file()
        about = json.loads((tmp_path / f"{graph}.rows" / "arrays.json").read_text())
        assert about["names"] == ["x"] and about["rows"] == len(yardstick.inputs(graph))
