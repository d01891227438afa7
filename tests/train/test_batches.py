"""Rows of several folders as one, and the order in which they are read."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.data import arrays
from edgedistill.errors import DataError, InternalError, JobError
from edgedistill.train import batches


def folder(path, lengths, *, first=0, truth=0):
    rows = [
        {"input_ids": np.full(length, first + index, np.int32), "truth": np.int64(truth)}
        for index, length in enumerate(lengths)
    ]
    arrays.write(path, rows)
    return path


def labels(path, values):
    arrays.write(path, [{"logits": np.full(3, value, np.float16)} for value in values])
    return path


def test_two_folders_are_read_as_one(tmp_path):
    one = folder(tmp_path / "a", [3, 1], truth=2)
    two = folder(tmp_path / "b", [2, 5, 4], first=10, truth=-1)
    both = batches.Examples(
        [one, two], [labels(tmp_path / "la", [1, 2]), labels(tmp_path / "lb", [3, 4, 5])]
    )
    assert len(both) == 5
    assert both.lengths.tolist() == [3, 1, 2, 5, 4]
    assert both.truth.tolist() == [2, 2, -1, -1, -1]
    rows = both.rows([4, 1, 2])
    assert [row["input_ids"].tolist() for row in rows] == [[12] * 4, [1], [10] * 2]
    assert "truth" not in rows[0]
    assert both.logits([4, 1, 2])[:, 0].tolist() == [5, 2, 3]
    assert both.used("input_ids").tolist() == [0, 1, 10, 11, 12]


def test_a_few_rows_are_spread_over_those_with_a_truth(tmp_path):
    one = folder(tmp_path / "a", range(1, 11), truth=2)
    two = folder(tmp_path / "b", [40, 41], first=10, truth=-1)
    few = batches.Examples([two, one], [labels(tmp_path / "lb", [3, 4]), one]).few(5)
    assert (len(few), few.lengths.tolist(), set(few.truth)) == (5, [1, 3, 5, 7, 9], {2})
    assert [len(row["input_ids"]) for row in few.rows([4, 0])] == [9, 1]
    assert [len(row["input_ids"]) for row in few.few(2).rows([0, 1])] == [1, 5]
    assert len(few.few(9)) == 5
    without = batches.Examples([two], [labels(tmp_path / "l", [3, 4])]).few(1)
    assert without.lengths.tolist() == [40] and without.logits([0])[0, 0] == 3


def test_labels_of_other_rows_are_refused(tmp_path):
    rows = folder(tmp_path / "a", [3, 1])
    with pytest.raises(InternalError, match="2 rows, but labels of 3"):
        batches.Examples([rows], [labels(tmp_path / "l", [1, 2, 3])])
    with pytest.raises(InternalError, match="1 folders"):
        batches.Examples([rows], [labels(tmp_path / "m", [1, 2])] * 2)


def test_no_rows_are_an_error(tmp_path):
    arrays.write(tmp_path / "a", [])
    with pytest.raises(DataError, match="no rows"):
        batches.Examples([tmp_path / "a"])


def test_an_epoch_holds_each_row_once_and_rows_of_like_length_together():
    lengths = np.random.default_rng(0).integers(1, 60, size=1000)
    found = batches.order(lengths, 10, seed=0, epoch=0)
    assert sorted(np.concatenate(found).tolist()) == list(range(1000))
    spread = np.mean([np.ptp(lengths[batch]) for batch in found])
    assert spread < 6 < np.ptp(lengths)
    firsts = [lengths[batch].mean() for batch in found]
    assert firsts != sorted(firsts)  # batches themselves come in any order


def test_the_order_is_of_seed_and_epoch_alone():
    lengths = np.arange(100) % 7

    def drawn(seed, epoch):
        return np.concatenate(batches.order(lengths, 8, seed=seed, epoch=epoch)).tolist()

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


def test_rows_that_fill_no_batch_are_others_each_epoch():
    lengths = np.arange(1, 12)
    left = set()
    for epoch in range(40):
        found = batches.order(lengths, 4, seed=0, epoch=epoch)
        assert [len(batch) for batch in found] == [4, 4]
        left |= set(range(11)) - set(np.concatenate(found).tolist())
    assert left == set(range(11))


def test_fewer_rows_than_a_batch_are_one_batch():
    found = batches.order(np.ones(3), 64, seed=0, epoch=0)
    assert [sorted(batch.tolist()) for batch in found] == [[0, 1, 2]]


def test_sequential_holds_every_row_once_the_rest_too():
    found = batches.sequential(np.array([5, 1, 3, 2, 4]), 2)
    assert [batch.tolist() for batch in found] == [[1, 3], [2, 4], [0]]


def test_long_rows_are_fewer_at_once():
    lengths = np.array([batches.LONGEST // 4] * 9 + [3] * 5 + [2 * batches.LONGEST])
    found = batches.sequential(lengths, 8)
    assert sorted(np.concatenate(found).tolist()) == list(range(15))
    assert all(
        len(batch) * lengths[batch].max() <= batches.LONGEST or len(batch) == 1 for batch in found
    )
    assert [len(batch) for batch in found] == [5, 4, 4, 1, 1]


def test_rows_are_repeated_with_their_labels_and_opened_once(tmp_path):
    for name, count, first in (("a", 3, 0), ("b", 2, 10)):
        truth = [np.int64(first + n) for n in range(count)]
        arrays.write(
            tmp_path / name, ({"input_ids": np.array([each]), "truth": each} for each in truth)
        )
        logits = ({"logits": np.array([each, -each], np.float16)} for each in truth)
        arrays.write(tmp_path / f"{name}-labels", logits)
    folders = [tmp_path / "a", tmp_path / "b"]
    labels = [tmp_path / "a-labels", tmp_path / "b-labels"]
    found = batches.Examples(folders, labels, repeats=(1, 3))
    assert (
        found.truth.tolist() == [0, 1, 2, *[10, 11] * 3] and len(found) == len(found.lengths) == 9
    )
    assert [int(row["input_ids"][0]) for row in found.rows(range(9))] == found.truth.tolist()
    assert found.logits(range(9))[:, 0].tolist() == found.truth.tolist()
    assert found.used("input_ids").tolist() == [0, 1, 2, 10, 11]
    assert len({id(part) for part in found.parts}) == 2
    with pytest.raises(JobError, match="repeats: 1 numbers for 2 inputs"):
        batches.Examples(folders, labels, repeats=(2,))
