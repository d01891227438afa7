"""Hold figures against limits.

Pure. Limits are an open map: one that starts with `min_` is a floor, every other a ceiling. A check
holds when the figure and its whole interval are inside, holds closely when only the figure is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edgedistill.judge.evidence import Evaluation, rows_to_settle
from edgedistill.records import Check, Figures, Interval

GENERAL = ("max_drop_points", "min_score_points", "worst_label_drop_points")
OWN = ("max_own_drop_points",)  # on a second, small set of rows
SCORED = (*GENERAL, *OWN)
DROPS = ("max_drop_points", *OWN)
PAIRED = (*DROPS, "worst_label_drop_points")  # against the baseline
ABSENT = "not measured"
ON_DEVICE = "the device's own measurement would settle it"
NOT_SCORED = "not scored on these rows"
SEEN = "the split is ours, and the model may have been trained on its rows"


def figures_of(
    figures: Figures, evaluation: Evaluation | None, own: Evaluation | None = None
) -> tuple[dict[str, Interval | None], dict[str, str]]:
    """Return what was found, by the name of the limit it answers to, and reasons.

    `own` is the evaluation of the own rows, where there are some. A reason says why a figure is
    absent; of the latency also what would settle a close one.
    """
    device, latency, drop, score = figures.device, None, None, None
    if device is not None:
        latency = Interval(device.latency_p90_ms, device.low, device.high)
    if evaluation is not None:
        drop = evaluation.drop
        score = Interval(evaluation.score.value, evaluation.score.low, evaluation.score.high)
    found: dict[str, Interval | None] = {
        "max_drop_points": drop,
        "min_score_points": score,
        "max_own_drop_points": own.drop if own else None,
        "worst_label_drop_points": evaluation.worst_drop if evaluation else None,
        "latency_p90_ms": latency,
        "memory_mb": _exact(figures.memory_mb),
        "size_mb": _exact(figures.size_mb),
        "load_ms": _exact(figures.load_ms),
    }
    reasons = dict.fromkeys(found, figures.failed or ABSENT)
    reasons |= dict.fromkeys(SCORED, NOT_SCORED)
    if evaluation is not None:
        reasons["max_drop_points"] = "no baseline on the same rows"
        reasons["max_own_drop_points"] = "no baseline on them" if own else "there are no own rows"
        reasons["worst_label_drop_points"] = "no label with five rows, or no baseline beside it"
    if device is None and figures.latency is not None:
        reasons["latency_p90_ms"] = "no figure of the device: neither estimated nor measured"
    if device is not None:  # then it says what would settle a close one
        measured = device.source == "measured"
        reasons["latency_p90_ms"] = "more rounds would settle it" if measured else ON_DEVICE
    return found, reasons


def checks(
    limits: Mapping[str, float],
    figures: Mapping[str, Interval | None],
    reasons: Mapping[str, str] | None = None,
    *,
    rows: int | None = None,
    own_rows: int | None = None,
    at_best_close: Mapping[str, str] | None = None,
    vanished: Sequence[str] = (),
) -> tuple[Check, ...]:
    """Hold every limit against its figure.

    `reasons`: see `figures_of`; `rows` and `own_rows` (of the split) let a close drop say how many
    would settle it; `at_best_close` names limits whose figures can't be trusted to the end, with
    the reason; `vanished` labels are one more check, that misses.
    """
    made = []
    for limit, allowed in limits.items():
        figure = figures.get(limit)
        why = (reasons or {}).get(limit, ABSENT)
        scored, doubt = own_rows if limit in OWN else rows, (at_best_close or {}).get(limit)
        made.append(_check(limit, allowed, figure, why, scored, doubt))
    if vanished:
        named = ", ".join(f"'{label}'" for label in vanished[:3])
        more = f" and {len(vanished) - 3} more" if len(vanished) > 3 else ""
        why = f"the baseline finds {named}{more}; this row never does"
        count = float(len(vanished))
        made.append(Check("vanished_labels", 0.0, count, None, None, "misses", why))
    return tuple(made)


def not_unseen(limits: Mapping[str, float], *, own: bool = False) -> dict[str, str]:
    """Return `at_best_close` for a split that is ours under a teacher that came with its head."""
    return {name: SEEN for name in (OWN if own else GENERAL) if name in limits}


def _exact(value: float | None) -> Interval | None:
    return None if value is None else Interval(value)


def _check(
    limit: str,
    allowed: float,
    figure: Interval | None,
    absent: str,
    rows: int | None,
    doubt: str | None,
) -> Check:
    if figure is None or not math.isfinite(figure.value):
        return Check(limit, allowed, None, None, None, "unchecked", absent)
    value, low, high = figure
    floor = limit.startswith("min_")
    far = low if floor else high
    inside = value >= allowed if floor else value <= allowed
    whole = far is None or (far >= allowed if floor else far <= allowed)
    if not inside:
        return Check(limit, allowed, value, low, high, "misses")
    if not whole:
        why = _close(limit, figure, allowed, rows=rows, settle=absent)
        return Check(
            limit, allowed, value, low, high, "close", "; ".join(filter(None, (why, doubt)))
        )
    return Check(limit, allowed, value, low, high, "close" if doubt else "holds", doubt)


def _close(limit: str, figure: Interval, allowed: float, *, rows: int | None, settle: str) -> str:
    """Say what the figure could be, and what would settle it."""
    far = figure.low if limit.startswith("min_") else figure.high
    assert far is not None
    text = f"it could be {_beside(far, allowed)}"
    if limit in SCORED and rows:
        text = f"by these {rows:,} rows {text}"
    if limit in DROPS and rows:
        needed = rows_to_settle(figure, allowed, rows)
        settle = f"about {needed:,} rows" if needed else "no number of rows"
        return f"{text}; {settle} would settle it"
    return f"{text}; {settle}" if limit == "latency_p90_ms" and settle != ABSENT else text


def _beside(far: float, allowed: float) -> str:
    """Write a figure with as many digits as show that it is not the limit itself."""
    for digits in range(1, 6):
        text = f"{far:.{digits}f}"
        if float(text) != allowed:
            break
    return text
