"""The encoder that ships is held against transformers' own, in a process of its own."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgedistill.data import rows

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parent.parent / "tiny.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


@pytest.mark.parametrize("normalizer", [None, {"type": "Lowercase"}])
def test_a_difference_is_found_and_named(tmp_path, normalizer):
    model, encoder = tiny.model(tmp_path / "model"), tmp_path / "encoder"
    encoder.mkdir()
    told = json.loads((model / "tokenizer.json").read_text())
    (encoder / "tokenizer.json").write_text(json.dumps({**told, "normalizer": normalizer}))
    texts = [tiny.text(0, np.random.default_rng(seed)).upper() for seed in range(40)]
    rows.write(tmp_path / "rows", "text", [{"text": text} for text in texts], ["a"] * 40)
    order = {
        "task": "text-classification",
        "model": str(model),
        "rows": str(tmp_path / "rows"),
        "encoder": str(encoder),
        "settings": {"max_length": 16},
    }
    done = subprocess.run(
        [sys.executable, "-m", "edgedistill.builder.reading"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    difference = json.loads(done.stdout.splitlines()[-1])["difference"]
    assert ("input_ids" in difference) if normalizer else (difference is None), difference
