"""Adopt: a graph that another tool wrote gets the form of ours, held against the file as given."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import plugins as doors
from edgedistill.records import Progress
from edgedistill.settings import setting

INPUTS = {"graph": "graph"}
OUTPUT = "graph"
PACKAGES = ("onnx", "onnxruntime", "numpy")

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Settings:
    task: str = setting("text-classification", "the task, which knows how the graph is fed")
    encoder: Mapping = setting({}, "the encoder's settings (max_length for text)")
    ports: Mapping = setting({}, "the graph's own name of each input, by ours")
    output: str = setting("logits", "the graph's own name of the output that is kept")
    channels_last: bool = setting(
        False, "the graph takes images as (rows, height, width, channels)"
    )
    opset: int = setting(
        17, "ONNX opset of a graph that is too old to be quantized", low=13, high=20
    )
    ir: int = setting(8, "ONNX IR version of the graph", low=8, high=13)
    integers: str = setting("int64", "type of integer inputs", choices=("int64", "int32"))
    batch: int = setting(0, "rows that the graph takes in a run; 0: any number", low=0)
    fixed: int = setting(0, "0: as the graph is; else one row of this length", low=0)
    single: bool = setting(
        False, "one row a run, never padded: without mask and segments, where the graph can be"
    )


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"])]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Adopt a graph folder; returns facts about the graph, and how it compares with the given."""
    from edgedistill.graph import adopt, clean, compare, first_token, inspect, session, simplify
    from edgedistill.graph import feeds as feeds_of
    from edgedistill.graph import single as singles

    source = inputs["graph.0"]
    task: Any = doors.find("tasks", settings.task, allow_code=True)
    encoder = task.open_encoder(source, settings.encoder)
    given = inspect.read(source / "model.onnx")
    precision = adopt.precision(given)
    made, changed, softmax = adopt.adopted(
        inspect.read(source / "model.onnx"),
        inputs=settings.ports,
        output=settings.output,
        channels_last=settings.channels_last,
        opset=settings.opset,
        ir=settings.ir,
        integers=settings.integers,
    )
    if settings.batch:
        clean.fix(made, {"batch": settings.batch})
    fresh = session.start(clean.serialize(made))
    examples = encoder.encode_many(task.golden(encoder, []))
    feeds = list(_feeds(examples, encoder, session.fixed(fresh), settings))
    if len({next(iter(feed.values())).shape for feed in feeds}) > 2:
        simplify.fold_shapes(made, feeds)
        made = first_token.narrow(made, simplify.observed(made, feeds))
    compared = compare.hold(
        _as_given(source, given, settings), _as_ours(made, softmax=softmax), feeds, shapes=1
    )
    if settings.single and not settings.fixed and not any(session.fixed(fresh)):
        numbers = feeds_of.numbers(examples, encoder)
        made = singles.single(made, numbers, feeds) or made
        alone = [_typed(encoder.batch([row]), settings) for row in examples]
        given_alone, ours = _as_given(source, given, settings), _as_ours(made, softmax=softmax)
        compare.hold(given_alone, ours, alone, shapes=1)
    if settings.fixed:
        clean.fix(made, {"batch": 1, "length": settings.fixed})
    path = out / "model.onnx"
    clean.save(made, path)
    encoder.files(out)
    shutil.copyfile(source / "labels.json", out / "labels.json")
    for text in changed:
        progress({"kind": "note", "text": f"the graph as given, changed: {text}"})
    facts = inspect.describe(path)
    return {**facts, "precision": precision, "changed": list(changed), "compared": compared}


def _feeds(
    rows: Sequence[Feed], encoder: Any, fixed: Any, settings: Settings
) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches of several shapes, or of the one that the graph takes."""
    from edgedistill.graph import feeds

    if not fixed.batch and not fixed.length:
        yield from (_typed(feed, settings) for feed in feeds.of_shapes(rows, encoder))
        return
    size = fixed.batch or 1
    for start in range(0, len(rows), size):
        chosen = [rows[(start + index) % len(rows)] for index in range(size)]
        yield feeds.padded(chosen, encoder, integers=settings.integers, length=fixed.length)


def _typed(feed: Feed, settings: Settings) -> dict[str, np.ndarray]:
    return {
        name: value.astype(settings.integers) if value.dtype.kind == "i" else value
        for name, value in feed.items()
    }


def _as_given(source: Path, given: Any, settings: Settings) -> Callable[[Feed], np.ndarray]:
    """Return a function that runs the file as it was given, on what ours is fed with."""
    from edgedistill.graph import adopt, session

    running = session.start(source / "model.onnx")

    def run(feed: Feed) -> np.ndarray:
        turned = settings.channels_last
        named = adopt.as_given(given, feed, settings.ports, channels_last=turned)
        (found,) = running.run([settings.output], named)
        return np.asarray(found, dtype=np.float32).reshape(len(found), -1)

    return run


def _as_ours(made: Any, *, softmax: bool) -> Callable[[Feed], np.ndarray]:
    """Return a function that runs our form, and puts a Softmax back that was taken off."""
    from edgedistill.graph import clean, session

    running = session.start(clean.serialize(made))

    def run(feed: Feed) -> np.ndarray:
        logits = session.logits(running, feed)
        if not softmax:
            return logits
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    return run
