"""Ways to ship: load time, peak memory above a bare runtime and p90 of each, in one measuring run.

    python benchmarks/ways.py BUNDLE [--seconds 30] [--json]

The same graph as it lies in the bundle, with its weights in another file (external data) and in
onnxruntime's own format (.ort: optimised ahead for any processor, or for this one alone), read or
mapped; each with weights repacked at load (prepacking) and not, and with the arena and without.
The rows are the bundle's golden inputs. "of file" is the peak over the size of the file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from edgedistill import bundle, progress
from edgedistill.bundle import gate
from edgedistill.cli import run
from edgedistill.graph import inspect, session
from edgedistill.measure import sample
from edgedistill.measure import session as measuring

MAPPED = {"session.use_memory_mapped_ort_model": "1"}
IN_PLACE = {**MAPPED, "session.use_ort_model_bytes_for_initializers": "1"}


COLUMNS = ("way", "prepacking", "arena", "file MB", "load ms", "peak MB", "of file", "p50 ms",
           "p90 ms", "times first")  # fmt: skip


class Way(NamedTuple):
    """One way to ship: files, and how a session opens them."""

    name: str
    model: Path
    files: tuple[Path, ...]
    config: Mapping[str, str]


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path, exists=True))
@click.option("--seconds", default=30.0, help="of measuring, shared by all ways")
@click.option("--json", "as_json", is_flag=True)
def main(path: Path, seconds: float, as_json: bool) -> None:
    """Write the file in every way, measure all in turn, print the table."""
    opened = bundle.load(path)
    with tempfile.TemporaryDirectory() as scratch:
        found = list(_measured(opened, Path(scratch), seconds))
    if as_json:
        print(json.dumps(found))
        return
    print(_line(COLUMNS))
    for row in found:
        print(_line(row.values()))


def _measured(opened: bundle.Bundle, scratch: Path, seconds: float) -> Iterator[dict[str, Any]]:
    rows = opened.encoder.encode_many(opened.task.golden(opened.encoder, opened.labels))
    rows.sort(key=lambda row: sum(value.size for value in row.values()))
    sample.write(scratch / "rows", [opened.feed([row]) for row in rows])
    subjects, told = [], []
    for way in _ways(opened, scratch):
        for prepacking in (True, False):
            for arena in (True, False):
                options = {
                    **opened.manifest["session"],
                    "prepacking": prepacking,
                    "arena": arena,
                }
                options["config"] = {**options.get("config", {}), **way.config}
                name = f"{way.name} {prepacking} {arena}"
                told.append((name, way, prepacking, arena))
                subjects.append(
                    measuring.Subject(
                        name=name,
                        model=way.model,
                        session=options,
                        sample=scratch / "rows",
                        longest=len(rows) - 1,
                        files=way.files,
                    )
                )
    made = measuring.measure(
        subjects, gate.own_target(opened), seconds=seconds, progress=progress.silent
    )
    for name, way, prepacking, arena in told:
        figures = made.figures[name]
        size = sum(each.stat().st_size for each in (way.model, *way.files)) / 1e6
        if figures.failed is not None or figures.latency is None:
            yield {**dict.fromkeys(COLUMNS[:-1], "-"), "way": name, "times first": "failed"}
            continue
        peak = figures.memory_mb or 0.0
        yield {
            "way": way.name,
            "prepacking": prepacking,
            "arena": arena,
            "file MB": round(size, 2),
            "load ms": round(figures.load_ms or 0.0, 1),
            "peak MB": round(peak, 1),
            "of file": round(peak / size, 2),
            "p50 ms": round(figures.latency.p50, 3),
            "p90 ms": round(figures.latency.p90, 3),
            "times first": round(1 / figures.speedup.value, 2) if figures.speedup else None,
        }


def _ways(opened: bundle.Bundle, scratch: Path) -> Iterator[Way]:
    """Write the graph of a bundle in each way."""
    import onnx

    yield Way("one file", opened.model, (), {})
    apart = scratch / "apart" / "model.onnx"
    apart.parent.mkdir()
    onnx.save(
        inspect.read(opened.model),
        apart,
        save_as_external_data=True,
        location="model.weights",
        size_threshold=1024,
    )
    weights = apart.with_name("model.weights")
    weights.chmod(0o644)  # onnx writes it for its owner alone
    yield Way("external data", apart, (weights,), {})
    for name, level in (("ort", "extended"), ("ort for this machine", "all")):
        made = scratch / f"model.{level}.ort"
        _convert(opened, made, level)
        yield Way(name, made, (), {})
        yield Way(f"{name}, mapped", made, (), MAPPED)
        yield Way(f"{name}, in place", made, (), IN_PLACE)


def _convert(opened: bundle.Bundle, to: Path, level: str) -> None:
    """Write a graph in onnxruntime's own format, optimised at a level."""
    told = {**opened.manifest["session"], "optimization": level}
    told["config"] = {**told.get("config", {}), "session.save_model_format": "ORT"}
    session.start(opened.model, told, optimized=to)


def _line(cells: Any) -> str:
    widths = (30, 11, 6, 8, 8, 8, 8, 7, 7, 11)
    return " ".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True))


if __name__ == "__main__":
    run(main, "ways.py")
