"""Statistics of timed blocks: percentiles, paired ratios, steadiness.

A row's times are blocks: one list of ms a round. Intervals come from resampling whole rounds,
because the runs of one round share its weather.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgedistill.records import Interval, Latency

Blocks = Mapping[int, Sequence[float]]  # round -> ms of its runs, in the order of that round
RESAMPLES = 1000
STEADY = 0.20  # interquartile range of block medians over their round's yardstick
P99_FROM = 1000  # runs: below, a 99th percentile rests on fewer than ten of them


def latency(blocks: Blocks, cold: float, *, steady: bool, seed: int) -> Latency:
    """Summarise one row's blocks: percentiles over all runs, the p90's interval over rounds."""
    if not blocks:
        raise ValueError("no blocks to summarise")
    runs = np.concatenate([np.asarray(block, float) for block in blocks.values()])
    p50, p90, p99 = (float(each) for each in np.percentile(runs, [50, 90, 99]))
    low, high = _resampled_p90([np.asarray(block, float) for block in blocks.values()], seed)
    return Latency(
        p50=p50,
        p90=p90,
        p90_low=min(low, p90),
        p90_high=max(high, p90),
        p99=p99 if len(runs) >= P99_FROM else None,
        cold=cold,
        runs=len(runs),
        rounds=len(blocks),
        steady=steady,
    )


def speedup(baseline: Blocks, blocks: Blocks, *, seed: int) -> Interval | None:
    """Return the median over common rounds of the ratio of block medians.

    Where one block is shorter, the other's first runs are compared: the same rows. None without
    a common round.
    """
    ratios = []
    for number, block in blocks.items():
        if number not in baseline:
            continue
        count = min(len(block), len(baseline[number]))
        ratios.append(np.median(baseline[number][:count]) / np.median(block[:count]))
    if not ratios:
        return None
    table = np.asarray(ratios, float)
    draws = _draws(len(table), seed)
    low, high = np.percentile(np.median(table[draws], axis=1), [2.5, 97.5])
    return Interval(float(np.median(table)), float(low), float(high))


def spread(medians: Mapping[int, float], slowness: Mapping[int, float]) -> float:
    """Return the interquartile range of block medians over their round's yardstick, over its
    median: above `STEADY` the row is unsteady."""
    relative = np.array([value / slowness[number] for number, value in medians.items()])
    low, middle, high = np.percentile(relative, [25, 50, 75])
    return float((high - low) / middle)


def block_medians(
    blocks: Blocks, orders: Mapping[int, Sequence[int]], rows: int
) -> dict[int, float]:
    """Return each block's median by round.

    Blocks that ran only part of the sample hold other rows in every round: each run is then taken
    over its row's own median first, so that lengths don't count as unsteadiness. Where a row ran
    fewer than three times that would hide more than it shows, and the times stay as they are.
    """
    if all(len(block) == rows for block in blocks.values()):
        return {number: float(np.median(block)) for number, block in blocks.items()}
    by_row: dict[int, list[float]] = {}
    for number, block in blocks.items():
        for row, ms in zip(orders[number], block, strict=False):
            by_row.setdefault(row, []).append(ms)
    usual = {row: float(np.median(times)) for row, times in by_row.items() if len(times) >= 3}
    if len(usual) < len(by_row):
        return {number: float(np.median(block)) for number, block in blocks.items()}
    return {
        number: float(
            np.median([ms / usual[row] for row, ms in zip(orders[number], block, strict=False)])
        )
        for number, block in blocks.items()
    }


def _resampled_p90(blocks: Sequence[np.ndarray], seed: int) -> tuple[float, float]:
    draws = _draws(len(blocks), seed)
    if len({len(block) for block in blocks}) == 1:
        pooled = np.stack(blocks)[draws].reshape(len(draws), -1)
        found = np.percentile(pooled, 90, axis=1)
    else:
        found = np.array(
            [np.percentile(np.concatenate([blocks[i] for i in draw]), 90) for draw in draws]
        )
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def _draws(rounds: int, seed: int) -> np.ndarray:
    """Return (resamples, rounds) of round numbers, drawn with replacement."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, rounds, (RESAMPLES, rounds))
