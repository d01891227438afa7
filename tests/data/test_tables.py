import json

import pytest

from edgedistill.data import tables
from edgedistill.errors import DataError, UserError


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def columns(path, **settings):
    return {name: list(cells) for name, cells in tables.read(path, **settings).columns.items()}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_separators_and_marks_are_sniffed(tmp_path, separator, mark):
    rows = [("text", "label"), ('"a, b and c"', "x"), ('"d | e"', "y")]
    lines = [separator.join(row) for row in rows]
    path = write(tmp_path, "rows.csv", mark + "\r\n".join(lines).encode())
    assert columns(path) == {"text": ["a, b and c", "d | e"], "label": ["x", "y"]}


def test_utf16_is_known_by_its_mark(tmp_path):
    path = write(tmp_path, "rows.csv", "text,label\nÄ b,x\n".encode("utf-16"))
    assert columns(path)["text"] == ["Ä b"]


def test_bytes_that_are_no_text_name_the_line_and_the_setting(tmp_path):
    path = write(tmp_path, "rows.csv", "text,label\nok,x\nGrüße,y\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 3: .*not UTF-8.*data\.encoding=") as error:
        tables.read(path)
    assert "\n" not in str(error.value)
    assert columns(path, encoding="latin-1")["text"] == ["ok", "Grüße"]
    with pytest.raises(DataError, match="did you mean 'latin-1'"):
        tables.read(path, encoding="latin-l")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("text,label\n", "holds no rows"),
        ("text,label\na b,x\nc d\n", "line 3: 1 fields where the first line has 2"),
        ('text,label\na b,x\n"c d,y\n', "line 3: a quote that is never closed"),
        ("text,text\na,b\n", "'text' stands twice"),
        (b"text,label\na\0b,x\n", "line 2: a zero byte"),
    ],
)
def test_a_damaged_csv_is_one_clear_line(tmp_path, content, message):
    path = write(tmp_path, "rows.csv", content)
    with pytest.raises(DataError, match=message) as error:
        tables.read(path)
    assert "rows.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_fault_is_told_wherever_it_lies(tmp_path):
    """A file is decoded as it is read, yet is as damaged at its end as at its beginning."""
    long = "".join(f"a b {n},x\n" for n in range(5000))
    for end, message in (
        (b"Gr\xfc,y\n", "line 5002: bytes that are not"),
        (b"a\0b,y\n", "zero byte"),
    ):
        path = write(tmp_path, "rows.csv", b"text,label\n" + long.encode() + end)
        with pytest.raises(DataError, match=message):
            tables.read(path)
        lines = "".join(f'{{"text": "a b {n}"}}\n' for n in range(5000))
        with pytest.raises(DataError, match=message.replace("5002", "5001")):
            tables.read(write(tmp_path, "rows.jsonl", lines.encode() + end))


def test_lines_end_as_they_do_anywhere(tmp_path):
    path = write(tmp_path, "rows.csv", 'text,label\ra b,x\r\n"c\rd",y\n')
    assert columns(path) == {"text": ["a b", "c\rd"], "label": ["x", "y"]}
    path = write(tmp_path, "rows.jsonl", '{"text": "a"}\r\n{"text": "b"}\r\n{"label": 1}')
    assert columns(path) == {"text": ["a", "b", None], "label": [None, None, 1]}
    path = write(tmp_path, "rows.txt", "a b\rc\r\n \nd\u2028e\n")
    assert tables.read_lines(path).columns["text"] == ["a b", "c", "d\u2028e"]


def test_a_quoted_field_may_hold_lines(tmp_path):
    path = write(tmp_path, "rows.csv", 'text,label\n"two\nlines, ""so""",x\n\nb c,y\n')
    assert columns(path) == {"text": ['two\nlines, "so"', "b c"], "label": ["x", "y"]}


def test_the_lines_at_which_rows_begin(tmp_path):
    even = tables.read(write(tmp_path, "even.csv", "a,b\n1,2\n3,4\n5,6\n"))
    assert even.lines == range(2, 5), "they take no room"
    quoted = tables.read(write(tmp_path, "quoted.csv", 'a,b\n"1\n\n",2\n\n3,4\r\n5,"6\n"\n'))
    assert list(quoted.lines) == [2, 6, 7]
    with pytest.raises(DataError, match="line 3: 1 fields"):
        tables.read(write(tmp_path, "cut.csv", 'a,b\n1,2\n"3\n\n"\n5,6\n'))
    assert list(tables.read_lines(write(tmp_path, "rows.txt", "a\n\nb\n")).lines) == [1, 3]
    assert tables.read(write(tmp_path, "rows.json", '[{"a": 1}]')).lines is None
    assert tables.joined([even, quoted]).lines is None


def test_between_tabs_a_quote_is_a_quote(tmp_path):
    path = write(tmp_path, "rows.tsv", 'text\tlabel\n"so it goes\tx\nb, c\ty\n')
    assert columns(path)["text"] == ['"so it goes', "b, c"]


def test_a_column_without_a_name_gets_one(tmp_path):
    path = write(tmp_path, "rows.csv", ",text,label\n0,a b,x\n")
    assert list(columns(path)) == ["column_1", "text", "label"]


def test_jsonl_by_column(tmp_path):
    path = write(tmp_path, "rows.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b\u2028c"}\n')
    assert columns(path) == {"text": ["a", "b\u2028c"], "label": [1, None]}


@pytest.mark.parametrize("line", ['{"text": "b', "[1]", "nonsense", "[" * 100_000])
def test_a_damaged_jsonl_names_its_line(tmp_path, line):
    path = write(tmp_path, "rows.jsonl", '{"text": "a"}\n' + line)
    with pytest.raises(DataError, match="line 2"):
        tables.read(path)


@pytest.mark.parametrize(
    "value", [[{"a": 1}, {"a": 2}], {"data": [{"a": 1}, {"a": 2}]}, {"a": [1, 2]}]
)
def test_json_in_its_usual_forms(tmp_path, value):
    assert columns(write(tmp_path, "rows.json", json.dumps(value))) == {"a": [1, 2]}


def test_parquet_with_names_of_labels(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    table = tables.read(tmp_path / "rows.parquet")
    assert list(table.columns["label"]) == [1, 0]
    assert table.names == {"label": ["no", "yes"]}


def test_a_damaged_parquet_is_one_clear_line(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="no Parquet file, or damaged"):
        tables.read(write(tmp_path, "rows.parquet", b"PAR1 nothing more"))


def test_an_unknown_suffix_and_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"\.csv"):
        tables.read(write(tmp_path, "rows.xlsx", "a"))
    with pytest.raises(UserError, match="no such file"):
        tables.read(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (4, "4"),
        (10**400, "1" + "0" * 400),
        (4.0, "4"),
        (" x ", "x"),
        (True, "true"),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_cells_become_names_of_labels(cell, label):
    assert tables.label_of(cell) == label


def test_what_pandas_calls_missing_is_an_empty_cell():
    missing = pytest.importorskip("pandas").NA
    assert tables.text_of(missing) == tables.label_of(missing) == ""


def test_integers_become_their_names():
    assert tables.label_of(1, ["no", "yes"]) == "yes"
    assert tables.label_of(-1, ["no", "yes"]) == ""


@pytest.mark.parametrize("cell", [["a", "b"], 0.5, float("inf")])
def test_several_labels_and_fractions_are_not_yet(cell):
    with pytest.raises(DataError, match="not yet"):
        tables.label_of(cell)
