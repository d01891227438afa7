"""Made rows for texts: more of the kind that the teacher will meet, for it to label.

They need no truth: the student learns from the teacher's outputs on them alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgedistill.tasks._tokens import TextEncoder

SHARE_MASKED = 0.15  # BERT's share (Devlin et al., 2019)
SHARE_REPLACED = 0.3
LONGEST_GRAM = 5  # words (Tang et al., 2019)
ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and ideographs: no spaces
WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+(?:['’][^\W{ALONE}]+)*|[^\w\s]+")
CHUNK = 512  # rows at a time: memory does not grow with their number

Examples = Sequence[Mapping[str, Any]]
Rows = Iterator[dict[str, np.ndarray]]
Kind = Callable[[Examples, np.ndarray, TextEncoder, np.random.Generator], Rows]
Mix = Callable[["Words", "Words", np.random.Generator], list[str]]


def masked(
    examples: Examples, truth: np.ndarray, encoder: TextEncoder, draws: np.random.Generator
) -> Rows:
    """Put the mask over 15 % of the words, at least one; without a mask token, leave them out.

    Words, not pieces: whatever tokenizer reads them, the same words of a row are hidden.
    """
    hide = encoder.mask_token or ""
    for chunk in chunks(len(examples)):
        made: list[dict[str, str]] = []
        for example in (examples[index] for index in chunk):
            texts = {name: words_of(example[name]) for name in encoder.columns}
            total = sum(len(words.spans) for words in texts.values())
            hidden: Collection[int] = ()
            if total > 1:  # else nothing would be left to read
                count = max(1, round(SHARE_MASKED * total))
                hidden = set(draws.choice(total, size=count, replace=False).tolist())
            made.append({})
            for name, words in texts.items():
                made[-1][name] = words.swapped(dict.fromkeys(hidden, hide))
                hidden = {index - len(words.spans) for index in hidden}
        yield from encoder.encode_many(made)


def joined(
    examples: Examples, truth: np.ndarray, encoder: TextEncoder, draws: np.random.Generator
) -> Rows:
    """Join a cut of each text with a cut of any other: texts of mixed labels."""
    count = len(examples)
    partner = (np.arange(count) + draws.integers(1, max(2, count), size=count)) % max(1, count)
    return _mixed(examples, partner, encoder, draws, _join)


def halves(
    examples: Examples, truth: np.ndarray, encoder: TextEncoder, draws: np.random.Generator
) -> Rows:
    """Join the first half of each text with the second half of another of the same label.

    A text without another of its label, or without a label, has its own halves swapped.
    """
    partner = np.arange(len(examples))
    for label in np.unique(truth[truth >= 0]):
        same = np.flatnonzero(truth == label)
        if len(same) > 1:
            step = draws.integers(1, len(same), size=len(same))
            partner[same] = same[(np.arange(len(same)) + step) % len(same)]
    return _mixed(examples, partner, encoder, draws, _halve)


def ngrams(
    examples: Examples, truth: np.ndarray, encoder: TextEncoder, draws: np.random.Generator
) -> Rows:
    """Keep a run of one to five words (Tang et al., 2019), of up to a third of a longer text."""
    for chunk in chunks(len(examples)):
        made: list[dict[str, str]] = []
        for example in (examples[index] for index in chunk):
            made.append({name: _gram(words_of(example[name]), draws) for name in encoder.columns})
        yield from encoder.encode_many(made)


def replaced(
    examples: Examples,
    truth: np.ndarray,
    encoder: TextEncoder,
    draws: np.random.Generator,
    *,
    neighbours: Mapping[str, Sequence[str]],
) -> Rows:
    """Put one of its neighbours in the place of three words in ten, at least of one.

    After TinyBERT (Jiao et al., 2020; four in ten, by GloVe) and Tang et al. (2019; one in ten).
    A text none of whose words has neighbours stays as it is.
    """
    for chunk in chunks(len(examples)):
        made: list[dict[str, str]] = []
        for example in (examples[index] for index in chunk):
            made.append({})
            for name in encoder.columns:
                words = words_of(example[name])
                known = [i for i in range(len(words.spans)) if words.run(i, i + 1) in neighbours]
                taken = [index for index in known if draws.random() < SHARE_REPLACED]
                if known and not taken:
                    taken = [known[int(draws.integers(len(known)))]]
                instead = {}
                for index in taken:
                    near = neighbours[words.run(index, index + 1)]
                    instead[index] = near[int(draws.integers(len(near)))]
                made[-1][name] = words.swapped(instead)
        yield from encoder.encode_many(made)


KINDS: dict[str, Kind] = {"masked": masked, "joined": joined, "halves": halves, "ngrams": ngrams}
BY_NEIGHBOURS = {"replaced": replaced}  # kinds that need a table of neighbours beside


class Words(NamedTuple):
    """A text and where its words lie; a run of words keeps the spacing that it had."""

    text: str
    spans: list[tuple[int, int]]

    def run(self, start: int, stop: int) -> str:
        """Return the text of words `start` to `stop`."""
        if start >= stop:
            return ""
        return self.text[self.spans[start][0] : self.spans[stop - 1][1]]

    def swapped(self, instead: Mapping[int, str]) -> str:
        """Return the whole text with the words of these numbers replaced."""
        parts, done = [], 0
        for index, (start, stop) in enumerate(self.spans):
            if index in instead:
                parts += [self.text[done:start], instead[index]]
                done = stop
        return "".join([*parts, self.text[done:]])


def _join(first: Words, second: Words, draws: np.random.Generator) -> list[str]:
    return [_cut(first, draws), _cut(second, draws)]


def _cut(words: Words, draws: np.random.Generator) -> str:
    """Take a run of a third to two thirds of the words, at least one."""
    count = len(words.spans)
    low, high = max(1, count // 3), max(1, -(-2 * count // 3))
    length = int(draws.integers(low, high + 1))
    start = int(draws.integers(0, count - length + 1))
    return words.run(start, start + length)


def _gram(words: Words, draws: np.random.Generator) -> str:
    count = len(words.spans)
    length = int(draws.integers(1, min(count, max(LONGEST_GRAM, count // 3)) + 1))
    start = int(draws.integers(0, count - length + 1))
    return words.run(start, start + length)


def _halve(first: Words, second: Words, draws: np.random.Generator) -> list[str]:
    middle, other = len(first.spans) // 2, len(second.spans) // 2
    if first is second:
        return [first.run(middle, len(first.spans)), first.run(0, middle)]
    return [first.run(0, len(first.spans) - middle), second.run(other, len(second.spans))]


def _mixed(
    examples: Examples,
    partner: np.ndarray,
    encoder: TextEncoder,
    draws: np.random.Generator,
    mix: Mix,
) -> Rows:
    names = encoder.columns
    for chunk in chunks(len(examples)):
        own = [examples[index] for index in chunk]
        others = [examples[int(partner[index])] for index in chunk]
        made: list[dict[str, str]] = [{} for _ in own]
        for name in names:
            for place, index in enumerate(chunk):
                first = words_of(own[place][name])
                second = first if partner[index] == index else words_of(others[place][name])
                made[place][name] = " ".join(
                    filter(None, map(str.strip, mix(first, second, draws)))
                )
        yield from encoder.encode_many(made)


def words_of(text: str) -> Words:
    """Find the words of a text: by spaces and marks, each Chinese or Japanese character alone.

    Not the tokenizer's own words: the same texts must be made for a teacher and a student whose
    tokenizers differ, since their rows stand for one another.
    """
    return Words(text, [found.span() for found in WORD.finditer(text)] or [(0, len(text))])


def chunks(count: int) -> Iterator[range]:
    for start in range(0, count, CHUNK):
        yield range(start, min(count, start + CHUNK))
