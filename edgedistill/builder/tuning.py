"""The session that ships: the options that cannot change an answer, tried in the measuring run.

The row that is provisionally best is measured with the arena off and with prepacking off as well,
beside all others and in the same run. The best of them is what ships with it, and its figures are
those of that session. The lowest p90 counts that holds the limits; within 5 % of it, less
memory; where that gains no 5 % either, the default. What was tuned once is repeated by the same
plan, as every decision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from edgedistill.builder import figures
from edgedistill.builder.course import Course
from edgedistill.builder.shortlist import plan_key
from edgedistill.measure.session import Subject
from edgedistill.records import Candidate, Figures, Measured
from edgedistill.report import words

VARIANTS: Mapping[str, Mapping[str, bool]] = {
    "": {},
    "arena off": {"arena": False},
    "prepacking off": {"prepacking": False},
}
ALIKE = 1.05  # p90 and memory within this are the same
EQUAL = 1.02  # what a run's noise makes of one figure


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A row, and the options that ship with it beside its own."""

    row: str
    options: Mapping[str, bool]

    def session(self, row: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the session that ships with a row."""
        return {**own, **(self.options if row == self.row else {})}


def subjects(course: Course, row: Candidate) -> list[Subject]:
    """Return the variants of a row's session, to be measured beside it."""
    plain = figures.subject(course, row)
    return [
        dataclasses.replace(
            plain, name=_named(row.name, variant), session={**plain.session, **options}
        )
        for variant, options in VARIANTS.items()
        if variant
    ]


def settle(course: Course, row: Candidate, measured: Measured) -> tuple[Tuned, Measured]:
    """Pick the session of a row and give it those figures; the variants leave the run."""
    found = {
        variant: measured.figures[_named(row.name, variant)]
        for variant in VARIANTS
        if _named(row.name, variant) in measured.figures
    }
    key = plan_key(course)
    known = course.store.decision(key) or {}
    told = None if course.job.run.redecide else known.get("session")
    picked = told if told in found else pick(found, course.target.limits)
    course.store.decide(key, {**known, "session": picked})
    if picked:
        course.note(f"{row.name} runs best with {picked}: {_why(found[''], found[picked])}")
    beside = {_named(row.name, variant) for variant in VARIANTS if variant}
    left = {name: one for name, one in measured.figures.items() if name not in beside}
    left[row.name] = found[picked]
    return Tuned(row.name, VARIANTS[picked]), dataclasses.replace(measured, figures=left)


def pick(found: Mapping[str, Figures], limits: Mapping[str, float]) -> str:
    """Return the variant that ships, by figures; "" is the default, which is always among them."""
    sound = {name: one for name, one in found.items() if one.latency is not None}
    holds = {name: one for name, one in sound.items() if _within(one, limits)}
    left = holds or sound
    if not left:
        return ""
    lowest = min(_p90(one) for one in left.values())
    fast = {name: one for name, one in left.items() if _p90(one) <= ALIKE * lowest}
    least = min(one.memory_mb or 0.0 for one in fast.values())
    if "" in fast and (fast[""].memory_mb or 0.0) <= ALIKE * least:
        return ""
    return min(fast, key=lambda name: (fast[name].memory_mb or 0.0, _p90(fast[name]), name))


def chosen_first(rows: Sequence[Candidate], provisional: str | None) -> Candidate | None:
    """Return the row whose session is tuned: the provisional choice, else the first candidate."""
    named = [row for row in rows if row.name == provisional]
    others = [row for row in rows if row.role in ("teacher_int8", "candidate")]
    return next(iter([*named, *others]), None)


def _named(row: str, variant: str) -> str:
    return f"{row}, {variant}" if variant else row


def _within(one: Figures, limits: Mapping[str, float]) -> bool:
    """Say whether a variant holds the limits on what the options change."""
    device = one.device.latency_p90_ms if one.device else None
    here = {"memory_mb": one.memory_mb, "load_ms": one.load_ms, "latency_p90_ms": device}
    known = {name: value for name, value in here.items() if value is not None and name in limits}
    return all(value <= limits[name] for name, value in known.items())


def _p90(one: Figures) -> float:
    return one.latency.p90 if one.latency else float("inf")


def _why(before: Figures, after: Figures) -> str:
    """Say what the options make better, and at what price; what stays the same is left out."""
    if before.latency is None:
        return "the default failed"
    if after.latency is None:  # an earlier run's pick is repeated whatever became of it
        return "as an earlier run found"
    pairs: list[tuple[str, float | None, float | None]] = [
        ("p90 {} ms", _p90(before), _p90(after)),
        ("{} MB", before.memory_mb, after.memory_mb),
        ("loaded in {} ms", before.load_ms, after.load_ms),
    ]
    better: list[str] = []
    worse: list[str] = []
    for words_of, old, new in pairs:
        if old is None or new is None or max(old, new) <= EQUAL * min(old, new):
            continue
        texts = (words.number(new), words.number(old))
        if texts[0] == texts[1]:
            texts = (words.number(new, 3), words.number(old, 3))
        told = f"{words_of.format(texts[0])} instead of {texts[1]}"
        (better if new < old else worse).append(told)
    gains = ", ".join(better[:2]) or "as an earlier run found"
    return gains + (f", though {' and '.join(worse[:2])}" if worse else "")
