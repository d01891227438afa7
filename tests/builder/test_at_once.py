"""Which trainings of a build run at the same time, and that nothing else changes by it."""

import importlib.util
from pathlib import Path

import pytest

import edgedistill
from edgedistill.store.runner import Runner

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


@pytest.fixture
def pairs(monkeypatch):
    """The threads of what ran at once, two by two."""
    seen, real = [], Runner.run_both

    def spied(self, first, second, *rest):
        seen.append([step.settings["alpha"] > 0 for step in (first, second)])
        assert first.settings["threads"] == second.settings["threads"] == 1
        return real(self, first, second, *rest)

    monkeypatch.setattr(Runner, "run_both", spied)
    return seen


def build(folder, student, threads):
    # int8 of models this small pays or not by noise: float alone ships the same each time
    names = small.job(folder) | {"student": student, "quantize": "none"}
    # what comes before is the same on two threads and on one
    names["settings"] |= {"run.threads": threads, "finetune.threads": 1}
    made = edgedistill.build(target=names.pop("target"), **names)
    return made, small.payload(Path(names["out"]))


@pytest.mark.slow
def test_a_student_trains_beside_its_control_and_the_bytes_are_the_same(tmp_path, pairs):
    both, bytes_of_both = build(tmp_path / "two", "1", 2)
    assert both.exit_code == 0 and pairs == [[True, False]], "a student, and one without a teacher"
    assert both.record["teacher_worth"]["control"].startswith("control 1x32")
    single, bytes_of_single = build(tmp_path / "one", "1", 1)
    assert single.exit_code == 0 and len(pairs) == 1
    assert single.chosen == both.chosen and bytes_of_both == bytes_of_single


@pytest.mark.slow
def test_students_that_all_train_do_so_two_by_two(tmp_path, pairs):
    made, _ = build(tmp_path, ["1", "2"], 2)
    assert made.exit_code == 0 and pairs == [[True, True]]
