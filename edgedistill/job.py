"""One Job of a job file, flags and `--set`: frozen, validated, complete.

Flags override the job file, which overrides the recipe and the target. A job is a set of sections,
each a `Settings` class below; sections named after a stage reach that stage's own settings
(so does what [quantize] says beyond its section).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill import jobfile, plugins
from edgedistill.errors import JobError, nearest
from edgedistill.settings import coerce, names, plain, setting


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


@dataclass(frozen=True)
class Job:
    """What the user asked for."""

    target: str
    model: ModelSpec = field(default_factory=ModelSpec)
    data: DataSpec = field(default_factory=DataSpec)
    task: TaskSpec = field(default_factory=TaskSpec)
    student: StudentSpec = field(default_factory=StudentSpec)
    prune: PruneSpec = field(default_factory=PruneSpec)
    quantize: QuantizeSpec = field(default_factory=QuantizeSpec)
    run: RunSpec = field(default_factory=RunSpec)
    measure: MeasureSpec = field(default_factory=MeasureSpec)
    bundle: BundleSpec = field(default_factory=BundleSpec)
    limits: Mapping[str, float] = field(default_factory=dict)
    recipe: str | None = None
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings by stage

    @property
    def starter(self) -> bool:
        """Say whether nothing was given: the job that ships with us."""
        data = self.data
        named = (self.model.path, data.path, data.train, data.test)
        return all(each is None for each in named)  # a live frame has no truth of its own

    def plain(self) -> dict[str, Any]:
        """Return the job as a job file would hold it; feeding that back gives the same job."""
        made: dict[str, Any] = {"target": self.target}
        for name in SECTIONS:
            section = getattr(self, name)
            if name in ("model", "data"):
                section = dataclasses.replace(section, path=_told(section.path))
            if name == "data":
                section = dataclasses.replace(section, own=_told(section.own))
            made[name] = plain(section)
        made["limits"] = dict(self.limits)
        for stage, values in self.stages.items():
            made[stage] = {**made.get(stage, {}), **values}
        if self.recipe:
            made.setdefault("distill", {})["recipe"] = self.recipe
        return made


def make(
    tables: Mapping[str, Any] | None = None,
    settings: Iterable[tuple[str, Any]] = (),
    *,
    target: str | None = None,
    place: str = "",
) -> Job:
    """Make a job of a job file's tables and dotted settings ("distill.temperature", 2), in order.

    `place` names the file. Raises `JobError` naming the place and the nearest right name.
    """
    tables = {n: dict(v) if isinstance(v, Mapping) else v for n, v in (tables or {}).items()}
    _known(tables, place)
    for key, value in settings:
        _put(tables, key, value)
    _known(tables, "--set ")
    target = target or tables.pop("target", None)
    tables.pop("target", None)
    if not target:
        hint = ", ".join(plugins.names("targets"))
        raise JobError(f"no target: name one with --target ({hint})")
    beyond = _beyond(tables, place)
    sections: dict[str, Any] = {
        name: coerce(cls, tables.pop(name, {}), f"{place}[{name}]" if place else name)
        for name, cls in SECTIONS.items()
    }
    limits = {name: _limit(name, value) for name, value in tables.pop("limits", {}).items()}
    recipe = tables.get("distill", {}).pop("recipe", None)
    job = Job(
        target=str(target),
        limits=limits,
        recipe=None if recipe is None else str(recipe),
        stages={name: table for name, table in {**tables, **beyond}.items() if table},
        **sections,
    )
    _can(job)
    return job


def _beyond(tables: dict[str, Any], place: str) -> dict[str, dict[str, Any]]:
    """Take what a section named after a stage says of the stage itself out of it."""
    found: dict[str, dict[str, Any]] = {}
    for name in {*SECTIONS} & {*plugins.names("stages")}:
        module = plugins.find("stages", name)
        section = names(SECTIONS[name])
        stage = [*names(module.Settings), *getattr(module, "PLANNED", ())]
        table = tables.get(name, {})
        for key in table:
            if key not in section and key not in stage:
                hint = nearest(key, section + stage)
                raise JobError(f"{place}{name}: unknown setting '{key}': {hint}")
        found[name] = {key: value for key, value in table.items() if key not in section}
        tables[name] = {key: value for key, value in table.items() if key in section}
    return found


def duration(text: str, where: str) -> float:
    """Read "90s", "30m", "2h" or a number of seconds. Raises `JobError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*", str(text))
    if not match or float(match[1]) <= 0:
        raise JobError(f"{where}: expected a time such as 90s, 30m or 2h, got '{text}'")
    return float(match[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[match[2]]


def _can(job: Job) -> None:
    """Refuse what has its place but is not built yet."""
    job.run.seconds()
    _can_be_own(job)
    job.prune.wish()
    if job.model.teachers and job.model.path is None:
        raise JobError("model.teachers are those beside the first: name that with --model")


def _can_be_own(job: Job) -> None:
    """Refuse what is said of own rows that are not there."""
    data = job.data
    if data.own is None:
        for name in (each for each in job.limits if "_own_" in each):
            raise JobError(f"limits.{name}: there are no own rows; name them with a second --data")
        if data.own_weight != DataSpec.own_weight:
            raise JobError("data.own_weight: there are no own rows; name them with a second --data")
    elif job.starter:
        raise JobError("data.own: a second, small set; name the general one with --data before it")


def _known(tables: Mapping[str, Any], place: str) -> None:
    stages = set(plugins.names("stages"))
    allowed = {*SECTIONS, *stages, "limits", "target"}
    for name, table in tables.items():
        if name not in allowed:
            raise JobError(f"{place}unknown section '{name}': {nearest(name, allowed)}")
        if name != "target" and not isinstance(table, Mapping):
            raise JobError(f"{place}'{name}' is a section: write {name}.SETTING = {table!r}")


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    if len(parts) < 2 or not all(parts):
        raise JobError(f"setting '{key}': expected SECTION.NAME, such as distill.temperature")
    place = tables
    for part in parts[:-1]:
        inner = place.get(part)
        place[part] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[part]
    place[parts[-1]] = value


def _limit(name: str, value: Any) -> float:
    from edgedistill.target import limit

    return limit(name, value)


def _told(path: Any) -> str | None:
    if path is None or isinstance(path, str):
        return path
    if isinstance(path, Path):
        return str(path)
    return f"<live {type(path).__name__}>"


NAMES = {  # the names of flags and of `edgedistill.build(...)`, and the settings that they reach
    "model": "model.path",
    "task": "task.name",
    "recipe": "distill.recipe",
    "prune": "prune.kind",
    "quantize": "quantize.schemes",
    "objective": "run.objective",
    "strict": "run.strict",
    "best_effort": "run.best_effort",
    "private": "run.private",
    "on_device": "run.on_device",
    "allow_pickle": "run.allow_pickle",
    "allow_code": "run.allow_code",
    "seed": "run.seed",
    "threads": "run.threads",
    "time_limit": "run.time_limit",
    "out": "run.out",
    "store": "run.store",
}


def named(job_file: str | Path | None = None, target: str | None = None, **names: Any) -> Job:
    """Make a job of the names that flags and the Python door share.

    Beside those of `NAMES`: `data` (one set or two, general and own), `student` (a text or
    several), `limits` and `settings` (mappings).
    A name that is None says nothing. Raises `JobError`.
    """
    settings = _students(_several(names.pop("student", None)))
    settings += _sets(names.pop("data", None))
    if isinstance(names.get("prune"), Mapping):
        parts = [f"{kind}={part}" for kind, part in names["prune"].items()]
        names["prune"] = ",".join(parts) or "none"
    for name, value in (names.pop("limits", None) or {}).items():
        settings.append((f"limits.{name}", value))
    dotted = (names.pop("settings", None) or {}).items()
    for name, value in names.items():
        if name not in NAMES:
            known = [*NAMES, "data", "job_file", "target", "student", "limits", "settings"]
            raise JobError(f"unknown name '{name}': {nearest(name, known)}")
        if value is not None:
            settings.append((NAMES[name], value))
    path = Path(job_file).expanduser() if job_file else None
    tables, place = (jobfile.read(path), f"{path.name} ") if path else ({}, "")
    return make(tables, [*settings, *dotted], target=target, place=place)


def _several(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _sets(data: Any) -> list[tuple[str, Any]]:
    """Return the settings that one or two sets of rows reach: the general one, the own one."""
    sets = [] if data is None else list(data) if isinstance(data, (tuple, list)) else [data]
    if len(sets) > 2:
        raise JobError(f"--data names {len(sets)} sets: at most two, a general and a small own one")
    return list(zip(("data.path", "data.own"), sets, strict=False))


def _students(texts: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Return the settings that students' flags reach: all three, so that none of a file remains."""
    merged: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        key, value = _student(text)
        merged[key] = (*merged.get(key, ()), value)
    nothing = {"student.layers": (), "student.shapes": (), "student.from": ()}
    return list({**nothing, **merged}.items()) if texts else []


def _student(text: Any) -> tuple[str, Any]:
    text = str(text)
    if text.isdecimal():
        return "student.layers", int(text)
    if "/" in text or text.startswith((".", "~")) or Path(text).exists():
        return "student.from", text
    return "student.shapes", text
