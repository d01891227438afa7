"""Columns: which of them hold the text or the image, and which the label.

What the user named counts; else names and content decide, and where several would do it is an
error that lists them. Nothing is chosen by chance.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from edgedistill.data import images
from edgedistill.data.tables import Table, label_of, text_of
from edgedistill.errors import DataError, nearest

ROLES = ("text", "text_pair", "image", "label", "group")
LABELS = (  # names of label columns; one of an earlier group goes before all later ones
    ("label", "labels"),
    ("intent", "class", "category", "target", "sentiment", "topic", "tag", "y", "fine_label"),
)
# names of columns of texts, for those that hold single words
TEXTS = ("text", "sentence", "utterance", "query", "message", "comment", "review", "tweet", "word")
PAIRS = (
    ("text", "text_pair"), ("text_a", "text_b"), ("text1", "text2"), ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"), ("sentence_A", "sentence_B"), ("premise", "hypothesis"),
    ("question1", "question2"), ("question", "sentence"), ("question", "answer"),
    ("question", "passage"), ("question", "context"), ("query", "passage"), ("query", "document"),
)  # fmt: skip
LOOKED_AT = 2000  # cells by which a column's kind is judged
LOOKED_INTO = 500  # characters of a cell
SHOWN = 8  # columns that an error lists
MOST_LABELS = 1000  # of a column that is not called so
# two words and a letter in one of them (found in linear time: a cell may be one word of megabytes),
# or a script that is written without spaces
WORDY = re.compile(r"(?s:\A(?=.*?\S\s+\S).*?[^\W\d])|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
                   r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # fmt: skip


def columns(table: Table, told: Mapping[str, str | None], *, kind: str | None) -> dict[str, str]:
    """Choose the columns by role; `told` are the user's, `kind` is "text", "image" or None.

    Raises `DataError` for unknown columns (with the nearest), for none, and for several that would
    do (with the line that chooses).
    """
    found = {role: name for role in ROLES if (name := told.get(role)) is not None}
    for role, name in found.items():
        known(table, name, role)
        other = next((each for each in found if each != role and found[each] == name), None)
        if other is not None and "group" not in (role, other):
            raise DataError(f"the column '{name}' is named both as {role} and as {other}")
    free = [name for name in table.columns if name not in found.values()]
    taken = {name: role for role, name in found.items()}
    kind = _kind(found, kind)
    pictures = [name for name in free if images.looks_like(table.columns[name][:LOOKED_AT])]
    if "label" not in found:
        label = _label(table, [name for name in free if name not in pictures])
        if label is not None:
            found["label"] = label
            free.remove(label)
    texts = _texts(table, free, pictures)
    if kind is None and pictures and texts:
        raise DataError(
            f"{table.place}: '{pictures[0]}' holds images and '{texts[0]}' texts: choose with "
            f"--set data.image={pictures[0]} or --set data.text={texts[0]}"
        )
    kind = kind or ("image" if pictures else "text")
    if kind == "image" and "image" not in found:
        found["image"] = _one(table, "image", pictures, taken)
    elif kind == "text" and "text" not in found:
        found |= _text(table, texts, found, taken)
    if "label" not in found:
        left = [name for name in free if name not in found.values()]
        few = [name for name in left if _few(table.columns[name])]
        found["label"] = _one(table, "label", few, taken)
    _named(table, found["label"])
    return {role: found[role] for role in ROLES if role in found}


def known(table: Table, name: str, role: str) -> None:
    """Raise `DataError` with the nearest name where a table has no column that the user named."""
    if name not in table.columns:
        hint = nearest(name, table.columns)
        raise DataError(f"{table.place} has no column '{name}' (data.{role}): {hint}")


def shared(table: Table, roles: Mapping[str, str], wanted: Iterable[str]) -> None:
    """Raise `DataError` where a table lacks a column that another split has its input or label in.

    No name was mistyped here, so the nearest would mislead: the label's, where texts are missing.
    """
    for role in wanted:
        if roles[role] not in table.columns:
            told = f"{table.place} has no column '{roles[role]}' (the {role})"
            raise DataError(f"{told}: it has {_listed(table.columns)}")


def _named(table: Table, label: str) -> None:
    """Raise `DataError` where the first line of a file seems to be a row, not names of columns."""
    usual = any(label.casefold() in group for group in LABELS)
    if not usual and label in {str(cell).strip() for cell in table.columns[label]}:
        raise DataError(
            f"{table.place}: the first line looks like a row ('{label}' is a label too): "
            "put the columns' names before it"
        )


def _listed(names: Collection[str], taken: Mapping[str, str] | None = None) -> str:
    """List the first columns; those that are `taken` with their roles."""
    shown = [f"'{name}'" for name in list(names)[:SHOWN]]
    for place, name in enumerate(list(names)[:SHOWN]):
        if taken and name in taken:
            shown[place] += f" as the {taken[name]}"
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _kind(found: Mapping[str, str], kind: str | None) -> str | None:
    """Return what the rows are by the columns that are named, or by the task; None: not told."""
    texts = [role for role in ("text", "text_pair") if role in found]
    if "image" in found and texts:
        raise DataError("data.image and data.text exclude each other: choose one")
    named = "image" if "image" in found else "text" if texts else None
    if kind and named and kind != named:
        raise DataError(f"data.{named} names a column of {named}s, and the task reads {kind}s")
    return kind or named


def _texts(table: Table, free: Sequence[str], pictures: Sequence[str]) -> list[str]:
    """Return the columns that could be the text: words with spaces, mostly different.

    Where there are none, those that are called so.
    """
    free = [name for name in free if name not in pictures]
    wordy = [name for name in free if _wordy(table.columns[name])]
    wordy = wordy or [name for name in free if name.casefold() in TEXTS and _letters(table, name)]
    several = [name for name in wordy if not _few(table.columns[name])]
    return several or wordy


def _letters(table: Table, name: str) -> bool:
    """Say whether a column holds letters at all."""
    texts = [text_of(cell) for cell in table.columns[name][:LOOKED_AT] if isinstance(cell, str)]
    return any(char.isalpha() for text in texts for char in text[:LOOKED_INTO])


def _text(
    table: Table, texts: Sequence[str], found: Mapping[str, str], taken: Mapping[str, str]
) -> dict[str, str]:
    if "text_pair" in found:
        return {"text": _one(table, "text", texts, taken)}
    pairs = [pair for pair in PAIRS if pair[0] in texts and pair[1] in texts]
    if len(pairs) == 1 and len(texts) == 2:
        return {"text": pairs[0][0], "text_pair": pairs[0][1]}
    return {"text": _one(table, "text", texts, taken)}


def _one(table: Table, role: str, candidates: Sequence[str], taken: Mapping[str, str]) -> str:
    """Return the only candidate; `taken` are the columns that the user named, with their roles."""
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise DataError(
            f"{table.place}: no column looks like the {role} "
            f"(it has {_listed(table.columns, taken)}): name it with --set data.{role}=COLUMN"
        )
    names = ", ".join(f"'{name}'" for name in candidates)
    raise DataError(
        f"{table.place}: several columns could be the {role}: {names}: "
        f"choose with --set data.{role}={candidates[0]}"
    )


def _label(table: Table, free: Sequence[str]) -> str | None:
    """Return the column that is called like a label, or that `datasets` declares to be one."""
    for group in LABELS:
        named = [name for name in free if name.casefold() in group]
        if len(named) > 1:
            return _one(table, "label", named, {})
        if named:
            return named[0]
    declared = [name for name in free if name in table.names]
    return declared[0] if len(declared) == 1 else None


def _wordy(cells: Sequence[Any]) -> bool:
    texts = [cell for cell in cells[:LOOKED_AT] if isinstance(cell, str) and cell.strip()]
    empty = [
        cell is None or (isinstance(cell, (str, float)) and not text_of(cell).strip())
        for cell in cells[:LOOKED_AT]
    ]
    filled = empty.count(False)
    if not texts or len(texts) < 0.9 * filled:
        return False
    return sum(bool(WORDY.search(text[:LOOKED_INTO])) for text in texts) >= 0.1 * len(texts)


def _few(cells: Sequence[Any]) -> bool:
    """Say whether values repeat as labels do: on average twice each."""
    values: set[str] = set()
    try:
        for cell in cells:
            values.add(label_of(cell))
            if len(values) > MOST_LABELS + 1:  # texts, say: no need to gather them all
                return False
    except (DataError, ValueError, TypeError, OverflowError):
        return False
    values.discard("")
    return 0 < len(values) <= MOST_LABELS and (len(values) * 2 <= len(cells) or len(values) <= 2)
