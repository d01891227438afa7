"""The rows that a user hands to a finished bundle, read as its build read its own.

A bundle's report remembers which columns counted, so that `eval` and `check` need no `--set`.
Nothing is trained here: a lone file is scored whole, and none of it is cut away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgedistill.bundle import evidence as evidences
from edgedistill.bundle import recorded
from edgedistill.bundle.opened import Bundle
from edgedistill.bundle.untrusted import printable
from edgedistill.data import drafts, finding, infer, models, split
from edgedistill.data.drafts import Draft
from edgedistill.data.finding import Found
from edgedistill.errors import DataError, nearest
from edgedistill.sections import DataSpec

FLATTERS = {
    "train": "the model was trained on these rows: their score flatters",
    "validation": "the build chose by these rows: their score flatters",
}
NEITHER = "the build cut its test rows from '{}': rows that it trained on may be among these"
# What an error advises where a build has settings, and what helps here (None: the columns).
ADVICE: tuple[tuple[str, str | None], ...] = (
    (r", or leave them out with --set .*", ""),
    (r": name the file's encoding, as in --set .*", ": save the file as UTF-8"),
    (r": choose with --set data\.(train|validation|test|unlabelled)=.*", ": name one of them"),
    (r": (choose|name it) with --set .*", None),
    (r"[:;,][^:;,]*--set .*", ""),
)


@dataclass(frozen=True)
class Given:
    """The rows to score: examples, truth by index of label, what they are."""

    name: str  # of the data that they are of
    examples: Sequence[Mapping[str, Any]]
    truth: np.ndarray  # (rows,) int64
    of: str = "rows"  # "test rows of NAME", "rows of FILE"
    remark: str | None = None  # why their score says less than it seems

    def digests(self) -> list[str]:
        """Digest every example, as the evidence file does."""
        return [evidences.digest(example) for example in self.examples]


def given(spec: DataSpec, bundle: Bundle) -> Given:
    """Read the rows to score: the test split where there is one, else all of the only table.

    Of the rows from which the build cut its own test split only those are taken. Raises
    `DataError` for several splits without a test split, for bad rows, and for unknown labels.
    """
    with _advised(bundle):
        spec, found = filled(spec, bundle)
        tables = {name: table for name, table in found.tables.items() if name != "unlabelled"}
        for table in tables.values():
            if not len(table):
                raise DataError(f"'{printable(found.name)}': {table.place} holds no rows")
        if not tables:
            raise DataError(f"'{printable(found.name)}' holds rows without labels alone")
        told = {role: getattr(spec, role) for role in infer.ROLES}
        columns_of = tables.get("train", next(iter(tables.values())))
        roles = infer.columns(columns_of, told, kind=bundle.task.EXAMPLES)
        return _taken(replace(found, tables=tables), roles, spec, bundle)


def _taken(found: Found, roles: Mapping[str, str], spec: DataSpec, bundle: Bundle) -> Given:
    tables, name, remark = dict(found.tables), found.name, None
    blank = "test" in tables and drafts.is_unlabelled(tables["test"], roles["label"])
    if blank:
        del tables["test"]
    if "test" in tables:
        draft, of = _draft(tables["test"], roles, spec, bundle), f"test rows of {name}"
    elif (cut := _cut_by_build(tables, roles, spec, bundle)) is not None:
        draft, of = cut, f"test rows of {name}, as its build cut them"
    elif blank:
        raise DataError(
            f"the test rows of '{printable(name)}' have no labels: there is nothing to score"
        )
    elif len(tables) > 1:
        places = " and ".join(printable(table.place) for table in tables.values())
        raise DataError(
            f"'{printable(name)}' holds no test split, but {places}: name the file to score"
        )
    else:
        (table,) = tables.values()
        draft = _draft(table, roles, spec, bundle)
        of = f"rows of {table.place if table.place.startswith(name) else f'{name}/{table.place}'}"
        remark = _remark(draft, name, bundle)
    assert draft.truth is not None  # rows are looked at with their labels
    if all(label in ("", "-1") for label in draft.truth):
        raise DataError(f"the {printable(of)} have no labels: there is nothing to score")
    return Given(name, draft.examples, _indices(draft.truth, bundle, of), of, remark)


def _draft(table: Any, roles: Mapping[str, str], spec: DataSpec, bundle: Bundle) -> Draft:
    """Look at the rows of a table; bad ones are left out where the build left its own out."""
    drop = spec.bad_rows == "drop"
    draft = drafts.look(table, roles, drop=drop, labelled=True)
    truth, known = draft.truth or (), set(bundle.labels)
    kept = [index for index, label in enumerate(truth) if label in known]
    return draft.pick(kept) if drop and 0 < len(kept) < len(truth) else draft


def _cut_by_build(
    tables: Mapping[str, Any], roles: Mapping[str, str], spec: DataSpec, bundle: Bundle
) -> Draft | None:
    """Return the test rows that the build cut, where these are the very rows that it cut."""
    if "train" not in tables or not recorded.cut(bundle):
        return None
    whole = _draft(tables["train"], roles, spec, bundle)
    wanted = [name for name in ("validation", "test") if name not in tables]
    groups = whole.groups or [b""] * len(whole)
    together = [group or key for group, key in zip(groups, whole.keys, strict=True)]
    part = whole.pick(split.cut(together, wanted)["test"])
    return part if _digest(part, bundle) == recorded.digests(bundle).get("test") else None


def _remark(draft: Draft, name: str, bundle: Bundle) -> str | None:
    """Say what the model has seen of rows that are no test split."""
    digest, known = _digest(draft, bundle), recorded.digests(bundle)
    for part, flatters in FLATTERS.items():
        if known.get(part) == digest:
            return flatters
    cut = recorded.cut(bundle) and recorded.name(bundle) == name
    return NEITHER.format(printable(name)) if cut else None


def _digest(draft: Draft, bundle: Bundle) -> str:
    return split.fingerprint(bundle.task.EXAMPLES, draft.contents(), draft.truth)


@contextmanager
def _advised(bundle: Bundle) -> Iterator[None]:
    """Put what helps here in the place of settings that `eval` and `check` do not have."""
    try:
        yield
    except DataError as error:
        text = str(error)
        for pattern, instead in ADVICE:
            found = re.search(pattern, text)
            if found:
                text = text[: found.start()] + (_columns(bundle) if instead is None else instead)
        raise DataError(text) from None


def _columns(bundle: Bundle) -> str:
    told = recorded.data(bundle)
    read = [f"{role} in '{printable(told[role])}'" for role in infer.ROLES if role in told]
    if not read:
        return f": leave only the columns of the {bundle.task.EXAMPLES} and of the label"
    return f": name the columns as the build's were, {', '.join(read)}"


def filled(spec: DataSpec, bundle: Bundle) -> tuple[DataSpec, Found]:
    """Fill what the user left unset with what the build was told, where the tables have it.

    Columns that some table lacks are left to inference; the build's encoding is tried only where
    the files can't be read without it.
    """
    told = recorded.data(bundle)
    try:
        found = finding.find(spec)
    except DataError as error:
        if spec.encoding is not None or "encoding" not in told:
            raise
        spec = replace(spec, encoding=told["encoding"])
        try:
            found = finding.find(spec)
        except DataError:
            raise error from None
    tables = [table for name, table in found.tables.items() if name != "unlabelled"]
    named = {getattr(spec, role) for role in infer.ROLES} - {None}
    columns: dict[str, Any] = {
        role: told[role]
        for role in infer.ROLES
        if getattr(spec, role) is None
        and role in told
        and told[role] not in named
        and all(told[role] in table.columns for table in tables)
    }
    if spec.bad_rows == "error" and told.get("bad_rows") == "drop":
        spec = replace(spec, bad_rows="drop")
    return replace(spec, **columns), found


def _indices(truth: Sequence[str], bundle: Bundle, of: str) -> np.ndarray:
    """Turn label names, or numbers of outputs, into the bundle's indices. Raises `DataError`."""
    named = models.by_number(truth, bundle.labels)
    truth = [named.get(label, label) for label in truth]
    index = {label: place for place, label in enumerate(bundle.labels)}
    unknown = sorted({label for label in truth if label not in index})
    if unknown:
        rows = sum(label not in index for label in truth)
        hint = nearest(unknown[0], index)
        have = "has a label" if rows == 1 else "have labels"
        close = f": {printable(hint, 120)}" if hint.startswith("did you mean") else ""
        advice = ": leave such rows out" if rows < len(truth) else ": they are of another task"
        raise DataError(
            f"{rows:,} of {len(truth):,} {printable(of)} {have} that the bundle lacks, such as "
            f"'{printable(unknown[0], 60)}'{close or advice}"
        )
    return np.array([index[label] for label in truth], np.int64)
