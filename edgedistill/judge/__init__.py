"""Judge: what outputs show, limits held against figures, a choice, a verdict. Pure.

evidence     score, paired drop, labels, agreement of one row beside the baseline
resampling   scores of resampled rows, for metrics whose interval no formula gives
confidence   the temperature, calibration error, coverage at thresholds
limits       checks: one limit held against one figure
unseen       rows with words that no training row holds
alike        whether a file's answers on another processor are those of this one
choice       which row is chosen on validation; the verdict on test
"""

from __future__ import annotations

from edgedistill.judge.alike import Alike, alike
from edgedistill.judge.choice import Contender, choose, verdict
from edgedistill.judge.confidence import fit_temperature
from edgedistill.judge.evidence import Evaluation, can_show, evaluate, rows_to_settle, score_of
from edgedistill.judge.limits import PAIRED, checks, figures_of, not_unseen
from edgedistill.judge.unseen import UnseenWords, holding, unseen_words

__all__ = [
    "PAIRED",
    "Alike",
    "Contender",
    "Evaluation",
    "UnseenWords",
    "alike",
    "can_show",
    "checks",
    "choose",
    "evaluate",
    "figures_of",
    "fit_temperature",
    "holding",
    "not_unseen",
    "rows_to_settle",
    "score_of",
    "unseen_words",
    "verdict",
]
