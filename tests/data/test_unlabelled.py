"""Rows without labels: how they are found, what is left out of them, what is wrong with them."""

import pytest

from edgedistill.data import sources
from edgedistill.errors import DataError
from edgedistill.sections import DataSpec


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def numbered(start, count):
    return [f"sentence number {n}" for n in range(start, start + count)]


def labelled(path, start, count, header="text,label"):
    write(
        path, [header, *(f"{text},{'ab'[n % 2]}" for n, text in enumerate(numbered(start, count)))]
    )


@pytest.fixture
def folder(tmp_path):
    labelled(tmp_path / "train.csv", 0, 40)
    labelled(tmp_path / "validation.csv", 40, 10)
    labelled(tmp_path / "test.csv", 50, 10)
    return tmp_path


def read(path, **told):
    return sources.read(DataSpec(path=str(path), **told))


def texts(data):
    return [example["text"] for example in data.splits["unlabelled"].examples]


def test_a_text_file_holds_a_row_a_line(folder):
    write(folder / "unlabelled.txt", ["a, b\u2028c", "", '  "how" are you ', "x"])
    data = read(folder)
    assert texts(data) == ["a, b\u2028c", '"how" are you', "x"]
    assert data.splits["unlabelled"].truth is None and data.origin["unlabelled"] == "given"
    assert "unlabelled.txt" not in data.ignored and not data.warnings


def test_a_file_elsewhere_is_named(folder, tmp_path):
    write(tmp_path / "more" / "log.txt", numbered(100, 3))
    assert texts(read(folder, unlabelled=str(tmp_path / "more" / "log.txt"))) == numbered(100, 3)
    with pytest.raises(
        DataError, match=r"lgo\.txt' does not exist: did you mean '.*more/log\.txt'"
    ):
        read(folder, unlabelled=str(tmp_path / "more" / "lgo.txt"))


def test_a_text_file_is_no_labelled_split(folder):
    write(folder / "notes.txt", ["by hand"])
    assert read(folder).ignored == ("notes.txt",)
    with pytest.raises(DataError, match="no file of rows that can be read"):
        read(folder, train=str(folder / "notes.txt"))


def test_one_column_is_the_input_whatever_its_name(folder):
    write(folder / "unlabelled.csv", ["said", *numbered(100, 3)])
    assert texts(read(folder)) == numbered(100, 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (numbered(100, 3), "first line looks like a row .*name the file .txt"),
        (["txt,who", "a b,c"], r"unlabelled\.csv has no column 'text' .*: it has 'txt', 'who'"),
        (["text"], r"unlabelled\.csv' holds no rows"),
        (["text,x", ",1", "a b,2"], "1 row with an empty text"),
        (["text", *numbered(50, 2)], r"2 of 2 rows .*\(2 of test\): no unlabelled row is left"),
    ],
)
def test_what_is_wrong_is_one_line(folder, lines, message):
    write(folder / "unlabelled.csv", lines)
    with pytest.raises(DataError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_an_empty_file(folder):
    write(folder / "unlabelled.txt", [])
    with pytest.raises(DataError, match=r"unlabelled\.txt' is empty"):
        read(folder)


def test_a_file_of_lines_is_no_pair(folder):
    for name in ("train", "validation", "test"):
        path = folder / f"{name}.csv"
        lines = path.read_text().splitlines()
        write(
            path, ["text,text_pair,label", *(f"{n} x,{line}" for n, line in enumerate(lines[1:]))]
        )
    write(folder / "unlabelled.txt", ["a b"])
    with pytest.raises(DataError, match=r"unlabelled\.txt has one column.*two texts"):
        read(folder)


def test_labels_are_not_read_and_that_is_said(folder):
    labelled(folder / "unlabelled.csv", 100, 4)
    data = read(folder)
    assert data.splits["unlabelled"].truth is None
    assert any("its column 'label' is not read" in line for line in data.warnings)


def test_rows_of_other_splits_are_left_out_and_counted(folder):
    again = ["Sentence  NUMBER 3", "sentence number 45", "sentence number 55", "sentence number 56"]
    write(folder / "unlabelled.txt", [*again, *numbered(100, 3)])
    data = read(folder)
    assert texts(data) == numbered(100, 3)
    told = "stand in other splits (1 of train, 1 of validation, 2 of test): left out"
    assert any("4 of 7 rows" in line and told in line for line in data.warnings)


def test_rows_that_our_own_cut_put_into_test_are_left_out(tmp_path):
    labelled(tmp_path / "train.csv", 0, 200)
    write(tmp_path / "unlabelled.txt", numbered(0, 210))
    data = read(tmp_path)
    seen = {example["text"] for name, part in data.splits.items() if name != "unlabelled"
            for example in part.examples}  # fmt: skip
    assert len(seen) == 200 and texts(data) == numbered(200, 10)


def test_alone_they_are_not_enough(tmp_path):
    write(tmp_path / "unlabelled.txt", numbered(0, 9))
    with pytest.raises(DataError, match="rows without labels alone are not enough yet"):
        read(tmp_path)
