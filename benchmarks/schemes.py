"""Every quantization scheme of one model, and onnxruntime's own out of the box, in one run.

    python benchmarks/schemes.py --model M --data D [--student 2]
    python benchmarks/schemes.py --model M --data D --vary static_qoperator:smooth=0.5

The teacher (or an untrained student of it, for its speed alone) is exported, quantized by every
scheme that serves it, each with the settings of `--vary` too, and measured round by round at one
thread, batch 1, real lengths. Beside them what there is without us: the model as `torch.onnx`
exports it, and `onnxruntime.quantization.quantize_dynamic` of that file and of our graph. Scores
are of validation rows: nothing here is chosen by test rows. Ends with one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgedistill import job as jobs
from edgedistill import planner, plugins
from edgedistill.builder.opening import open_job
from edgedistill.builder.prepare import prepare
from edgedistill.cli import run
from edgedistill.data.arrays import Arrays
from edgedistill.graph import count
from edgedistill.graph import session as sessions
from edgedistill.measure import sample, session
from edgedistill.measure.lane import Effort
from edgedistill.progress import silent
from edgedistill.records import Step
from edgedistill.settings import coerce, plain
from edgedistill.store.runner import Runner


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--model", required=True)
@click.option("--data", required=True)
@click.option("--target", default="phone")
@click.option("--student", default=None, help="an untrained student instead of the teacher")
@click.option("--vary", multiple=True, help="a scheme's settings: NAME:KEY=VALUE,KEY=VALUE")
@click.option("--rows", default=1000, help="validation rows that are scored")
@click.option("--seconds", default=20.0, help="of measuring")
@click.option("--store", default=None)
def main(**told: Any) -> None:
    """Make the graphs, score and measure them, print the table."""
    settings = [("model.path", told["model"]), ("data.path", told["data"])]
    settings += [("run.store", told["store"])] if told["store"] else []
    settings += [("student.shapes", told["student"])] if told["student"] else []
    job = jobs.make({}, settings, target=told["target"])
    opened = open_job(job)
    prepared = prepare(job, opened.target, opened.store)
    plan = planner.propose(job, opened.target, prepared.facts)
    baseline = plan.baseline
    graph, rows = baseline.graph, baseline.validation.inputs["rows.0"]
    if told["student"]:
        row = next(row for row in plan.beside if row.role == "student_fp32")
        graph, rows = row.untrained, row.validation.inputs["rows.0"]  # type: ignore[assignment]
    assert isinstance(graph, Step) and isinstance(rows, Step)
    quantized = next(row.graph for row in plan.candidates if isinstance(row.graph, Step))
    train = quantized.inputs["train.0"]
    assert isinstance(train, Step)
    with Runner(opened.store.root, threads=prepared.facts.host.threads) as runner:
        runner.run([graph, rows, train])
    source = opened.store.path(graph)
    with tempfile.TemporaryDirectory(prefix="edgedistill-") as folder:
        found = {"fp32": source / "model.onnx"}
        facts: dict[str, Any] = {}
        inputs = {"graph.0": source, "train.0": opened.store.path(train)}
        for name, scheme, more in _wanted(prepared.facts, opened.target, told["vary"]):
            out = Path(folder) / name.replace(":", "-").replace("=", "")
            out.mkdir()
            facts[name] = _quantize(quantized, scheme, more, inputs, opened.target, out)
            found[name] = out / "model.onnx"
        found["onnxruntime dynamic"] = _peer(source / "model.onnx", Path(folder) / "peer.onnx")
        encoder = prepared.facts.teacher.encoder
        if _task(prepared).EXAMPLES == "text":
            (model,) = graph.inputs.values()
            plain = Path(folder) / "plain.onnx"
            _exported(opened.store.path(model), _task(prepared), encoder, plain)
            found["torch.onnx"] = plain
            peer = _peer(plain, Path(folder) / "plain_peer.onnx")
            found["torch.onnx, onnxruntime dynamic"] = peer
        _table(
            found,
            facts,
            opened=opened,
            encoder=_task(prepared).open_encoder(source, encoder),
            task=_task(prepared),
            rows=Arrays(opened.store.path(rows)),
            told=told,
        )


def _task(prepared: Any) -> Any:
    return plugins.find("tasks", prepared.facts.task)


def _wanted(
    facts: Any, target: Any, vary: tuple[str, ...]
) -> list[tuple[str, str, dict[str, str]]]:
    """Return (name, scheme, settings) of all that is made: each scheme that serves, then wishes."""
    family: Any = plugins.find("families", facts.teacher.family)
    about = {"family": facts.teacher.family, "convolutional": family.CONVOLUTIONAL}
    made: list[tuple[str, str, dict[str, str]]] = []
    for name in plugins.names("schemes"):
        scheme: Any = plugins.find("schemes", name)
        if all(scheme.valid(about, target, one) is None for one in target.processors):
            made.append((name, name, {}))
    for text in vary:
        scheme_name, _, pairs = text.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs.split(","))
        made.append((text, scheme_name, values))
    return made


def _quantize(
    step: Step,
    name: str,
    more: Mapping[str, str],
    inputs: Mapping[str, Path],
    target: Any,
    out: Path,
) -> Mapping[str, Any]:
    stage: Any = plugins.find("stages", "quantize")
    scheme: Any = plugins.find("schemes", name)
    values = {**scheme.for_processors(target.processors), **more}
    settings = coerce(stage.Settings, step.settings, "quantize")
    settings = dataclasses.replace(
        settings,
        scheme=name,
        scheme_settings=plain(coerce(scheme.Settings, values, name)),
        recover=0,
    )
    return stage.run(dict(inputs), settings, out, silent)


def _peer(source: Path, path: Path) -> Path:
    """Quantize as onnxruntime does when it is told nothing."""
    from onnxruntime.quantization import quantize_dynamic

    logging.disable(logging.WARNING)
    quantize_dynamic(source, path)
    return path


def _exported(model: Path, task: Any, settings: Mapping[str, Any], path: Path) -> None:
    """Export a model as torch's documentation has it: all inputs, any batch and length."""
    import torch

    loaded = task.model_class().from_pretrained(model, attn_implementation="eager")
    loaded = loaded.float().eval()
    encoder = task.open_encoder(model, settings)
    texts = [{name: text for name in encoder.columns} for text in ("one text", "a longer one here")]
    batch = encoder.batch(encoder.encode_many(texts), integers="int64")
    tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
    warnings.simplefilter("ignore")  # both tools warn of themselves
    torch.onnx.export(
        loaded,
        (tensors,),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=list(tensors),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in tensors}
        | {"logits": {0: "batch"}},
    )


def _table(
    found: Mapping[str, Path],
    facts: Mapping[str, Any],
    *,
    opened: Any,
    encoder: Any,
    task: Any,
    rows: Arrays,
    told: Mapping[str, Any],
) -> None:
    draw = np.random.default_rng(0).permutation(len(rows))[: told["rows"]]
    feeds = [encoder.batch([rows.row(int(index))], integers="int64") for index in draw]
    truth = np.array([int(rows.row(int(index))["truth"]) for index in draw])
    lengths = np.asarray(rows.lengths("input_ids" if "input_ids" in rows.names else rows.names[0]))
    timed = [
        encoder.batch([rows.row(index)], integers="int64")
        for index in sample.choose(lengths, seed=0)
    ]
    folder = Path(tempfile.mkdtemp(prefix="edgedistill-"))
    sample.write(folder / "sample", timed)
    answers, scores = {}, {}
    for name, path in found.items():
        running = sessions.start(path)
        answers[name] = np.concatenate([sessions.logits(running, feed) for feed in feeds])
        sums = task.statistics(answers[name], truth, task.METRICS[0]).sums()
        scores[name] = float(task.score(sums, task.METRICS[0]))
    subjects = [
        session.Subject(
            name=name,
            model=path,
            session=dict(sessions.DEFAULT),
            sample=folder / "sample",
            longest=0,
            timed=len(timed),
            products=sample.products(lambda shapes, at=path: count.products(at, shapes), timed),
        )
        for name, path in found.items()
    ]
    measured = session.measure(subjects, opened.target, effort=Effort(seconds=told["seconds"]))
    print(f"{'':<36}{'score':>7}{'as fp32':>9}{'p90 ms':>8}{'faster':>20}{'MB':>7}{'batched':>9}")
    record = {}
    for name, each in measured.figures.items():
        same = 100 * float((answers[name].argmax(axis=1) == answers["fp32"].argmax(axis=1)).mean())
        times, latency = each.speedup, each.latency
        assert times is not None and latency is not None
        changed = (facts.get(name) or {}).get("batched") or {}
        span = f"{times.value:.2f} ({times.low:.2f} to {times.high:.2f})"
        shown = f"{changed['changed_points']:.1f}" if changed else ""
        mark = "" if latency.steady else "~"
        print(
            f"{name:<36}{scores[name]:>7.1f}{same:>9.1f}{latency.p90:>7.2f}{mark:1}{span:>20}"
            f"{each.size_mb or 0:>7.1f}{shown:>9}"
        )
        record[name] = {
            "score": scores[name],
            "same_answers": same,
            "p90_ms": latency.p90,
            "faster": list(times),
            "size_mb": each.size_mb,
            "changed_in_batches": changed.get("changed_points"),
        }
    print("faster: by median over rounds of the ratio of block medians, with its 95 % interval;")
    print("batched: % of training rows answered otherwise in padded batches; ~ unsteady")
    print(json.dumps({"rows": len(truth), "steady": not measured.warnings, "schemes": record}))


if __name__ == "__main__":
    run(main, "schemes.py")
