import pytest

from edgedistill.data.finding import find
from edgedistill.errors import DataError
from edgedistill.sections import DataSpec

ROWS = "text,label\nplay a song,x\nstop it now,y\n"


def fill(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(content)
    return folder


def places(folder, **told):
    return {name: table.place for name, table in find(DataSpec(path=folder, **told)).tables.items()}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "Val"])
def test_files_named_after_splits(tmp_path, name):
    fill(tmp_path, **{"train_csv": ROWS, f"{name}_csv": ROWS, "test_csv": ROWS})
    assert places(str(tmp_path)) == {
        "train": "train.csv", "validation": f"{name}.csv", "test": "test.csv",
    }  # fmt: skip


def test_other_files_are_listed_as_ignored(tmp_path):
    fill(tmp_path, train_csv=ROWS, oos_train_csv=ROWS, notes_txt="x", README_md="x")
    assert find(DataSpec(path=tmp_path)).ignored == ("notes.txt", "oos_train.csv")


def test_one_file_is_all_rows(tmp_path):
    fill(tmp_path, rows_csv=ROWS)
    assert places(tmp_path) == places(tmp_path / "rows.csv") == {"train": "rows.csv"}


def test_several_files_without_the_name_of_a_split(tmp_path):
    fill(tmp_path, a_csv=ROWS, b_csv=ROWS)
    with pytest.raises(DataError, match=r"a\.csv, b\.csv: choose with --set data\.train="):
        find(DataSpec(path=tmp_path))


def test_two_files_for_one_split(tmp_path):
    fill(tmp_path, train_csv=ROWS, val_csv=ROWS, dev_csv=ROWS)
    with pytest.raises(DataError, match=r"'dev\.csv' and 'val\.csv' both mean validation"):
        find(DataSpec(path=tmp_path))


def test_shards_are_one_split(tmp_path):
    line = '{"text": "%s"}\n'
    for index in (1, 0):
        fill(tmp_path, **{f"train-0000{index}-of-00002_jsonl": line % index})
    assert list(find(DataSpec(path=tmp_path)).tables["train"].columns["text"]) == ["0", "1"]


def test_files_named_one_by_one_go_before_the_folders(tmp_path):
    fill(tmp_path, train_csv=ROWS, test_csv=ROWS, mine_csv=ROWS)
    found = find(DataSpec(path=tmp_path, test=str(tmp_path / "mine.csv")))
    assert found.tables["test"].place == "mine.csv"
    alone = find(DataSpec(train=str(tmp_path / "mine.csv"), unlabelled=str(tmp_path / "test.csv")))
    assert {name: table.place for name, table in alone.tables.items()} == {
        "train": "mine.csv", "unlabelled": "test.csv",
    }  # fmt: skip
    assert alone.name == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian.csv", "does not exist: did you mean '.*train.csv'"),
        ("none/at/all", "does not exist: there is no folder"),
        ("empty", "is empty"),
        ("strange", "holds no rows: expected train.csv"),
    ],
)
def test_missing_or_empty_places(tmp_path, name, message):
    fill(tmp_path, train_csv=ROWS)
    fill(tmp_path / "empty")
    fill(tmp_path / "strange", notes_txt="x")
    with pytest.raises(DataError, match=message):
        find(DataSpec(path=str(tmp_path / name)))


def test_no_rows_named_at_all():
    with pytest.raises(DataError, match="no rows: name them with --data"):
        find(DataSpec())
