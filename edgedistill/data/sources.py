"""Read the user's rows: find them, choose columns, look at every row, split, fingerprint.

All that can be wrong with data is said here, in the first seconds, in one line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from edgedistill import plugins
from edgedistill.data import drafts as rows_of
from edgedistill.data import images, infer, split, unlabelled
from edgedistill.data import own as own_rows
from edgedistill.data.drafts import Draft
from edgedistill.data.finding import Found, find
from edgedistill.data.split import DataSet, Split
from edgedistill.errors import DataError
from edgedistill.sections import DataSpec

__all__ = ["DataSet", "Split", "read"]

PREVIEW = 3


def read(spec: DataSpec, *, task: str | None = None, labels: Collection[str] = ()) -> DataSet:
    """Read the rows that a job names; the task is taken from the columns unless told.

    `labels` are known beside those of the training rows: a finished graph's, say.

    Raises `DataError`: what is wrong, in which file, at which row.
    """
    found = find(spec)
    roles = _columns(found, spec, task)
    kind = "image" if "image" in roles else "text"
    found, warnings = _without_blank_test(found, roles["label"])
    found, notes = _fitted(found, roles)
    drop = spec.bad_rows == "drop"
    given = {
        name: rows_of.look(table, roles, drop=drop, labelled=name != "unlabelled")
        for name, table in found.tables.items()
    }
    warnings += [*notes, *(line for draft in given.values() for line in draft.warnings)]
    drafts = rows_of.complete(given)
    whole = len(given) == len(drafts)  # else train is what the cut left of the given rows
    origin = {
        name: "given" if name in given and (whole or name != "train") else "cut"
        for name in split.SPLITS
        if name in drafts
    }
    drafts, unknown = rows_of.known_labels(drafts, origin, drop=drop, beside=labels)
    own = None if spec.own is None else own_rows.read(spec, roles, drafts)
    if own is not None:
        drafts, origin = {**drafts, **own.drafts}, {**origin, **own.origin}
        warnings += own.warnings
    drafts, twice = unlabelled.unseen(drafts)
    overlap = split.overlap({name: draft.keys for name, draft in drafts.items()})
    data = DataSet(
        name=found.name,
        task=task or split.TASKS[kind],
        columns=roles,
        splits={name: _split(name, kind, drafts[name]) for name in origin},
        origin=origin,
        ignored=found.ignored,
        preview=_preview(drafts["train"]),
        overlap=overlap,
        own=None if own is None else (own.name, own.columns),
    )
    return replace(data, warnings=(*warnings, *unknown, *twice, *_remarks(data, drafts)))


def _columns(found: Found, spec: DataSpec, task: str | None) -> dict[str, str]:
    if "train" not in found.tables:
        has = ", ".join(table.place for table in found.tables.values())
        raise DataError(
            f"no training rows: '{found.name}' has {has}, but no train split"
            + _alone(set(found.tables))
        )
    for table in found.tables.values():
        if not len(table):
            raise DataError(f"'{found.name}': {table.place} holds no rows")
    kind = plugins.find("tasks", task).EXAMPLES if task in plugins.names("tasks") else None
    told = {role: getattr(spec, role) for role in infer.ROLES}
    return infer.columns(found.tables["train"], told, kind=kind)


def _alone(names: set[str]) -> str:
    if names != {unlabelled.NAME}:
        return ""
    return "; rows without labels alone are not enough yet: control and score need labels"


def _fitted(found: Found, roles: Mapping[str, str]) -> tuple[Found, list[str]]:
    """Bring the rows without labels to the columns of the others."""
    if unlabelled.NAME not in found.tables:
        return found, []
    table, notes = unlabelled.fitted(found.tables[unlabelled.NAME], roles)
    return replace(found, tables={**found.tables, unlabelled.NAME: table}), notes


def _without_blank_test(found: Found, label: str) -> tuple[Found, list[str]]:
    """Leave a test split aside whose labels are all absent or -1, as public test sets have them."""
    tables, warnings = dict(found.tables), []
    for name in ("validation", "test"):
        table = tables.get(name)
        if table is not None and rows_of.is_unlabelled(table, label):
            del tables[name]
            warnings.append(f"{table.place} has no labels: it is left aside, {name} rows are cut")
    return replace(found, tables=tables), warnings


def _split(name: str, kind: str, draft: Draft) -> Split:
    digest = split.fingerprint(kind, draft.contents(), draft.truth)
    return Split(name, kind, draft.examples, draft.truth, digest)


def _preview(draft: Draft) -> list[dict[str, str]]:
    """Return the first rows by role, as texts; images by their size."""
    shown = []
    for index in range(min(PREVIEW, len(draft))):
        if isinstance(draft.examples, images.Images):
            row = {"image": images.describe(draft.examples.values[index])}
        else:
            row = dict(draft.examples[index])
        shown.append({**row, "label": draft.truth[index] if draft.truth else ""})
    return shown


def _remarks(data: DataSet, drafts: Mapping[str, Draft]) -> list[str]:
    """Say what is odd about good rows: overlap, groups in two splits, labels without test rows."""
    remarks = []
    for pair, count in data.overlap.items():
        second, _, first = pair.partition(" in ")
        if count:
            total = len(data.splits[second])
            remarks.append(f"{count:,} of {total:,} {second} rows have inputs that {first} has too")
    groups = {name: list(filter(None, draft.groups or ())) for name, draft in drafts.items()}
    for pair, count in split.overlap(groups).items():
        second, _, first = pair.partition(" in ")
        if count:
            remarks.append(f"{count:,} {second} rows are of a group that {first} has rows of too")
    rare = split.rare(data.splits["test"].truth or (), data.labels())
    if rare:
        remarks.append(rare)
    both = split.contradictions(drafts["train"].keys, drafts["train"].truth or ())
    if both:
        remarks.append(f"{both:,} training inputs stand there under two labels or more")
    return remarks
