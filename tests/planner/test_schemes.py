"""Plans: the quantization schemes of a target, a model and its processors."""

import dataclasses
from pathlib import Path

import pytest
from planning import facts, network, plan, steps_named

from edgedistill import job, planner, plugins, target
from edgedistill.errors import JobError, TargetError


def test_a_file_that_is_no_scheme_is_told_what_it_lacks(tmp_path):
    file = tmp_path / "halves.py"
    file.write_text('"""Halves."""\nPRECISION = "int4"\n\ndef valid(*told):\n    return None\n')
    with pytest.raises(JobError, match="is no quantization scheme: it lacks Settings, CALIBRATES"):
        plan(quantize=str(file), allow_code=True)


def test_two_schemes_of_one_name_for_their_rows_are_told_apart_or_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        source = Path(plugins.find("schemes", "float16").__file__).read_text()
        (tmp_path / folder / "mine.py").write_text(source)
    both = [str(tmp_path / folder / "mine.py") for folder in ("one", "two")]
    with pytest.raises(JobError, match="two would have rows called 'fp16 mine': rename"):
        plan(quantize=both, allow_code=True)
    beside = plan(quantize=[both[0], "float16"], allow_code=True).candidates
    assert {"student 2x32 fp16", "student 2x32 fp16 mine"} <= {row.name for row in beside}


def test_float16_is_tried_only_when_it_is_named():
    assert not [row for row in plan().candidates if row.scheme == "float16"]
    named = plan(quantize="float16").candidates
    assert {row.scheme for row in named} == {"float16"}
    assert "student 2x32 fp16" in [row.name for row in named]


def test_the_graph_of_single_rows_is_for_targets_that_run_one():
    exports = steps_named(plan(), "export")
    assert all(step.settings["single"] for step in exports)
    whole = steps_named(plan(settings={"export.single": False}), "export")
    assert not any(step.settings["single"] for step in whole)
    phone = target.load("phone")
    runtime = dataclasses.replace(phone.runtime, batch=4)
    four = dataclasses.replace(phone, runtime=runtime)
    several = planner.propose(job.named(target="phone", model="m", data="d"), four, facts())
    assert not any(step.settings["single"] for step in steps_named(several, "export"))


def test_without_int8_the_float_student_is_all_there_is():
    made = plan(quantize="none")
    assert made.candidates == ()
    assert [row.name for row in made.beside if row.role == "control"] == [
        "control 2x32 fp32",
        "control 3x32 fp32",
    ]


def test_convolutions_get_static_int8_and_transformers_dynamic_and_static():
    def words(made):
        rows = [row for row in made.candidates if not row.unaware]
        return {row.scheme: row.name.partition("int8")[1:] for row in rows}

    assert words(network()) == {"static_qdq": ("int8", "")}
    both = {"dynamic_int8": ("int8", ""), "static_qoperator": ("int8", " static")}
    assert words(plan()) == both
    assert words(plan(quantize="static_qoperator")) == {"static_qoperator": ("int8", " static")}
    named = words(plan(quantize=["auto", "static_qdq"]))
    assert named == {**both, "static_qdq": ("int8", " qdq")}


def test_where_the_target_batches_static_is_tried_alone_and_dynamic_can_be_named(tmp_path):
    batched = tmp_path / "batched.toml"
    text = (Path(target.__file__).parents[1] / "targets" / "phone.toml").read_text()
    batched.write_text(text.replace("batch = 1", "batch = 8"))
    assert {row.scheme for row in plan(on=str(batched)).candidates} == {"static_qoperator"}
    named = plan(on=str(batched), quantize="dynamic_int8")
    assert {row.scheme for row in named.candidates} == {"dynamic_int8"}


def test_a_setting_of_one_scheme_reaches_that_one_alone():
    made = plan(settings={"quantize.scheme_settings.method": "percentile"})
    found = {
        step.settings["scheme"]: step.settings["scheme_settings"].get("method")
        for step in steps_named(made, "quantize")
    }
    assert found == {"dynamic_int8": None, "static_qoperator": "percentile"}


def test_where_the_host_saturates_quantize_and_evaluate_both_take_the_precaution():
    host = dataclasses.replace(facts().host, instructions="x86-64+avx2")
    precise = {"session.x64quantprecision": "1"}
    for known, expected in (({"host": host}, precise), ({}, {})):
        made = plan(known=known)
        row = next(row for row in made.candidates if row.role == "candidate")
        assert row.graph.settings["session"]["config"] == expected
        assert row.test.settings["session"]["config"] == expected
        assert made.baseline.test.settings["session"]["config"] == {}


def test_int8_that_saturates_on_a_processor_of_the_target_is_refused():
    wish = {"quantize.scheme_settings.reduce_range": "false"}
    assert plan(settings=wish).candidates
    with pytest.raises(JobError, match=r"is not exact on 'x86-64\+avx2'"):
        plan(on="server", settings=wish)


def test_a_target_whose_processors_no_scheme_serves_exactly_is_one_clear_line():
    strange = dataclasses.replace(target.load("phone"), processors=("arm64", "riscv64"))
    words = "dynamic_int8: its arithmetic is not proven exact on 'riscv64' (proven: arm64, "

    def on_strange(**names):
        return planner.propose(job.named(target="phone", model="m", data="d", **names), strange,
                               facts())  # fmt: skip

    made = on_strange()
    (said,) = [note for note in made.notes if note.startswith("no int8: ")]
    assert words in said and "\n" not in said
    assert {row.scheme for row in made.rows()} == {"none"}
    with pytest.raises(TargetError) as told:
        on_strange(quantize="dynamic_int8")
    assert str(told.value).startswith(f"no named scheme serves 'phone': {words}")
