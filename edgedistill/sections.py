"""What a job can be told, section by section: frozen, with types, ranges and a line each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill.errors import JobError
from edgedistill.settings import setting


@dataclass(frozen=True)
class ModelSpec:
    """The teacher (the first of several): where it is, and whether it still needs its head."""

    path: Any = setting(None, "folder, hub id, an .onnx file, or a live model")
    revision: str | None = setting(None, "of a hub id")
    finetune: str = setting(
        "auto", "train a head first: when it has none", choices=("auto", "never", "always")
    )
    teachers: tuple[str, ...] = setting((), "teachers beside it: folders, hub ids")
    encoder: str | None = setting(
        None, "of an .onnx: folder of its tokenizer.json or image settings, and of its labels"
    )
    inputs: Mapping = setting({}, "of an .onnx: its own name of an input, by ours (input_ids, ...)")


@dataclass(frozen=True)
class DataSpec:
    """The rows: where they are, and which columns count."""

    path: Any = setting(None, "folder, file, hub id, or live rows")
    own: Any = setting(None, "a second, small set: the rows of one user, say")
    own_weight: float = setting(
        0.3, "share of own rows among those that training reads", low=0.01, high=0.9
    )
    train: str | None = setting(None, "file of the training rows")
    validation: str | None = setting(None, "file of the validation rows")
    test: str | None = setting(None, "file of the test rows")
    unlabelled: str | None = setting(None, "file of rows without labels")
    text: str | None = setting(None, "column of the text")
    text_pair: str | None = setting(None, "column of the second text")
    image: str | None = setting(None, "column of the image")
    label: str | None = setting(None, "column of the label")
    group: str | None = setting(None, "column whose equal values stay in one split")
    encoding: str | None = setting(None, "of text files, where it is not UTF-8")
    bad_rows: str = setting("error", "rows with an empty text or label", choices=("error", "drop"))
    unseen_by_teacher: bool = setting(False, "the teacher never saw the test rows")


@dataclass(frozen=True)
class TaskSpec:
    """What the model is for; inferred from the columns when not named."""

    name: str | None = setting(None, "text-classification, image-classification")
    metric: str | None = setting(None, "accuracy, balanced_accuracy, macro_f1")
    max_length: int | None = setting(None, "tokens, special ones included", low=8, high=100_000)


@dataclass(frozen=True)
class StudentSpec:
    """Which students to try."""

    layers: tuple[int, ...] = setting((), "numbers of layers", low=1, high=1000)
    shapes: tuple[str, ...] = setting((), "shapes: 2x256, static, same")
    from_: tuple[str, ...] = setting(
        ("teacher",), "checkpoints or configs; the teacher: those that its family would try"
    )
    init: str = setting("teacher", "where weights come from", choices=("teacher", "random"))
    assistant: str | None = setting(
        None, "a shape between the teacher and its students, which learns first and teaches them"
    )
    choose: bool = setting(
        True, "try which of the teacher's layers start a student, where its training is long"
    )

    def paths(self) -> tuple[str, ...]:
        """Return the checkpoints and configs that students start from."""
        return tuple(path for path in self.from_ if path != "teacher")

    def named(self) -> tuple[str, ...]:
        """Return the students asked for, as texts; empty: the defaults of the family."""
        return (*map(str, self.layers), *self.shapes, *self.paths())


@dataclass(frozen=True)
class PruneSpec:
    """Structured pruning: what is kept of each student's units after its training."""

    kind: str = setting(
        "none", "none; a share to keep (0.5); or shares and numbers by kind: feed_forward=0.5"
    )

    def wish(self) -> dict[str, float]:
        """Return what to keep by kind, a share below 1 or a number; "" is the family's usual kind.

        Raises `JobError`.
        """
        found: dict[str, float] = {}
        for text in () if self.kind.strip().lower() == "none" else self.kind.split(","):
            kind, equals, told = text.rpartition("=")
            try:
                part = float(told)
            except ValueError:
                part = math.nan
            if not part > 0 or math.isinf(part) or (part > 1 and part != int(part)):
                named = not equals and told.strip().isidentifier()  # a kind without its share
                lacks = f"{told.strip()}=0.5" if named else "feed_forward=0.5"
                raise JobError(
                    f"prune.kind '{self.kind}': '{text.strip()}' says no share to keep (above 0, "
                    f"below 1) and no whole number: write 0.5 or {lacks}"
                )
            if kind.strip() in found:
                raise JobError(f"prune.kind '{self.kind}' says twice how much is kept")
            found[kind.strip()] = part
        return found


@dataclass(frozen=True)
class QuantizeSpec:
    """Which quantization schemes to try."""

    schemes: tuple[str, ...] = setting(("auto",), "auto, none, or names of schemes")
    max_drop: float | None = setting(None, "points that int8 may cost", low=0, high=100)
    aware: str = setting(
        "auto",
        "distil on with int8 simulated; auto: where int8 costs too much, or its recovery speed",
        choices=("auto", "always", "never"),
    )
    aware_share: float = setting(
        0.15, "of the first training's steps, that this one takes", low=0.0001, high=10
    )


@dataclass(frozen=True)
class RunSpec:
    """How to run."""

    objective: str = setting(
        "latency", "what decides among those that fit", choices=("latency", "score", "size")
    )
    seed: int = setting(0, "of every random draw", low=0, high=2**31 - 1)
    threads: int | None = setting(None, "of training; default: the cores", low=1, high=1024)
    time_limit: str = setting("30m", "for the whole build: 90s, 30m, 2h")
    out: str | None = setting(None, "folder of the bundle; default dist/<target>")
    store: str | None = setting(None, "folder of the store")
    strict: bool = setting(False, "a limit that holds only closely counts as missed")
    best_effort: bool = setting(False, "bundle the best miss when nothing fits; still exit 1")
    private: bool = setting(False, "no rows in reports")
    on_device: bool = setting(False, "this machine is the device")
    allow_pickle: bool = setting(False, "load a checkpoint that is a pickle")
    allow_code: bool = setting(False, "run plugin files that the job names")
    emulate: str = setting(
        "auto",
        "run the chosen file as the target's other processors, where qemu is there",
        choices=("auto", "never"),
    )
    redecide: bool = setting(False, "decide again what an earlier run of this plan decided")

    def seconds(self) -> float:
        """Return the time limit in seconds."""
        return duration(self.time_limit, "run.time_limit")


@dataclass(frozen=True)
class MeasureSpec:
    """How long to measure."""

    seconds: float = setting(20.0, "measuring budget that all rows share", low=0.5, high=3600)
    rounds: int = setting(20, "rounds at least", low=3, high=10_000)
    runs: int = setting(200, "runs of each model at least", low=20, high=100_000)
    tune: bool = setting(True, "try session options (arena, prepacking) for what ships")


@dataclass(frozen=True)
class BundleSpec:
    """What the bundle holds beyond what every bundle does."""

    ort: bool = setting(
        False, "model.ort too: onnxruntime's own format, mapped at load, and its operators"
    )


SECTIONS: dict[str, type] = {
    "model": ModelSpec,
    "data": DataSpec,
    "task": TaskSpec,
    "student": StudentSpec,
    "prune": PruneSpec,
    "quantize": QuantizeSpec,
    "run": RunSpec,
    "measure": MeasureSpec,
    "bundle": BundleSpec,
}


def duration(text: str, where: str) -> float:
    """Read "90s", "30m", "2h" or a number of seconds. Raises `JobError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*", str(text))
    if not match or float(match[1]) <= 0:
        raise JobError(f"{where}: expected a time such as 90s, 30m or 2h, got '{text}'")
    return float(match[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[match[2]]
