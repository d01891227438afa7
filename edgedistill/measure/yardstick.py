"""The yardstick: three small graphs that say how fast this host is while the rows are timed.

fp32.onnx and int8.onnx are matrix products of the sizes that small encoders have (16 and 64 rows
by 384 x 1536), nodes.onnx is a chain of tiny nodes that onnxruntime neither folds nor fuses. They
lie in measure/yardstick/, made by `generate`; one thread, as in the rates of a target's device.

Each weight is a Tile of a small pattern: onnxruntime folds it into an initializer at load, and the
file stays small (7 KB instead of 2.4 MB; the same times within noise).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.measure import sample
from edgedistill.records import DeviceLatency, Latency, Yardstick

if TYPE_CHECKING:
    from edgedistill.target import Device

FOLDER = Path(__file__).parent / "yardstick"
GRAPHS = ("fp32", "int8", "nodes")
ROWS = (16, 64)
INNER, OUTER = 384, 1536
NODES = 300
RUNS = 8  # of each size in each round, after the dropped ones
SESSION: Mapping[str, Any] = {
    "threads": 1,
    "spinning": False,
    "arena": True,
    "prepacking": True,
    "optimization": "all",
    "config": {},
}


def slowness(rates: Yardstick) -> float:
    """Return a time that moves with all three graphs: their geometric mean, in no unit."""
    return float((rates.node_us / rates.fp32_gflops / rates.int8_gops) ** (1 / 3))


def order(graph: str, drop: int) -> list[int]:
    """Return which rows of the graph's sample a round runs: `drop` to warm up, then the timed."""
    sizes = len(ROWS) if graph != "nodes" else 1
    timed = [size for size in range(sizes) for _ in range(RUNS)]
    return [timed[0]] * drop + timed


def rates(blocks: Mapping[str, Sequence[float]]) -> Yardstick:
    """Turn one round's times (ms, by graph, in `order`) into rates."""
    seconds = {
        graph: np.median(np.reshape(blocks[graph], (-1, RUNS)), axis=1).sum() / 1e3
        for graph in GRAPHS
    }
    work = 2.0 * INNER * OUTER * sum(ROWS)
    return Yardstick(
        fp32_gflops=float(work / seconds["fp32"] / 1e9),
        int8_gops=float(work / seconds["int8"] / 1e9),
        node_us=float(seconds["nodes"] / NODES * 1e6),
    )


def median(rounds: Sequence[Yardstick]) -> Yardstick:
    """Return the median of each rate over the rounds."""
    table = np.median([dataclasses.astuple(each) for each in rounds], axis=0)
    return Yardstick(*map(float, table))


def estimate(
    latency: Latency,
    products: Mapping[str, float] | None,
    host: Yardstick,
    *,
    device: Device,
    on: str,
) -> DeviceLatency | None:
    """Estimate the p90 on a device from the p90 here, the graph's products and the yardstick.

    `products` are operations a run by arithmetic ({"fp32": .., "int8": ..}). They scale by their
    own arithmetic's rate, the rest by the time of a small node (the device's, else the host's by
    the float ratio). The interval is the run's own, widened by the device's uncertainty. None
    where the products are not known.
    """
    if products is None:
        return None
    giga = {name: products.get(name, 0.0) / 1e9 for name in ("fp32", "int8")}
    here_ms = 1e3 * (giga["fp32"] / host.fp32_gflops + giga["int8"] / host.int8_gops)
    there_ms = 1e3 * (giga["fp32"] / device.fp32_gflops + giga["int8"] / device.int8_gops)
    float_ratio = host.fp32_gflops / device.fp32_gflops
    node_us = device.node_us if device.node_us is not None else host.node_us * float_ratio

    def there(ms: float) -> float:
        return there_ms + max(0.0, ms - here_ms) * node_us / host.node_us

    return DeviceLatency(
        latency_p90_ms=there(latency.p90),
        low=there(latency.p90_low) / device.uncertainty,
        high=there(latency.p90_high) * device.uncertainty,
        source="estimate",
        on=on,
    )


def inputs(graph: str) -> list[dict[str, np.ndarray]]:
    """Return the sample of one graph: its two sizes of rows, or the chain's one."""
    if graph == "nodes":
        return [{"x": np.full((1, 64), 0.5, np.float32)}]
    steps = [np.arange(n * INNER).reshape(n, INNER) * 41 % 251 for n in ROWS]
    if graph == "fp32":
        return [{"x": each.astype(np.float32) / 256} for each in steps]
    return [{"x": each.astype(np.uint8)} for each in steps]


def put(folder: Path) -> None:
    """Write the three graphs and their samples into a probe's folder."""
    for graph in GRAPHS:
        (folder / f"{graph}.onnx").write_bytes((FOLDER / f"{graph}.onnx").read_bytes())
        sample.write(folder / f"{graph}.rows", inputs(graph))


def generate(folder: Path) -> None:
    """Make the three graphs with onnx (IR 8, opset 17); the same bytes every time."""
    from onnx import TensorProto, helper

    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "fp32": (_product("MatMul", np.float32), TensorProto.FLOAT, TensorProto.FLOAT, INNER),
        "int8": (_product("MatMulInteger", np.int8), TensorProto.UINT8, TensorProto.INT32, INNER),
        "nodes": (_chain(), TensorProto.FLOAT, TensorProto.FLOAT, 64),
    }
    for name, ((nodes, constants), taken, given, width) in made.items():
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("x", taken, ["rows", width])],
            [helper.make_tensor_value_info("y", given, None)],
            constants,
        )
        model = helper.make_model(
            graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], producer_name=""
        )
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def _product(op: str, dtype: type) -> tuple[list[Any], list[Any]]:
    """Return nodes and constants of x (rows, 384) times a weight (384, 1536)."""
    from onnx import helper, numpy_helper

    small = (INNER // 16, OUTER // 16)
    # Values don't change the time; counted, not drawn, so that no release of numpy changes them.
    steps = np.arange(small[0] * small[1]).reshape(small) * 37 % 127 - 63
    pattern = steps.astype(np.int8) if dtype is np.int8 else steps.astype(np.float32) / 1024
    constants = [
        numpy_helper.from_array(pattern, "pattern"),
        numpy_helper.from_array(np.array([16, 16], np.int64), "repeats"),
    ]
    taken = ["x", "weight"]
    if dtype is np.int8:
        constants.append(numpy_helper.from_array(np.array(128, np.uint8), "zero"))
        taken.append("zero")
    nodes = [
        helper.make_node("Tile", ["pattern", "repeats"], ["weight"], name="weight"),
        helper.make_node(op, taken, ["y"], name="product"),
    ]
    return nodes, constants


def _chain() -> tuple[list[Any], list[Any]]:
    """Return nodes and constants of a chain that settles near 1: no inf, no denormal."""
    from onnx import helper, numpy_helper

    constants = [
        numpy_helper.from_array(np.full(64, value, np.float32), name)
        for name, value in (("add", 0.6), ("mul", 0.7), ("sub", 0.1), ("max", 0.01))
    ]
    cycle = (("Add", "add"), ("Mul", "mul"), ("Sub", "sub"), ("Max", "max"))
    nodes, last = [], "x"
    for place in range(NODES):
        op, constant = cycle[place % len(cycle)]
        made = "y" if place == NODES - 1 else f"n{place}"
        nodes.append(helper.make_node(op, [last, constant], [made], name=f"node{place}"))
        last = made
    return nodes, constants
