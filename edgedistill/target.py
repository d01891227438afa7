"""Targets: targets/*.toml into one frozen record. Every number stands with its reason.

A target says what the artifact must load in, which processors it may meet, how fast one core of
the class of device is, and the limits. `LIMITS` is the one table of limits: name, unit, range.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edgedistill import plugins
from edgedistill.errors import JobError, TargetError, nearest
from edgedistill.settings import coerce, names, setting


class Limit(NamedTuple):
    """What a limit is about: its unit, its range, and whether the figure must stay below it."""

    about: str
    unit: str
    low: float
    high: float
    most: bool = True  # False: the figure must be at least the limit


LIMITS: Mapping[str, Limit] = {
    "max_drop_points": Limit("drop of the task's score against the baseline", "points", 0, 100),
    "max_own_drop_points": Limit("drop on the own rows against the baseline", "points", 0, 100),
    "min_score_points": Limit("the task's score itself", "points", 0, 100, most=False),
    "worst_label_drop_points": Limit("drop of recall of the worst label", "points", 0, 100),
    "latency_p90_ms": Limit("90th percentile of one run on the device", "ms", 0.001, 1e7),
    "load_ms": Limit("loading the model file", "ms", 0.001, 1e7),
    "memory_mb": Limit("peak memory above a bare runtime", "MB", 0.001, 1e7),
    "size_mb": Limit("the model file", "MB", 0.001, 1e7),
    "max_regression_points": Limit("drop against an earlier report", "points", 0, 100),
    "max_slowdown": Limit("latency over yardstick against an earlier report", "times", 0.01, 1000),
}

PROCESSORS: Mapping[str, str] = {
    "x86-64": "SSE4.1 only",
    "x86-64+avx2": "AVX2 without VNNI: products of 8 bits saturate at 16",
    "x86-64+vnni": "AVX512-VNNI or AVX-VNNI",
    "arm64": "ARMv8 without dot product (Cortex-A53, A72, A73)",
    "arm64+dotprod": "ARMv8.2 with dot product (Cortex-A55, A76 and later)",
}


@dataclass(frozen=True)
class Runtime:
    """What runs the model on the device, and how."""

    onnxruntime: str = setting("1.17", "the oldest that the artifact must load in")
    integers: str = setting("int64", "type of the integer inputs", choices=("int32", "int64"))
    threads: int = setting(1, "threads of one session", low=1, high=1024)
    batch: int = setting(1, "rows of one run", low=1, high=256)
    spinning: bool = setting(False, "idle threads spin instead of sleeping")
    fixed: int = setting(0, "length of a fixed-shape variant beside; 0: none", low=0, high=65536)


@dataclass(frozen=True)
class Device:
    """Rates of one core of the class of device, as the yardstick sees them."""

    int8_gops: float = setting(None, "int8 matrix products", low=0.001, high=1e6)
    fp32_gflops: float = setting(None, "fp32 matrix products", low=0.001, high=1e6)
    node_us: float | None = setting(None, "one small graph node", low=0.0001, high=1e6)
    uncertainty: float = setting(1.5, "a factor, both ways", low=1, high=100)


@dataclass(frozen=True)
class Processors:
    """The instruction sets that the artifact may meet."""

    names: tuple[str, ...] = setting((), "instruction sets", choices=tuple(PROCESSORS))


SECTIONS = {"runtime": Runtime, "processors": Processors, "device": Device}


@dataclass(frozen=True)
class Target:
    """A device profile. `reasons` holds the text beside each value, by the value's name."""

    name: str
    about: str
    aliases: tuple[str, ...]
    runtime: Runtime
    processors: tuple[str, ...]
    device: Device | None  # None: no rates, so nothing can be estimated
    limits: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)


def load(name_or_path: str | Path) -> Target:
    """Load the target of that name or alias, or the file at that path.

    Raises `TargetError`: an unknown name or key (with the nearest), a value out of range,
    malformed TOML (with file and line).
    """
    path = find(name_or_path)
    return parse(plugins.read_toml(path, TargetError), path)


def find(name_or_path: str | Path) -> Path:
    """Return the file of a name or an alias, or the one at that path. Raises `TargetError`."""
    name = str(name_or_path)
    if not name.endswith(".toml") and name not in plugins.names("targets"):
        name = _by_alias(name)
    return plugins.find_file("targets", name)


def parse(table: Mapping[str, Any], path: Path) -> Target:
    """Make a `Target` of a TOML table, which is called as its file, `path`, is named."""
    known = {"name", "aliases", "about", *SECTIONS, "limits"}
    for key in table:
        if key not in known:
            raise TargetError(f"target '{path}': unknown key '{key}': {nearest(key, known)}")
    name = _text(table.get("name", path.stem), f"target '{path}': name")
    if name != path.stem:
        expected = f"expected '{path.stem}', as its file is named, or no name at all"
        raise TargetError(f"target '{path}': its name is '{name}', {expected}")
    reasons: dict[str, str] = {}
    made = {}
    for section, cls in SECTIONS.items():
        values = _section(table, section, path, reasons, names(cls))
        made[section] = _settings(cls, values, f"target '{path}' [{section}]")
    raw = _section(table, "limits", path, reasons, list(LIMITS))
    limits = {key: limit(key, value, f"target '{path}' [limits]") for key, value in raw.items()}
    _check_runtime(table, path)
    if not made["processors"].names:
        known_sets = ", ".join(PROCESSORS)
        raise TargetError(f"target '{path}' [processors]: names is missing; known: {known_sets}")
    aliases = table.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(each, str) for each in aliases):
        raise TargetError(f"target '{path}': aliases: expected a list of texts, got {aliases!r}")
    return Target(
        name=name,
        about=_text(table.get("about", ""), f"target '{path}': about"),
        aliases=tuple(aliases),
        runtime=made["runtime"],
        processors=made["processors"].names,
        device=_device(table, made["device"], path),
        limits=limits,
        reasons=reasons,
    )


def limit(name: str, value: Any, place: str = "limits") -> float:
    """Check one limit given as a number or a text; returns the number.

    Raises `TargetError` for an unknown name (with the nearest), no number, or one out of range.
    """
    if name not in LIMITS:
        raise TargetError(f"{place}: unknown limit '{name}': {nearest(name, LIMITS)}")
    about = LIMITS[name]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise TargetError(f"{place}.{name}: expected a number of {about.unit}, got {value!r}")
    if not about.low <= number <= about.high:
        span = f"from {about.low:g} to {about.high:g} {about.unit}"
        raise TargetError(f"{place}.{name}: {number:g} is out of range: expected {span}")
    return number


def with_limits(target: Target, limits: Mapping[str, float]) -> Target:
    """Return the target with some limits overridden or added; those have no reason any more."""
    reasons = {key: why for key, why in target.reasons.items() if key not in limits}
    changed = {**target.limits, **{key: limit(key, value) for key, value in limits.items()}}
    return dataclasses.replace(target, limits=changed, reasons=reasons)


def _by_alias(name: str) -> str:
    """Return the name of the target with this alias; raises with the nearest of all names."""
    known = {}
    for one in plugins.names("targets"):
        path = plugins.find_file("targets", one)
        known[one] = one
        for alias in plugins.read_toml(path, TargetError).get("aliases", []):
            known[str(alias)] = one
    if name not in known:
        raise TargetError(f"unknown target '{name}': {nearest(name, known)}")
    return known[name]


def _section(
    table: Mapping[str, Any], section: str, path: Path, reasons: dict[str, str], known: list[str]
) -> dict[str, Any]:
    """Return the values of a section, moving each `reason_*` into `reasons`."""
    values = table.get(section, {})
    if not isinstance(values, Mapping):
        raise TargetError(f"target '{path}': [{section}] must be a table, got {values!r}")
    word = "limit" if section == "limits" else "key"
    for key in values:  # before the reasons: a mistyped key leaves its reason alone
        if key not in known and not key.startswith("reason_"):
            hint = nearest(key, known)
            raise TargetError(f"target '{path}' [{section}]: unknown {word} '{key}': {hint}")
    left = {}
    for key, value in values.items():
        about = key.removeprefix("reason_")
        if about == key:
            left[key] = value
        elif about not in values:
            hint = nearest(about, [name for name in known if name in values])
            raise TargetError(f"target '{path}' [{section}]: '{key}' has no '{about}': {hint}")
        else:
            reasons[about] = _text(value, f"target '{path}' [{section}].{key}")
    return left


def _settings(cls: type, values: Mapping[str, Any], place: str) -> Any:
    try:
        return coerce(cls, values, place)
    except JobError as error:
        raise TargetError(str(error)) from None


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise TargetError(f"{where}: expected a text, got {value!r}")
    return value


def _check_runtime(table: Mapping[str, Any], path: Path) -> None:
    """Take the version as text only: the number 1.20 would be read as 1.2."""
    version = table.get("runtime", {}).get("onnxruntime")
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+(\.\d+)?", version):
        where = f"target '{path}' [runtime].onnxruntime"
        raise TargetError(f'{where}: expected a version as text, such as "1.17", got {version!r}')


def _device(table: Mapping[str, Any], device: Device, path: Path) -> Device | None:
    if "device" not in table:
        return None
    for name in ("int8_gops", "fp32_gflops"):
        if getattr(device, name) is None:
            raise TargetError(f"target '{path}' [device]: {name} is missing")
    return device
