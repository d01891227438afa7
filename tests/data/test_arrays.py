import tracemalloc

import numpy as np
import pytest

from edgedistill.data import arrays
from edgedistill.data.arrays import Arrays
from edgedistill.errors import DataError


def test_what_is_written_is_read(tmp_path):
    rows = [
        {"input_ids": np.arange(n, dtype=np.int32), "truth": np.int64(n), "pixels": np.eye(2, n)}
        for n in (3, 1, 5)
    ]
    assert arrays.write(tmp_path, iter(rows)) == 3
    read = Arrays(tmp_path)
    assert len(read) == 3
    for index, row in enumerate(rows):
        found = read.row(index)
        assert set(found) == set(row)
        for name, value in row.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == np.asarray(value).dtype
            assert found[name].shape == np.shape(value)
    assert read.lengths("input_ids").tolist() == [3, 1, 5]


def test_rows_of_one_shape_are_one_array(tmp_path):
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    arrays.write(tmp_path, ({"logits": row} for row in rows))
    np.testing.assert_array_equal(Arrays(tmp_path).stacked("logits"), rows)


def test_rows_that_differ_are_no_one_array(tmp_path):
    arrays.write(tmp_path, ({"ids": np.zeros(n)} for n in (1, 2)))
    with pytest.raises(DataError, match="'ids' differ in shape"):
        Arrays(tmp_path).stacked("ids")


def test_a_row_may_be_empty(tmp_path):
    arrays.write(tmp_path, ({"ids": np.zeros(n, np.int32)} for n in (0, 2, 0)))
    assert [len(Arrays(tmp_path).value("ids", index)) for index in range(3)] == [0, 2, 0]


def test_the_files_are_plain_npy_and_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        arrays.write(tmp_path / name, ({"x": np.full(n, n, np.uint8)} for n in (2, 3)))
    assert np.load(tmp_path / "a" / "x.npy").tolist() == [2, 2, 3, 3, 3]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def peak(count):
        row = {"ids": np.arange(8, dtype=np.int32), "truth": np.int64(1)}
        tracemalloc.start()
        arrays.write(tmp_path / str(count), (row for _ in range(count)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    assert peak(3000) < peak(1000) + 2000


@pytest.mark.parametrize(
    "rows",
    [
        [{"x": np.zeros(3)}, {"x": np.zeros((1, 3))}],
        [{"x": np.zeros(3), "y": np.zeros(1)}, {"x": np.zeros(3)}],
    ],
)
def test_rows_of_other_names_or_dimensions_are_an_error(tmp_path, rows):
    with pytest.raises(DataError, match="row 2"):
        arrays.write(tmp_path, rows)
    assert not (tmp_path / "arrays.json").exists()


def test_a_folder_without_arrays_is_said_to_be_one(tmp_path):
    with pytest.raises(DataError, match=r"no arrays\.json"):
        Arrays(tmp_path)
