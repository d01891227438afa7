"""Fold, and what starts from it: an encoder and embeddings of fewer pieces, through to a graph."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import tokenizing

from edgedistill import plugins, settings
from edgedistill.data import arrays
from edgedistill.errors import ModelError
from edgedistill.progress import silent
from edgedistill.stages import export, fold, initialize
from edgedistill.train import weights

TEXTS = ["what is the weather like in lisbon", "move money to my savings", "play the next song"]
task = plugins.find("tasks", "text-classification")


def run(stage, inputs, out, **told):
    out.mkdir()
    return stage.run(inputs, settings.coerce(stage.Settings, told, ""), out, silent)


@pytest.fixture(params=tokenizing.MAKERS)
def folded(request, tmp_path):
    """A tiny teacher with a real tokenizer, its rows, and its encoder cut by half."""
    kind = request.param
    teacher = tiny.model(tmp_path / "teacher", kind, vocab_size=tokenizing.size(kind))
    tokenizing.lay(teacher, kind)
    encoder = task.encoder_settings(teacher, 24)
    opened = task.open_encoder(teacher, encoder)
    rows = opened.encode_many([{"text": text} for text in TEXTS])
    arrays.write(tmp_path / "train", ({**row, "truth": np.int64(0)} for row in rows))
    needed = _needed(teacher)
    count = (tokenizing.size(kind) + needed) // 2
    inputs = {"encoder.0": teacher, "train.0": tmp_path / "train"}
    facts = run(fold, inputs, tmp_path / "encoder", vocabulary=count, encoder=encoder)
    assert (facts["vocabulary"], facts["needed"]) == (count, needed)
    return tmp_path, encoder, facts


def _needed(folder):
    from edgedistill.tasks import _tokenizer_files, _vocabulary

    return _vocabulary.least(_tokenizer_files.read_tokenizer(folder))


def test_the_facts_count_the_training_tokens_whose_piece_is_gone(folded):
    folder, encoder, facts = folded
    small, whole = (task.open_encoder(folder / n, encoder) for n in ("encoder", "teacher"))
    kept = np.load(folder / "encoder" / "kept.npy")
    counts = np.load(folder / "encoder" / "counts.npy")
    rows = [one for t in TEXTS for one in whole.encode({"text": t})["input_ids"].tolist()]
    assert facts["tokens"] == len(rows)
    assert facts["tokens_cut"] == sum(one not in kept for one in rows)
    assert counts.sum() == len(rows) - facts["tokens_cut"]
    cut = sum(len(small.encode({"text": t})["input_ids"]) for t in TEXTS) - len(rows)
    assert (cut > 0) == (facts["tokens_cut"] > 0)


def test_a_student_reads_what_stays_as_its_teacher_does(folded):
    """Every layer kept: the same text of pieces that stay gives the same answer."""
    import torch

    folder, encoder, facts = folded
    inputs = {"teacher.0": folder / "teacher", "encoder.0": folder / "encoder"}
    told = {"shape": {"layers": 4, "vocabulary": facts["vocabulary"]}, "labels": tiny.LABELS}
    made = run(initialize, inputs, folder / "student", **told)
    assert made["name"] == f"4x32v{facts['vocabulary']}" and made["head"] == "kept"
    assert made["parameters"] < made["teacher_parameters"]
    config = json.loads((folder / "student" / "config.json").read_text())
    assert config["vocab_size"] == facts["vocabulary"]
    answers = []
    kept = set(np.load(folder / "encoder" / "kept.npy").tolist())
    whole = task.open_encoder(folder / "teacher", encoder)
    texts = [*TEXTS, *" ".join(TEXTS).split(), *"aeiou"]
    same = [t for t in texts if kept >= set(whole.encode({"text": t})["input_ids"].tolist())]
    assert same
    for name in ("teacher", "student"):
        opened = task.open_encoder(folder / name, encoder)
        batch = opened.batch(opened.encode_many([{"text": text} for text in same]))
        model = weights.load(folder / name, task).eval()
        with torch.no_grad():
            given = {name: torch.from_numpy(values) for name, values in batch.items()}
            answers.append(task.forward(model, given).logits.numpy())
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)


def test_transformers_reads_the_folder_as_we_do(folded):
    from transformers import AutoTokenizer

    folder, encoder, facts = folded
    inputs = {"teacher.0": folder / "teacher", "encoder.0": folder / "encoder"}
    shape = {"layers": 1, "vocabulary": facts["vocabulary"]}
    (folder / "teacher" / "vocab.txt").write_text("of the teacher's\n")
    run(initialize, inputs, folder / "student", shape=shape, labels=tiny.LABELS)
    assert not (folder / "student" / "vocab.txt").exists()
    theirs = AutoTokenizer.from_pretrained(folder / "student")
    ours = task.open_encoder(folder / "student", encoder)
    for text in (*TEXTS, "Volumes of whether!"):
        assert theirs(text)["input_ids"] == ours.encode({"text": text})["input_ids"].tolist()
    assert theirs.mask_token_id == ours.mask and theirs.pad_token_id == ours.facts["pad"]
    examples = [{"text": text} for text in TEXTS]
    assert task.compare_encoder(folder / "student", ours, examples) is None


def test_a_folded_student_is_exported_with_its_own_tokenizer(folded):
    folder, encoder, facts = folded
    inputs = {"teacher.0": folder / "teacher", "encoder.0": folder / "encoder"}
    shape = {"layers": 1, "vocabulary": facts["vocabulary"]}
    run(initialize, inputs, folder / "student", shape=shape, labels=tiny.LABELS)
    done = run(export, {"model.0": folder / "student"}, folder / "graph", encoder=encoder)
    assert done["compared"]
    shipped = json.loads((folder / "graph" / "tokenizer.json").read_text())
    assert len(shipped["model"]["vocab"]) <= facts["vocabulary"]


def test_the_same_fold_writes_the_same_bytes(folded):
    folder, encoder, facts = folded
    inputs = {"encoder.0": folder / "teacher", "train.0": folder / "train"}
    run(fold, inputs, folder / "again", vocabulary=facts["vocabulary"], encoder=encoder)
    for file in (folder / "encoder").iterdir():
        assert file.read_bytes() == (folder / "again" / file.name).read_bytes()


def test_a_vocabulary_without_its_encoder_is_an_error(folded):
    folder, _, _ = folded
    shape = {"layers": 1, "vocabulary": 30}
    with pytest.raises(ModelError, match="a vocabulary of 30 is wanted"):
        run(initialize, {"teacher.0": folder / "teacher"}, folder / "student", shape=shape)
