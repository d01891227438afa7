"""The encoder that ships is held against transformers' own, in a process of its own."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgedistill.builder import reading
from edgedistill.data import rows
from edgedistill.records import Step
from edgedistill.store import Store

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


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Return a call to `hold_encoder`: its comparison gives or raises the answer told."""
    folder = tmp_path / "model"
    folder.mkdir()
    step = Step("encode", {"task": "text-classification"}, {})
    monkeypatch.setattr(reading, "_encode", lambda course: step)
    monkeypatch.setattr(reading.keys, "key", lambda step: "k" * 64)
    course = SimpleNamespace(
        store=Store(tmp_path / "store"), tell=lambda *_: None, progress=lambda event: None
    )
    prepared = SimpleNamespace(model=SimpleNamespace(folder=folder, given=None), starter=False)

    def asked(answer, config="{}"):
        def compare(*_):
            if isinstance(answer, Exception):
                raise answer
            return answer

        (folder / "tokenizer_config.json").write_text(config)
        monkeypatch.setattr(reading, "_compare", compare)
        return reading.hold_encoder(course, prepared)

    return asked


def test_what_could_not_be_compared_is_compared_the_next_time(ask):
    late = reading._NotComparedError(": no answer within 120 s")
    said = "the encoder was not compared with transformers' own: no answer within 120 s"
    assert ask(late) == said
    differs = "the encoder differs from transformers' own in input_ids of 'a'"
    assert ask("input_ids of 'a'") == differs
    assert ask(late) == differs, "known: nothing is compared"


def test_what_was_found_holds_for_that_tokenizer_config_alone(ask):
    assert ask("input_ids of 'a'") is not None
    assert ask(None) is not None, "known: nothing is compared"
    assert ask(None, '{"do_lower_case": false}') is None
