"""Made rows for texts: what each kind may contain, and that draws repeat."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from edgedistill.errors import JobError
from edgedistill.tasks import _made_texts
from edgedistill.tasks import text_classification as task
from edgedistill.tasks._made_texts import (
    SHARE_MASKED,
    Words,
    _alike,
    _by_label,
    _cut,
    _gram,
    replaced,
    unfamiliar,
    words_of,
)

DRAWS = partial(np.random.default_rng, 0)
KINDS = [kind for kind in task.MADE if kind not in task.READS_MODEL]
WORDS = ["weather", "lisbon", "money", "savings", "song", "volume", "morning", "italian"]


@pytest.fixture
def encoder(tokenizer_folder):
    folder = tokenizer_folder("bert")
    return task.open_encoder(folder, task.encoder_settings(folder))


def rows_of(encoder, examples, truth, kinds, seed=0, model=None):
    made = task.made(examples, np.array(truth), encoder, kinds=kinds, seed=seed, model=model)
    return list(made)


def text_of(encoder, row):
    return encoder.whole.decode(row["input_ids"].tolist())


@pytest.fixture
def examples():
    """Return 40 texts; text i says its own number in the words of its label."""
    draws = np.random.default_rng(0)
    return [
        {"text": " ".join(draws.permutation(WORDS[:4] if i % 2 else WORDS[4:]))} for i in range(40)
    ]


def test_one_row_per_kind_and_example_in_order(encoder, examples):
    truth = [i % 2 for i in range(40)]
    both = rows_of(encoder, examples, truth, KINDS)
    assert len(both) == 40 * len(KINDS)
    assert all(str(a["input_ids"]) == str(b["input_ids"]) for a, b in zip(
        both[:40], rows_of(encoder, examples, truth, KINDS[:1]), strict=True))  # fmt: skip


def test_the_seed_decides_and_a_kind_named_twice_draws_anew(encoder, examples):
    truth = [0] * 40
    first = [row["input_ids"].tolist() for row in rows_of(encoder, examples, truth, ["joined"] * 2)]
    again = [row["input_ids"].tolist() for row in rows_of(encoder, examples, truth, ["joined"] * 2)]
    other = rows_of(encoder, examples, truth, ["joined"] * 2, seed=1)
    assert first == again
    assert first[:40] != first[40:]
    assert first != [row["input_ids"].tolist() for row in other]


def test_masking_hides_a_share_and_no_special_token(encoder):
    text = {"text": "the " * 40}
    row = rows_of(encoder, [text], [0], ["masked"])[0]["input_ids"]
    plain = encoder.encode(text)["input_ids"]
    changed = row != plain
    assert changed.sum() == round(SHARE_MASKED * 40)
    assert (row[changed] == encoder.mask).all()
    assert row[0] == plain[0] and row[-1] == plain[-1]


def test_masking_leaves_a_text_of_one_word(encoder):
    row = rows_of(encoder, [{"text": "a"}], [0], ["masked"])[0]["input_ids"]
    assert encoder.mask not in row


def test_without_a_mask_token_words_are_left_out(encoder):
    encoder.mask = encoder.mask_token = None
    row = rows_of(encoder, [{"text": "the " * 40}], [0], ["masked"])[0]
    assert len(row["input_ids"]) == 42 - round(SHARE_MASKED * 40)
    assert len(row["token_type_ids"]) == len(row["input_ids"])


def test_halves_stay_within_a_label_and_joined_do_not(encoder, examples):
    truth = [i % 2 for i in range(40)]
    for i, row in enumerate(rows_of(encoder, examples, truth, ["halves"])):
        words = set(text_of(encoder, row).split())
        assert words <= set(WORDS[:4] if i % 2 else WORDS[4:])
    joined = [
        set(text_of(encoder, row).split()) for row in rows_of(encoder, examples, truth, ["joined"])
    ]
    mixed = [bool(words & set(WORDS[:4])) and bool(words & set(WORDS[4:])) for words in joined]
    assert any(mixed)


def test_crossed_texts_are_of_labels_that_share_words(encoder):
    texts = {0: "weather lisbon", 1: "weather song", 2: "money savings", 3: "money volume"}
    truth = [i % 4 for i in range(40)] + [-1]
    examples = [{"text": texts.get(label, "morning italian")} for label in truth]
    near = _alike(examples, _by_label(np.array(truth)), encoder)
    assert {label: others[0] for label, others in near.items()} == {0: 1, 1: 0, 2: 3, 3: 2}
    assert all(len(others) == 3 and label not in others for label, others in near.items())
    made = [text_of(encoder, row) for row in rows_of(encoder, examples, truth, ["crossed"])]
    for label, text in zip(truth[:-1], made[:-1], strict=True):
        first, second = text.split()
        assert first == texts[label].split()[0]
        assert second in {each.split()[1] for other, each in texts.items() if other != label}
    assert made[-1] == "italian morning", "without a label"
    lone = rows_of(encoder, [{"text": "weather lisbon"}] * 2, [3, 3], ["crossed"])
    assert [text_of(encoder, row) for row in lone] == ["lisbon weather"] * 2, "no other label"


def test_labels_without_a_word_in_common_and_a_small_table_are_crossed_too(encoder, monkeypatch):
    monkeypatch.setattr(_made_texts, "LARGEST_TABLE", 2)  # fewer words than labels
    examples = [{"text": word} for word in WORDS]
    assert len(rows_of(encoder, examples, list(range(len(WORDS))), ["crossed"])) == len(WORDS)


def test_of_many_rows_some_are_read_to_compare_labels_evenly(encoder, monkeypatch):
    class Rows(list):
        read: ClassVar[list[int]] = []

        def __getitem__(self, row):
            self.read.append(row)
            return super().__getitem__(row)

    monkeypatch.setattr(_made_texts, "MOST_READ", 10)
    truth = np.arange(100) % 2
    near = _alike(Rows([{"text": "weather"}] * 100), _by_label(truth), encoder)
    assert near == {0: [1], 1: [0]}
    assert Rows.read == [*range(0, 100, 20), *range(1, 100, 20)]


def test_of_long_texts_the_beginning_is_read_to_compare_labels(encoder, monkeypatch):
    texts = ["weather play play play", "weather song song song", "bank play play play"]
    rows = [{"text": text} for text in texts]

    def nearest():
        return _alike(rows, _by_label(np.arange(3)), encoder)[0][0]

    assert nearest() == 2
    monkeypatch.setattr(_made_texts, "MOST_WORDS_READ", 1)
    assert nearest() == 1


@pytest.mark.parametrize("kind", task.MADE)
def test_of_no_rows_none_are_made(encoder, embedded, tokenizer_folder, kind):
    assert rows_of(encoder, [], [], [kind], model=embedded(tokenizer_folder("bert"))) == []


def test_no_text_is_joined_with_itself(encoder):
    examples = [{"text": "weather"}, {"text": "money"}]
    for row in rows_of(encoder, examples, [0, 0], ["joined", "halves"]):
        assert sorted(text_of(encoder, row).split()) == ["money", "weather"]


def test_a_lone_text_has_its_own_halves_swapped(encoder):
    examples = [{"text": "weather lisbon"}, {"text": "money savings"}]
    made = [text_of(encoder, row) for row in rows_of(encoder, examples, [0, -1], ["halves"])]
    assert made == ["lisbon weather", "savings money"]


def test_pairs_stay_pairs(tokenizer_folder, embedded):
    folder = embedded(tokenizer_folder("bert"))
    encoder = task.open_encoder(folder, task.encoder_settings(folder, pair=True))
    examples = [{"text": "weather lisbon", "text_pair": "money savings"}] * 3
    for row in rows_of(encoder, examples, [0, 0, 0], task.MADE, model=folder):
        assert set(row["token_type_ids"].tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't  stop", ["don't", "stop"]),
        ("今天的会议 at 3pm", ["今", "天", "的", "会", "议", "at", "3pm"]),
        ("naïve café?! yes", ["naïve", "café", "?!", "yes"]),
        (" ", [" "]),
    ],
)
def test_words_are_found_without_a_tokenizer(text, words):
    found = words_of(text)
    assert [found.run(i, i + 1) for i in range(len(found.spans))] == words
    assert found.run(0, len(found.spans)) == text, "a run keeps its spacing"


def test_texts_are_made_alike_for_models_with_other_tokenizers(
    tokenizer_folder, embedded, monkeypatch
):
    """A student's rows stand for the teacher's by their place, whatever reads them."""
    teacher = embedded(tokenizer_folder("bert"))
    examples = [{"text": "what's the weather, naïve café?"}, {"text": "今天 the song"}] * 5
    made = []
    for kind in ("bert", "roberta"):
        folder = tokenizer_folder(kind)
        encoder = task.open_encoder(folder, task.encoder_settings(folder))
        seen: list = []
        encode = encoder.encode_many
        monkeypatch.setattr(encoder, "encode_many", lambda e, s=seen, f=encode: s.extend(e) or f(e))
        rows_of(encoder, examples, [0, 1] * 5, task.MADE, model=teacher)
        hidden = encoder.mask_token
        made.append([{"text": row["text"].replace(hidden, "<hidden>")} for row in seen])
    assert made[0] == made[1] and len(made[0]) == 10 * len(task.MADE)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_a_masked_word_is_one_piece_for_every_kind_of_tokenizer(tokenizer_folder, kind):
    folder = tokenizer_folder(kind)
    encoder = task.open_encoder(folder, task.encoder_settings(folder))
    text = {"text": "what is the weather like in lisbon, please?"}
    row = rows_of(encoder, [text], [0], ["masked"])[0]["input_ids"]
    assert (row == encoder.mask).sum() == max(1, round(SHARE_MASKED * 10))


def test_masking_reaches_both_texts_of_a_pair(tokenizer_folder):
    folder = tokenizer_folder("bert")
    encoder = task.open_encoder(folder, task.encoder_settings(folder, pair=True))
    example = {"text": "the " * 20, "text_pair": "money " * 20}
    rows = rows_of(encoder, [example] * 8, [0] * 8, ["masked"])
    masks = [row["token_type_ids"][row["input_ids"] == encoder.mask].tolist() for row in rows]
    assert all(len(one) == round(SHARE_MASKED * 40) for one in masks)
    assert {0, 1} == {side for one in masks for side in one}


@pytest.mark.parametrize(("count", "most"), [(1, 1), (3, 3), (8, 5), (30, 10)])
def test_a_gram_is_a_run_of_one_to_five_words_or_up_to_a_third(encoder, count, most):
    text = " ".join(f"w{n}" for n in range(count))
    made = {_gram(words_of(text), np.random.default_rng(seed)) for seed in range(200)}
    assert {len(each.split()) for each in made} == set(range(1, most + 1))
    assert all(each in text for each in made)


def test_words_are_replaced_by_their_neighbours_alone(tokenizer_folder, embedded):
    near = (("weather", "list", "next"), ("money", "song"))
    folder = embedded(tokenizer_folder("bert"), near)
    encoder = task.open_encoder(folder, task.encoder_settings(folder))
    table = {"weather": ("list", "next"), "money": ("song",)}
    examples = [{"text": "the weather, in 2024; money weather"}, {"text": "zzz"}] * 20
    draws = np.random.default_rng(0)
    rows = list(replaced(examples, np.zeros(40), encoder, draws, words=table))
    texts = [text_of(encoder, row) for row in rows]
    kept = text_of(encoder, encoder.encode(examples[0]))
    assert len(set(texts[::2])) > 4 and kept not in texts, "one word at least"
    for text in texts[::2]:
        words = text.replace(",", "").replace(";", "").split()
        assert words[0] == "the" and words[1] in ("weather", "list", "next") and "in" in words
        assert words[-2] in ("money", "song") and words[-1] in ("weather", "list", "next")
    assert set(texts[1::2]) == {text_of(encoder, encoder.encode(examples[1]))}
    whole = rows_of(encoder, examples, [0] * 40, ["replaced"], model=folder)
    assert len(whole) == 40


def test_any_words_of_the_vocabulary_are_strewn_into_a_cut(encoder, monkeypatch):
    seen: list = []
    monkeypatch.setattr(encoder, "encode_many", lambda e: seen.extend(e) or [{}] * len(e))
    text = "one two  three, four five six"  # seven words, the mark among them
    list(unfamiliar([{"text": text}] * 400, np.zeros(400), encoder, DRAWS(), words=["aa", "bb"]))
    strewn, places, kept = set(), set(), set()
    for row in seen:
        words = row["text"].split()
        new = [i for i, word in enumerate(words) if word in ("aa", "bb")]
        strewn.add(tuple(words[i] for i in new))
        places |= {"before"} if 0 in new else set()
        places |= {"behind"} if len(words) - 1 in new else set()
        own = " ".join(word for i, word in enumerate(words) if i not in new)
        kept.add(len(words_of(own).spans))
        assert own.replace(" ,", ",") in " ".join(text.split())
    assert {len(each) for each in strewn} == {1, 2, 3} and ("aa", "bb") in strewn
    assert places == {"before", "behind"} and kept == {2, 3, 4, 5}
    seen.clear()
    list(unfamiliar([{"text": "alone"}] * 9, np.zeros(9), encoder, DRAWS(), words=()))
    assert {row["text"] for row in seen} == {"alone"}, "a vocabulary without words"


def test_words_are_misspelt_inside_and_long_ones_alone(encoder, monkeypatch):
    seen: list = []
    monkeypatch.setattr(encoder, "encode_many", lambda e: seen.extend(e) or [{}] * len(e))
    examples = [
        {"text": "is the weather in 20244 nice?"},
        {"text": "go on"},
        {"text": "ааааа"},
    ] * 200
    rows_of(encoder, examples, [0] * 600, ["misspelt"])
    made = [row["text"] for row in seen]
    assert set(made[1::3]) == {"go on"}, "too short"
    assert set(made[2::3]) == {"аааа", "ааааа", "аааааа"}, "in any script, with its own letters"
    swapped = dropped = doubled = 0
    for text in made[::3]:
        words = text.split()
        assert (words[0], words[1], words[3], words[4]) == ("is", "the", "in", "20244")
        weather, nice = words[2], words[5].removesuffix("?")
        assert (weather == "weather") != (nice == "nice"), "one of two words"
        for word, whole in ((weather, "weather"), (nice, "nice")):
            assert word[0] == whole[0] and word[-1] == whole[-1]
            swapped += word != whole and sorted(word) == sorted(whole)
            dropped += len(word) < len(whole)
            doubled += len(word) > len(whole)
    assert min(swapped, dropped, doubled) > 15


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_a_cut_is_a_third_to_two_thirds(count):
    draws = np.random.default_rng(0)
    text = " ".join("abcdefghij"[:count])
    spans = [(2 * i, 2 * i + 1) for i in range(count)]
    lengths = {len(_cut(Words(text, spans), draws).split()) for _ in range(200)}
    assert min(lengths) == max(1, count // 3) and max(lengths) == max(1, -(-2 * count // 3))


def test_an_unknown_kind_names_the_nearest(encoder):
    with pytest.raises(JobError, match="'masked'"):
        rows_of(encoder, [{"text": "a"}], [0], ["maskd"])
