"""Neighbours of words in a model's own table of input embeddings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgedistill.data import tensors
from edgedistill.errors import JobError
from edgedistill.tasks import _lexicon
from edgedistill.tasks._lexicon import neighbours, vocabulary

TEXTS = ["the weather in lisbon", "move money, please!", "Money 2024 café"]
NEAR = (("weather", "song", "volume"), ("money", "savings"))


def test_the_nearest_whole_words_by_cosine(tokenizer_folder, embedded):
    found = neighbours(embedded(tokenizer_folder("bert"), NEAR), TEXTS)
    assert found["weather"][:2] == ("song", "volume")
    assert found["money"][0] == "savings"
    assert all(word not in near for word, near in found.items()), "never the word itself"
    assert all(each.isalpha() for near in found.values() for each in near)
    assert not {"2024", ",", "!"} & set(found)


@pytest.mark.parametrize(
    ("kind", "near"), [("roberta", ("the", "to", "in")), ("xlm-roberta", ("lis", "mo", "pl"))]
)
def test_words_with_a_mark_for_the_space_before_them(tokenizer_folder, embedded, kind, near):
    folder = embedded(tokenizer_folder(kind), (near,))
    found = neighbours(folder, [f"{near[0]} of {near[1]}", "weather"])
    assert found[near[0]][:2] == near[1:]
    assert "weather" not in found, "several pieces"


def test_large_letters_are_the_same_word_where_the_tokenizer_says_so(tokenizer_folder, embedded):
    found = neighbours(embedded(tokenizer_folder("bert"), NEAR), TEXTS)
    assert found["Money"] == found["money"], "and not a neighbour of itself"


def test_only_words_that_occur_are_searched_and_the_commonest_of_them(
    tokenizer_folder, embedded, monkeypatch
):
    folder = embedded(tokenizer_folder("bert"), NEAR)
    monkeypatch.setattr(_lexicon, "MOST_WORDS", 1)
    assert set(neighbours(folder, ["money money song"])) == {"money"}


def test_chunks_change_nothing(tokenizer_folder, embedded, monkeypatch):
    folder = embedded(tokenizer_folder("bert"), NEAR)
    whole = neighbours(folder, TEXTS)
    monkeypatch.setattr(_lexicon, "AT_ONCE", 1)
    assert neighbours(folder, TEXTS) == whole


def test_half_precision_is_read_too(tokenizer_folder, embedded):
    found = neighbours(embedded(tokenizer_folder("bert"), NEAR, dtype=np.float16), TEXTS)
    assert found["money"][0] == "savings"


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    import torch
    from safetensors.torch import save_file as save

    table = torch.randn(7, 4).to(torch.bfloat16)
    save({"embeddings.weight": table}, tmp_path / "model.safetensors")
    found = tensors.embeddings(tmp_path, 7).rows(np.array([6, 0]))
    assert (found == table[[6, 0]].float().numpy()).all()


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_the_vocabulary_is_whole_words_of_three_letters_at_least(tokenizer_folder, kind):
    """It needs a tokenizer, and no weights."""
    folder = tokenizer_folder(kind)
    found = vocabulary(folder, TEXTS)
    tokenizer, special = _lexicon._tokenizer(folder)
    assert found and len(set(found)) == len(found)
    for word in found:
        assert len(word) >= 3 and word.isalpha()
        (piece,) = tokenizer.encode(f" {word}", add_special_tokens=False).ids
        assert piece not in special
    if kind == "bert":
        assert {"weather", "lisbon", "savings"} <= set(found)


def test_the_vocabulary_keeps_to_the_scripts_of_the_texts(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["weather", "погода", "天", "気", "天気", "ab", "##ing", "x9y", "naïve"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(["[UNK]", *words])}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert vocabulary(tmp_path, ["the song", "2024!"]) == ("weather", "naïve")
    assert vocabulary(tmp_path, ["песня"]) == ("погода",)
    assert vocabulary(tmp_path, ["今 song"]) == ("weather", "天", "気", "naïve")
    assert vocabulary(tmp_path, ["2024"]) == vocabulary(tmp_path, []) == ()


def test_a_model_without_a_table_of_words(tokenizer_folder):
    folder = tokenizer_folder("bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 9}))
    save_file({"head.weight": np.zeros((9, 4), np.float32)}, folder / "model.safetensors")
    with pytest.raises(JobError, match="'replaced' need a teacher with a table"):
        neighbours(folder, TEXTS)
