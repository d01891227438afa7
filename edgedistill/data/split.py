"""Splits: what a split of the rows is, and how missing ones are cut.

A row's split is its own: the hash of its normalised inputs decides. So it is the same on every
machine, equal inputs stay together, and adding rows moves none.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill.data import rows

SPLITS = ("train", "validation", "test", "unlabelled")
OWN = ("own_train", "own_validation", "own_test")  # of a second, small set beside
TASKS = {"text": "text-classification", "image": "image-classification"}  # by kind of example
SHARES = {"test": 0.20, "validation": 0.30}  # below 0.20 test, below 0.30 validation


@dataclass(frozen=True)
class Split:
    """The rows of one split."""

    name: str
    kind: str  # "text" | "image"
    examples: Sequence[rows.Example] = field(repr=False)
    truth: Sequence[str] | None = field(repr=False)  # label names; None: unlabelled
    digest: str  # sha256 of the used columns' content alone

    def __len__(self) -> int:
        return len(self.examples)

    def write(self, folder: Path) -> None:
        """Write the split as a rows folder."""
        rows.write(folder, self.kind, self.examples, self.truth)


@dataclass(frozen=True)
class DataSet:
    """The user's data, read and found good; ready to print."""

    name: str
    task: str
    columns: Mapping[str, str]  # role -> the user's column: {"text": "utterance", "label": ..}
    splits: Mapping[str, Split]
    origin: Mapping[str, str]  # split -> "given" | "cut"
    ignored: Sequence[str] = ()  # files beside the splits that are not used
    warnings: Sequence[str] = ()
    preview: Sequence[Mapping[str, str]] = ()  # three rows, by role
    overlap: Mapping[str, int] = field(default_factory=dict)  # {"test in train": rows}
    own: tuple[str, Mapping[str, str]] | None = None  # name and columns of the own rows

    def labels(self) -> list[str]:
        """Return the label names of the training rows: integers by number, else by code point."""
        return ordered(self.splits["train"].truth or ())


def ordered(labels: Iterable[str]) -> list[str]:
    """Order label names: all integers by number, else by code point."""
    names = set(labels)
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def content(example: Mapping[str, Any]) -> bytes:
    """Return what a text example is, for hashing; raises `UnicodeEncodeError` for no real text."""
    text, pair = example["text"].encode(), example.get("text_pair")
    first = b"%d:%b" % (len(text), text)
    return first if pair is None else first + pair.encode()


def normalised(example: Mapping[str, Any]) -> bytes:
    """Return a text example without case, width and spacing: equal for people, equal here."""
    parts = [example["text"], example.get("text_pair") or ""]
    folded = (unicodedata.normalize("NFKC", part).casefold().split() for part in parts)
    return "\x1f".join(" ".join(words) for words in folded).encode()


def fingerprint(kind: str, contents: Iterable[bytes], truth: Sequence[str] | None) -> str:
    """Return the sha256 of rows in their order: contents, and labels where there are any."""
    digest = hashlib.sha256(b"rows 1 " + kind.encode())
    for index, each in enumerate(contents):
        digest.update(b"%d:%b" % (len(each), each))
        if truth is not None:
            label = truth[index].encode()
            digest.update(b"=%d:%b" % (len(label), label))
    return digest.hexdigest()


def hashed(key: bytes) -> bytes:
    """Return the sha256 of a row's normalised inputs or its group: what a cut goes by.

    Kept in place of them: a text of any length lies in memory once.
    """
    return hashlib.sha256(key).digest()


def position(key: bytes) -> float:
    """Return the place of a row in [0, 1), by the hash of its normalised inputs or its group."""
    return _place(hashed(key))


def _place(hash: bytes) -> float:
    return int.from_bytes(hash[:8], "big") / 2**64


def cut(
    hashes: Sequence[bytes], wanted: Collection[str], *, shares: Mapping[str, float] = SHARES
) -> dict[str, list[int]]:
    """Cut the wanted splits out of rows known by their hashes; the others' rows stay in train.

    `shares` gives upper bounds in rising order. Returns indices by split, "train" among them.
    """
    parts: dict[str, list[int]] = {name: [] for name in ("train", *wanted)}
    for index, each in enumerate(hashes):
        place = _place(each)
        name = next((name for name, bound in shares.items() if place < bound), "train")
        parts[name if name in wanted else "train"].append(index)
    return parts


def repeats(weight: float, general: int, own: int) -> int:
    """Return how often an epoch reads each own row, so that they make up a share of all it reads.

    A whole number, one at least: own rows that are more than their share are all read once.
    """
    return max(1, round(weight / (1 - weight) * general / max(own, 1)))


def overlap(keys: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
    """Count the rows of a later split whose inputs stand in an earlier one too."""
    found = {}
    names = [name for name in SPLITS[:3] if name in keys]
    for index, first in enumerate(names):
        seen = set(keys[first])
        for second in names[index + 1 :]:
            found[f"{second} in {first}"] = sum(key in seen for key in keys[second])
    return found


def rare(test: Sequence[str], labels: Sequence[str]) -> str | None:
    """Name the labels without a row in test, as a warning."""
    seen = set(test)
    missing = [label for label in labels if label not in seen]
    if not missing:
        return None
    some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    return f"{len(missing)} of {len(labels)} labels have no test row: {some}"


def contradictions(keys: Sequence[bytes], truth: Sequence[str]) -> int:
    """Count the inputs that stand under two labels or more."""
    first: dict[bytes, str] = {}
    pairs = zip(keys, truth, strict=True)
    return len({key for key, label in pairs if first.setdefault(key, label) != label})
