from __future__ import annotations

import numpy as np
import pytest

from edgedistill.data.arrays import Arrays
from edgedistill.errors import DataError
from edgedistill.measure import sample

LENGTHS = np.random.Generator(np.random.PCG64(5)).integers(3, 60, 4500)


def test_the_sample_has_the_lengths_of_the_rows():
    chosen = sample.choose(LENGTHS, 48, seed=0)
    assert len(chosen) == len(set(chosen)) == 48
    found = LENGTHS[chosen]
    assert (np.diff(found) >= 0).all()  # the shortest first
    for part in (10, 50, 90):
        assert abs(np.percentile(found, part) - np.percentile(LENGTHS, part)) <= 3


def test_the_seed_decides_and_no_row_is_favoured():
    assert sample.choose(LENGTHS, seed=1) == sample.choose(LENGTHS, seed=1)
    assert sample.choose(LENGTHS, seed=1) != sample.choose(LENGTHS, seed=2)
    same = np.ones(100, int)
    assert sample.choose(same, 10, seed=1) != sample.choose(same, 10, seed=2)


def test_fewer_rows_than_asked_give_all():
    assert sorted(sample.choose([5, 1, 3], 48)) == [0, 1, 2]
    with pytest.raises(DataError, match="no rows to measure on"):
        sample.choose([])


def test_what_is_written_is_read_back(tmp_path):
    batches = [{"input:0": np.full((1, n), n, np.int64)} for n in (2, 5)]
    assert sample.write(tmp_path / "made", batches) == 2
    found = Arrays(tmp_path / "made")
    assert found.value("input%3A0", 1).tolist() == [[5] * 5]


def test_encoding_is_timed_on_every_example():
    seen = []
    found = sample.time_each(seen.append, list(range(10)))
    assert seen == [0, 1, 2, *range(10)]
    assert 0 <= found["p50"] <= found["p90"]


def test_products_are_those_of_the_run_at_the_90th_percentile_of_size():
    feeds = [{"ids": np.zeros((1, n)), "mask": np.zeros((1, n))} for n in (9, 1, 7, 3, 5, 2, 8, 4)]
    feeds += [{"ids": np.zeros((1, n)), "mask": np.zeros((1, n))} for n in (6, 10, 100)]
    seen = []

    def count(shapes):
        seen.append(shapes)
        return {"fp32": float(shapes["ids"][1]), "int8": 0.0}

    assert sample.products(count, feeds) == {"fp32": 10.0, "int8": 0.0}
    assert seen == [{"ids": [1, 10], "mask": [1, 10]}]
    assert sample.products(count, feeds[:1])["fp32"] == 9.0
