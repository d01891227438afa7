import io

import numpy as np
import pytest
from PIL import Image

from edgedistill.data import imagesets
from edgedistill.errors import DataError


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(path)


def test_a_folder_a_label(tmp_path):
    for label in ("dog", "cat"):
        for index in (2, 1):
            save(tmp_path / label / f"{index}.png")
    (tmp_path / "cat" / "notes.txt").write_text("none")
    table = imagesets.read_folder(tmp_path)
    assert list(table.columns["label"]) == ["cat", "cat", "dog", "dog"]
    assert [path.name for path in table.columns["image"]] == ["1.png", "2.png"] * 2


@pytest.mark.parametrize("names", [("x", "y", "train"), ("x_val", "y_val", "validation")])
def test_arrays_by_split(tmp_path, names):
    x, y, split = names
    np.savez(tmp_path / "d.npz", **{x: np.zeros((3, 4, 5), np.uint8), y: np.array([[1], [0], [2]])})
    table = imagesets.read_npz(tmp_path / "d.npz")[split]
    assert table.columns["image"][0].shape == (4, 5)
    assert table.columns["label"] == [1, 0, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 4, 5)), "y": np.zeros(2)}, "3 images, but 2 labels"),
        ({"a": np.zeros(3)}, "no array 'x' .*its arrays: a"),
        ({"x": np.zeros((3, 4))}, "expected \\(images, height, width\\)"),
        ({"x": np.zeros((3, 4, 5)), "y": np.array(["a", None, 3], object)}, "pickled objects"),
        ({"x": np.full((1, 4, 5), 7.0), "y": np.zeros(1)}, "pixels from 7 to 7"),
    ],
)
def test_archives_that_will_not_do(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        imagesets.read_npz(tmp_path / "d.npz")


@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_a_cut_archive_is_one_clear_line(tmp_path, part):
    file = io.BytesIO()
    np.savez_compressed(file, x=np.arange(600).reshape(10, 6, 10) % 255, y=np.zeros(10))
    data = file.getvalue()
    (tmp_path / "d.npz").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match=r"d\.npz") as error:
        imagesets.read_npz(tmp_path / "d.npz")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_archive_at_all(tmp_path):
    (tmp_path / "d.npz").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=r"this is no NPZ archive, as numpy\.savez") as error:
        imagesets.read_npz(tmp_path / "d.npz")
    assert "pickle" not in str(error.value)
