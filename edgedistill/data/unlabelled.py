"""Rows without labels: they train a student through the teacher's outputs alone.

Whatever of them stands in another split too is left out: in validation or test it would show a
training stage the inputs that judge it, and in train it has its label already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgedistill.data import infer, split
from edgedistill.data.drafts import Draft
from edgedistill.data.tables import Table
from edgedistill.errors import DataError

NAME = "unlabelled"


def fitted(table: Table, roles: Mapping[str, str]) -> tuple[Table, list[str]]:
    """Bring a table without labels to the columns of the others; returns it with what to say of it.

    A single column is the input, whatever its name. A column of labels is not read.
    Raises `DataError` where a file of one column can't be the input.
    """
    inputs = [role for role in ("text", "text_pair", "image") if role in roles]
    notes = []
    if roles["label"] in table.columns and len(table.columns) > 1:
        notes.append(f"{table.place}: its column '{roles['label']}' is not read: {NAME} rows")
    lacks = [role for role in inputs if roles[role] not in table.columns]
    if not lacks or len(table.columns) != 1:
        return table, notes  # `look` names the column that is missing
    (name, cells), column = next(iter(table.columns.items())), roles[inputs[0]]
    if len(inputs) > 1:
        raise DataError(
            f"{table.place} has one column, '{name}', and a row here has two texts "
            f"('{column}' and '{roles[inputs[1]]}'): give it both columns"
        )
    if infer.WORDY.search(name):
        raise DataError(
            f"{table.place}: the first line looks like a row ('{name[:60]}'): put the column's "
            f"name ('{column}') before it, or name the file .txt"
        )
    return replace(table, columns={column: cells}), notes


def unseen(drafts: Mapping[str, Draft]) -> tuple[dict[str, Draft], list[str]]:
    """Leave out the unlabelled rows whose inputs stand in another split; says how many of each.

    Raises `DataError` where none is left.
    """
    if NAME not in drafts:
        return dict(drafts), []
    draft = drafts[NAME]
    homes: dict[bytes, str] = {}
    for name in (
        *split.SPLITS,
        *split.OWN,
    ):  # a row in two of them counts for the later one: test is the last
        if name in drafts and name != NAME:
            homes |= dict.fromkeys(drafts[name].keys, name)
    kept, counts = [], dict.fromkeys(homes.values(), 0)
    for index, key in enumerate(draft.keys):
        if key in homes:
            counts[homes[key]] += 1
        else:
            kept.append(index)
    gone = len(draft) - len(kept)
    if not gone:
        return dict(drafts), []
    which = ", ".join(f"{count:,} of {name}" for name, count in counts.items() if count)
    told = f"{draft.place}: {gone:,} of {len(draft):,} rows have inputs that stand in other splits"
    told += f" ({which})"
    if not kept:
        raise DataError(f"{told}: no {NAME} row is left")
    return {**drafts, NAME: draft.pick(kept)}, [f"{told}: left out of the {NAME} rows"]
