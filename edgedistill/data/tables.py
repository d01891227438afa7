"""Tables: CSV, TSV, JSONL, JSON and Parquet files, column by column.

Separators and byte order marks are sniffed. Nothing heavy is imported for text files; pyarrow for
Parquet alone.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import numbers
from array import array
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill.errors import DataError, MissingPackage, first_line, from_os_error, nearest

SEPARATORS = (",", "\t", ";", "|")
ENCODINGS = ("utf-8", "utf-16", "cp1252", "latin-1", "cp1251", "koi8-r", "shift_jis", "euc-jp",
             "euc-kr", "gb18030", "big5")  # fmt: skip
LINES = ".txt"  # one text a line: for rows without labels alone
SNIFFED = 50  # records that are looked at to find the separator
LONGEST_CELL = 2**27  # characters; csv's own limit of 2**17 is less than a long document


@dataclass(frozen=True)
class Table:
    """Rows of one file or object, by column; a cell is whatever stood there."""

    place: str  # for messages: "train.csv"
    columns: Mapping[str, Sequence[Any]] = field(repr=False)
    folder: Path | None = None  # that names of image files are relative to
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of integer labels, by column
    lines: Sequence[int] | None = field(default=None, repr=False)  # where rows begin, from 1

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read(path: Path, *, encoding: str | None = None) -> Table:
    """Read one file by its suffix. Raises `DataError` naming the file and the line."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise DataError(f"'{path}' is no file of rows that can be read; these can: {known}")
    try:
        columns, names, lines = reader(path, encoding)
    except OSError as error:
        raise from_os_error(error, f"reading the rows of '{path.name}'") from None
    table = Table(path.name, columns, path.parent, names, lines)
    if not len(table):
        raise DataError(f"'{path}' holds no rows")
    return table


def read_lines(path: Path, *, encoding: str | None = None) -> Table:
    """Read a file of texts, one a line; empty lines are none. Raises `DataError`."""
    try:
        lines = [line.strip() for line in _lines(path, encoding, newline=None)]
    except OSError as error:
        raise from_os_error(error, f"reading the rows of '{path.name}'") from None
    texts = [line for line in lines if line]
    begins = _begins(number for number, line in enumerate(lines, 1) if line)
    return Table(path.name, {"text": texts}, path.parent, lines=begins)


def joined(tables: Sequence[Table]) -> Table:
    """Return one table of several parts (shards); a column that one lacks is empty there."""
    first = tables[0]
    if len(tables) == 1:
        return first
    columns: dict[str, list[Any]] = {name: [] for table in tables for name in table.columns}
    for table in tables:
        for name, cells in columns.items():
            cells.extend(table.columns.get(name, itertools.repeat(None, len(table))))
    return Table(first.place, columns, first.folder, first.names)


def where(lines: Sequence[int] | None, number: int) -> str:
    """Name the place of a row, from 1, for people: its line where lines are known, else its row."""
    return f"line {lines[number - 1]}" if lines else f"row {number}"


def text_of(cell: Any) -> str:
    """Return a cell as text; empty where there is none. Raises `DataError` for no single value."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, (list, tuple, dict, set, bytes)) or getattr(cell, "ndim", None):
        raise DataError(f"expected a text, found a {type(cell).__name__}")
    return "" if _missing(cell) else str(cell)


def label_of(cell: Any, names: Sequence[str] | None = None) -> str:
    """Return a cell as a label's name; empty where there is none.

    Integers (4, 4.0; not the text "4") become their name where names are known. Raises `DataError`
    for several labels at once and for fractions.
    """
    if isinstance(cell, (list, tuple, dict, set)) or getattr(cell, "ndim", None):
        raise DataError("several labels for one row: not yet possible")
    if hasattr(cell, "item"):
        cell = cell.item()
    if _missing(cell):
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, numbers.Real):
        number = cell if isinstance(cell, int) else float(cell)
        if not (isinstance(number, int) or number.is_integer()):
            raise DataError(f"numbers as labels ({cell}): not yet possible")
        if names is None:
            return str(int(number))
        return names[int(number)] if 0 <= number < len(names) else ""
    return str(cell).strip()


def _missing(cell: Any) -> bool:
    # pandas' NA first: comparing it gives NA again, which is neither true nor false
    return cell is None or type(cell).__name__ == "NAType" or bool(cell != cell)


# ---------------------------------------------------------------- text files


def _lines(path: Path, encoding: str | None, *, newline: str | None = "") -> Iterator[str]:
    """Yield the lines of a file, decoded as they are asked for; what ends them is as in `open`.

    Raises `DataError` for what is no text, as `_text` does, and for a file without any.
    """
    count, blank = 0, True
    try:
        with path.open("rb") as file:
            codec = encoding or _codec(file.read(2))
        with path.open(encoding=codec, newline=newline) as lines:
            for line in lines:
                if "\0" in line:
                    raise UnicodeError
                blank = blank and line.isspace()
                count += 1
                yield line
    except (UnicodeError, LookupError):
        # the whole text says what is wrong, and where; or is well, as UTF-16 without a mark
        text = io.StringIO(_text(path, encoding), newline=newline)
        yield from itertools.islice(text, count, None)
        return
    if blank:
        raise DataError(f"'{path}' is empty")


def _codec(start: bytes) -> str:
    return "utf-16" if start in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"


def _text(path: Path, encoding: str | None) -> str:
    data = path.read_bytes()
    encoding = encoding or _codec(data[:2])
    try:
        text = data.decode(encoding)
    except LookupError:
        hint = nearest(encoding, ENCODINGS)
        raise DataError(f"unknown encoding '{encoding}' (data.encoding): {hint}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        told = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise DataError(
            f"'{path}', line {line}: bytes that are not {told} text: "
            "name the file's encoding, as in --set data.encoding=cp1252"
        ) from None
    if not text or text.isspace():
        raise DataError(f"'{path}' is empty")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"'{path}', line {line}: a zero byte: this is not a text file")
    return text


def _begins(lines: Iterable[int]) -> Sequence[int]:
    """Keep the lines at which rows begin; where each follows the last, they take no room."""
    found = array("Q", lines)
    if found and found[-1] - found[0] + 1 == len(found):
        return range(found[0], found[-1] + 1)
    return found


def _csv(path: Path, encoding: str | None) -> _Read:
    """Read separated values; the first record names the columns."""
    csv.field_size_limit(LONGEST_CELL)
    separator = _separator(path, encoding)
    try:
        header, columns, lines = _separated(path, encoding, separator, quoting=csv.QUOTE_MINIMAL)
    except DataError:
        if separator != "\t":
            raise
        # between tabs a quote is often just a quote
        header, columns, lines = _separated(path, encoding, separator, quoting=csv.QUOTE_NONE)
    header = [name.strip() or f"column_{place}" for place, name in enumerate(header, 1)]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"'{path}': the column '{twice}' stands twice in the first line")
    return dict(zip(header, columns, strict=True)), {}, lines


def _separated(
    path: Path, encoding: str | None, separator: str, *, quoting: Any
) -> tuple[list[str], list[list[str]], Sequence[int]]:
    """Return the first record, the columns of all others, and the lines at which those begin."""
    records = _records(path, encoding, separator, quoting=quoting)
    _, header = next(records)
    columns: list[list[str]] = [[] for _ in header]
    lines = array("Q")
    for line, record in records:
        lines.append(line)
        for column, cell in zip(columns, record, strict=True):
            column.append(cell)
    return header, columns, _begins(lines)


def _records(
    path: Path, encoding: str | None, separator: str, *, quoting: Any
) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a file, all of one width, with the lines at which they begin.

    An empty line is none.
    """
    lines = _lines(path, encoding)
    reader = csv.reader(lines, delimiter=separator, strict=True, quoting=quoting)
    width, begin = 0, 1
    try:
        for record in reader:
            width = width or len(record)
            if record and len(record) != width:
                raise DataError(
                    f"'{path}', line {begin}: {len(record)} fields where the first line "
                    f"has {width}: the file is cut off or damaged"
                )
            if record:
                yield begin, record
            begin = reader.line_num + 1
    except csv.Error as error:
        told = str(error)
        if "unexpected end" in told:
            told = "a quote that is never closed: the file is cut off or damaged"
        raise DataError(f"'{path}', line {begin}: {told}") from None


def _separator(path: Path, encoding: str | None) -> str:
    """Return the separator that cuts the first records into equally many fields, two or more."""
    found = []
    tabs_first = path.suffix.lower() == ".tsv"
    for separator in (
        sorted(SEPARATORS, key=lambda each: each != "\t") if tabs_first else SEPARATORS
    ):
        reader = csv.reader(_lines(path, encoding), delimiter=separator)
        records = [record for record in itertools.islice(reader, SNIFFED) if record]
        width = len(records[0]) if records else 0
        if width > 1:
            even = sum(len(record) == width for record in records) / len(records)
            found.append((even, separator))
    best = max((even for even, _ in found), default=0)
    return next((separator for even, separator in found if even == best), ",")


def _jsonl(path: Path, encoding: str | None) -> _Read:
    begins = array("Q")

    def rows() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(_lines(path, encoding, newline="\n"), 1):
            if line.strip():
                begins.append(number)
                yield _object(path, line, f"line {number}")

    return _by_column(rows()), {}, _begins(begins)


def _json(path: Path, encoding: str | None) -> _Read:
    """Read a list of objects, {"data": such a list}, or one list a column; else lines of JSON."""
    text = _text(path, encoding)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "\n{" in text.strip():
            return _jsonl(path, encoding)
        raise DataError(f"'{path}' is not JSON: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        if len({len(cells) for cells in value.values()}) > 1:
            raise DataError(f"'{path}': its columns differ in length")
        return value, {}, None
    rows = value if isinstance(value, list) else [value]
    bad = next((index for index, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if bad is not None:
        raise DataError(f"'{path}', row {bad}: expected an object with a field for each column")
    return _by_column(rows), {}, None


def _object(path: Path, line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}', {place}: not JSON, cut off or damaged: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"'{path}', {place}: expected an object with a field for each column")
    return row


def _by_column(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for count, row in enumerate(rows):
        for name, cell in row.items():
            if name not in columns:
                columns[name] = [None] * count
            columns[name].append(cell)
        for column in columns.values():
            if len(column) == count:  # this row lacks it
                column.append(None)
    return columns


# ---------------------------------------------------------------- Parquet


def _parquet(path: Path, encoding: str | None) -> _Read:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingPackage("pyarrow", f"reading '{path.name}'") from None
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        reason = first_line(error)
        raise DataError(f"'{path}' is no Parquet file, or damaged: {reason}") from None
    metadata = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    names = {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
    return table.to_pydict(), names, None


# columns, names of integer labels, the lines at which rows begin
_Read = tuple[Mapping[str, Sequence[Any]], Mapping[str, Sequence[str]], Sequence[int] | None]
READERS: Mapping[str, Callable[[Path, str | None], _Read]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
