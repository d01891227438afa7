"""Made rows for texts: more of the kind that the teacher will meet, for it to label.

They need no truth: the student learns from the teacher's outputs on them alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgedistill.tasks._tokens import TextEncoder

SHARE_MASKED = 0.15  # BERT's share (Devlin et al., 2019)
SHARE_REPLACED = 0.3
SHARE_MISSPELT = 0.15
MOST_UNFAMILIAR = 3  # words in a cut
SHORTEST_MISSPELT = 4  # letters (Belinkov & Bisk, 2018): shorter words become other words
LONGEST_GRAM = 5  # words (Tang et al., 2019)
ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and ideographs: no spaces
WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+(?:['’][^\W{ALONE}]+)*|[^\w\s]+")
MOST_ALIKE = 5  # labels that a text is crossed with
MOST_READ = 20_000  # rows by which labels are compared, and words of each: a few million counts
MOST_WORDS_READ = 100
LARGEST_TABLE = 10_000_000  # labels times words that are compared: 40 MB
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
    return _swapped(examples, encoder, draws, SHARE_MASKED, lambda word: hide, lone=False)


def unfamiliar(
    examples: Examples,
    truth: np.ndarray,
    encoder: TextEncoder,
    draws: np.random.Generator,
    *,
    words: Sequence[str],
) -> Rows:
    """Strew one to three words of a vocabulary, any, into a cut of each text.

    What the teacher makes of words that no row holds, a student learns from nothing else.
    """
    for chunk in chunks(len(examples)):
        made: list[dict[str, str]] = []
        for example in (examples[index] for index in chunk):
            texts = {name: words_of(example[name]) for name in encoder.columns}
            made.append({name: _strewn(each, words, draws) for name, each in texts.items()})
        yield from encoder.encode_many(made)


def misspelt(
    examples: Examples, truth: np.ndarray, encoder: TextEncoder, draws: np.random.Generator
) -> Rows:
    """Misspell 15 % of the words of four letters or more, at least one.

    A letter that is no first or last one is left out, doubled, swapped with the next or put in
    the place of another, as people type (after Belinkov & Bisk, 2018).
    """

    def long(word: str) -> bool:
        return len(word) >= SHORTEST_MISSPELT and word.isalpha()

    return _swapped(
        examples, encoder, draws, SHARE_MISSPELT, lambda word: _misspell(word, draws), takes=long
    )


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
    for same in _by_label(truth).values():
        if len(same) > 1:
            step = draws.integers(1, len(same), size=len(same))
            partner[same] = same[(np.arange(len(same)) + step) % len(same)]
    return _mixed(examples, partner, encoder, draws, _halve)


def crossed(
    examples: Examples, truth: np.ndarray, encoder: TextEncoder, draws: np.random.Generator
) -> Rows:
    """Join the first half of each text with the second half of one of another label, like its own.

    Of the five labels whose texts have the most words in common with its own: where a student errs,
    it mistakes such labels for one another. A text without a label has its own halves swapped.
    """
    partner = np.arange(len(examples))
    members = _by_label(truth)
    near = _alike(examples, members, encoder) if len(members) > 1 else {}
    for label, others in near.items():
        for row in members[label].tolist():
            mates = members[others[int(draws.integers(len(others)))]]
            partner[row] = mates[int(draws.integers(len(mates)))]
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
    words: Mapping[str, Sequence[str]],
) -> Rows:
    """Put one of its neighbours in the place of three words in ten of those with any, at least one.

    After TinyBERT (Jiao et al., 2020; four in ten, by GloVe) and Tang et al. (2019; one in ten).
    A text none of whose words has neighbours stays as it is.
    """

    def near(word: str) -> str:
        return words[word][int(draws.integers(len(words[word])))]

    return _swapped(examples, encoder, draws, SHARE_REPLACED, near, takes=words.__contains__)


KINDS: dict[str, Kind] = {
    "masked": masked, "joined": joined, "halves": halves, "crossed": crossed,
    "misspelt": misspelt, "ngrams": ngrams,
}  # fmt: skip


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


def _swapped(
    examples: Examples,
    encoder: TextEncoder,
    draws: np.random.Generator,
    share: float,
    instead: Callable[[str], str],
    *,
    takes: Callable[[str], bool] = bool,
    lone: bool = True,
) -> Rows:
    """Swap a share of the words that `takes` takes, at least one, anywhere in all texts of a row.

    `lone`: also the only word of a row. A row none of whose words is taken stays as it is.
    """
    for chunk in chunks(len(examples)):
        made: list[dict[str, str]] = []
        for example in (examples[index] for index in chunk):
            texts = {name: words_of(example[name]) for name in encoder.columns}
            words = [(name, i) for name, each in texts.items() for i in range(len(each.spans))]
            taken = [(name, i) for name, i in words if takes(texts[name].run(i, i + 1))]
            swaps: dict[str, dict[int, str]] = {name: {} for name in texts}
            if taken and (lone or len(words) > 1):
                count = max(1, round(share * len(taken)))
                for place in sorted(draws.choice(len(taken), size=count, replace=False).tolist()):
                    name, i = taken[place]
                    swaps[name][i] = instead(texts[name].run(i, i + 1))
            made.append({name: each.swapped(swaps[name]) for name, each in texts.items()})
        yield from encoder.encode_many(made)


def _misspell(word: str, draws: np.random.Generator) -> str:
    """Make one of four mistakes in a word of three letters at least, never at its first or last."""
    place = int(draws.integers(1, len(word) - 1))
    before, letter, after = word[:place], word[place], word[place + 1 :]
    how = int(draws.integers(4))
    if how == 0:
        return before + after
    if how == 1:
        return before + letter + letter + after
    if how == 2 and len(after) > 1:
        return before + after[0] + letter + after[1:]
    others = [each for each in word if each != letter] or [letter * 2]
    return before + others[int(draws.integers(len(others)))] + after


def _join(first: Words, second: Words, draws: np.random.Generator) -> list[str]:
    return [_cut(first, draws), _cut(second, draws)]


def _cut(words: Words, draws: np.random.Generator) -> str:
    return words.run(*_cut_at(words, draws))


def _cut_at(words: Words, draws: np.random.Generator) -> tuple[int, int]:
    """Choose a run of a third to two thirds of the words, at least one: its start and stop."""
    count = len(words.spans)
    low, high = max(1, count // 3), max(1, -(-2 * count // 3))
    length = int(draws.integers(low, high + 1))
    start = int(draws.integers(0, count - length + 1))
    return start, start + length


def _strewn(words: Words, vocabulary: Sequence[str], draws: np.random.Generator) -> str:
    """Put words of a vocabulary before, between and behind those of a cut."""
    start, stop = _cut_at(words, draws)
    count = int(draws.integers(1, MOST_UNFAMILIAR + 1)) if vocabulary else 0
    parts = []
    for gap in sorted(draws.integers(start, stop + 1, size=count).tolist()):
        parts += [words.run(start, gap), vocabulary[int(draws.integers(len(vocabulary)))]]
        start = gap
    return " ".join(filter(None, [*parts, words.run(start, stop)]))


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


def _by_label(truth: np.ndarray) -> dict[int, np.ndarray]:
    """Return the rows of each label, in order; rows without a label are left out."""
    order = np.argsort(truth, kind="stable")
    labels, starts = np.unique(truth[order], return_index=True)
    rows = np.split(order, starts)[1:]
    return {label: some for label, some in zip(labels.tolist(), rows, strict=True) if label >= 0}


def _alike(
    examples: Examples, members: Mapping[int, np.ndarray], encoder: TextEncoder
) -> dict[int, list[int]]:
    """Return the labels that are most like each, by the words of their texts (tf-idf, cosine).

    Of many rows some are read, evenly, and of long texts the beginning.
    """
    counts: dict[int, Counter[str]] = {label: Counter() for label in members}
    for label, rows in members.items():
        for row in rows[:: max(1, len(rows) * len(members) // MOST_READ)].tolist():
            for name in encoder.columns:
                words = words_of(examples[row][name])
                some = range(min(len(words.spans), MOST_WORDS_READ))
                counts[label].update(words.run(i, i + 1).casefold() for i in some)
    total: Counter[str] = Counter()
    for each in counts.values():
        total.update(each)
    most = sorted(total, key=lambda word: (-total[word], word))[: LARGEST_TABLE // len(counts)]
    place = {word: column for column, word in enumerate(most)}
    table = np.zeros((len(counts), len(most)), dtype=np.float32)
    for line, each in enumerate(counts.values()):
        known = [(place[word], count) for word, count in each.items() if word in place]
        table[line, [column for column, _ in known]] = [np.log1p(count) for _, count in known]
    rarity = np.log(len(counts) / (table > 0).sum(axis=0))
    table *= rarity + 0.1  # a word that all labels have counts a little too
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    labels, near = list(counts), {}
    for start in range(0, len(labels), CHUNK):
        # rounded, ties by number: the order must not hang on how a machine adds
        alike = np.round(table[start : start + CHUNK] @ table.T, 4)
        for line, similar in enumerate(alike, start):
            similar[line] = -1.0
            first = np.argsort(-similar, kind="stable")[: min(MOST_ALIKE, len(labels) - 1)]
            near[labels[line]] = [labels[other] for other in first.tolist()]
    return near


def words_of(text: str) -> Words:
    """Find the words of a text: by spaces and marks, each Chinese or Japanese character alone.

    Not the tokenizer's own words: the same texts must be made for a teacher and a student whose
    tokenizers differ, since their rows stand for one another.
    """
    return Words(text, [found.span() for found in WORD.finditer(text)] or [(0, len(text))])


def chunks(count: int) -> Iterator[range]:
    for start in range(0, count, CHUNK):
        yield range(start, min(count, start + CHUNK))
