"""Plan a build: (job, target, facts) -> Plan. Pure: it runs nothing and reads nothing.

Every row of the report is a chain of steps, and chains share their steps:

    rows ── encode ──┬────────────── label ──┐
                     │                       v
    model ─ finetune ┴─ initialize ── distill (── prune) ── export ── quantize ── evaluate

facts       what is known before anything runs
wishes      what the job, the starter and the recipe say of each stage
reading     which rows a training reads
steps       the steps of one plan, each made once
students    the steps of a student: initialize and distill
pruning     the steps of a pruned student
aware       the training that goes on with int8 simulated
starts      where a student starts, and whom it learns from
rows        the rows of the report, each a chain of steps; `propose`
"""

from __future__ import annotations

from edgedistill.planner.facts import Facts, Host, Model
from edgedistill.planner.rows import propose
from edgedistill.planner.steps import session

__all__ = ["Facts", "Host", "Model", "propose", "session"]
