"""Smaller vocabularies: what stays, the tokenizer.json that has it, and what falls back to what."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from edgedistill.errors import ModelError
from edgedistill.tasks import _tokenizer_files as files
from edgedistill.tasks import _vocabulary
from edgedistill.tasks import text_classification as task

KINDS = ("bert", "roberta", "xlm-roberta")
TRAIN = ["what is the weather like in lisbon", "move money to my savings", "play the next song"]
UNSEEN = [
    "volumes of italian whether",
    "goodness! naïve 今天 qqq zz-top",
    "tomorrow's café, please?",
]


def opened(folder, tokenizer_folder=None):
    return task.open_encoder(folder, task.encoder_settings(folder))


def ids_of(encoder, texts):
    return [row["input_ids"].tolist() for row in encoder.encode_many([{"text": t} for t in texts])]


@pytest.fixture(params=KINDS)
def folded(request, tokenizer_folder, tmp_path):
    """The folder of a tokenizer, its encoder, the folded one's, and the old id of each new one."""
    folder = tokenizer_folder(request.param)
    whole = opened(folder)
    used = np.bincount([one for row in ids_of(whole, TRAIN) for one in row])
    file = files.read_tokenizer(folder)
    count = (_vocabulary.least(file) + _vocabulary.size(file)) // 2
    settings = task.encoder_settings(folder)
    kept, needed, size = task.fold(folder, used, count, tmp_path, settings)
    assert len(kept) == count and needed < count < size
    return folder, whole, task.open_encoder(tmp_path, settings), kept


def test_a_text_of_pieces_that_stay_is_read_as_before(folded):
    _, whole, small, kept = folded
    for before, after in zip(ids_of(whole, TRAIN), ids_of(small, TRAIN), strict=True):
        if set(before) <= set(kept):
            assert [kept[one] for one in after] == before
        else:
            assert len(after) > len(before)


def test_an_unseen_word_falls_back_to_smaller_pieces(folded):
    _, whole, small, kept = folded
    unknown = {whole.whole.token_to_id(name) for name in ("[UNK]", "<unk>")} - {None}
    for before, after in zip(ids_of(whole, UNSEEN), ids_of(small, UNSEEN), strict=True):
        old = [kept[one] for one in after]
        assert sum(one in unknown for one in old) == sum(one in unknown for one in before)
        assert len(old) >= len(before)
        texts = [each.whole.decode(ids) for each, ids in ((small, after), (whole, before))]
        assert len({text.replace("##", "").replace(" ", "") for text in texts}) == 1


def test_special_tokens_and_the_padding_keep_their_work(folded):
    _, whole, small, kept = folded
    assert small.facts["pad"] == whole.facts["pad"]
    pad = whole.facts["pad"]
    assert kept[pad] == pad
    assert {kept[one] for one in small.special} == whole.special
    assert kept[small.mask] == whole.mask
    pair = [f.whole.encode("the song", "the money").tokens for f in (whole, small)]
    assert [one for one in pair[0] if one[0] in "[<"] == [one for one in pair[1] if one[0] in "[<"]


def test_what_is_used_most_stays_first_then_what_is_of_general_use(tokenizer_folder):
    file = files.read_tokenizer(tokenizer_folder("bert"))
    least = _vocabulary.least(file)
    names = {index: piece for piece, index in file["model"]["vocab"].items()}
    free = [i for i in sorted(names) if i not in set(_vocabulary.choose(file, {}, least))]
    assert all(len(names[one].removeprefix("##")) > 1 for one in free)
    rare, often = free[-1], free[-2]
    chosen = set(_vocabulary.choose(file, {rare: 1, often: 2}, least + 1))
    assert often in chosen and rare not in chosen
    chosen = set(_vocabulary.choose(file, {rare: 1, often: 2}, least + 4))
    assert {rare, often, *free[:2]} <= chosen


def test_bpe_keeps_the_merges_that_lead_to_what_stays(tokenizer_folder, tmp_path):
    folder = tokenizer_folder("roberta")
    file = files.read_tokenizer(folder)
    vocabulary = file["model"]["vocab"]
    piece = max(vocabulary, key=lambda one: (one.startswith("Ġ"), len(one)))
    count = _vocabulary.least(file) + 8
    kept = _vocabulary.choose(file, {vocabulary[piece]: 5}, count, pad=1)
    made = _vocabulary.rewrite(file, kept)
    vocabulary = made["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(count)) and piece in vocabulary
    for left, right in map(_vocabulary._pair, made["model"]["merges"]):
        assert {left, right, left + right} <= vocabulary.keys()
    files.write_tokenizer(tmp_path, made)
    settings = task.encoder_settings(folder)
    small = task.open_encoder(tmp_path, settings)
    text = f"a{piece.replace('Ġ', ' ')}"
    assert small.whole.encode(text).tokens == opened(folder).whole.encode(text).tokens


def test_merges_written_as_texts_are_read_too(tokenizer_folder):
    file = files.read_tokenizer(tokenizer_folder("roberta"))
    old = json.loads(json.dumps(file))
    old["model"]["merges"] = [" ".join(_vocabulary._pair(m)) for m in file["model"]["merges"]]
    count = _vocabulary.least(file) + 5
    kept = _vocabulary.choose(file, {}, count, pad=1)
    assert _vocabulary.choose(old, {}, count, pad=1) == kept
    merges = _vocabulary.rewrite(old, kept)["model"]["merges"]
    assert merges and all(isinstance(one, str) for one in merges)


def test_a_piece_whose_letters_are_no_pieces_stays():
    vocabulary = {"[UNK]": 0, "a": 1, "##a": 2, "b": 3, "##qu": 4, "ab": 5, "##aa": 6}
    model = {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]"}
    model["continuing_subword_prefix"] = "##"
    file = {"model": model, "added_tokens": []}
    assert _vocabulary.choose(file, {}, _vocabulary.least(file)) == [0, 1, 2, 3, 4, 5]


def test_rows_that_no_text_reaches_go_first():
    vocabulary = {"[UNK]": 0, "[unused0]": 1, "a": 2, "##a": 3, "aa": 4, "[unused17]": 5}
    model = {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]"}
    model["continuing_subword_prefix"] = "##"
    file = {"model": model, "added_tokens": []}
    assert _vocabulary.choose(file, {}, 4) == [0, 2, 3, 4]
    assert _vocabulary.choose(file, {}, 5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_that_can_not_be_says_what_can(tokenizer_folder, kind):
    folder = tokenizer_folder(kind)
    file, settings = files.read_tokenizer(folder), task.encoder_settings(folder)
    least, size = _vocabulary.least(file), _vocabulary.size(file)
    for count in (least - 1, size + 1):
        with pytest.raises(ModelError, match=f"expected {least:,} .* to {size:,}"):
            task.check_fold(folder, count, settings)
    task.check_fold(folder, least, settings)
    with pytest.raises(ModelError, match="padding token"):
        task.check_fold(folder, least, {**settings, "pad": least})


def test_words_without_smaller_pieces_are_refused():
    file = {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
    with pytest.raises(ModelError, match=r"WordLevel.*WordPiece, BPE, Unigram"):
        _vocabulary.least(file)


@pytest.mark.parametrize("kind", KINDS)
def test_random_texts_are_never_less_known_than_before(tokenizer_folder, tmp_path, kind):
    folder = tokenizer_folder(kind)
    file, whole = files.read_tokenizer(folder), opened(folder)
    settings = task.encoder_settings(folder)
    task.fold(folder, np.zeros(0, int), _vocabulary.least(file) + 3, tmp_path, settings)
    small = task.open_encoder(tmp_path, settings)
    draws = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyzéï?' 今天")
    texts = ["".join(draws.choice(letters, size=12)) for _ in range(200)]
    names = ("[UNK]", "<unk>")
    counted = [
        Counter(one.tokens.count(name) for name in names for one in each.whole.encode_batch(texts))
        for each in (whole, small)
    ]
    assert counted[0] == counted[1]
