"""Choose a row on validation, and give the verdict on test. Pure: records in, records out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgedistill.judge.evidence import Evaluation
from edgedistill.judge.limits import DROPS, checks, figures_of
from edgedistill.records import Check, Choice, Figures

ROUNDS = 10  # below which a latency's interval says too little to refuse int8 for it
TIE = 1.05  # latencies this near to the lowest are alike
PRUNED = 0.95  # of the unpruned p90: what is not faster than that is not worth its training


@dataclass(frozen=True)
class Contender:
    """One row as the choice sees it: what validation shows, and what was measured.

    `stopped` is set for a row that never got its figures: ("dropped" | "skipped" | "failed", why).
    """

    name: str
    role: str  # baseline | teacher_int8 | student_fp32 | control | candidate | previous | peer
    validation: Evaluation | None = None
    figures: Figures = Figures()
    parent: str | None = None  # the name of the float row that this one was quantized from
    stopped: tuple[str, str] | None = None
    own: Evaluation | None = None  # what validation's part of the own rows shows
    ships: bool = False  # a baseline that may be chosen itself: an .onnx of the user's
    unpruned: str | None = None  # the name of the row that this one was pruned from


def verdict(
    held: Sequence[Check] | None, *, strict: bool = False, named: Collection[str] = ()
) -> str:
    """Return fits | fits_closely | misses, of the chosen row's checks on test (None: no row).

    `unchecked` where one of the `named` limits has no figure: who names a limit asks for it.
    """
    states = {check.state for check in held} if held is not None else {"misses"}
    if "misses" in states:
        return "misses"
    if states & {"close", "unchecked"}:
        lacking = any(one.state == "unchecked" and one.limit in named for one in held or ())
        return "misses" if strict else "unchecked" if lacking else "fits_closely"
    return "fits"


# ---------------------------------------------------------------- the choice


@dataclass(frozen=True)
class _Standing:
    """How one contender stands against the limits, on validation."""

    row: Contender
    misses: tuple[str, ...]  # in words, empty when eligible
    excess: float  # how far beyond the limits, in shares of them, all added up
    capped: bool  # the margin was cut at half of the allowed drop


def choose(
    contenders: Sequence[Contender],
    limits: Mapping[str, float],
    *,
    objective: str = "latency",
    max_drop: float | None = None,
) -> Choice:
    """Choose among the candidates by what validation shows; test has no say.

    `objective` is latency, score or size. int8 takes its float parent's place where it pays, and
    costs at most `max_drop` points of the parent's score. What was pruned is dropped unless it is
    at least 5 % faster than before.
    """
    standings = {row.name: _standing(row, limits) for row in contenders if _in_play(row)}
    states = {row.name: _resting(row) for row in contenders if row.name not in standings}
    fits = {name: stands for name, stands in standings.items() if not stands.misses}
    for name, stands in standings.items():
        states[name] = ("measured", "does not fit: " + "; ".join(stands.misses))
    if not fits:
        return _nothing(standings, states)
    by_name = {row.name: row for row in contenders}
    pool = dict(fits)
    for name, stands in fits.items():
        parent = by_name.get(stands.row.parent or "")
        loses = _does_not_pay(stands.row, parent, limits, max_drop)
        idle = _prunes_in_vain(stands.row, _before(stands.row, by_name, fits), limits)
        if idle or loses:
            vain = ("dropped", f"pruning not kept: {idle}")
            states[name] = vain if idle else ("measured", f"not kept: {loses}")
            pool.pop(name, None)
        elif parent is not None and parent.name in pool:
            states[parent.name] = ("measured", f"fits too, but {name} costs less")
            del pool[parent.name]
    # its parent may be no candidate: what fits is then better than nothing
    pool = pool or fits
    best, reason = _best(list(pool.values()), objective)
    parent = by_name.get(best.parent or "")
    by_p90 = objective == "latency" and (len(pool) == 1 or not _alike(pool.values()))
    if by_p90 and parent and parent.name in fits and not _slower(parent.figures, best.figures):
        there = f"{_p90(best.figures):.3g} against {_p90(parent.figures):.3g} ms"
        reason = f"smaller than {parent.name}, and as fast within the noise of the run ({there})"
    for name in standings.keys() - fits.keys():
        if by_name[name].unpruned:
            why = "; ".join(standings[name].misses)
            states[name] = ("dropped", f"pruning not kept: does not fit: {why}")
    for name in pool:
        row = by_name[name]
        behind = _behind(row, by_name.get(row.parent or ""), limits)
        states[name] = ("kept", f"fits too: {_figures_text(row)}{behind}")
    states[best.name] = ("chosen", reason)
    safest = min((stands.row for stands in fits.values()), key=_by_score)
    return Choice(chosen=best.name, safer=safest.name, reason=reason, states=states)


def _nothing(standings: Mapping[str, _Standing], states: Mapping[str, tuple[str, str]]) -> Choice:
    if not standings:
        return Choice(None, None, "no candidate was measured", states)
    near = min(standings.values(), key=lambda s: (s.excess, _by_score(s.row)))
    why = "; ".join(near.misses) or states[near.row.name][1]
    reason = f"nothing fits; the best miss is {near.row.name}: {why}"
    return Choice(None, None, reason, states, best_miss=near.row.name)


def _in_play(row: Contender) -> bool:
    """Say whether a row can be chosen: it has figures, and is no row for comparison."""
    ships = row.ships or row.role in ("candidate", "teacher_int8", "student_fp32")
    return ships and not row.stopped and not row.figures.failed and row.validation is not None


def _resting(row: Contender) -> tuple[str, str]:
    if row.stopped:
        return row.stopped
    if row.figures.failed:
        return "failed", row.figures.failed
    beside = {
        "baseline": "what all others are held against",
        "assistant": "between the teacher and the students, which learned from it",
        "control": "the same shape and budget, trained on labels alone",
    }
    return "measured", beside.get(row.role, "measured beside the others")


def _standing(row: Contender, limits: Mapping[str, float]) -> _Standing:
    seen = row.validation
    assert seen is not None
    figures, reasons = figures_of(row.figures, seen)
    held = checks({k: v for k, v in limits.items() if k not in DROPS}, figures, reasons)
    missed = [check for check in held if check.state == "misses" and check.value is not None]
    words = [f"{check.limit} {check.value:.3g}, allowed {check.allowed:.3g}" for check in missed]
    excess = sum(
        abs((check.value or 0.0) - check.allowed) / max(abs(check.allowed), 1e-9)
        for check in missed
    )
    capped = False
    for name, shown, place in zip(DROPS, (seen, row.own), ("", " on own rows"), strict=True):
        allowed = limits.get(name)
        if allowed is None or shown is None or shown.drop is None:
            continue
        error = shown.drop_error or 0.0
        margin = min(error, allowed / 2)
        capped = capped or (shown is seen and error > allowed / 2)
        drop = shown.drop.value
        if drop > allowed:
            words.insert(0, f"drop {drop:.2f} points{place}, allowed {allowed:g}")
        elif drop > allowed - margin:
            close = f"drop {drop:.2f} points{place} is inside {allowed:g}, but not by a margin of "
            words.insert(0, f"{close}{margin:.2f}")
        excess += max(0.0, drop - allowed + margin) / max(allowed, 1e-9)
    if seen.vanished:
        more = f" (nor {len(seen.vanished) - 1} more)" if len(seen.vanished) > 1 else ""
        words.append(f"the label '{seen.vanished[0]}' is never found{more}")
        excess += len(seen.vanished)
    if seen.not_finite:
        words.append(f"{seen.not_finite:,} rows without a finite answer")
        excess += 1.0
    return _Standing(row, tuple(words), excess, capped)


def _does_not_pay(
    row: Contender,
    parent: Contender | None,
    limits: Mapping[str, float],
    max_drop: float | None,
) -> str | None:
    """Return why a quantized or pruned row is worth less than what it was made from.

    Beside a parent that does not fit itself, what fits always pays.
    """
    if parent is None or parent.stopped or parent.figures.failed or parent.validation is None:
        return None
    if _standing(parent, limits).misses:
        return None
    mine, theirs = _p90(row.figures), _p90(parent.figures)
    if _slower(row.figures, parent.figures):
        return f"slower than {parent.name} ({mine:.3g} against {theirs:.3g} ms)"
    small, large = row.figures.size_mb, parent.figures.size_mb
    if small and large and small > large:
        return f"larger than {parent.name} ({small:.3g} against {large:.3g} MB)"
    costs = _drop(row) - _drop(parent)
    if max_drop is not None and costs > max_drop:
        return f"it costs {costs:.2f} points more than {parent.name}, allowed {max_drop:g}"
    return None


def _behind(row: Contender, parent: Contender | None, limits: Mapping[str, float]) -> str:
    """Say of a row that is kept all the same that it is no faster than what it was made from."""
    if parent is None or parent.stopped or parent.figures.failed or parent.validation is None:
        return ""
    mine, theirs = row.figures, parent.figures
    told = ""
    if math.inf > _p90(mine) > _p90(theirs):
        told = f"{_p90(mine):.3g} against {_p90(theirs):.3g} ms"
    elif mine.speedup:
        share = mine.speedup.value / (theirs.speedup.value if theirs.speedup else 1.0)
        told = f"{share:.2f} times its speed, round by round" if share < 1 else ""
    if not told:
        return ""
    beyond = ", which does not fit" if _standing(parent, limits).misses else ""
    noise = "" if beyond or _slower(mine, theirs) else ", within the noise of the run"
    return f"; no faster than {parent.name} ({told}){beyond}{noise}"


def _prunes_in_vain(
    row: Contender, before: Contender | None, limits: Mapping[str, float]
) -> str | None:
    """Return why a pruned row is not worth its training: it is hardly faster than before.

    Both are measured in one run, so that is held on this host. Beside one that does not fit itself,
    what fits is worth it.
    """
    if before is None or before.stopped or before.figures.failed or before.validation is None:
        return None
    mine, theirs = row.figures.latency, before.figures.latency
    if _standing(before, limits).misses or mine is None or theirs is None:
        return None
    if mine.p90 <= PRUNED * theirs.p90:
        return None
    gain = 100 * (1 - mine.p90 / theirs.p90)
    than = f"{abs(gain):.1f} % {'below' if gain >= 0 else 'above'} that of {before.name}"
    return (
        f"its p90 here, {mine.p90:.3g} ms, is {than} ({theirs.p90:.3g} ms); "
        f"at least {100 * (1 - PRUNED):.0f} % faster is asked"
    )


def _before(
    row: Contender, by_name: Mapping[str, Contender], fits: Mapping[str, _Standing]
) -> Contender | None:
    """Return what a pruned row has to be faster than: the same before it was pruned.

    What is quantized has to be faster than any row of that student that fits, by whatever scheme:
    one of them would ship in its place.
    """
    before = by_name.get(row.unpruned or "")
    if before is None or row.parent is None:
        return before
    kin = [stands.row for stands in fits.values() if _root(stands.row) == _root(before)]
    kin = [each for each in kin if each.unpruned is None]
    return min(kin, key=lambda each: _p90(each.figures), default=before)


def _root(row: Contender) -> str:
    """Return the name of the float row that a row is, or was quantized from."""
    return row.parent or row.name


def _slower(mine: Figures, theirs: Figures) -> bool:
    """Say whether one is slower beyond the run's noise: by over 5 %, both intervals apart.

    Where the ratios to the baseline, taken round by round and so steadier, say 5 % as well, the
    p90's own intervals need not.
    """
    if not _p90(mine) > TIE * _p90(theirs):
        return False
    low, high = _noise(mine)[0], _noise(theirs)[1]
    apart = math.isfinite(low) and low > high
    if mine.speedup and theirs.speedup:
        fast, slow = mine.speedup.high, theirs.speedup.low
        if fast is not None and slow is not None:
            return fast < slow if apart else TIE * fast < slow
    return apart


def _noise(figures: Figures) -> tuple[float, float]:
    """Return the p90 with the run's own interval, without the estimate's uncertainty.

    Fewer than ten rounds, resampled, give no interval that could be relied on: anything goes.
    """
    p90, here = _p90(figures), figures.latency
    if here is None or not here.p90:
        return p90, p90
    if here.rounds < ROUNDS:
        return 0.0, math.inf
    return p90 * here.p90_low / here.p90, p90 * here.p90_high / here.p90


def _drop(row: Contender) -> float:
    """Return the drop on validation; the baseline's own is none."""
    return row.validation.drop.value if row.validation and row.validation.drop else 0.0


def _alike(pool: Iterable[_Standing]) -> bool:
    """Say whether the validation rows are too few to tell by how much candidates differ."""
    return any(stands.capped for stands in pool)


def _best(pool: Sequence[_Standing], objective: str) -> tuple[Contender, str]:
    rows = [stands.row for stands in pool]
    only = "" if len(rows) == 1 else f" of {len(rows)} that fit"
    if _alike(pool) and len(rows) > 1:
        why = "the validation rows can't tell the candidates apart: the highest score there"
        return min(rows, key=_by_score), why + only
    if objective == "score":
        return min(rows, key=_by_score), "the highest score on validation" + only
    if objective == "size":
        best = min(rows, key=lambda row: (_size(row), _p90(row.figures), *_by_score(row)))
        return best, "the smallest file" + only
    lowest = min(_p90(row.figures) for row in rows)
    alike = [row for row in rows if _p90(row.figures) <= TIE * lowest]
    tie = ", the smaller file where p90 is within 5 %" if len(alike) > 1 else ""
    best = min(alike, key=lambda r: (_size(r), *_by_score(r)))
    return best, f"the lowest p90{only}{tie}"


def _p90(figures: Figures) -> float:
    """Return the p90 on the device, else here; infinite where there is none."""
    if figures.device is not None:
        return figures.device.latency_p90_ms
    return figures.latency.p90 if figures.latency else math.inf


def _size(row: Contender) -> float:
    return math.inf if row.figures.size_mb is None else row.figures.size_mb


def _by_score(row: Contender) -> tuple[float, float, float, str]:
    """Order by the drop on validation (which knows the metric's direction), ties by the rest."""
    drop = _drop(row) if row.validation and (row.validation.drop or row.ships) else math.inf
    return (drop, _p90(row.figures), _size(row), row.name)


def _figures_text(row: Contender) -> str:
    drop = row.validation.drop if row.validation else None
    p90 = _p90(row.figures)
    parts = [f"p90 {p90:.3g} ms" if math.isfinite(p90) else "", f"{_size(row):.3g} MB"]
    parts.append(f"drop {drop.value:.1f} on validation" if drop else "")
    return ", ".join(filter(None, parts))
