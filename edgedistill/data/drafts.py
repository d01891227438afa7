"""Look at every row: what is empty, unreadable or of an unknown label is counted or left out."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgedistill.data import images, infer, split
from edgedistill.data.tables import Table, label_of, text_of, where
from edgedistill.data.texts import Texts
from edgedistill.errors import DataError, nearest

MEND = "mend them, or leave them out with --set data.bad_rows=drop"
HALF = "with half a character (a lone surrogate)"


@dataclass(frozen=True)
class Draft:
    """The good rows of one table."""

    place: str
    examples: Texts | images.Images
    truth: Sequence[str] | None
    digests: Sequence[bytes] | None  # of images, for the fingerprint; texts are read again
    keys: Sequence[bytes]  # hashes of the normalised inputs, for overlap and for the cut
    groups: Sequence[bytes] | None  # hashes, for the cut: b"" where a row has none
    numbers: Sequence[int]  # of the rows in their file, from 1
    warnings: tuple[str, ...] = ()
    lines: Sequence[int] | None = None  # of all rows in their file, as `Table.lines`

    def __len__(self) -> int:
        return len(self.numbers)

    def contents(self) -> Iterable[bytes]:
        """Yield what each row is, for the fingerprint."""
        return map(split.content, self.examples) if self.digests is None else self.digests

    def where(self, index: int) -> str:
        """Name the place of a row in its file: "line 103", or "row 101"."""
        return where(self.lines, self.numbers[index])

    def pick(self, indices: Sequence[int]) -> Draft:
        """Return the rows at these indices."""

        def some(values: Any) -> Any:
            return None if values is None else [values[index] for index in indices]

        return replace(
            self,
            examples=self.examples.pick(indices),
            truth=some(self.truth),
            digests=some(self.digests),
            keys=some(self.keys),
            groups=some(self.groups),
            numbers=some(self.numbers),
        )


def look(table: Table, roles: Mapping[str, str], *, drop: bool, labelled: bool) -> Draft:
    """Look at the rows of a table. Raises `DataError` for bad ones unless they are dropped."""
    wanted = [role for role in roles if labelled or role not in ("label", "group")]
    infer.shared(table, roles, wanted)
    problems: dict[int, str] = {}
    truth = _labels(table, roles["label"], problems) if labelled else None
    examples: Texts | images.Images
    digests = None
    if "image" in roles:
        examples, digests = _images(table, roles["image"], problems)
        keys = [split.hashed(digest) for digest in digests]
    else:
        examples, keys = _texts(table, roles, problems)
    groups = _groups(table, roles["group"], problems) if labelled and "group" in roles else None
    numbers = range(1, len(examples) + 1)
    draft = Draft(table.place, examples, truth, digests, keys, groups, numbers, lines=table.lines)
    if not problems:
        return draft
    return _without(draft, problems, drop=drop)


def _at(table: Table, index: int, column: str) -> str:
    return f"{table.place}, {where(table.lines, index + 1)}, '{column}'"


def _labels(table: Table, column: str, problems: dict[int, str]) -> list[str]:
    names, truth = table.names.get(column), []
    for index, cell in enumerate(table.columns[column]):
        try:
            label = cell.strip() if isinstance(cell, str) else label_of(cell, names)
        except (DataError, ValueError, OverflowError) as error:
            raise DataError(f"{_at(table, index, column)}: {error}") from None
        if not label:
            problems[index] = "an empty label"
        elif _is_half(label):
            problems[index] = f"a label {HALF}"
        truth.append(label)
    fraction = _fraction(set(truth) - {""})
    if fraction is not None:
        raise DataError(
            f"{table.place}: '{column}' holds numbers with fractions ('{fraction}'): "
            "predicting numbers is not yet possible"
        )
    return truth


def _groups(table: Table, column: str, problems: dict[int, str]) -> list[bytes]:
    groups = []
    for index, cell in enumerate(table.columns[column]):
        try:
            group = text_of(cell)
        except DataError as error:
            raise DataError(f"{_at(table, index, column)}: {error}") from None
        if _is_half(group):
            problems[index] = f"a group {HALF}"
        some = bool(group) and not group.isspace()
        groups.append(split.hashed(group.encode(errors="replace")) if some else b"")
    return groups


def _is_half(text: str) -> bool:
    """Say whether a text holds half a character: it has no bytes, so nothing can hash it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _fraction(labels: set[str]) -> str | None:
    """Return a label with a fraction, where all labels are numbers."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return None
    return next((each for each, n in numbers.items() if math.isfinite(n) and n % 1), None)


def _texts(
    table: Table, roles: Mapping[str, str], problems: dict[int, str]
) -> tuple[Texts, list[bytes]]:
    names = [role for role in ("text", "text_pair") if role in roles]
    columns: dict[str, list[str]] = {name: [] for name in names}
    keys = []
    for index, cells in enumerate(zip(*(table.columns[roles[n]] for n in names), strict=True)):
        try:
            example = {name: text_of(cell) for name, cell in zip(names, cells, strict=True)}
        except DataError as error:
            column = roles[names[0]]
            raise DataError(f"{_at(table, index, column)}: {error}") from None
        for name, text in example.items():
            columns[name].append(text)
        if not all(text and not text.isspace() for text in example.values()):
            problems[index] = "an empty text"
        try:
            keys.append(split.hashed(split.normalised(example)))
        except UnicodeEncodeError:
            problems[index] = f"a text {HALF}"
            keys.append(b"")
    return Texts(columns), keys


def _images(
    table: Table, column: str, problems: dict[int, str]
) -> tuple[images.Images, list[bytes]]:
    values: list[Any] = []
    for index, cell in enumerate(table.columns[column]):
        value = images.value_of(cell, folder=table.folder)
        if value is None:
            problems[index] = "no image"
        values.append(b"" if value is None else value)
    for index, fault in images.faults(values).items():
        problems.setdefault(index, f"an image that can't be used: {fault}")
    pictures = images.Images(values)
    digests = [
        b"" if index in problems else pictures.content(index) for index in range(len(values))
    ]
    return pictures, digests


def _without(draft: Draft, problems: Mapping[int, str], *, drop: bool) -> Draft:
    """Leave bad rows out, or raise `DataError` that counts them by kind."""
    kinds: dict[str, list[int]] = {}
    for index, problem in sorted(problems.items()):
        kinds.setdefault(problem.partition(": ")[0], []).append(index)
    counts = []
    for kind, rows in kinds.items():
        detail = problems[rows[0]].partition(": ")[2]
        first = draft.where(rows[0]) + (f": {detail}" if detail else "")
        number = f"{len(rows):,} row{'s' if len(rows) > 1 else ''}"
        counts.append(f"{number} with {kind} (first: {first})")
    told = f"{draft.place}: {', '.join(counts)}"
    if not drop:
        raise DataError(f"{told}: {MEND}")
    kept = draft.pick([index for index in range(len(draft)) if index not in problems])
    if not len(kept):
        raise DataError(f"{told}: no rows are left")
    return replace(kept, warnings=(f"{told}: left out",))


def is_unlabelled(table: Table, column: str) -> bool:
    """Say whether all labels of a split are absent or -1, as in public test sets without truth."""

    def blank(cell: Any) -> bool:
        try:
            return label_of(cell, table.names.get(column)) in ("", "-1")
        except DataError:
            return False

    return column in table.columns and all(map(blank, table.columns[column]))


def known_labels(
    drafts: Mapping[str, Draft],
    origin: Mapping[str, str],
    *,
    drop: bool,
    beside: Collection[str] = (),
) -> tuple[dict[str, Draft], list[str]]:
    """Hold the labels of validation and test against those of train, and those known beside.

    Raises `DataError` for labels without a training row (counted, with the first row), unless
    bad rows are dropped; returns the drafts, and what was left out.
    """
    known = {*(drafts["train"].truth or ()), *beside}
    if len(known) == 1:
        raise DataError(f"{drafts['train'].place}: all rows have the label '{min(known)}'")
    checked, left_out = dict(drafts), []
    for name in ("validation", "test"):
        draft = drafts[name]
        truth = draft.truth or ()
        bad = [index for index, label in enumerate(truth) if label not in known]
        if not bad:
            continue
        counts = Counter(truth[index] for index in bad)
        some = ", ".join(f"'{label}'" for label in sorted(counts)[:5])
        some += ", ..." if len(counts) > 5 else ""
        rows = f"{len(bad):,} row{'s' if len(bad) > 1 else ''}"
        cut = f" (the cut put all of them into {name})" if origin[name] == "cut" else ""
        told = (
            f"{draft.place}: {rows} with a label that no training row has{cut}: {some} "
            f"(first: {draft.where(bad[0])})"
        )
        if not drop:
            close = "" if cut else nearest(truth[bad[0]], known)
            raise DataError(f"{told}: {MEND}" + (f" ({close})" if "did you mean" in close else ""))
        gone = set(bad)
        kept = draft.pick([index for index in range(len(draft)) if index not in gone])
        if not len(kept):
            raise DataError(f"{told}: no {name} rows are left")
        checked[name] = kept
        left_out.append(f"{told}: left out")
    return checked, left_out


def complete(drafts: Mapping[str, Draft]) -> dict[str, Draft]:
    """Cut missing validation and test rows out of train. Raises `DataError` where none come."""
    train = drafts["train"]
    missing = [name for name in ("validation", "test") if name not in drafts]
    if not missing:
        return dict(drafts)
    groups = train.groups or itertools.repeat(b"", len(train))
    together = [group or key for group, key in zip(groups, train.keys, strict=True)]
    parts = split.cut(together, missing)
    what = "input" if train.groups is None else "group"
    whole = {name: train.pick(indices) for name, indices in parts.items()}
    made = {**drafts, **whole}
    for name in parts:
        if not len(made[name]):
            raise DataError(
                f"{train.place}: {_few(together, what)} to cut {' and '.join(missing)} from: "
                f"none is left for {name}; give it a file of its own ({name}.csv)"
            )
    return made


def _few(together: Sequence[bytes], what: str) -> str:
    """Say why a cut leaves a split empty: few rows, or few that differ, since equal ones stay."""
    rows, different = f"{len(together):,} rows", len(set(together))
    if different == len(together):
        return f"{rows} are too few"
    if different == 1:
        return f"all {rows} have the same {what}: there is nothing"
    return f"{rows} have only {different:,} different {what}s: too few"
