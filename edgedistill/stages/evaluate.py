"""Evaluate: the outputs of the file that ships, by the session that ships, in the rows' order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import plugins as doors
from edgedistill.errors import ModelError
from edgedistill.progress import bar
from edgedistill.records import Progress
from edgedistill.settings import setting

INPUTS = {"graph": "graph", "rows": "arrays"}
OUTPUT = "arrays"
PACKAGES = ("onnxruntime", "numpy")


@dataclass(frozen=True)
class Settings:
    task: str = setting("text-classification", "the task, which knows how the graph is fed")
    session: Mapping = setting(
        {
            "threads": 1,
            "spinning": False,
            "arena": True,
            "prepacking": True,
            "optimization": "all",
            "config": {},
        },
        "the session's options, those that ship",
    )
    batch: int = setting(1, "rows of a run; 1: one by one, without padding", low=1, high=4096)
    encoder: Mapping = setting({}, "the encoder's settings (max_length for text)")
    integers: str = setting("int64", "type of integer inputs", choices=("int64", "int32"))
    instructions: str = setting("", "the host's instruction set for int8, which can change results")
    rows: int = setting(0, "how many rows, drawn by the seed; 0: all of them", low=0)
    seed: int = setting(0, "which rows are drawn", low=0)


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"])]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Run the graph over the rows: "logits" (float32, labels) and "truth" of each, streamed."""
    from edgedistill.data import arrays
    from edgedistill.graph import session

    task: Any = doors.find("tasks", settings.task, allow_code=True)
    encoder = task.open_encoder(inputs["graph.0"], settings.encoder)
    running = session.start(inputs["graph.0"] / "model.onnx", settings.session)
    rows = arrays.Arrays(inputs["rows.0"])
    fixed = session.fixed(running)
    if fixed.batch and fixed.batch != settings.batch:
        raise ModelError(
            f"the graph takes {fixed.batch} rows a run, evaluate.batch is {settings.batch}"
        )

    which = np.arange(len(rows))
    if 0 < settings.rows < len(rows):
        which = np.sort(np.random.default_rng(settings.seed).permutation(which)[: settings.rows])

    def outputs() -> Iterator[dict[str, np.ndarray]]:
        from edgedistill.graph import feeds

        for start in range(0, len(which), settings.batch):
            chosen = [rows.row(int(index)) for index in which[start : start + settings.batch]]
            feed = feeds.padded(
                chosen,
                encoder,
                integers=settings.integers,
                length=fixed.length,
                batch=fixed.batch,
            )
            logits = session.logits(running, feed)[: len(chosen)]
            for row, values in zip(chosen, logits, strict=True):
                yield {"logits": values, "truth": row["truth"]}

    count = arrays.write(out, bar(outputs(), progress, total=len(which)))
    return {"rows": count}
