"""Adopted graphs: our names, types, axes and output; what is computed stays as it was."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgedistill import plugins
from edgedistill.data import graph_files, graphs
from edgedistill.errors import ExportError
from edgedistill.graph import adopt
from edgedistill.stages import adopt as stage

spec = importlib.util.spec_from_file_location(
    "handmade", Path(__file__).parent.parent / "handmade.py"
)
handmade = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handmade)
TEXT, IMAGE = "text-classification", "image-classification"


def adopted(net, task=TEXT, *, opset=17, ir=8, **settings):
    """Bring a file as a build does; returns the new graph's folder, facts, and what was found."""
    plugin = plugins.find("tasks", task)
    found = graphs.read(graph_files.open(net), plugin, labels=3, onnxruntime="1.17")
    found = found.named(handmade.tiny.LABELS)
    source, out = net.parent / "source", net.parent / "out"
    found.write(source)
    out.mkdir()
    encoder = found.encoding(plugin.encoder_settings(found.folder), 16) if task == TEXT else {}
    given = found.given
    told = stage.Settings(
        task=task,
        encoder=encoder,
        ports=given.inputs,
        output=given.output,
        channels_last=given.channels_last,
        batch=given.batch,
        opset=opset,
        ir=ir,
        **settings,
    )
    facts = stage.run({"graph.0": source}, told, out, lambda event: None)
    return out, facts, found


def changed(net, change):
    model = onnx.load(net)
    change(model)
    onnx.save(model, net)
    return net


@pytest.mark.parametrize("integers", ["int64", "int32"])
def test_names_and_types_become_ours(tmp_path, integers):
    net = handmade.texts(tmp_path, names=("segment", "ids", "mask"), integers=handmade.INT32)
    # the first is what embeds: told by hand, since all of their names say otherwise
    plugin = plugins.find("tasks", TEXT)
    told = {"input_ids": "segment", "token_type_ids": "mask", "attention_mask": "ids"}
    found = graphs.read(graph_files.open(net), plugin, labels=3, onnxruntime="1.17", inputs=told)
    assert found.given.inputs == told and found.given.output == "answers"
    model, said, softmax = adopt.adopted(
        onnx.load(net), inputs=told, output="answers", integers=integers
    )
    assert not said and not softmax
    running = onnxruntime.InferenceSession(model.SerializeToString())
    assert {each.name: each.type for each in running.get_inputs()} == dict.fromkeys(
        told, f"tensor({integers})"
    )
    assert [each.name for each in running.get_outputs()] == ["logits"]


def test_names_that_are_ours_of_another_input_are_exchanged(tmp_path):
    net = handmade.texts(tmp_path, names=("attention_mask", "input_ids"))
    told = {"input_ids": "attention_mask", "attention_mask": "input_ids"}
    made = adopt.adopted(onnx.load(net), inputs=told, output="answers").model
    ids, kept = np.array([[6, 12, 40]]), np.array([[1, 1, 1]])
    given, ours = (
        onnxruntime.InferenceSession(model.SerializeToString()) for model in (onnx.load(net), made)
    )
    (right,) = given.run(["answers"], {"attention_mask": ids, "input_ids": kept})
    (found,) = ours.run(None, {"input_ids": ids, "attention_mask": kept})
    assert np.array_equal(right, found)


def test_a_graph_of_any_length_can_be_fixed(tmp_path):
    _, facts, _ = adopted(handmade.texts(tmp_path), fixed=12)
    assert facts["inputs"]["input_ids"]["shape"] == [1, 12]
    assert facts["compared"]["difference"] < 1e-6


def test_a_graph_of_one_row_a_run_needs_no_mask_and_no_segments(tmp_path):
    _, facts, found = adopted(handmade.texts(tmp_path), single=True)
    assert set(found.given.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert facts["inputs"] == {"input_ids": {"type": "int64", "shape": [1, "length"]}}


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_a_plain_export_becomes_as_small_as_ours(tmp_path, monkeypatch):
    """As torch's documentation has it: masks by forty nodes, and the last layer for all tokens."""
    import torch

    from edgedistill.train import weights

    folder = handmade.tiny.model(tmp_path / "bert", "bert", labels=handmade.tiny.LABELS)
    model = weights.load(folder, plugins.find("tasks", TEXT)).eval()
    names = ("input_ids", "attention_mask", "token_type_ids")
    ids = torch.ones(2, 7, dtype=torch.int64)
    torch.onnx.export(
        model,
        ({name: ids * (name != "token_type_ids") for name in names},),
        str(folder / "net.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=list(names),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
    )
    out, facts, _ = adopted(folder / "net.onnx", single=True)
    made = onnx.load(out / "model.onnx").graph
    assert [value.name for value in made.input] == ["input_ids"]
    assert not {node.op_type for node in made.node} & {"Where", "Range", "Expand", "And"}
    cut = [node for node in made.node if node.op_type == "Slice" and "first" in node.output[0]]
    assert cut, "the last layer is computed for the first token alone"
    assert facts["compared"]["difference"] < 1e-5


def test_a_size_of_minus_one_is_any_size(tmp_path):
    net = handmade.texts(tmp_path, shape=(-1, -1))
    out, facts, found = adopted(net, single=True)
    assert found.given.batch == 0
    assert facts["inputs"] == {"input_ids": {"type": "int64", "shape": [1, "length"]}}
    running = onnxruntime.InferenceSession(str(out / "model.onnx"))
    with pytest.raises(Exception, match="invalid dimensions"):
        running.run(None, {"input_ids": np.full((2, 4), 6)})


def test_an_old_graph_of_images_is_raised_folded_and_keeps_its_answers(tmp_path):
    out, facts, found = adopted(handmade.images(tmp_path, last=True, batch="N"), IMAGE)
    assert found.given.channels_last and found.given.batch == 0
    assert facts["opset"] == 17 and facts["ir"] == 8
    assert facts["operators"].get("BatchNormalization") is None
    assert facts["operators"].get("Softmax") is None
    assert facts["inputs"] == {"pixel_values": {"type": "float", "shape": ["batch", 1, 16, 16]}}
    assert facts["outputs"] == {"logits": {"type": "float", "shape": ["batch", 3]}}
    assert json.loads((out / "labels.json").read_text()) == list(handmade.tiny.LABELS)
    assert (out / "image.json").is_file()


def test_answers_of_rank_four_are_flattened_and_halves_widened(tmp_path):
    def unflattened(model):
        del model.graph.node[-2:]
        shape = [1, 3, 1, 1]
        model.graph.node.append(helper.make_node("Cast", ["found"], ["output"], to=10))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("output", 10, shape))

    _, facts, found = adopted(changed(handmade.images(tmp_path), unflattened), IMAGE)
    assert found.outputs == 3 and found.given.batch == 1
    assert facts["outputs"]["logits"] == {"type": "float", "shape": [1, 3]}


def test_a_graph_that_answers_one_row_only_whatever_it_says(tmp_path):
    def alone(model):  # a Reshape with a constant, as traced with one row
        target = numpy_helper.from_array(np.array([1, 3]), "target")
        model.graph.initializer.append(target)
        model.graph.node[-1].output[0] = "loose"
        model.graph.node.append(helper.make_node("Reshape", ["loose", "target"], ["answers"]))

    _, facts, found = adopted(changed(handmade.texts(tmp_path), alone))
    assert found.given.batch == 1 and "1 rows a run" in found.warnings[0]
    assert facts["inputs"]["input_ids"]["shape"] == [1, "length"]


def test_local_functions_are_inlined(tmp_path):
    def wrapped(model):
        last = model.graph.node.pop()
        product = model.graph.node.add()
        product.CopyFrom(
            helper.make_node("Answer", ["pooled", "product"], ["answers"], domain="own")
        )
        body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
        opsets = [helper.make_opsetid("", 17)]
        function = helper.make_function("own", "Answer", ["a", "b"], ["c"], body, opsets)
        model.functions.append(function)
        model.opset_import.append(helper.make_opsetid("own", 1))
        assert last.op_type == "MatMul"

    _, facts, _ = adopted(changed(handmade.texts(tmp_path), wrapped))
    assert facts["domains"] == {} and facts["operators"]["MatMul"] == 1


def test_precision_and_kind_are_told_by_the_operators(tmp_path):
    texts, images = onnx.load(handmade.texts(tmp_path / "a")), handmade.images(tmp_path / "b")
    assert adopt.precision(texts) == "fp32"
    assert not adopt.convolutional(adopt.operators(texts))
    assert adopt.convolutional(adopt.operators(onnx.load(images)))
    texts.graph.node[-1].op_type = "MatMulInteger"
    assert adopt.precision(texts) == "int8"


def test_an_opset_that_can_not_be_raised_is_one_line(tmp_path):
    net = handmade.images(tmp_path)
    model = onnx.load(net)
    model.graph.node[2].op_type = "Upsample"  # which takes a second input
    with pytest.raises(ExportError, match="opset 9, and onnx can't bring it to 17") as told:
        adopt.adopted(model, inputs={"pixel_values": "input"}, output="output")
    assert "\n" not in str(told.value)
