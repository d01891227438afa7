"""What a job opens before anything is read: its target, its output folder, its store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgedistill import bundle
from edgedistill import target as targets
from edgedistill.data import starter
from edgedistill.errors import JobError
from edgedistill.job import Job
from edgedistill.store import Store


@dataclass(frozen=True)
class Opened:
    """A job's target with its limits in place, the bundle's folder, and the store."""

    target: targets.Target
    out: Path
    store: Store


def open_job(job: Job) -> Opened:
    """Open a job. Raises where the target is unknown or the output folder may not be replaced."""
    limits = {**(starter.LIMITS if job.starter else {}), **job.limits}
    target = targets.with_limits(targets.load(job.target), limits)
    if job.run.out is not None and not job.run.out.strip():
        raise JobError("run.out is empty: name a folder with --out, or leave it out")
    out = Path(job.run.out or f"dist/{target.name}").expanduser()
    bundle.replaceable(out)
    return Opened(target, out, Store(Path(job.run.store).expanduser() if job.run.store else None))
