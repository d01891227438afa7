"""Keys: what goes into a step decides its name.

key = sha256 of the canonical JSON of {stage, settings, inputs: {name: key}, code, packages}. A
needless miss costs time, a wrong hit costs trust: so all that can change a result is in it
(complete settings, the code of the stage, of its plugins and of all they import, the versions of
packages), and nothing that can't (paths, times, host names, the order of a mapping).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from edgedistill import plugins
from edgedistill.errors import InternalError, JobError, MissingPackage
from edgedistill.records import Source, Step
from edgedistill.settings import coerce, plain
from edgedistill.store import code

FORMAT = 1
_KEYS: weakref.WeakKeyDictionary[Step, str] = weakref.WeakKeyDictionary()


def canonical(value: Any) -> bytes:
    """Return the one spelling of a JSON value: sorted, compact, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value's one spelling."""
    return hashlib.sha256(canonical(value)).hexdigest()


def key(thing: Step | Source) -> str:
    """Return the key of a step, or the hash of a source; worked out once per record."""
    if isinstance(thing, Source):
        return thing.hash
    if thing not in _KEYS:
        _KEYS[thing] = digest(recipe(thing))
    return _KEYS[thing]


def recipe(step: Step) -> dict[str, Any]:
    """Return what a step's key is the hash of: free of paths, times and host names."""
    module = stage_of(step)
    settings = plain(settings_of(step))
    used = used_plugins(module, settings)
    return {
        "stage": stage_name(step),
        "settings": _renamed(settings, {name: _label(kind, name) for kind, name in used}),
        "inputs": {name: key(each) for name, each in sorted(step.inputs.items())},
        "code": code_digest(step.stage, used),
        "packages": packages(step.stage, used),
    }


def stage_of(step: Step) -> ModuleType:
    """Return the module of a step's stage. The door for strangers' code is the job's, not ours."""
    return plugins.find("stages", step.stage, allow_code=True)


def stage_name(step: Step) -> str:
    """Return the stage as it stands in keys and folders: its name, of a file the file's name."""
    return Path(step.stage).name if step.stage.endswith(".py") else step.stage


def settings_of(step: Step) -> Any:
    """Return the step's settings as its stage reads them: coerced and complete.

    Raises `JobError` for what the stage does not know, `InternalError` for what nobody decided.
    """
    settings = coerce(stage_of(step).Settings, step.settings, stage_name(step))
    for name, value in plain(settings).items():
        if value == "auto":
            raise InternalError(f"a step {stage_name(step)} leaves '{name}' to chance ('auto')")
    return settings


def used_plugins(stage: ModuleType, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the plugins (kind, name) that a stage uses with these settings, each once."""
    return sorted(set(map(tuple, stage.plugins(settings))))  # type: ignore[arg-type]


def refuse_strangers(steps: Iterable[Step]) -> None:
    """Raise `JobError` where steps or their inputs would run a file that is no part of us."""
    seen: set[int] = set()
    todo: list[Step | Source] = list(steps)
    while todo:
        step = todo.pop()
        if isinstance(step, Source) or id(step) in seen:
            continue
        seen.add(id(step))
        module = plugins.find("stages", step.stage)  # raises for a path to a file
        for kind, name in used_plugins(module, plain(settings_of(step))):
            plugins.find(kind, name)
        todo += step.inputs.values()


def estimate_inputs(step: Step) -> dict[str, Step | Source]:
    """Return the inputs that a step's stage needs to estimate its seconds.

    A stage names those that it does without (labels, which cost minutes) in `ESTIMATES_WITHOUT`.
    """
    without = getattr(stage_of(step), "ESTIMATES_WITHOUT", ())
    return {
        name: each for name, each in step.inputs.items() if name.rpartition(".")[0] not in without
    }


def code_digest(stage: str, used: Sequence[tuple[str, str]]) -> str:
    """Return the digest of the code that a stage runs with these plugins.

    The newline-normalised bytes of the stage's file, its plugins' files, and all first-party
    modules that they import, through any number of steps, imports inside functions included.
    """
    parts: dict[str, str] = {}
    for kind, name in [("stages", stage), *used]:
        label = f"{kind}/{_label(kind, name)}"
        for module, content in code.closure(plugins.file_of(kind, name)).items():
            ours = module.partition(".")[0] == code.PACKAGE.name
            parts[module if ours else f"{label}/{module}"] = content
    return digest(parts)


def packages(stage: str, used: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the versions of the packages that can change a step's result, local suffix off.

    Raises `MissingPackage` where one is not installed.
    """
    found: dict[str, str] = {}
    for kind, name in [("stages", stage), *used]:
        module = plugins.find(kind, name, allow_code=True)
        for package in getattr(module, "PACKAGES", ()):
            try:
                found[package] = version(package).partition("+")[0]
            except importlib.metadata.PackageNotFoundError:
                raise MissingPackage(package, f"the step {Path(stage).stem}") from None
    return dict(sorted(found.items()))


@cache
def version(package: str) -> str:
    """Return the installed version of a distribution; looked up once per process."""
    return importlib.metadata.version(package)


# ---------------------------------------------------------------- steps as JSON


def pack(step: Step) -> dict[str, Any]:
    """Return a step with all that it needs as JSON: steps by key, sources (no facts) by hash."""
    steps: dict[str, Any] = {}
    sources: dict[str, Any] = {}

    def visit(thing: Step | Source) -> str:
        name = key(thing)
        if isinstance(thing, Source):
            sources[name] = {
                "kind": thing.kind,
                "hash": thing.hash,
                "path": str(thing.path),
                "name": thing.name,
            }
        elif name not in steps:
            inputs = {each: visit(thing.inputs[each]) for each in thing.inputs}
            used = used_plugins(stage_of(thing), plain(settings_of(thing)))
            steps[name] = {
                "stage": _absolute(thing.stage),
                "settings": _renamed(thing.settings, {one: _absolute(one) for _, one in used}),
                "inputs": inputs,
            }
        return name

    root = visit(step)
    return {"root": root, "steps": steps, "sources": sources}


def unpack(packed: Mapping[str, Any], known: dict[str, Step | Source] | None = None) -> Step:
    """Return the step of `pack`. `known` keeps the records of earlier calls by key.

    Raises `JobError` where a step's key is not what it was: its code or a package changed.
    """
    made = {} if known is None else known

    def visit(name: str) -> Step | Source:
        if name in made:
            return made[name]
        thing: Step | Source
        if name in packed["sources"]:
            source = packed["sources"][name]
            thing = Source(**{**source, "path": Path(source["path"])})
        else:
            part = packed["steps"][name]
            inputs = {each: visit(one) for each, one in part["inputs"].items()}
            thing = Step(part["stage"], part["settings"], inputs)
            if key(thing) != name:
                raise changed(thing)
        made[name] = thing
        return thing

    root = visit(packed["root"])
    if not isinstance(root, Step):
        raise InternalError("a packed step whose root is a source")
    return root


def changed(step: Step) -> JobError:
    """Return the error of a step whose code or packages are not what its key was made of."""
    return JobError(
        f"the code or the packages of the step {stage_name(step)} changed while the build ran: "
        "run the same command again"
    )


def _absolute(name: str) -> str:
    return str(Path(name).expanduser().resolve()) if name.endswith(".py") else name


def _label(kind: str, name: str) -> str:
    """Return a plugin's name as a key holds it: of a file its name and content, not its place."""
    if not name.endswith(".py"):
        return name
    path = plugins.file_of(kind, name)
    return f"{path.name}:{code.content(path)[:16]}"


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Return settings in which plugins' names are replaced, as values and as keys."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping):
        made = {_renamed(name, names): _renamed(each, names) for name, each in value.items()}
        if len(made) < len(value):
            raise JobError(f"the same plugin is named twice: {', '.join(map(str, value))}")
        return made
    if isinstance(value, Iterable):
        return [_renamed(each, names) for each in value]
    return value
