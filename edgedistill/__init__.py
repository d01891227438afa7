"""edgedistill: from a trained model and real rows to a bundle that fits a device, with proof.

    import edgedistill

    report = edgedistill.build(model="my-checkpoint", data="rows/", target="phone")
    report.verdict, report.chosen, report.record
    edgedistill.load("dist/phone").predict(["how do I reset my card"])

Importing this loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgedistill.builder.driver import Report
    from edgedistill.builder.planned import Planned
    from edgedistill.bundle import Bundle

__version__ = "0.1.0"
__all__ = ["Bundle", "Report", "__version__", "build", "load", "plan"]


def build(
    job_file: Any = None, target: str | None = None, progress: Any = None, **names: Any
) -> Report:
    """Build what the names ask for; the same names as the flags of the command line.

    `model` may be a path, a hub id or a live model, `data` a path, a hub id, a
    `datasets.DatasetDict` or a dict of pandas frames; `student` a text or several; `limits` and
    `settings` mappings. Raises `edgedistill.errors.EdgedistillError`, always one clear line.
    """
    from edgedistill.builder.driver import build_job
    from edgedistill.job import named
    from edgedistill.progress import silent

    return build_job(named(job_file, target, **names), progress or silent)


def plan(job_file: Any = None, target: str | None = None, **names: Any) -> Planned:
    """Plan what the names ask for; runs nothing and writes nothing."""
    from edgedistill.builder.planned import plan_job
    from edgedistill.job import named

    return plan_job(named(job_file, target, **names))


def load(folder: Any) -> Bundle:
    """Open a bundle: verified hashes, `.predict(rows)`. Raises `BundleError`."""
    from pathlib import Path

    from edgedistill import bundle

    return bundle.load(Path(folder))


def __getattr__(name: str) -> Any:
    if name == "Report":
        from edgedistill.builder.driver import Report

        return Report
    if name == "Bundle":
        from edgedistill.bundle import Bundle

        return Bundle
    raise AttributeError(f"module 'edgedistill' has no attribute '{name}'")
