"""A second, small set beside the general one: the rows of one user, say, whom a student is to suit.

Its splits are named own_train, own_validation and own_test. Its labels are among the general ones,
since a student answers what its teacher knows. Inputs that the general splits hold too are left
out of it where they would let a training see what judges it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgedistill.data import infer, split
from edgedistill.data.drafts import MEND, Draft, complete, look
from edgedistill.data.finding import Found, find
from edgedistill.errors import DataError
from edgedistill.sections import DataSpec

INPUTS = ("text", "text_pair", "image")
# a split of the own rows, and the general ones whose inputs it must not hold
APART = {
    "own_train": ("validation", "test"),
    "own_validation": ("train",),
    "own_test": ("train",),
}


@dataclass(frozen=True)
class Own:
    """The own rows, read and found good."""

    name: str
    columns: Mapping[str, str]  # role -> the user's column
    drafts: Mapping[str, Draft]  # by split: own_train, ...
    origin: Mapping[str, str]  # split -> given | cut
    warnings: tuple[str, ...]


def read(spec: DataSpec, roles: Mapping[str, str], general: Mapping[str, Draft]) -> Own:
    """Read the own rows of a job, whose general rows have these columns and splits.

    Raises `DataError`: what is wrong, in which file of the own ones, at which row.
    """
    found = find(DataSpec(path=spec.own, encoding=spec.encoding))
    notes = []
    if "unlabelled" in found.tables:
        notes.append("own rows without labels are not read: put them beside the general rows")
    tables = {
        name: replace(table, place=f"own {table.place}")
        for name, table in found.tables.items()
        if name != "unlabelled"
    }
    if "train" not in tables:
        raise DataError(f"'{found.name}' (data.own) has no training rows")
    columns = _columns(replace(found, tables=tables), roles)
    drop = spec.bad_rows == "drop"
    given = {name: look(t, columns, drop=drop, labelled=True) for name, t in tables.items()}
    cut = complete(given)
    origin = {
        f"own_{name}": "given" if name in given and (len(given) == 3 or name != "train") else "cut"
        for name in split.SPLITS[:3]
    }
    notes += [line for draft in given.values() for line in draft.warnings]
    drafts = {name: cut[name.removeprefix("own_")] for name in origin}
    for name, draft in drafts.items():
        drafts[name], told = _of_known_labels(draft, set(general["train"].truth or ()), drop=drop)
        notes += told
        drafts[name], told = _apart(name, drafts[name], general)
        notes += told
    for pair, count in split.overlap({n[4:]: d.keys for n, d in drafts.items()}).items():
        second, _, first = pair.partition(" in ")
        if count:
            notes.append(f"{count:,} own {second} rows have inputs that own {first} has too")
    return Own(found.name, columns, drafts, origin, tuple(notes))


def _columns(found: Found, roles: Mapping[str, str]) -> dict[str, str]:
    """Take the general rows' columns where the own ones have them all; else look for others."""
    train = found.tables["train"]
    wanted = {r: n for r, n in roles.items() if r != "group" or n in train.columns}
    if all(name in train.columns for name in wanted.values()):
        return wanted
    kind = "image" if "image" in roles else "text"
    columns = infer.columns(train, {}, kind=kind)
    ours, theirs = ([r for r in INPUTS if r in each] for each in (columns, roles))
    if ours != theirs:
        raise DataError(
            f"the own rows ('{found.name}') have {' and '.join(ours)}, "
            f"the general ones {' and '.join(theirs)}: a model reads the one or the other"
        )
    return columns


def _of_known_labels(draft: Draft, known: set[str], *, drop: bool) -> tuple[Draft, list[str]]:
    truth = draft.truth or ()
    bad = [index for index, label in enumerate(truth) if label not in known]
    if not bad:
        return draft, []
    counts = Counter(truth[index] for index in bad)
    some = ", ".join(f"'{label}'" for label in sorted(counts)[:5])
    some += ", ..." if len(counts) > 5 else ""
    told = (
        f"{draft.place}: {len(bad):,} rows with a label that no general training row has, so that "
        f"the teacher has no answer for it: {some} (first: {draft.where(bad[0])})"
    )
    if not drop:
        raise DataError(f"{told}: {MEND}")
    return _left(draft, set(bad), told)


def _apart(name: str, draft: Draft, general: Mapping[str, Draft]) -> tuple[Draft, list[str]]:
    """Leave out of an own split what a general one of the other side holds too."""
    seen = {key for other in APART[name] for key in general[other].keys}
    both = {index for index, key in enumerate(draft.keys) if key in seen}
    if not both:
        return draft, []
    where = " or ".join(APART[name])
    told = f"{len(both):,} of {len(draft):,} {name.replace('_', ' ')} rows stand in general {where}"
    return _left(draft, both, told)


def _left(draft: Draft, gone: set[int], told: str) -> tuple[Draft, list[str]]:
    kept: Sequence[int] = [index for index in range(len(draft)) if index not in gone]
    if not kept:
        raise DataError(f"{told}: no row is left")
    return draft.pick(kept), [f"{told}: left out"]
