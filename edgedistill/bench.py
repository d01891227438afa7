"""Measure finished models side by side: bundles, and any .onnx, the first one as the baseline."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import bundle
from edgedistill import target as targets
from edgedistill.bundle import gate, recorded
from edgedistill.errors import ModelError, UsageError, first_line, from_os_error
from edgedistill.graph.session import DEFAULT
from edgedistill.measure import sample, session
from edgedistill.progress import silent
from edgedistill.records import Measured, Progress

YARDSTICK = ("fp32_gflops", "int8_gops", "node_us")
LENGTH = 16  # of an open dimension that is not the batch, where nothing says more
RUNS = 48
INTEGERS = (100, 2)  # made ones are below
APART = 1.05  # two runs of one model, over the yardstick, are as far apart
MOST_NUMBERS = 100_000_000  # in one input: an open .onnx can ask for anything


def bench(
    paths: Sequence[Path],
    target: str | None = None,
    *,
    seconds: float | None = None,
    on_device: bool = False,
    progress: Progress = silent,
) -> Measured:
    """Measure bundles (on their golden vectors) and .onnx files (on made inputs) in one run.

    Raises `UsageError` for a path that is neither, `BundleError`, `ModelError`.
    """
    found = targets.load(target) if target else _target_of(paths)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedistill-")))
        names = _names(paths)
        subjects = []
        for place, (path, name) in enumerate(zip(paths, names, strict=True)):
            folder = scratch / str(place)
            if path.is_dir():
                subjects.append(_of_bundle(path, name, folder, progress))
            elif path.suffix == ".onnx" and path.is_file():
                subjects.append(_of_graph(path, name, folder))
            elif path.exists():
                raise UsageError(
                    f"'{bundle.printable(path)}' is neither a bundle's folder nor an .onnx file"
                )
            else:
                raise UsageError(
                    f"'{bundle.printable(path)}' does not exist: expected a suite, a bundle or an "
                    ".onnx"
                )
        return session.measure(
            subjects, found, seconds=seconds, on_device=on_device, progress=progress
        )


def _target_of(paths: Sequence[Path]) -> targets.Target:
    """Return the first bundle's target, else the server's."""
    folder = next((path for path in paths if path.is_dir()), None)
    return gate.own_target(bundle.load(folder)) if folder else targets.load("server")


def _names(paths: Sequence[Path]) -> list[str]:
    names = [bundle.printable(path.resolve().name) for path in paths]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({place + 1})" for place, name in enumerate(names)]


def _of_bundle(path: Path, name: str, folder: Path, progress: Progress) -> session.Subject:
    made = bundle.load(path)
    inexact = made.inexact()
    if inexact:
        progress({"kind": "warning", "text": inexact})
    rows = made.encoder.encode_many(made.task.golden(made.encoder, made.labels))
    rows.sort(key=lambda row: sum(value.size for value in row.values()))
    batch = made.manifest["model"].get("batch", 1)
    feeds = [made.feed([row] * batch) for row in rows[:RUNS]]
    sample.write(folder, feeds)
    return session.Subject(
        name=name,
        model=made.model,
        session=made.manifest["session"],
        sample=folder,
        longest=len(feeds) - 1,
    )


def _of_graph(path: Path, name: str, folder: Path) -> session.Subject:
    feeds = made_inputs(path)
    sample.write(folder, feeds)
    outside = tuple(each for each in sorted(path.parent.glob(f"{path.name}*.data")))
    return session.Subject(
        name=name,
        model=path,
        session=DEFAULT,
        sample=folder,
        longest=len(feeds) - 1,
        files=outside,
    )


def made_inputs(path: Path) -> list[dict[str, np.ndarray]]:
    """Make inputs for a graph from what it declares: batch 1, other open dimensions 16.

    Integers are small (0 and 1 where the graph takes no others: a tiny vocabulary), masks are ones,
    the rest is drawn evenly from [0, 1).
    """
    import onnxruntime

    name = bundle.printable(path.name)
    try:
        opened = onnxruntime.InferenceSession(str(path), _quiet(), ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no class but this one
        first = first_line(error)
        raise ModelError(
            f"'{name}' can't be loaded by onnxruntime: {bundle.printable(first, 500)}"
        ) from None
    for most in INTEGERS:
        draws, ports = np.random.default_rng(0), opened.get_inputs()
        made = [{each.name: _made(each, draws, path, most) for each in ports} for _ in range(4)]
        try:
            opened.run(None, made[0])
        except Exception:  # the probe's words tell, where no integers do
            continue
        break
    return made


def _quiet() -> Any:
    """Return options of a session whose failures are told by us alone."""
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.log_severity_level = 4
    return made


KINDS: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


def _made(port: Any, draws: np.random.Generator, path: Path, most: int) -> np.ndarray:
    kind = KINDS.get(port.type)
    if kind is None:
        raise ModelError(f"{_port(path, port)} is of type {port.type}, which can't be made")
    shape = [
        each if isinstance(each, int) and each > 0 else (1 if place == 0 else LENGTH)
        for place, each in enumerate(port.shape)
    ]
    if np.prod(shape, dtype=np.float64) > MOST_NUMBERS:
        raise ModelError(f"{_port(path, port)} of {shape} is too large to make")
    if np.issubdtype(kind, np.floating):
        return draws.random(shape).astype(kind)
    if "mask" in port.name or kind is np.bool_:
        return np.ones(shape, kind)
    if "type" in port.name:
        return np.zeros(shape, kind)
    return draws.integers(int(most > 2), most, shape).astype(kind)


def _port(path: Path, port: Any) -> str:
    return f"'{bundle.printable(path.name)}': its input '{bundle.printable(port.name)}'"


def rows(measured: Measured) -> list[dict[str, Any]]:
    """Return the figures as plain rows, the baseline first, named as in report.json."""
    import dataclasses

    made = []
    for name, figures in measured.figures.items():
        plain = dataclasses.asdict(figures)
        made.append({"name": name, "latency_ms": plain.pop("latency"), **plain})
    return made


def table(measured: Measured) -> list[str]:
    """Tell the figures to people."""
    width = max(12, *(len(name) for name in measured.figures)) + 2
    head = f"{'':<{width}}{'p50':>10}{'p90':>10}{'cold':>10}{'faster':>8}{'memory':>9}{'size':>9}"
    lines = [f"{head}{'load':>9}"]
    for name, one in measured.figures.items():
        if one.failed or one.latency is None:
            lines.append(f"{name:<{width}}failed: {bundle.printable(one.failed)}")
            continue
        faster = f"{one.speedup.value:.2f}x" if one.speedup else "-"
        memory = "-" if one.memory_mb is None else f"{one.memory_mb:.1f} MB"
        steady = "" if one.latency.steady else "  unsteady"
        lines.append(
            f"{name:<{width}}{one.latency.p50:>7.3g} ms{one.latency.p90:>7.3g} ms"
            f"{one.latency.cold:>7.3g} ms{faster:>8}{memory:>9}{one.size_mb or 0:>6.1f} MB"
            f"{one.load_ms or 0:>6.0f} ms{steady}"
        )
    return lines


def compare(before: Path, after: Path) -> list[str]:
    """Tell two measurements (files of --json) side by side, row by row of the same name.

    Ratios are of p90, with the furthest ends of both intervals. Those are of within a run, and two
    runs are two moments and perhaps two machines: slower or faster is what differs by over 5 % with
    its whole interval over the yardstick, and is steady. Raises `UsageError`.
    """
    one, other = _measurement(before), _measurement(after)
    shared = [name for name in one["rows"] if name in other["rows"]]
    if not shared:
        raise UsageError(
            f"no row of '{bundle.printable(before.name)}' is in '{bundle.printable(after.name)}': "
            f"{', '.join(map(bundle.printable, one['rows']))} against "
            f"{', '.join(map(bundle.printable, other['rows']))}"
        )
    width = max(12, *(len(name) for name in shared)) + 2
    host = other["time"] / one["time"]
    lines = [f"{'':<{width}}{'p90 before':>12}{'p90 after':>12}{'ratio':>8}"]
    for name in shared:
        old, new = one["rows"][name], other["rows"][name]
        low, high = new["p90_low"] / old["p90_high"], new["p90_high"] / old["p90_low"]
        ratio = new["p90"] / old["p90"]
        said = "slower" if low / host > APART else "faster" if high / host < 1 / APART else ""
        if not (old["steady"] and new["steady"]):
            said = "unsteady: no verdict"
        lines.append(
            f"{bundle.printable(name):<{width}}{old['p90']:>9.3g} ms{new['p90']:>9.3g} ms"
            f"{ratio:>8.2f} ({low:.2f} to {high:.2f}), over the yardstick {ratio / host:.2f}x  "
            f"{said}".rstrip()
        )
    rates = ", ".join(
        f"{name} {other['yardstick'][name] / one['yardstick'][name]:.2f}"
        for name in one["yardstick"]
    )
    return [
        *lines,
        f"the yardstick, after over before: its time {host:.2f}, {rates}",
        f"slower, faster: over the yardstick by more than {100 * (APART - 1):.0f} %, with the "
        "whole interval",
    ]


def _measurement(path: Path) -> dict[str, Any]:
    """Read what `bench --json` printed: latencies by row, and the yardstick."""
    wrong = UsageError(
        f"'{bundle.printable(path)}' is no measurement: expected what bench --json printed"
    )
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rows = {row["name"]: row["latency_ms"] for row in told["rows"] if row["latency_ms"]}
        numbers = {
            name: {each: float(row[each]) for each in ("p90", "p90_low", "p90_high")}
            for name, row in rows.items()
        }
        steady = {name: row.get("steady", True) is True for name, row in rows.items()}
        yardstick = {name: float(told["yardstick"][name]) for name in YARDSTICK}
    except OSError as error:
        raise from_os_error(error, "reading a measurement") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise wrong from None
    time = recorded.yard(yardstick)
    if (
        time is None
        or not numbers
        or not all(x > 0 for row in numbers.values() for x in row.values())
    ):
        raise wrong
    named = {name: {**row, "steady": steady[name]} for name, row in numbers.items()}
    return {"rows": named, "yardstick": yardstick, "time": time}
