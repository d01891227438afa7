"""Whether a file's answers on another processor are those of this one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Share of the outputs' typical spread beyond which a row was computed otherwise. Sums of floats in
# another order differ by 1e-6 or so, and int8 may round an activation to the next of 255 steps: on
# encoders of 2 and 6 layers at most 0.008 where int8 is exact; products that saturate gave 0.016
# and 0.018 in the median (CLINC150, emulated Cortex-A53 and A76 against Haswell).
ROUNDING = 0.01
MOST_OTHER = 5.0  # points of rows that may differ by more: rounding has a tail
LEAST_AGREEMENT = 98.0  # points of rows with the same answer


@dataclass(frozen=True)
class Alike:
    """How far outputs are those of this host; `reason` says why they are not, None where they are.

    All in points of the rows.
    """

    agreement: float  # same best label
    other: float  # computed otherwise
    reason: str | None


def alike(here: np.ndarray, there: np.ndarray) -> Alike:
    """Hold outputs (rows, labels) of another processor against this one's."""
    same = 100 * float((there.argmax(axis=1) == here.argmax(axis=1)).mean())
    spread = max(float(np.median(here.max(axis=1) - here.min(axis=1))), 1e-6)
    gaps = np.abs(there.astype(np.float64) - here).max(axis=1) / spread
    other = 100 * float((~(gaps <= ROUNDING)).mean())  # what is no number differs too
    reason = None
    if other > MOST_OTHER:
        reason = f"{other:.0f} % of {len(here):,} rows are computed otherwise there"
    elif same < LEAST_AGREEMENT:
        reason = f"only {same:.1f} % of {len(here):,} rows are answered as here"
    return Alike(same, other, reason)
