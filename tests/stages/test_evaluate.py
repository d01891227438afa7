"""The stage evaluate: the rows' order, the batch that ships, the session that ships."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

from edgedistill.data.arrays import Arrays
from edgedistill.errors import JobError, ModelError
from edgedistill.graph import clean, session
from edgedistill.tasks import text_classification


def run(stage, tiny, folder, model_type="bert", **settings):
    source = tiny(model_type)
    told = {**source.settings, **settings}
    return stage("evaluate", {"graph.0": folder, "rows.0": source.rows}, **told)


def test_outputs_are_those_of_the_file_row_by_row(tiny, exported, stage):
    source, folder = tiny("bert"), exported("bert")[0]
    out, facts = run(stage, tiny, folder)
    given, rows = Arrays(out), Arrays(source.rows)
    assert (facts["rows"], len(given)) == (60, 60)
    assert given.stacked("logits").dtype == np.float32
    np.testing.assert_array_equal(given.stacked("truth"), rows.stacked("truth"))
    encoder = text_classification.open_encoder(folder, source.settings["encoder"])
    running = session.start(folder / "model.onnx")
    for index in (0, 31, 59):
        alone = session.logits(running, encoder.batch([rows.row(index)]))
        np.testing.assert_array_equal(given.value("logits", index), alone[0])


def test_the_batch_is_the_one_told(tiny, exported, stage):
    """The scale of int8 activations is taken over the batch: its answers show the batch."""
    source = tiny("bert")
    folder, _ = stage(
        "quantize", {"graph.0": exported("bert")[0], "train.0": source.rows}, **source.settings
    )
    one = Arrays(run(stage, tiny, folder)[0]).stacked("logits")
    many = Arrays(run(stage, tiny, folder, batch=7)[0]).stacked("logits")
    assert one.shape == many.shape
    assert (one != many).any()
    np.testing.assert_allclose(one, many, atol=0.3 * np.abs(one).max())


def test_some_rows_are_drawn_by_the_seed_in_their_order(tiny, exported, stage):
    whole = Arrays(run(stage, tiny, exported("bert")[0])[0]).stacked("logits")
    drawn = []
    for seed in (1, 1, 2):
        out, facts = run(stage, tiny, exported("bert")[0], rows=10, seed=seed)
        assert facts["rows"] == len(Arrays(out)) == 10
        drawn.append(Arrays(out).stacked("logits"))
    places = [int(np.flatnonzero((whole == row).all(axis=1))[0]) for row in drawn[0]]
    assert places == sorted(places)
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()


def test_images_are_evaluated_too(tiny, exported, stage):
    out, _ = run(stage, tiny, exported("resnet")[0], "resnet", batch=16)
    assert Arrays(out).stacked("logits").shape == (60, 3)


def test_twice_gives_the_same_bytes(tiny, exported, stage):
    folders = [run(stage, tiny, exported("bert")[0])[0] for _ in range(2)]
    for file in sorted(folders[0].iterdir()):
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()


def test_progress_ends_whole(tiny, exported, stage):
    events: list = []
    source = tiny("bert")
    inputs = {"graph.0": exported("bert")[0], "rows.0": source.rows}
    stage("evaluate", inputs, events.append, **source.settings)
    assert events[-1] == {"kind": "bar", "done": 60, "total": 60, "unit": "rows"}


def test_a_fixed_graph_refuses_another_batch(tiny, stage):
    source = tiny("bert")
    folder, _ = stage("export", {"model.0": source.model}, fixed=24, **source.settings)
    with pytest.raises(ModelError, match="1 rows a run"):
        run(stage, tiny, folder, batch=2)


def test_the_last_rows_fill_up_a_graph_of_a_fixed_batch(tiny, exported, stage, tmp_path):
    """39 rows by fours: the answers are those of one by one, and as many."""
    plain, _ = exported("resnet")
    fixed = tmp_path / "fixed"
    shutil.copytree(plain, fixed)
    model = onnx.load(plain / "model.onnx")
    clean.fix(model, {"batch": 4})
    onnx.save(model, fixed / "model.onnx")
    some = {"rows": 39, "seed": 1}
    right = Arrays(run(stage, tiny, plain, "resnet", **some)[0]).stacked("logits")
    found = Arrays(run(stage, tiny, fixed, "resnet", batch=4, **some)[0]).stacked("logits")
    assert len(found) == len(right) == 39
    np.testing.assert_allclose(found, right, atol=1e-5)
    source = tiny("resnet")
    _, facts = stage(
        "quantize",
        {"graph.0": fixed, "train.0": source.rows},
        scheme="static_qdq",
        rows=39,
        batch=4,
        **source.settings,
    )
    assert facts["against_parent"]["rows"] == 39 and facts["batched"] is None


def test_an_unknown_session_setting_names_the_nearest(tiny, exported, stage):
    with pytest.raises(JobError, match="did you mean 'threads'"):
        run(stage, tiny, exported("bert")[0], session={"thread": 1})


def test_facts_are_small_json(tiny, exported, stage):
    assert len(json.dumps(run(stage, tiny, exported("bert")[0])[1])) < 1000
