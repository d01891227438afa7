"""Distance to the floor: how fast a graph could be here, how fast it is, and where the rest goes.

    python benchmarks/floor.py MODEL.onnx|BUNDLE... [--length 12] [--profile/--no-profile] [--json]

The floor of one run is its int8 operations over this machine's int8 rate (MatMulInteger of large
matrices), its float ones over the float rate, and the bytes of its weights over the bandwidth at
which half a megabyte is read again and again (the nearest cache that holds any weights); "by size"
is the same with the bandwidth of a buffer as large as the weights, which may not fit that cache.
All on one thread, in turn with the graphs themselves, so that a busy machine slows both sides; each
figure is the median over rounds. Several graphs are timed in blocks in turn: "times first" is the
median over rounds of the ratio of medians. The profile comes from onnxruntime, in runs of their own
that are never timed.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgedistill.cli import run
from edgedistill.graph import count, inspect, session

ROWS, INNER = 256, 1024  # of the large product
IN_CACHE = "GB/s of"
BLOCKS, RUNS, WARM = 4, 12, 4  # blocks of a round; runs of a block, and those dropped before


@dataclass(frozen=True)
class Graph:
    """A graph that is timed, with what its run costs."""

    name: str
    path: Path
    running: Any
    options: Mapping[str, Any]
    feed: Mapping[str, np.ndarray]
    operations: Mapping[str, float]  # {"fp32", "int8"} of one run
    weight_bytes: int  # that one run reads: embedding tables are not among them


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--length", default=12, help="tokens of the text")
@click.option("--rounds", default=15)
@click.option("--profile/--no-profile", default=True, help="operators of each graph")
@click.option("--json", "as_json", is_flag=True)
def main(paths: Sequence[Path], length: int, rounds: int, profile: bool, as_json: bool) -> None:
    """Measure machine and graphs in turn, then print the table and the profiles."""
    graphs = [_open(path, length) for path in paths]
    machine, times = _rounds(graphs, rounds)
    rows = [_row(place, graph, times, machine) for place, graph in enumerate(graphs)]
    profiles = [_profile(graph) for graph in graphs] if profile else []
    if as_json:
        print(json.dumps({"machine": _medians(machine), "graphs": rows, "profiles": profiles}))
        return
    told = _medians(machine)
    print(
        f"this machine, one thread: int8 {told['int8 GOP/s']:.0f} GOP/s, "
        f"fp32 {told['fp32 GFLOP/s']:.0f} GFLOP/s, reads half a MB at "
        f"{told[f'{IN_CACHE} half a MB']:.0f} GB/s and the first graph's weights at "
        f"{told[f'{IN_CACHE} 0']:.0f}; {length} tokens, batch 1"
    )
    columns = ("graph", "nodes", "int8 MOP", "fp32 MFLOP", "weights MB", "floor ms", "by size",
               "p50 ms", "p90 ms", "p50/floor", "times first")  # fmt: skip
    print(_line(columns))
    for row in rows:
        print(_line(row.values()))
    for graph, found in zip(graphs, profiles, strict=False):
        print(
            f"\n{graph.name}: {found['nodes']} nodes run, {found['inside_us']:.0f} us inside them"
        )
        for name, (runs, spent) in found["operators"].items():
            share = 100 * spent / found["inside_us"]
            print(f"  {name:<26}{runs:>4} nodes {spent:>8.1f} us {share:>5.1f} %")


def _open(path: Path, length: int) -> Graph:
    options: dict[str, Any] = dict(session.DEFAULT)
    name = path.name
    if path.is_dir():
        said = json.loads((path / "manifest.json").read_text("utf-8"))
        options, path = said["session"], path / said["model"]["file"]
    options = {**options, "threads": 1}
    running = session.start(path, options)
    model = inspect.read(path)
    feed = {value.name: _input(value, length) for value in inspect.real_inputs(model)}
    shapes = {key: value.shape for key, value in feed.items()}
    read = {name for node in model.graph.node if node.op_type != "Gather" for name in node.input}
    weights = sum(
        inspect_bytes(tensor) for tensor in model.graph.initializer if tensor.name in read
    )
    return Graph(name, path, running, options, feed, count.products(path, shapes), weights)


def inspect_bytes(tensor: Any) -> int:
    """Return the bytes of an initializer."""
    from onnx import numpy_helper

    return int(numpy_helper.to_array(tensor).nbytes)


def _input(value: Any, length: int) -> np.ndarray:
    """Return one row of plausible values: ids, a mask of ones, segments of zeros, or pixels."""
    from onnx import helper

    told = value.type.tensor_type
    kind = helper.tensor_dtype_to_np_dtype(told.elem_type)
    places = [
        each.dim_value or (1 if at == 0 else length) for at, each in enumerate(told.shape.dim)
    ]
    if not np.issubdtype(kind, np.integer):
        return np.full(places, 0.5, dtype=kind)
    if "mask" in value.name:
        return np.ones(places, dtype=kind)
    if "type" in value.name:
        return np.zeros(places, dtype=kind)
    return (np.arange(int(np.prod(places))) * 37 % 40 + 5).reshape(places).astype(kind)


def _rounds(
    graphs: Sequence[Graph], rounds: int
) -> tuple[dict[str, list[float]], list[list[list[float]]]]:
    """Time machine and graphs in turn; returns rates and, by graph and round, ms of each run."""
    works = _machine(graphs)
    machine: dict[str, list[float]] = {name: [] for name in works}
    times: list[list[list[float]]] = [[] for _ in graphs]
    for number in range(rounds + 1):  # the first warms up
        found = {name: work() for name, work in works.items()}
        made: list[list[float]] = [[] for _ in graphs]
        for block in range(BLOCKS):
            for place in range(len(graphs)):
                at = (place + block) % len(graphs)  # none is always first
                made[at] += _times(graphs[at])
        if number:
            for name, rate in found.items():
                machine[name].append(rate)
            for kept, fresh in zip(times, made, strict=True):
                kept.append(fresh)
    return machine, times


def _times(graph: Graph) -> list[float]:
    """Return the milliseconds of a block of runs; the first bring the weights into the caches."""
    found = []
    for index in range(WARM + RUNS):
        start = time.perf_counter()
        graph.running.run(None, graph.feed)
        if index >= WARM:
            found.append(1e3 * (time.perf_counter() - start))
    return found


def _machine(graphs: Sequence[Graph]) -> dict[str, Callable[[], float]]:
    """Return what measures this machine's rates: int8, fp32 and reading, all in giga a second."""
    draw = np.random.default_rng(0)
    int8 = _product(True)
    fp32 = _product(False)
    left = draw.integers(0, 255, (ROWS, INNER)).astype(np.uint8)
    right = draw.random((ROWS, INNER), dtype=np.float32)
    work = 2.0 * ROWS * INNER * INNER / 1e9
    reading = {
        f"{IN_CACHE} {name}": _reading(size)
        for name, size in [
            ("half a MB", 500_000),
            *((str(place), graph.weight_bytes) for place, graph in enumerate(graphs)),
        ]
    }
    return {
        "int8 GOP/s": lambda: work / _median_s(lambda: int8.run(None, {"x": left}), 6),
        "fp32 GFLOP/s": lambda: work / _median_s(lambda: fp32.run(None, {"x": right}), 6),
        **reading,
    }


def _reading(size: int) -> Callable[[], float]:
    """Return what measures the GB/s at which a buffer of that size is read over and over."""
    buffer = np.ones(max(size, 4096), dtype=np.int8)
    again = max(5, int(2e7 // buffer.nbytes))
    return lambda: buffer.nbytes / 1e9 / _median_s(buffer.max, again)


def _median_s(work: Callable[[], Any], runs: int) -> float:
    """Return the median seconds of a few runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _product(integer: bool) -> Any:
    """Start a session of one large matrix product with constant weights."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(1)
    if integer:
        weights = draw.integers(-127, 127, (INNER, INNER)).astype(np.int8)
        ends = TensorProto.UINT8, TensorProto.INT32, "MatMulInteger"
    else:
        weights = draw.random((INNER, INNER), dtype=np.float32)
        ends = TensorProto.FLOAT, TensorProto.FLOAT, "MatMul"
    graph = helper.make_graph(
        [helper.make_node(ends[2], ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", ends[0], [ROWS, INNER])],
        [helper.make_tensor_value_info("y", ends[1], [ROWS, INNER])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return session.start(model.SerializeToString(), session.DEFAULT)


def _medians(machine: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: float(np.median(found)) for name, found in machine.items()}


def _row(
    place: int,
    graph: Graph,
    times: Sequence[Sequence[Sequence[float]]],
    machine: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """Return the figures of one graph."""
    giga = {name: count / 1e9 for name, count in graph.operations.items()}
    compute = [
        1e3 * (giga["int8"] / int8 + giga["fp32"] / fp32)
        for int8, fp32 in zip(machine["int8 GOP/s"], machine["fp32 GFLOP/s"], strict=True)
    ]
    size = graph.weight_bytes / 1e6  # MB over GB/s: ms
    nearest = [
        ms + size / rate for ms, rate in zip(compute, machine[f"{IN_CACHE} half a MB"], strict=True)
    ]
    where = [
        ms + size / rate for ms, rate in zip(compute, machine[f"{IN_CACHE} {place}"], strict=True)
    ]
    medians = [float(np.median(each)) for each in times[place]]
    firsts = [float(np.median(each)) for each in times[0]]
    return {
        "graph": graph.name,
        "nodes": len(inspect.read(graph.path).graph.node),
        "int8_mop": round(graph.operations["int8"] / 1e6, 1),
        "fp32_mflop": round(graph.operations["fp32"] / 1e6, 2),
        "weights_mb": round(size, 2),
        "floor_ms": round(float(np.median(nearest)), 3),
        "floor_where_ms": round(float(np.median(where)), 3),
        "p50_ms": round(float(np.median(medians)), 3),
        "p90_ms": round(float(np.median([np.percentile(each, 90) for each in times[place]])), 3),
        "times_floor": round(float(np.median(np.divide(medians, nearest))), 2),
        "times_first": round(float(np.median(np.divide(medians, firsts))), 3),
    }


def _profile(graph: Graph, runs: int = 200) -> dict[str, Any]:
    """Run with onnxruntime's profiler; returns microseconds of one run by operator."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        told = session.options(graph.options)
        told.enable_profiling = True
        told.profile_file_prefix = str(Path(folder) / "profile")
        running = onnxruntime.InferenceSession(
            str(graph.path), told, providers=["CPUExecutionProvider"]
        )
        for _ in range(runs):
            running.run(None, graph.feed)
        events = json.loads(Path(running.end_profiling()).read_text("utf-8"))
    spent: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent.setdefault(f"{event['args']['op_name']} {event['name']}", []).append(event["dur"])
    operators: dict[str, tuple[int, float]] = {}
    for name, durations in spent.items():
        kind = name.partition(" ")[0]
        number, total = operators.get(kind, (0, 0.0))
        operators[kind] = (number + 1, total + float(np.mean(np.sort(durations)[: runs * 3 // 4])))
    ordered = dict(sorted(operators.items(), key=lambda item: -item[1][1]))
    return {
        "nodes": sum(number for number, _ in ordered.values()),
        "inside_us": sum(total for _, total in ordered.values()),
        "operators": ordered,
    }


def _line(cells: Any) -> str:
    widths = (24, 6, 9, 11, 11, 9, 8, 8, 8, 10, 11)
    return " ".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True))


if __name__ == "__main__":
    run(main, "floor.py")
