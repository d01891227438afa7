import numpy as np
import pytest

from edgedistill.data import live, sources
from edgedistill.errors import DataError
from edgedistill.sections import DataSpec

datasets = pytest.importorskip("datasets")
pandas = pytest.importorskip("pandas")

TEXTS = [f"sentence number {index}" for index in range(60)]
TRUTH = [index % 2 for index in range(60)]


def frames():
    whole = pandas.DataFrame({"text": TEXTS, "label": TRUTH})
    return {"train": whole[:40], "val": whole[40:50], "test": whole[50:]}


def named():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    whole = datasets.Dataset.from_dict({"text": TEXTS, "label": TRUTH}, features=features)
    bounds = {"train": range(40), "validation": range(40, 50), "test": range(50, 60)}
    return datasets.DatasetDict({name: whole.select(rows) for name, rows in bounds.items()})


def test_frames_by_split():
    data = sources.read(DataSpec(path=frames()))
    assert (data.labels(), len(data.splits["validation"])) == (["0", "1"], 10)


def test_an_empty_cell_of_a_frame_is_an_empty_text():
    parts = frames()
    parts["train"] = parts["train"].copy()
    parts["train"].loc[3, "text"] = None
    with pytest.raises(DataError, match=r"1 row with an empty text \(first: row 4\)"):
        sources.read(DataSpec(path=parts))


@pytest.mark.parametrize(
    ("column", "dtype", "message"),
    [
        ("text", "string", "1 row with an empty text"),
        ("label", "Int64", "1 row with an empty label"),
    ],
)
def test_an_empty_cell_is_one_in_pandas_own_types_too(column, dtype, message):
    parts = frames()
    parts["train"] = parts["train"].astype({column: dtype})
    parts["train"].loc[3, column] = pandas.NA
    with pytest.raises(DataError, match=rf"{message} \(first: row 4\)"):
        sources.read(DataSpec(path=parts))
    assert len(sources.read(DataSpec(path=parts, bad_rows="drop")).splits["train"]) == 39


@pytest.mark.parametrize("empty", [None, float("nan"), pandas.NA])
def test_an_empty_cell_among_images_is_no_image(empty):
    pixels = [np.full((6, 5), index * 4, np.uint8) for index in range(60)]
    frame = pandas.DataFrame({"img": [empty, *pixels[1:]], "label": TRUTH})
    with pytest.raises(DataError, match=r"1 row with no image \(first: row 1\)"):
        sources.read(DataSpec(path=frame))


def test_a_dataset_gives_its_labels_names_live_and_saved(tmp_path):
    named().save_to_disk(str(tmp_path / "saved"))
    first, second = (sources.read(DataSpec(path=path)) for path in (named(), tmp_path / "saved"))
    assert first.labels() == second.labels() == ["no", "yes"]
    assert first.splits["train"].digest == second.splits["train"].digest
    frame = sources.read(DataSpec(path=frames()))
    assert frame.splits["train"].digest != first.splits["train"].digest  # other names of labels


def test_a_column_of_lists_is_several_labels():
    whole = datasets.Dataset.from_dict({"text": TEXTS, "label": TRUTH, "tags": [["a", "b"]] * 60})
    assert len(sources.read(DataSpec(path=whole)).splits["train"]) > 30
    with pytest.raises(DataError, match="'tags': several labels for one row"):
        sources.read(DataSpec(path=whole, label="tags"))


def test_a_version_of_datasets_without_its_class_of_lists_is_read(monkeypatch):
    monkeypatch.delattr(datasets, "List", raising=False)  # before 4.0; a real one: test_floors.py
    assert sources.read(DataSpec(path=named())).labels() == ["no", "yes"]


def test_image_columns():
    pixels = [np.full((6, 5), index * 4, np.uint8) for index in range(60)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    whole = datasets.Dataset.from_dict({"img": pixels, "label": TRUTH}, features=features)
    data = sources.read(DataSpec(path=whole))
    assert (data.task, data.columns) == (
        "image-classification", {"image": "img", "label": "label"},
    )  # fmt: skip
    assert data.splits["train"].examples[0]["image"].startswith(b"\x89PNG")


def test_a_damaged_saved_data_set(tmp_path):
    named().save_to_disk(str(tmp_path))
    next((tmp_path / "train").glob("*.arrow")).write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be read by datasets"):
        live.read_saved(tmp_path)


@pytest.mark.parametrize("value", [42, {"train": [1, 2]}, {}])
def test_what_is_no_data(value):
    with pytest.raises(DataError, match="expected"):
        sources.read(DataSpec(path=value))


def test_an_unknown_split_names_the_nearest():
    with pytest.raises(DataError, match="'trian' is no name of a split: did you mean 'train'"):
        sources.read(DataSpec(path={"trian": frames()["train"], "test": frames()["test"]}))
