from __future__ import annotations

import numpy as np
import pytest

from edgedistill.measure import statistics


def blocks(seed=0, rounds=20, runs=48, scale=1.0, wander=0.0):
    random = np.random.Generator(np.random.PCG64(seed))
    weather = 1 + wander * random.standard_normal(rounds)
    return {
        number: list(scale * weather[number] * (1 + 0.1 * random.random(runs)))
        for number in range(rounds)
    }


def test_percentiles_are_over_all_runs():
    made = {0: [1.0, 2.0, 3.0, 4.0, 5.0], 1: [6.0, 7.0, 8.0, 9.0, 10.0]}
    found = statistics.latency(made, 12.0, steady=True, seed=0)
    assert found.p50 == 5.5 and found.p90 == pytest.approx(9.1)
    assert (found.cold, found.runs, found.rounds, found.steady) == (12.0, 10, 2, True)


def test_the_99th_percentile_needs_a_thousand_runs():
    assert statistics.latency(blocks(rounds=20), 1, steady=True, seed=0).p99 is None
    many = statistics.latency(blocks(rounds=21), 1, steady=True, seed=0)
    assert many.runs == 1008 and many.p90 < many.p99 < 1.1


def test_whole_rounds_are_resampled_so_weather_widens_the_interval():
    calm = statistics.latency(blocks(), 1, steady=True, seed=0)
    windy = statistics.latency(blocks(wander=0.2), 1, steady=True, seed=0)
    assert calm.p90_low <= calm.p90 <= calm.p90_high
    assert windy.p90_high - windy.p90_low > 10 * (calm.p90_high - calm.p90_low)


def test_blocks_of_unlike_length_are_pooled_too():
    made = blocks(rounds=6)
    made[3] = made[3][:5]
    found = statistics.latency(made, 1, steady=True, seed=0)
    assert found.runs == 5 * 48 + 5 and found.p90_low <= found.p90 <= found.p90_high


def test_the_same_seed_gives_the_same_interval():
    first, second = (statistics.latency(blocks(), 1, steady=True, seed=7) for _ in range(2))
    assert first == second


def test_speedup_is_the_median_of_ratios_within_rounds():
    baseline = {0: [4.0, 4.0], 1: [8.0, 8.0], 2: [40.0, 40.0]}
    row = {0: [2.0, 2.0], 1: [4.0, 4.0], 2: [4.0, 4.0]}
    found = statistics.speedup(baseline, row, seed=0)
    assert found.value == 2.0 and (found.low, found.high) == (2.0, 10.0)


def test_speedup_compares_the_same_rows_of_unlike_blocks():
    baseline = {0: [10.0, 20.0, 30.0, 40.0]}
    assert statistics.speedup(baseline, {0: [5.0, 10.0]}, seed=0).value == 2.0


def test_speedup_needs_a_common_round():
    assert statistics.speedup({0: [1.0]}, {1: [1.0]}, seed=0) is None


def test_weather_shared_with_the_yardstick_is_not_unsteadiness():
    weather = {number: 1.0 + (number % 2) for number in range(20)}
    medians = {number: 3.0 * value for number, value in weather.items()}
    assert statistics.spread(medians, weather) == pytest.approx(0.0)
    alone = dict.fromkeys(weather, 1.0)
    assert statistics.spread(medians, alone) > statistics.STEADY


def test_the_spread_is_the_interquartile_range_over_the_median():
    medians = {0: 8.0, 1: 9.0, 2: 10.0, 3: 11.0, 4: 12.0}
    assert statistics.spread(medians, dict.fromkeys(medians, 2.0)) == pytest.approx(0.2)


def test_lengths_do_not_count_as_unsteadiness_of_partial_blocks():
    orders = {number: [number % 4, (number + 1) % 4] for number in range(16)}
    made = {number: [10.0 * (row + 1) for row in rows] for number, rows in orders.items()}
    medians = statistics.block_medians(made, orders, rows=8)
    assert statistics.spread(medians, dict.fromkeys(medians, 1.0)) == pytest.approx(0.0)
    slower = {number: [ms * (1 + number % 2) for ms in block] for number, block in made.items()}
    shaken = statistics.block_medians(slower, orders, rows=8)
    assert statistics.spread(shaken, dict.fromkeys(shaken, 1.0)) > statistics.STEADY


def test_whole_blocks_keep_their_own_medians():
    made, orders = {0: [1.0, 3.0, 5.0]}, {0: [2, 0, 1]}
    assert statistics.block_medians(made, orders, rows=3) == {0: 3.0}


def test_rows_seen_once_keep_their_times():
    made, orders = {0: [10.0], 1: [40.0]}, {0: [0], 1: [3]}
    assert statistics.block_medians(made, orders, rows=8) == {0: 10.0, 1: 40.0}


def test_no_blocks_are_no_figures():
    with pytest.raises(ValueError, match="no blocks"):
        statistics.latency({}, 1.0, steady=True, seed=0)
