import pytest

from edgedistill.data import rows
from edgedistill.data.rows import Rows
from edgedistill.errors import DataError

TEXTS = [{"text": "one\u2028line"}, {"text": "zwei\nZeilen"}, {"text": '"drei"\t☃'}]


def test_texts_come_back_as_they_went(tmp_path):
    assert rows.write(tmp_path, "text", TEXTS, ["a", "b", "a"]) == 3
    read = Rows(tmp_path)
    assert (len(read), read.kind, read.columns) == (3, "text", ("text",))
    assert read.truth == ["a", "b", "a"]
    assert list(read.examples()) == TEXTS
    assert read.example(-1) == TEXTS[2]
    with pytest.raises(IndexError):
        read.example(3)


def test_pairs_keep_both_texts(tmp_path):
    pair = {"text": "a", "text_pair": "b"}
    rows.write(tmp_path, "text", [pair], None)
    read = Rows(tmp_path)
    assert read.example(0) == pair
    assert read.columns == ("text", "text_pair")
    assert read.truth is None


def test_images_come_back_byte_by_byte(tmp_path):
    images = [{"image": b"\0\n1"}, {"image": b""}, {"image": b"333"}]
    rows.write(tmp_path, "image", images, ["x", "y", "z"])
    read = Rows(tmp_path)
    assert list(read.examples()) == images


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name, texts in (("a", TEXTS), ("b", [dict(reversed(t.items())) for t in TEXTS])):
        rows.write(tmp_path / name, "text", texts, None)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_one_label_an_example(tmp_path):
    with pytest.raises(DataError, match="3 examples, but 2 labels"):
        rows.write(tmp_path, "text", TEXTS, ["a", "b"])


def test_a_folder_without_rows_is_said_to_be_one(tmp_path):
    with pytest.raises(DataError, match=r"no meta\.json"):
        Rows(tmp_path)
