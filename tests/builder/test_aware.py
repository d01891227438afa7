"""A build whose int8 loses what float knows: the student is distilled on with int8 simulated."""

import importlib.util
import json
import os
from pathlib import Path

import jsonschema
import pytest

from edgedistill import bundle, report

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)

SEEDS = 12  # about half of them find back before their patience is over
LARGE = 100.0  # beside weights of about 0.2: a step of int8 is then 0.8


def planted(folder):
    """Train a tiny classifier, then give it weights that no number is ever multiplied with.

    The last layer's first feature is made zero, and its weights in the pooler large: in float
    nothing changes but what that feature told; in int8 all others of its row round to nothing.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForSequenceClassification

    made = small.tiny()
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    tokenizer = Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))
    tokenizer.enable_padding()
    rows = (folder / "rows" / "train.csv").read_text().splitlines()[1:]
    texts, labels = zip(*(row.rsplit(",", 1) for row in rows), strict=True)
    encoded = tokenizer.encode_batch(list(texts))
    inputs = {
        "input_ids": torch.tensor([each.ids for each in encoded]),
        "attention_mask": torch.tensor([each.attention_mask for each in encoded]),
    }
    truth = torch.tensor([made.LABELS.index(label) for label in labels])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    torch.manual_seed(0)
    model.train()
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**inputs).logits, truth).backward()
        optimizer.step()
    with torch.no_grad():
        last = model.bert.encoder.layer[-1].output.LayerNorm
        last.weight[0] = last.bias[0] = 0
        model.bert.pooler.dense.weight[:, 0] = LARGE
    model.save_pretrained(folder / "model")


@pytest.mark.slow
def test_where_int8_costs_too_much_the_student_is_distilled_on(tmp_path):
    names = small.job(tmp_path, head=True) | {"student": "same"}
    planted(tmp_path)
    names["settings"] |= {
        "quantize.schemes": "dynamic_int8",
        "quantize.recover": 0,
        "quantize.aware_share": 10,
        "distill.rate": 1e-2,
        "distill.steps": 60,
        "distill.batch": 16,
        "distill.dtype": "float32",
    }
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for seed in range(SEEDS):
        names["settings"]["distill.seed"] = seed
        # of a model this small int8 is the slower: it is chosen where the float file is too large
        limits = ("--limit", "size_mb=0.15", "--limit", "max_drop_points=10")
        line = small.command(names, "build", *limits)
        done = small.run(line, env=offline)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    jsonschema.validate(record, report.schema())
    rows = {row["name"]: row for row in record["rows"]}
    score = {name: row["score"]["validation"]["value"] for name, row in rows.items()}
    assert score["teacher fp32"] > 95 and score["student 4x32 fp32"] > 95
    assert score["student 4x32 int8"] < 80
    assert score["student 4x32 int8 aware"] > 90
    assert record["chosen"] == "student 4x32 int8 aware"
    assert record["teacher_worth"]["control"] == "control 4x32 int8 aware"
    assert bundle.verify(tmp_path / "out").golden.rows > 0

    again = small.run(line, env=offline)
    assert again.returncode == 0, again.stderr
    same = json.loads((tmp_path / "out" / "report.json").read_text())
    assert same["chosen"] == record["chosen"]
    assert {row["name"] for row in same["rows"]} == {*rows}
    assert "distill " not in again.stderr

    names["settings"]["quantize.aware"] = "never"
    plain = small.run(small.command(names, "build", "--limit", "max_drop_points=10"), env=offline)
    assert plain.returncode == 0, plain.stderr
    without = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {row["name"] for row in without["rows"]}.isdisjoint({"student 4x32 int8 aware"})
    assert without["chosen"] == "student 4x32 fp32"
