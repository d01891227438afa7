"""The stage encode: truth by label order, bad rows counted, made rows without truth."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedistill import settings as declared
from edgedistill.data import arrays, rows
from edgedistill.errors import DataError, JobError
from edgedistill.progress import silent
from edgedistill.stages import encode
from edgedistill.tasks import image_classification, text_classification

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "weather", "song", "money", "in"]
TEXTS = ["the weather", "the song in the weather", "money", "in the money"]
LABELS = ("song", "weather", "money")
TRUTH = ["weather", "song", "money", "money"]


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(WORDS[:5])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path / "encoder"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder


def told(**more) -> encode.Settings:
    config = {"model_type": "bert", "max_position_embeddings": 32}
    encoder = text_classification.encoder_settings(config, 8)
    values = {"task": "text-classification", "labels": LABELS, "encoder": encoder, **more}
    return declared.coerce(encode.Settings, values, "encode")


def texts(folder: Path, truth=TRUTH, examples=TEXTS) -> Path:
    rows.write(folder / "rows", "text", [{"text": text} for text in examples], truth)
    return folder / "rows"


def png(value: int, size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size), value, np.uint8)).save(file, format="PNG")
    return file.getvalue()


def run(inputs, settings, out: Path, progress=silent):
    out.mkdir()
    return encode.run(inputs, settings, out, progress)


def test_rows_are_encoded_with_their_truth_in_the_order_of_the_labels(tokenizer, tmp_path):
    out = tmp_path / "out"
    facts = run({"rows.0": texts(tmp_path), "encoder.0": tokenizer}, told(), out)
    found = arrays.Arrays(out)
    assert set(found.names) == {"input_ids", "token_type_ids", "truth"}
    assert found.stacked("truth").tolist() == [1, 0, 2, 2]
    assert found.value("input_ids", 0).tolist() == [2, 5, 6, 3]
    assert found.value("input_ids", 0).dtype == np.int32
    assert facts == {"rows": 4}
    assert json.loads(json.dumps(facts)) == facts


def test_rows_without_labels_have_no_truth(tokenizer, tmp_path):
    run({"rows.0": texts(tmp_path, None), "encoder.0": tokenizer}, told(), tmp_path / "out")
    assert arrays.Arrays(tmp_path / "out").stacked("truth").tolist() == [-1] * 4


def test_an_unknown_label_is_counted_with_its_first_row(tokenizer, tmp_path):
    inputs = {"rows.0": texts(tmp_path, ["song", "sogn", "money", "cash"]), "encoder.0": tokenizer}
    with pytest.raises(DataError, match=r"2 rows .* first row 2: 'sogn'.*'song'"):
        run(inputs, told(), tmp_path / "out")


def test_made_rows_stand_alone_and_have_no_truth(tokenizer, tmp_path):
    inputs = {"rows.0": texts(tmp_path), "encoder.0": tokenizer}
    facts = run(inputs, told(made=("masked", "halves"), seed=5), tmp_path / "out")
    found = arrays.Arrays(tmp_path / "out")
    assert facts["rows"] == len(found) == 8
    assert found.stacked("truth").tolist() == [-1] * 8
    assert 4 in found.value("input_ids", 1).tolist(), "a masked row"


def test_the_same_step_writes_the_same_bytes_and_the_seed_matters(tokenizer, tmp_path):
    inputs = {"rows.0": texts(tmp_path), "encoder.0": tokenizer}
    written = []
    for index, seed in enumerate((1, 1, 2)):
        out = tmp_path / f"out{index}"
        run(inputs, told(made=("joined",) * 3, seed=seed), out)
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert written[0] == written[1] != written[2]


def test_chunks_do_not_show(tokenizer, tmp_path, monkeypatch):
    inputs = {"rows.0": texts(tmp_path), "encoder.0": tokenizer}
    run(inputs, told(), tmp_path / "whole")
    monkeypatch.setitem(encode.CHUNK, "text", 3)
    run(inputs, told(), tmp_path / "parts")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()


def test_an_unknown_kind_or_task_names_the_nearest(tokenizer, tmp_path):
    inputs = {"rows.0": texts(tmp_path), "encoder.0": tokenizer}
    with pytest.raises(JobError, match="masked"):
        run(inputs, told(made=("maskd",)), tmp_path / "a")
    with pytest.raises(JobError, match="text-classification"):
        run(inputs, told(task="text-clasification"), tmp_path / "b")


def test_rows_of_the_wrong_kind_are_refused(tokenizer, tmp_path):
    rows.write(tmp_path / "rows", "image", [{"image": png(1)}], ["song"])
    with pytest.raises(DataError, match="reads text rows, not image"):
        run({"rows.0": tmp_path / "rows", "encoder.0": tokenizer}, told(), tmp_path / "out")


def test_progress_ends_at_the_number_of_rows(tokenizer, tmp_path):
    events: list = []
    inputs = {"rows.0": texts(tmp_path), "encoder.0": tokenizer}
    run(inputs, told(made=("masked", "joined")), tmp_path / "out", events.append)
    assert events[-1]["kind"] == "bar" and events[-1]["done"] == events[-1]["total"] == 8


# ---------------------------------------------------------------- images, good and bad


@pytest.fixture
def pictures(tmp_path) -> dict[str, Path]:
    """Return inputs of five images, of which the second and the fourth are damaged."""
    folder = tmp_path / "image_encoder"
    folder.mkdir()
    image_classification.write_settings(folder, image_classification.image_settings((8, 8), 1))
    contents = [png(10), png(20)[:50], png(30), b"no", png(50)]
    truth = ["a", "a", "b", "b", "b"]
    rows.write(tmp_path / "rows", "image", [{"image": one} for one in contents], truth)
    return {"rows.0": tmp_path / "rows", "encoder.0": folder}


def of_images(**more) -> encode.Settings:
    values = {"task": "image-classification", "labels": ("a", "b"), **more}
    return declared.coerce(encode.Settings, values, "encode")


@pytest.mark.parametrize("made", [(), ("shifted",)])
def test_bad_images_are_counted_with_the_first_row(made, pictures, tmp_path):
    with pytest.raises(DataError, match=r"2 of 5 rows .* first row 2: .*truncated.*mend"):
        run(pictures, of_images(made=made), tmp_path / "out")


def test_no_row_is_left_out_in_silence(pictures, tmp_path):
    """Rows that were dropped here would be out of step with their labels in other steps."""
    with pytest.raises(JobError, match="bad_rows"):
        of_images(bad_rows="drop")
    rows.write(tmp_path / "bad", "image", [{"image": b"no"}], ["a"])
    with pytest.raises(DataError, match="1 of 1 rows"):
        run({**pictures, "rows.0": tmp_path / "bad"}, of_images(), tmp_path / "out")


def test_made_images_come_in_the_order_of_the_rows(tmp_path):
    folder = tmp_path / "image_encoder"
    folder.mkdir()
    image_classification.write_settings(folder, image_classification.image_settings((8, 8), 1))
    rows.write(tmp_path / "rows", "image", [{"image": png(10 * n)} for n in (1, 2)], ["a", "b"])
    inputs = {"rows.0": tmp_path / "rows", "encoder.0": folder}
    assert run(inputs, of_images(made=("shifted",) * 2), tmp_path / "out")["rows"] == 4
    found = arrays.Arrays(tmp_path / "out").stacked("pixels")
    assert found[:, 0, 0, 0].tolist() == [10, 20] * 2
