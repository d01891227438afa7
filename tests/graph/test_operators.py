"""What a runtime lacks: by the table from its wheel."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from edgedistill.errors import TargetError
from edgedistill.graph import make_tables, operators


def model(*nodes, opset: int = 17, ir: int = 8, domains=("com.microsoft",)):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(each, 1) for each in domains)]
    graph = helper.make_graph(list(nodes), "g", [x], [y])
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


RELU = helper.make_node("Relu", ["x"], ["y"])


@pytest.mark.parametrize(
    "version, wanted",
    [
        ("1.16", (19, 9)), ("1.17", (20, 9)), ("1.17.3", (20, 9)), ("1.20", (21, 10)),
        ("1.22", (22, 10)), ("1.23", (23, 11)), ("1.24", (25, 13)), ("1.31", (26, 13)),
        ("9.0", (26, 13)),
    ],
)  # fmt: skip
def test_caps(version, wanted):
    assert operators.caps(version) == wanted


def test_the_floor_runs_everywhere():
    for version in operators.runtimes():
        opset, ir = operators.caps(version)
        assert opset >= operators.FLOOR[0] and ir >= operators.FLOOR[1]
        assert operators.missing(model(RELU), version) == []


@pytest.mark.parametrize("version", ("1.2", "1.15", "many"))
def test_a_version_that_is_too_old_or_none(version):
    with pytest.raises(TargetError, match="onnxruntime"):
        operators.caps(version)


def test_opset_ir_and_domains_are_capped():
    made = model(RELU, opset=21, ir=10, domains=("com.microsoft", "ai.onnx.training"))
    assert operators.missing(made, "1.17") == [
        "IR version 10 (at most 9)", "opset 21 (at most 20)", "domain 'ai.onnx.training'",
    ]  # fmt: skip


def test_a_contrib_operator_that_came_later():
    node = helper.make_node("MatMulNBits", ["x", "a", "b"], ["y"], domain="com.microsoft", K=4, N=4)
    assert operators.missing(model(node), "1.16") == ["operator com.microsoft.MatMulNBits"]
    assert operators.missing(model(node), "1.17") == []


def test_an_attribute_that_came_later():
    node = helper.make_node(
        "Attention", ["x", "w"], ["y"], domain="com.microsoft", num_heads=2, rotary_embedding_dim=2
    )
    lacking = ["attribute com.microsoft.Attention.rotary_embedding_dim"]
    assert operators.missing(model(node), "1.16") == lacking
    assert operators.missing(model(node), "1.17") == []


def test_a_standard_function_needs_no_kernel():
    node = helper.make_node("Gelu", ["x"], ["y"])
    assert operators.missing(model(node, opset=20), "1.17") == []  # a kernel came with 1.18


def test_unknown_operators_inside_branches_are_found():
    inner = helper.make_node("NoSuchThing", ["x"], ["z"], domain="com.microsoft")
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([inner], "b", [], [value])
    condition = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    assert operators.missing(model(condition), "1.17") == ["operator com.microsoft.NoSuchThing"]


def test_the_table_is_compact_and_written_as_the_script_writes():
    text = operators.TABLE.read_text()
    assert len(text) < 100_000
    assert make_tables.write(operators._table()) == text
    assert set(operators.runtimes()) == {
        ".".join(version.split(".")[:2]) for version in make_tables.WHEELS
    }


def test_answers_fold_into_spans():
    def answer(kernels, attributes):
        return {"opset": 17, "ir": 8, "kernels": kernels, "attributes": attributes}

    one, open_end = ["com.microsoft", "One"], 2**31 - 1
    made = make_tables.table(
        {
            "1.1": answer([[*one, 1, open_end]], [[*one, ["a"]]]),
            "1.2": answer([[*one, 1, open_end]], [[*one, ["a", "b"]]]),
            "1.3": answer([["", "Two", 7, 12]], [["", "Two", ["c"]]]),
        }
    )
    assert made["operators"] == {
        "": {"Two": {"kernels": {"7-12": "1.3-"}}},
        "com.microsoft": {
            "One": {"kernels": {"1-": "1.1-1.2"}, "attributes": {"a": "1.1-1.2", "b": "1.2-1.2"}}
        },
    }


@pytest.mark.slow
def test_the_table_says_what_a_wheel_says(tmp_path):
    answer = make_tables.ask("1.17.0", make_tables.OLD_NUMPY, tmp_path)
    assert (answer["opset"], answer["ir"]) == operators.caps("1.17")
    for domain, name, first, last in answer["kernels"]:
        if domain in make_tables.DOMAINS:
            versions = f"{first}-{last if last < 2**31 - 1 else ''}"
            spans = operators._table()["operators"][domain][name]["kernels"][versions]
            assert operators._within(spans, "1.17"), (domain, name, versions)
