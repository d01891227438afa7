"""Hold the encoder that ships against transformers' own, on a few rows, before anything is trained.

transformers loads torch, which never sits beside the probes: the comparison is a process of its
own, and this file is both sides of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgedistill import plugins
from edgedistill.builder.course import Course
from edgedistill.builder.prepare import Prepared
from edgedistill.data.rows import Rows
from edgedistill.records import Source, Step
from edgedistill.store import keys

ROWS = 16
PATIENCE_S = 120.0
THEIRS = ("tokenizer_config.json", "preprocessor_config.json")  # what transformers opens by
SHOWN = 400  # characters of a difference
SMALL = 1_000_000  # bytes; larger files are vocabularies, which the encoder's own key covers


def hold_encoder(course: Course, prepared: Prepared) -> str | None:
    """Return a warning where the teacher's encoder differs from transformers' own, else None.

    Compared once for rows, an encoder, and what transformers opens its own by; the store remembers
    what was found. What transformers itself can't open can't be compared, and says so.
    """
    encode = _encode(course)
    folder, given = prepared.model.folder, prepared.model.given is not None
    if given and not any((folder / name).is_file() for name in THEIRS):
        return None  # an .onnx with an encoder of ours beside it, or a bare tokenizer.json
    if prepared.starter or encode is None:
        return None
    key = f"encoder-{keys.digest([keys.key(encode), *_theirs(folder)])}"
    known = course.store.decision(key)
    try:
        difference = known["difference"] if known else _compare(course, prepared, encode)
    except _NotComparedError as why:  # another time it may be: nothing to remember
        warning = f"the encoder was not compared with transformers' own{why}"
        course.progress({"kind": "warning", "text": warning})
        return warning
    if known is None:
        course.store.decide(key, {"difference": difference})
        if difference is None:
            course.tell("encoder", f"as transformers' own on up to {ROWS} training rows")
    if difference is None:
        return None
    warning = f"the encoder differs from transformers' own in {difference}"
    course.progress({"kind": "warning", "text": warning})
    return warning


class _NotComparedError(Exception):
    """There was no comparison; its text says why, after a comma or colon."""


def _theirs(folder: Path) -> list[str]:
    """Return what decides how transformers opens its own: its version, and the small files."""
    files = (path for path in sorted(folder.glob("*.json")) if path.stat().st_size <= SMALL)
    return [keys.version("transformers"), *(keys.digest(path.read_text()) for path in files)]


def _compare(course: Course, prepared: Prepared, encode: Step) -> str | None:
    """Return the first difference, None where there is none."""
    told = {
        "task": course.facts.task,
        "model": str(prepared.model.folder.absolute()),
        "rows": str(course.folder(encode.inputs["rows.0"])),
        "encoder": str(course.folder(encode.inputs["encoder.0"])),
        "settings": dict(course.facts.teacher.encoder),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE_S,
            env={**course.runner.environment(), "HF_HUB_OFFLINE": "1"},
        )
    except subprocess.TimeoutExpired:
        raise _NotComparedError(f": no answer within {PATIENCE_S:.0f} s") from None
    if done.returncode:  # its advice names files and packages of ours, not the user's
        raise _NotComparedError(", which can't open it in this folder")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    difference = answer["difference"]
    return difference and difference[:SHOWN]


def _encode(course: Course) -> Step | None:
    """Return the step that encodes the training rows for the teacher."""
    train = course.plan.baseline.train
    found: list[Step] = []

    def visit(thing: Step | Source) -> None:
        if isinstance(thing, Step):
            if keys.stage_name(thing) == "encode" and not thing.settings["made"]:
                found.append(thing)
            for each in thing.inputs.values():
                visit(each)

    if train is not None:
        visit(train)
    return found[0] if found else None


def main() -> None:
    """Compare as stdin says; the answer is the last line of stdout."""
    told = json.load(sys.stdin)
    task = plugins.find("tasks", told["task"], allow_code=True)  # refused before, where it may not
    encoder = task.open_encoder(Path(told["encoder"]), told["settings"])
    rows = Rows(Path(told["rows"]))
    step = max(1, len(rows) // ROWS)
    chosen = range(0, len(rows), step)[:ROWS]
    difference = task.compare_encoder(
        Path(told["model"]), encoder, [rows.example(index) for index in chosen]
    )
    print(json.dumps({"difference": difference}))


if __name__ == "__main__":
    main()
