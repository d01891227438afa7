"""A student of a smaller vocabulary, from the command to the bundle and its report."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tiny
import tokenizing

from edgedistill import bundle, plugins, report

TOLD = {"red": "weather lisbon", "green": "money savings", "blue": "song volume"}
FILL = ["what", "is", "the", "like", "in", "tomorrow", "please", "move", "to", "my", "play", "next"]
UNSEEN = "italian"  # stands in test rows alone


@pytest.fixture(scope="module")
def built(small, tmp_path_factory):
    """Build once; returns the names of the job and its report."""
    folder = tmp_path_factory.mktemp("vocabulary")
    names = small.job(folder)
    shutil.rmtree(folder / "model")
    tiny.model(folder / "model", labels=None, vocab_size=tokenizing.size("bert"))
    tokenizing.lay(folder / "model", "bert")
    draw = np.random.default_rng(0)
    for split, count in {"train": 240, "validation": 90, "test": 90}.items():
        with (folder / "rows" / f"{split}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["text", "label"])
            for index in range(count):
                label = tiny.LABELS[index % 3]
                words = [*draw.choice(FILL, size=4), str(draw.choice(TOLD[label].split()))]
                words += [UNSEEN] if split == "test" and index % 3 == 0 else []
                out.writerow([" ".join(draw.permutation(words)), label])
    names |= {"student": "1x32v120"}
    done = small.run(small.command(names))
    assert done.returncode == 0, done.stderr
    return names, json.loads((Path(names["out"]) / "report.json").read_text()), done


def test_the_bundle_has_the_smaller_vocabulary_and_holds(built):
    names, record, _ = built
    jsonschema.validate(record, report.schema())
    out = Path(names["out"])
    assert record["chosen"].startswith("student 1x32v120")  # int8 may cost too much of so little
    assert len(json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]) == 120
    assert bundle.verify(out).golden.rows > 0
    rows = {row["name"]: row for row in record["rows"]}
    chosen, base = rows[record["chosen"]], rows["teacher fp32"]
    whole = tokenizing.size("bert")
    assert (chosen["shape"]["vocabulary"], base["shape"]["vocabulary"]) == (120, whole)
    assert "fold" in {step["stage"] for step in record["steps"]}


def test_the_report_shows_rows_with_unseen_words(built):
    names, record, done = built
    for row in record["rows"]:
        assert row["unseen_words"]["rows"] == 30
        assert (row["unseen_words"]["drop_points"] is None) == (row["role"] == "baseline")
    said = f"vocabulary is 120 of {tokenizing.size('bert')} pieces"
    out = Path(names["out"])
    assert said in done.stdout
    assert said in (out / "report.md").read_text() and said in (out / "report.html").read_text()


def test_the_shipped_tokenizer_is_one_for_transformers_too(built):
    from transformers import PreTrainedTokenizerFast

    out = Path(built[0]["out"])
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(out / "tokenizer.json"))
    manifest = json.loads((out / "manifest.json").read_text())
    task = plugins.find("tasks", "text-classification")
    ours = task.open_encoder(out, manifest["encode"])
    cut = {"truncation": True, "max_length": ours.max_length}
    for text in ("play the next song in italian", "Héllo, volumes!"):
        assert theirs(text, **cut)["input_ids"] == ours.encode({"text": text})["input_ids"].tolist()


def test_a_vocabulary_that_can_not_be_is_refused_by_the_plan(built, small):
    done = small.run(small.command({**built[0], "student": "1v12"}, "plan"))
    assert done.returncode == 2
    assert "student '1v12': a vocabulary of 12: expected" in done.stderr
    assert "Traceback" not in done.stderr
