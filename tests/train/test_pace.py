"""How long and how fast to train."""

from __future__ import annotations

import pytest

from edgedistill.train import pace


def test_the_rate_rises_then_falls_to_nothing():
    training = pace.Training(steps=100, warmup=0.1)
    factors = [pace.factor(step, training) for step in range(100)]
    assert factors[:11] == sorted(factors[:11]) and factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[0] < 0.1 and 0 < factors[-1] < 0.02


@pytest.mark.parametrize(
    ("schedule", "middle"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)]
)
def test_schedules_at_their_middle_and_quarter(schedule, middle):
    training = pace.Training(steps=100, warmup=0.0, schedule=schedule)
    assert pace.factor(0, training) == pytest.approx(1.0)
    assert pace.factor(50, training) == pytest.approx(middle)
    quarter = {"linear": 0.75, "cosine": 0.853553, "constant": 1.0}[schedule]
    assert pace.factor(25, training) == pytest.approx(quarter, rel=1e-5)


def test_validation_comes_twelve_times_unless_told():
    assert pace.every(pace.Training(steps=1200)) == 100
    assert pace.every(pace.Training(steps=3)) == 1
    assert pace.every(pace.Training(steps=1200, evaluate_every=7)) == 7


def test_steps_are_epochs_and_more_of_them_where_rows_are_few():
    assert pace.steps(60_000, epochs=6, batch=64) == 6 * 937
    assert pace.steps(3_200, epochs=6, batch=64) == pace.FEWEST  # 30 epochs
    assert pace.steps(640, epochs=6, batch=64) == 60 * 10  # no row more than 60 times
    assert pace.steps(3, epochs=6, batch=64) == 60


def test_the_fewer_layers_are_kept_the_higher_the_rate():
    ends = {"nothing": 1e-3, "whole": 2e-4}
    assert pace.rate(0, **ends) == 1e-3 and pace.rate(1, **ends) == 2e-4
    assert pace.rate(1 / 3, **ends) == 8.4e-4 and pace.rate(1 / 2, **ends) == 6.7e-4
    assert pace.rate(7, **ends) == pace.rate(1, **ends)


def test_narrow_encoders_are_fine_tuned_at_higher_rates():
    rates = [pace.finetuning(width) for width in (1024, 768, 384, 32)]
    assert rates == [2.8e-5, 5e-5, 2e-4, 1e-3]
