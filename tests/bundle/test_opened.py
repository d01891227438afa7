"""An open bundle answers as it is deployed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgedistill import bundle
from edgedistill.bundle import Contents
from edgedistill.bundle import opened as opened_module
from edgedistill.errors import DataError


def test_predict_takes_one_or_many(made: Path):
    opened = bundle.load(made)
    one = opened.predict("the rain is cold")
    assert len(one) == 1 and one[0][0][0] == "weather"
    assert sum(probability for _, probability in one[0]) == pytest.approx(1)
    both = opened.predict(["pay the bank", {"text": "what a song"}])
    assert [row[0][0] for row in both] == ["money", "music & film"]
    assert opened.predict([]) == []


def test_probabilities_are_those_of_the_temperature_that_ships(tmp_path: Path, text_contents):
    def top(temperature: float) -> float:
        decide = replace(text_contents.decide, temperature=temperature)
        contents = replace(text_contents, decide=decide)
        opened = bundle.write(tmp_path / str(temperature), contents, prove=lambda opened: None)
        return opened.predict("rain")[0][0][1]

    assert top(0.5) > top(1.5) > top(10)


@pytest.mark.parametrize("rows", [5, None, [("a", "b", "c")], b"bytes", [["nested"]]])
def test_what_is_no_text_is_refused(made: Path, rows: object):
    with pytest.raises(DataError):
        bundle.load(made).predict(rows)


def test_a_pair_needs_a_bundle_for_pairs(made: Path, tmp_path: Path, text_contents: Contents):
    with pytest.raises(DataError):
        bundle.load(made).predict(("a", "b"))
    encoder = {**text_contents.encoder, "pair": True}
    contents = replace(text_contents, encoder=encoder)
    opened = bundle.write(tmp_path / "pair", contents, prove=lambda opened: None)
    assert opened.predict(("the rain", "the sun"))[0][0][0] == "weather"


@pytest.mark.parametrize("given", ["missing.png", b"not an image", 5])
def test_what_is_no_image_is_refused(tmp_path: Path, image_contents: Contents, given: object):
    opened = bundle.write(tmp_path / "out", image_contents, prove=lambda opened: None)
    with pytest.raises(DataError):
        opened.predict(given)


def test_rows_run_in_the_batches_that_ship(tmp_path: Path, text_contents: Contents, monkeypatch):
    graph = replace(text_contents.graph, batch=2)
    contents = replace(text_contents, graph=graph)
    opened = bundle.write(tmp_path / "out", contents, prove=lambda opened: None)
    seen = []
    run = opened.run
    monkeypatch.setattr(opened, "run", lambda batch: seen.append(batch["input_ids"]) or run(batch))
    outputs = opened.outputs([{"text": text} for text in ("rain", "the bank is cold", "song")])
    assert [ids.shape for ids in seen] == [(2, 6), (1, 3)] and outputs.shape == (3, 3)


def test_a_graph_of_fixed_shape_is_fed_padded(tmp_path: Path, text_contents: Contents):
    import shutil

    folder = Path(shutil.copytree(text_contents.graph.folder, tmp_path / "graph"))
    model = onnx.load(folder / "model.onnx")
    for port in model.graph.input:
        for side, size in zip(port.type.tensor_type.shape.dim, (2, 16), strict=True):
            side.dim_value = size
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, folder / "model.onnx")
    graph = replace(text_contents.graph, folder=folder)
    fixed = bundle.write(
        tmp_path / "fixed", replace(text_contents, graph=graph), prove=lambda opened: None
    )
    free = bundle.write(tmp_path / "free", text_contents, prove=lambda opened: None)
    texts = [{"text": text} for text in ("rain", "the bank is cold", "song")]
    np.testing.assert_allclose(fixed.outputs(texts), free.outputs(texts), atol=1e-5)


def test_the_fixed_variant_ships_beside(tmp_path: Path, text_contents: Contents):
    graph = replace(text_contents.graph, fixed=text_contents.graph.folder / "model.onnx")
    contents = replace(text_contents, graph=graph)
    said = bundle.write(tmp_path / "out", contents, prove=lambda opened: None).manifest
    assert said["model"]["fixed"] == "model.fixed.onnx" and "model.fixed.onnx" in said["ship"]
    assert bundle.verify(tmp_path / "out").golden.holds


def test_the_format_of_onnxruntime_ships_beside(tmp_path: Path, text_contents: Contents):
    """It is mapped, answers alike, and names its operators but no place."""
    import onnxruntime

    contents = replace(text_contents, graph=replace(text_contents.graph, ort=True))
    opened = bundle.write(tmp_path / "out", contents, prove=lambda opened: None)
    said, folder = opened.manifest, opened.folder
    told = said["model"]["ort"]
    assert told["file"] == "model.ort" in said["ship"] and told["file"] in said["files"]
    options = onnxruntime.SessionOptions()
    for name, value in told["config"].items():
        options.add_session_config_entry(name, value)
    running = onnxruntime.InferenceSession(str(folder / told["file"]), options)
    feed = opened.feed([opened.encoder.encode({"text": "the rain"})])
    np.testing.assert_allclose(running.run(None, feed)[0], opened.run(feed), atol=1e-5)
    operators = (folder / told["operators"]).read_text()
    assert "ai.onnx;" in operators and str(tmp_path) not in operators
    assert bundle.verify(folder).golden.holds
    assert "model.ort" in (folder / "README.md").read_text()


def test_of_several_inputs_the_one_that_is_wrong_is_named(
    made: Path, tmp_path: Path, image_contents: Contents
):
    with pytest.raises(DataError, match=r"row 2: .*text"):
        bundle.load(made).predict(["the rain", {"text": 5}, "a song"])
    opened = bundle.write(tmp_path / "out", image_contents, prove=lambda opened: None)
    bad = tmp_path / "bad\x1b.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad.x1b\.png': no image"):
        opened.predict([str(bad)])


def test_what_is_no_regular_file_is_not_read_as_an_image(tmp_path: Path, image_contents: Contents):
    opened = bundle.write(tmp_path / "out", image_contents, prove=lambda opened: None)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path, tmp_path / "pipe.png", "/dev/zero", tmp_path / "gone.png"):
        with pytest.raises(DataError, match="no regular file"):
            opened.predict(place)


def test_an_image_beyond_all_measure_is_refused_unread(
    tmp_path: Path, image_contents: Contents, monkeypatch
):
    monkeypatch.setattr(opened_module, "IMAGE_BYTES", 10)
    opened = bundle.write(tmp_path / "out", image_contents, prove=lambda opened: None)
    (tmp_path / "large.png").write_bytes(b"x" * 11)
    with pytest.raises(DataError, match="larger than"):
        opened.predict(tmp_path / "large.png")
