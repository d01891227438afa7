"""One Job of a job file, flags and `--set`: frozen, validated, complete.

Flags override the job file, which overrides the recipe and the target. A job is a set of sections
(`edgedistill.sections`); those named after a stage reach that stage's own settings (so does what
[quantize] says beyond its section).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill import jobfile, plugins
from edgedistill.errors import JobError, nearest
from edgedistill.sections import (
    SECTIONS,
    BundleSpec,
    DataSpec,
    MeasureSpec,
    ModelSpec,
    PruneSpec,
    QuantizeSpec,
    RunSpec,
    StudentSpec,
    TaskSpec,
)
from edgedistill.settings import coerce, names, plain


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
