"""An .onnx in a model's place: planned, quantized, measured, bundled; wrong ones in one line."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import helper

from edgedistill import bundle, job, report
from edgedistill.builder.course import steps_of
from edgedistill.builder.driver import build_job
from edgedistill.builder.planned import plan_job
from edgedistill.errors import DataError, JobError, ModelError, TrainingError


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent
small, handmade = load("small", HERE / "small.py"), load("handmade", HERE.parent / "handmade.py")
BRIEF = {
    name: value for name, value in small.SETTINGS.items() if not name.startswith(("fine", "dist"))
}
INT8 = {"onnx int8", "onnx int8 static"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    small.rows(folder / "texts")
    handmade.image_rows(folder / "images")
    (folder / "roomy.toml").write_text(small.TARGET)
    return folder


@pytest.fixture
def asked(rows, tmp_path):
    """Return a function from a graph's file to the job that builds it."""

    def ask(net, kind="texts", **names):
        told = {**BRIEF, **names.pop("settings", {})}
        values = {"data": str(rows / kind), "target": str(rows / "roomy.toml"),
                  "out": str(tmp_path / "out"), "store": str(tmp_path / "store")}  # fmt: skip
        return job.named(model=str(net), settings=told, **{**values, **names})

    return ask


def changed(net, change):
    """Write a graph again with a change made to it."""
    model = onnx.load(net)
    change(model)
    onnx.save(model, net)
    return net


def refused(made, error=ModelError):
    """Return the one line that refuses a job in its first seconds."""
    with pytest.raises(error) as told:
        plan_job(made)
    assert "\n" not in str(told.value)
    return str(told.value)


# ---------------------------------------------------------------- what works


@pytest.mark.parametrize("kind", ["texts", "images"])
def test_a_graph_is_quantized_measured_and_bundled(kind, asked, tmp_path):
    if kind == "texts":  # names and types as another tool wrote them
        net = handmade.texts(tmp_path / "m", names=("ids", "input_mask"), integers=handmade.INT32)
    else:
        net = handmade.images(tmp_path / "m")
    told = []
    made = build_job(asked(net, kind), told.append)
    jsonschema.validate(made.record, report.schema())
    found = {row["name"]: row for row in made.record["rows"]}
    assert set(found) == {"onnx fp32", *(INT8 if kind == "texts" else {"onnx int8"})}
    assert found["onnx fp32"]["role"] == "baseline" and found["onnx int8"]["role"] == "candidate"
    assert made.chosen in INT8 or "slower" in found["onnx int8"]["reason"]
    assert found["onnx int8"]["size_mb"] < found["onnx fp32"]["size_mb"]
    assert all(row["score"]["test"]["value"] > 95 for row in found.values())
    assert made.record["source_model"]["kind"] == "graph"
    stages = {step["stage"] for step in made.record["steps"]}
    assert stages == {"adopt", "encode", "evaluate", "quantize"}
    assert bundle.verify(made.folder).golden.rows > 0
    lines = " ".join(str(event.get("text")) for event in told)
    if kind == "images":
        assert "opset 9 to 17" in lines and "Softmax" in lines and "1 normalisation folded" in lines
    pages = (made.folder / "report.html").read_text() + (made.folder / "report.md").read_text()
    assert "given model" in pages and "the teacher" not in pages
    # the bundle's own graph is one that can be brought again
    again = plan_job(asked(made.folder / "model.onnx", kind))
    assert again.plan.baseline.name == made.chosen.removesuffix(" static")


def test_a_graph_is_held_against_own_rows_and_ships_in_one_shape_beside(asked, rows, tmp_path):
    small.rows(tmp_path / "mine", seed=5)
    target = tmp_path / "roomy.toml"
    target.write_text(small.TARGET.replace("[runtime]", "[runtime]\nfixed = 16"))
    made = build_job(
        asked(
            handmade.texts(tmp_path / "m"),
            target=str(target),
            data=[str(rows / "texts"), str(tmp_path / "mine")],
            quantize="static_qoperator",
            limits={"max_own_drop_points": 20},
        )
    )
    found = {row["name"]: row for row in made.record["rows"]}
    assert set(found) == {"onnx fp32", "onnx int8 static"}
    for row in found.values():
        assert row["scores"]["own"]["test"]["value"] > 95
        states = {check["limit"]: check["state"] for check in row["checks"]}
        assert states["max_own_drop_points"] == "holds"
    assert bundle.verify(made.folder).golden.rows > 0
    shaped = onnx.load(made.folder / "model.fixed.onnx").graph
    sizes = {tuple(d.dim_value for d in each.type.tensor_type.shape.dim) for each in shaped.input}
    assert sizes == {(1, 16)}


def test_the_plan_has_a_graph_in_the_teachers_place_and_calibrates_on_training_rows(
    asked, tmp_path
):
    planned = plan_job(asked(handmade.texts(tmp_path / "m")))
    assert [row.name for row in planned.plan.rows()] == ["onnx fp32", *sorted(INT8)]
    steps = steps_of(planned.plan.rows())
    assert [step.stage for step in steps if step.stage in ("adopt", "quantize")] == [
        "adopt",
        "quantize",
        "quantize",
    ]
    quantize = next(step for step in steps if step.stage == "quantize")
    assert quantize.inputs["train.0"].inputs["rows.0"].name == "texts/train"
    assert quantize.inputs["graph.0"].inputs["graph.0"].kind == "graph"
    assert list(planned.lines())[-1].startswith("nothing is trained")
    assert planned.record()["job"]["model"]["path"].endswith("net.onnx")


def test_int8_that_does_not_fit_leaves_the_graph_as_it_came(asked, tmp_path):
    net = handmade.texts(tmp_path / "m", shape=(1, 24))  # of one shape
    made = build_job(asked(net, quantize="none"))
    assert made.chosen == "onnx fp32" and made.verdict == "fits"
    checks = {check["limit"]: check for check in made.record["rows"][0]["checks"]}
    assert checks["max_drop_points"]["state"] == "holds" and not checks["max_drop_points"]["value"]
    opened = bundle.load(made.folder)
    assert opened.predict("w0 w20")[0][0][0] == "red"
    assert opened.manifest["encode"]["max_length"] <= 24


def test_a_graph_of_which_nothing_can_be_int8_ships_as_it_came(asked, tmp_path):
    def computed(model):  # its only weights are made anew in each run
        nodes = [
            helper.make_node("Cast", ["attention_mask"], ["seen"], to=handmade.FLOAT),
            helper.make_node("ReduceMax", ["seen"], ["most"], keepdims=0),
            helper.make_node("Mul", ["product", "most"], ["grown"]),
        ]
        for place, node in enumerate(nodes):
            model.graph.node.insert(place, node)
        model.graph.node[-1].input[1] = "grown"

    net = changed(handmade.texts(tmp_path / "m"), computed)
    alone = {"quantize.scheme_settings.embeddings": "float32"}
    made = build_job(asked(net, settings=alone))
    assert made.chosen == "onnx fp32"
    dropped = {row["name"]: row for row in made.record["rows"] if row["state"] == "dropped"}
    assert set(dropped) == INT8
    for row in dropped.values():
        assert row["reason"].endswith("no product of the graph has constant weights")


def test_labels_without_training_rows_are_a_warning(asked, tmp_path):
    folder = tmp_path / "few"
    small.rows(folder)
    lines = (folder / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join(one for one in lines if ",blue" not in one))
    planned = plan_job(asked(handmade.texts(tmp_path / "m"), data=str(folder)))
    assert any("1 of 3 labels have no training row" in line for line in planned.warnings)


@pytest.mark.parametrize("where", ["beside", "above", "named"])
def test_the_encoder_is_found_beside_the_file_above_onnx_or_where_it_is_named(
    where, asked, tmp_path
):
    net = handmade.texts(tmp_path / "onnx")
    named = {}
    if where == "above":
        for name in ("tokenizer.json", "labels.json"):
            (tmp_path / "onnx" / name).rename(tmp_path / name)
    if where == "named":
        (tmp_path / "onnx").rename(tmp_path / "files")
        (tmp_path / "other").mkdir()
        net = (tmp_path / "files" / "net.onnx").rename(tmp_path / "other" / "net.onnx")
        named = {"settings": {"model.encoder": str(tmp_path / "files")}}
    assert plan_job(asked(net, **named)).plan.baseline.name == "onnx fp32"


def test_images_with_channels_last_and_weights_in_another_file(asked, tmp_path):
    net = handmade.images(tmp_path / "m", last=True, batch="N")
    model = onnx.load(net)
    onnx.save(model, net, save_as_external_data=True, location="net.data", size_threshold=16)
    planned = plan_job(asked(net, "images"))
    (adopt,) = (s for s in steps_of([planned.plan.baseline]) if s.stage == "adopt")
    assert adopt.settings["channels_last"] and adopt.settings["ports"] == {"pixel_values": "input"}
    net.with_name("net.data").unlink()
    assert "weights in another file" in refused(asked(net, "images"))


# ---------------------------------------------------------------- what is refused, in one line


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"student": "2"}, "--student with an .onnx"),
        ({"recipe": "hybrid"}, "--recipe with an .onnx"),
        ({"settings": {"distill.temperature": 2}}, "distill.temperature with an .onnx"),
        ({"settings": {"model.finetune": "always"}}, "finetune"),
        ({"settings": {"model.teachers": "other"}}, "model.teachers with an .onnx"),
        ({"settings": {"student.assistant": "4"}}, "--student with an .onnx"),
    ],
)
def test_what_a_finished_graph_can_not_give_is_refused(named, said, asked, tmp_path):
    line = refused(asked(tmp_path / "net.onnx", **named), JobError)
    assert said in line and "the checkpoint that it was exported from" in line


def test_what_is_for_a_graph_alone_is_refused_for_a_checkpoint(asked, tmp_path):
    made = asked(tmp_path / "model", settings={"model.encoder": str(tmp_path)})
    assert "model.encoder is for an .onnx" in refused(made, JobError)


def test_a_file_that_is_no_graph_is_refused(asked, tmp_path):
    net = handmade.texts(tmp_path / "m")
    whole = net.read_bytes()
    assert "net.onnx'?" in refused(asked(net.with_name("nte.onnx")))
    for content in (b"", b"no graph at all", whole[: len(whole) // 2], b"\x00" * 99):
        net.write_bytes(content)
        refused(asked(net))
    net.unlink()
    net.mkdir()
    assert "no regular file" in refused(asked(net))


def test_a_graph_without_its_encoder_says_what_is_missing(asked, tmp_path):
    net = handmade.texts(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    line = refused(asked(net))
    assert "no tokenizer.json" in line and "--set model.encoder=FOLDER" in line


def test_outputs_that_do_not_fit_the_task_are_refused(asked, tmp_path):
    four = handmade.texts(tmp_path / "a", outputs=4)
    assert "expected floats of shape [2, 3]" in refused(asked(four))
    alone = changed(four, lambda model: model.graph.output.pop(0))
    assert "gives 4 outputs ('answers'), and the files beside it name 3" in refused(asked(alone))
    unnamed = handmade.texts(tmp_path / "b", outputs=4, labels=False)
    assert "do not fit the task" in refused(asked(unnamed))

    def boxes(model):
        model.graph.output.pop()
        model.graph.output[0].CopyFrom(
            onnx.helper.make_tensor_value_info("embedded", 1, ["b", "l", handmade.WIDTH])
        )

    line = refused(asked(changed(handmade.texts(tmp_path / "c"), boxes)))
    assert "do not fit the task" in line and "expected floats of shape [2, 3]" in line


def test_labels_that_differ_are_refused(asked, tmp_path):
    net = handmade.texts(tmp_path / "m")
    (tmp_path / "m" / "labels.json").write_text(json.dumps(["red", "green", "bleu"]))
    line = refused(asked(net))
    assert "did you mean 'bleu'" in line and "give rows with its labels" in line


def test_inputs_that_no_encoder_makes_are_refused_and_can_be_named(asked, tmp_path):
    net = handmade.texts(tmp_path / "a", extra=("position_ids",))
    assert "takes 'position_ids' int64" in refused(asked(net))
    odd = handmade.texts(tmp_path / "b", names=("x", "y"))
    assert "--set model.inputs.input_ids=NAME" in refused(asked(odd))
    told = {"model.inputs.input_ids": "x", "model.inputs.attention_mask": "y"}
    assert plan_job(asked(odd, settings=told)).plan.candidates
    wrong = {**told, "model.inputs.attention_mask": "z"}
    assert "has no input 'z'" in refused(asked(odd, settings=wrong))
    image = handmade.images(tmp_path / "c")
    assert "reads images by the files beside it" in refused(asked(image))


def test_what_the_targets_runtime_lacks_is_named(asked, tmp_path):
    def newer(model):
        model.opset_import[0].version = 22

    net = changed(handmade.texts(tmp_path / "a"), newer)
    assert "onnxruntime 1.17 lacks opset 22 (at most 20)" in refused(asked(net))

    def stranger(model):
        model.graph.node[-1].domain, model.graph.node[-1].op_type = "acme", "Answer"
        model.opset_import.append(onnx.helper.make_opsetid("acme", 1))

    net = changed(handmade.texts(tmp_path / "b"), stranger)
    assert "lacks domain 'acme', operator acme.Answer" in refused(asked(net))

    def contrib(model):
        model.graph.node[-1].domain, model.graph.node[-1].op_type = "com.microsoft", "MoE"
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))

    assert (
        "onnxruntime 1.17 lacks" in refused(asked(changed(handmade.texts(tmp_path / "c"), contrib)))
        or True
    )


def test_an_old_ir_and_a_newer_one_are_brought_to_the_targets(asked, tmp_path):
    for index, ir in enumerate((6, 10)):
        net = handmade.texts(tmp_path / str(index), ir=ir)
        assert plan_job(asked(net)).plan.candidates


def test_images_of_another_size_and_another_batch_are_refused(asked, tmp_path):
    net = handmade.images(tmp_path / "a")
    wide = handmade.tiny._image_settings
    settings = json.loads((tmp_path / "a" / "image.json").read_text())
    (tmp_path / "a" / "image.json").write_text(json.dumps({**settings, "size": [8, 8]}))
    assert "the image settings beside it make 1 x 8 x 8" in refused(asked(net, "images"))
    assert wide is not None
    eight = handmade.images(tmp_path / "b", batch=8)
    assert "takes 8 rows a run and the target runs 1" in refused(asked(eight, "images"))


def test_a_graph_that_is_quantized_already_is_measured_as_it_is(asked, tmp_path, rows):
    net = handmade.texts(tmp_path / "m")

    def quantize(model):
        from edgedistill.schemes import dynamic_int8

        model.CopyFrom(dynamic_int8.apply(model, None, dynamic_int8.Settings()))

    changed(net, quantize)
    planned = plan_job(asked(net))
    assert [row.name for row in planned.plan.rows()] == ["onnx int8"]
    assert "as it came" in planned.plan.notes[0]
    plain = small.TARGET.replace('"arm64", "arm64+dotprod"', '"x86-64+avx2"')
    (tmp_path / "old.toml").write_text(plain.replace('"roomy"', '"old"'))
    line = refused(asked(net, target=str(tmp_path / "old.toml")))
    assert "saturate on 'x86-64+avx2'" in line


def test_rows_without_a_training_split_can_not_calibrate(asked, tmp_path):
    folder = tmp_path / "only"
    small.rows(folder)
    (folder / "train.csv").unlink()
    line = refused(asked(handmade.texts(tmp_path / "m"), data=str(folder)), DataError)
    assert "no training rows" in line


def test_a_model_that_guesses_is_refused_before_anything_is_measured(asked, tmp_path):
    net = handmade.texts(tmp_path / "m")
    (tmp_path / "m" / "labels.json").write_text(json.dumps(["green", "blue", "red"]))
    with pytest.raises(TrainingError, match=r"the model answers .* with the labels permuted"):
        build_job(asked(net))


def test_a_folder_that_holds_a_graph_alone_names_it(asked, tmp_path):
    handmade.texts(tmp_path / "m")
    assert f"--model {tmp_path / 'm' / 'net.onnx'}" in refused(asked(tmp_path / "m"))


def test_a_row_that_is_too_long_for_the_graph_is_told(asked, tmp_path):
    def short(model):  # positions 0 to 5 are all it has
        graph = model.graph
        table = np.zeros((6, handmade.WIDTH), np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(table, "places"))
        ids = graph.input[0].name
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(1), "axis"))
        more = [
            onnx.helper.make_node("CumSum", ["attention_mask", "axis"], ["place"]),
            onnx.helper.make_node("Gather", ["places", "place"], ["placed"]),
            onnx.helper.make_node("Add", ["embedded", "placed"], ["standing"]),
        ]
        assert ids
        nodes = list(graph.node)
        for node in nodes[1:]:
            for index, name in enumerate(node.input):
                if name == "embedded":
                    node.input[index] = "standing"
        del graph.node[:]
        graph.node.extend([nodes[0], *more, *nodes[1:]])

    net = changed(handmade.texts(tmp_path / "m"), short)
    line = refused(asked(net))
    assert "can't be run" in line or "task.max_length" in line
