"""The rows that a user hands to a finished bundle, read as its build read its own.

A bundle's report remembers which columns counted, so that `eval` and `check` need no `--set`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgedistill.bundle import evidence as evidences
from edgedistill.bundle import recorded
from edgedistill.bundle.opened import Bundle
from edgedistill.bundle.untrusted import printable
from edgedistill.data import drafts, finding, infer, models, sources
from edgedistill.data.finding import Found
from edgedistill.errors import DataError, nearest
from edgedistill.job import DataSpec


@dataclass(frozen=True)
class Given:
    """The test rows of the user's data: examples, truth by index of label, their place."""

    name: str
    examples: Sequence[Mapping[str, Any]]
    truth: np.ndarray  # (rows,) int64

    def digests(self) -> list[str]:
        """Digest every example, as the evidence file does."""
        return [evidences.digest(example) for example in self.examples]


def given(spec: DataSpec, bundle: Bundle) -> Given:
    """Read the test rows of the user's data: its own split, or the one that a build would cut.

    A folder that holds nothing but a test split is taken as it is. Raises `DataError`.
    """
    spec, found = filled(spec, bundle)
    if "train" in found.tables or "test" not in found.tables:
        data = sources.read(spec, task=bundle.manifest["task"])
        split = data.splits["test"]
        examples, truth, name = split.examples, split.truth, data.name
    else:
        told = {role: getattr(spec, role) for role in infer.ROLES}
        table = found.tables["test"]
        roles = infer.columns(table, told, kind=bundle.task.EXAMPLES)
        draft = drafts.look(table, roles, drop=spec.bad_rows == "drop", labelled=True)
        examples, truth, name = draft.examples, draft.truth, found.name
    if not truth:
        raise DataError(
            f"the test rows of '{printable(name)}' have no labels: there is nothing to score"
        )
    return Given(name, examples, _indices(truth, bundle, name))


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


def _indices(truth: Sequence[str], bundle: Bundle, name: str) -> np.ndarray:
    """Turn label names, or numbers of outputs, into the bundle's indices. Raises `DataError`."""
    named = models.by_number(truth, bundle.labels)
    truth = [named.get(label, label) for label in truth]
    index = {label: place for place, label in enumerate(bundle.labels)}
    unknown = sorted({label for label in truth if label not in index})
    if unknown:
        rows = sum(label not in index for label in truth)
        raise DataError(
            f"{rows:,} test rows of '{printable(name)}' have labels that the bundle lacks, such as "
            f"'{printable(unknown[0], 60)}': {printable(nearest(unknown[0], index), 120)}"
        )
    return np.array([index[label] for label in truth], np.int64)
