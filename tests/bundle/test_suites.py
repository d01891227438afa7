"""Suites: cases as jobs, what overrides them, and their table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgedistill import job, plugins, suites
from edgedistill.errors import TargetError, UsageError


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[job.Job]:
    """A suite of one case, and a build that only notes what it is asked."""
    seen: list[job.Job] = []
    (tmp_path / "cases" / "mine").mkdir(parents=True)
    (tmp_path / "cases" / "mine" / "one.toml").write_text(
        'about = "a case"\ntarget = "phone"\n[measure]\nseconds = 20\n'
    )
    monkeypatch.setattr(plugins, "folder", lambda kind: tmp_path / kind)
    record = {"chosen": None, "rows": [], "verdict": "misses", "seconds": {"total": 3.0}}

    def build_job(asked: job.Job, progress) -> SimpleNamespace:
        seen.append(asked)
        return SimpleNamespace(record=record)

    monkeypatch.setattr(suites, "build_job", build_job)
    monkeypatch.setattr(suites.targets, "load", _known)
    return seen


def _known(name: str) -> None:
    if name not in ("phone", "embedded"):
        raise TargetError(f"unknown target '{name}'")


def test_a_case_is_built_as_it_stands(built: list[job.Job]):
    (row,) = suites.run("mine")
    assert row["case"] == "one" and row["verdict"] == "misses"
    assert (built[0].target, built[0].measure.seconds) == ("phone", 20.0)
    assert len(suites.table([row])) == 2


def test_target_and_seconds_go_before_the_cases_own(built: list[job.Job]):
    suites.run("mine", {"measure.seconds": 2.5}, target="embedded")
    assert (built[0].target, built[0].measure.seconds) == ("embedded", 2.5)


def test_a_wrong_target_is_said_before_the_first_case(built: list[job.Job]):
    with pytest.raises(TargetError, match="embeded"):
        suites.run("mine", target="embeded")
    assert not built


def test_an_unknown_suite_names_the_nearest(built: list[job.Job]):
    with pytest.raises(UsageError, match="mine"):
        suites.run("mines")
