"""The commands over bundles: check, bench, eval, predict, verify, inspect."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from edgedistill.cli.options import JSON, LIMIT, ON_DEVICE, STORE, STRICT, pairs
from edgedistill.cli.show import Printer, plainly
from edgedistill.errors import UsageError

BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))
TARGET = click.option("--target", metavar="T", help="Another target than the bundle's own.")
SCORED = "; edgedistill eval BUNDLE --data FILE scores what is in it"
DATA = click.option("--data", metavar="D", help="Rows to score on.")


@click.command()
@BUNDLE
@DATA
@TARGET
@LIMIT
@STRICT
@ON_DEVICE
@click.option("--baseline", metavar="REPORT.json", help="An earlier report to hold against.")
@click.option("--format", "shape", default="text", metavar="F", help="text, md, json or github.")
def check(bundle: Path, limits: tuple[str, ...], shape: str, **flags: Any) -> None:
    """Hold a finished bundle against limits: the gate for a CI."""
    from edgedistill.bundle import commands

    commands.known(shape)  # before anything is measured
    with Printer(quiet=shape != "text") as printer:
        result = commands.check(
            bundle,
            limits=pairs(limits, "--limit"),
            progress=printer,
            **{name: value for name, value in flags.items() if value is not None},
        )
    _lines(commands.told(result, shape))
    _warned(result.warnings)
    if result.verdict == "unchecked":
        for one in result.unproven:
            said = f"{one.limit} can't be checked: {one.reason}"
            click.echo(f"edgedistill: {plainly(said)}", err=True)
    sys.exit(result.exit_code)


@click.command()
@click.argument("what", nargs=-1, metavar="SUITE | BUNDLE | FILE.onnx ...")
@ON_DEVICE
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A B",
    help="Two measurements (files of --json) to compare.",
)
@TARGET
@click.option("--seconds", type=click.FloatRange(0.5, 3600), help="Budget.")
@STORE
@JSON
def bench(what: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Measure a suite's cases, or bundles and .onnx files side by side."""
    from edgedistill import bench as benches
    from edgedistill import suites

    pair = flags.pop("compare", None)
    if bool(pair) == bool(what):
        raise UsageError("bench takes SUITE, or BUNDLE and FILE.onnx ..., or --compare A B alone")
    if pair:
        lines = benches.compare(*pair)
        _lines([json.dumps({"lines": lines})] if as_json else lines)
        return
    store = flags.pop("store")
    paths = [Path(each).expanduser() for each in what]
    with Printer() as printer:
        if len(what) == 1 and not paths[0].exists() and paths[0].suffix != ".onnx":
            settings = {
                "run.store": store,
                "run.on_device": flags["on_device"],
                "measure.seconds": flags["seconds"],
            }
            given = {name: value for name, value in settings.items() if value is not None}
            rows = suites.run(what[0], given, printer, target=flags["target"])
            _lines([json.dumps(rows)] if as_json else suites.table(rows))
            return
        measured = benches.bench(
            paths,
            flags["target"],
            seconds=flags["seconds"],
            on_device=bool(flags["on_device"]),
            progress=printer,
        )
    if as_json:
        document = {
            "rows": benches.rows(measured),
            "yardstick": dataclasses.asdict(measured.yardstick),
            "environment": dict(measured.environment),
        }
        click.echo(json.dumps(document))
        return
    _lines(benches.table(measured))
    _warned(measured.warnings)


@click.command("eval")
@BUNDLE
@DATA
@click.option("--cpu", metavar="NAME", help="As another processor, by emulation: haswell.")
@JSON
def eval_(bundle: Path, data: str | None, cpu: str | None, as_json: bool) -> None:
    """Score a bundle on rows, as it ships."""
    from edgedistill.bundle import commands

    if cpu is not None:
        with Printer() as printer:
            there = commands.eval_as(bundle, cpu, data, progress=printer)
        _lines([json.dumps(dataclasses.asdict(there))] if as_json else there.lines())
        return
    result = commands.eval_(bundle, data)
    _lines([json.dumps(dataclasses.asdict(result))] if as_json else result.lines())
    _warned(result.warnings)


@click.command()
@BUNDLE
@click.argument("what", nargs=-1, required=True, metavar="TEXT|FILE ...")
@click.option("--top", type=click.IntRange(1, 1000), default=3, help="How many labels to show.")
@JSON
def predict(bundle: Path, what: tuple[str, ...], top: int, as_json: bool) -> None:
    """Answer texts, or image files, with a bundle; pairs of texts two by two."""
    from edgedistill import bundle as bundles

    opened = bundles.load(bundle)
    asked = opened.asked(what)
    answers = opened.predict(asked)
    files = (
        [each for each in what if os.path.isfile(each)] if opened.task.EXAMPLES == "text" else []
    )
    _warned(f"'{each}' is a file: its name was read as a text{SCORED}" for each in files[:1])
    _warned(filter(None, [opened.inexact()]))
    if as_json:
        made = [
            {"input": row, "top": [{"label": n, "probability": p} for n, p in answer[:top]]}
            for row, answer in zip(asked, answers, strict=True)
        ]
        click.echo(json.dumps(made))
        return
    for row, answer in zip(asked, answers, strict=True):
        if len(asked) > 1:
            click.echo(plainly(row if isinstance(row, str) else " | ".join(row)))
        for label, probability in answer[:top]:
            click.echo(f"{100 * probability:6.1f} %  {plainly(label)}")


@click.command()
@BUNDLE
@JSON
def verify(bundle: Path, as_json: bool) -> None:
    """Prove that a bundle is whole: hashes, manifest, model, golden vectors."""
    from edgedistill import bundle as bundles

    found = bundles.verify(bundle)
    if as_json:
        document = dataclasses.asdict(found) | {"path": found.path.name}
        click.echo(json.dumps(document))
        return
    golden = found.golden
    click.echo(
        f"whole: {found.files} files, {found.bytes / 1e6:.1f} MB; {golden.rows} golden vectors "
        f"within tolerance; payload {found.payload[:16]}"
    )


@click.command()
@click.argument("what", type=click.Path(path_type=Path), metavar="BUNDLE|FILE")
@JSON
def inspect(what: Path, as_json: bool) -> None:
    """Describe a bundle, a report.json or an .onnx; the report's pages are made again beside it."""
    from edgedistill import inspection

    found = inspection.inspect(what)
    _lines([json.dumps(found.record)] if as_json else found.lines())
    _warned(found.warnings)


def _warned(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"{'warning':<11}{plainly(warning)}", err=True)


def _lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
