import json

import pytest

from edgedistill import job, sections
from edgedistill.errors import JobError, TargetError


def test_flags_override_the_job_file(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("[distill]\ntemperature = 3\n[run]\nseed = 4\n[limits]\nsize_mb = 9\n")
    made = job.named(path, "phone", seed=7, settings={"distill.temperature": "2"})
    assert made.run.seed == 7
    assert made.stages["distill"]["temperature"] == "2"
    assert made.limits == {"size_mb": 9.0}


def test_paths_of_a_job_file_are_read_from_where_it_lies(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "job.toml").write_text('target = "phone"\n[data]\npath = "rows"\n')
    assert job.named(tmp_path / "job.toml").data.path == str(tmp_path / "rows")


def test_every_path_of_a_job_file_is_read_from_where_it_lies(tmp_path, monkeypatch):
    for name in ("mine.toml", "how.toml", "scheme.py", "loss.py", "task.py"):
        (tmp_path / name).touch()
    (tmp_path / "small").mkdir()
    for name in ("teacher", "second", "pieces"):
        (tmp_path / name).mkdir()
    path = tmp_path / "job.toml"
    path.write_text(
        'target = "mine.toml"\n[model]\npath = "teacher"\nencoder = "pieces"\n'
        'teachers = ["second", "a/hub-id"]\n[task]\nname = "task.py"\n'
        '[student]\nfrom = ["teacher", "small"]\n[quantize]\nschemes = ["scheme.py", "auto"]\n'
        '[distill]\nrecipe = "how.toml"\n[distill.losses."loss.py"]\nweight = 1\n'
    )
    monkeypatch.chdir("/")
    made = job.named(path)
    assert made.target == str(tmp_path / "mine.toml")
    assert made.model.path == str(tmp_path / "teacher")
    assert made.model.teachers == (str(tmp_path / "second"), "a/hub-id")
    assert made.model.encoder == str(tmp_path / "pieces")
    assert made.task.name == str(tmp_path / "task.py")
    assert made.student.from_ == ("teacher", str(tmp_path / "small"))
    assert made.quantize.schemes == (str(tmp_path / "scheme.py"), "auto")
    assert made.recipe == str(tmp_path / "how.toml")
    assert list(made.stages["distill"]["losses"]) == [str(tmp_path / "loss.py")]
    path.write_text('target = "phone"\n[student]\nfrom = "teacher"\n')
    assert job.named(path).student.named() == ()


def test_the_stage_quantize_is_told_in_the_section_of_that_name():
    made = job.named(target="phone", settings={"quantize.rows": 64, "quantize.schemes": "none"})
    assert made.quantize.schemes == ("none",) and made.stages["quantize"] == {"rows": 64}
    assert made.plain()["quantize"]["rows"] == 64
    assert job.make(made.plain()) == made
    with pytest.raises(JobError, match="did you mean 'schemes'"):
        job.named(target="phone", settings={"quantize.schems": "none"})


def test_students_are_layers_shapes_or_checkpoints(tmp_path):
    other = str(tmp_path / "other")
    made = job.named(target="phone", student=["2", "1x128", str(tmp_path), other])
    assert made.student.layers == (2,)
    assert made.student.shapes == ("1x128",)
    assert made.student.from_ == (str(tmp_path), other)
    assert made.student.named() == ("2", "1x128", str(tmp_path), other)
    assert job.named(target="phone").student.named() == ()


def test_a_number_that_is_no_plain_one_is_a_shape():
    assert job.named(target="phone", student="\u00b2").student.shapes == ("\u00b2",)  # superscript


def test_student_flags_override_the_files_students(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('[student]\nlayers = [3]\nshapes = ["2x16"]\nfrom = "a/b"\ninit = "random"\n')
    assert job.named(path, "phone").student.named() == ("3", "2x16", "a/b")
    for flag in ("2", "same", "c/d"):
        made = job.named(path, "phone", student=[flag]).student
        assert made.named() == (flag,) and made.init == "random"


def test_static_students_are_shapes_by_name():
    assert job.named(target="phone", student=["static", "2"]).student.shapes == ("static",)


def test_data_is_one_set_or_two_a_general_and_an_own_one(tmp_path):
    for data in ("a", ["a"], ("a",)):
        told = job.named(target="phone", data=data).data
        assert (told.path, told.own) == ("a", None)
    made = job.named(target="phone", data=["a", "b"], settings={"data.own_weight": "0.5"})
    assert (made.data.path, made.data.own, made.data.own_weight) == ("a", "b", 0.5)
    assert job.make(made.plain()) == made
    (tmp_path / "mine").mkdir()
    (tmp_path / "job.toml").write_text('[data]\npath = "rows"\nown = "mine"\nown_weight = 0.2\n')
    read = job.named(tmp_path / "job.toml", "phone").data
    assert read.own == str(tmp_path / "mine") and read.own_weight == 0.2


def test_a_job_that_is_printed_reads_as_the_same_job(tmp_path):
    made = job.named(
        target="phone",
        model="a/b",
        data="rows",
        student=["2", "same"],
        recipe="logits",
        limits={"size_mb": "7"},
        settings={"distill.epochs": 3},
    )
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"job": made.plain()}))
    again = job.named(path)
    assert again.plain() == made.plain()
    assert again == made or again.stages == {"distill": {"epochs": 3}}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"target": None}, "no target"),
        ({"seed": "soon"}, "run.seed: expected a whole number"),
        ({"seed": -1}, "run.seed: -1 is out of range"),
        ({"objective": "latencyy"}, "did you mean 'latency'"),
        ({"time_limit": "soon"}, "expected a time such as"),
        ({"data": ["a", "b", "c"]}, "--data names 3 sets: at most two"),
        ({"data": "a", "limits": {"max_own_drop_points": 1}}, "no own rows; name them with"),
        ({"data": "a", "settings": {"data.own_weight": 0.5}}, "data.own_weight: there are no own"),
        (
            {"data": ["a", "b"], "settings": {"data.own_weight": 2}},
            "own_weight: 2.0 is out of range",
        ),
        ({"settings": {"data.own": "b"}}, "name the general one with --data before it"),
        ({"prune": "heads"}, "'heads' says no share to keep .* write 0.5 or heads=0.5"),
        ({"prune": "feed_forward=half"}, "'feed_forward=half' says no share to keep"),
        ({"prune": "0"}, "says no share to keep"),
        ({"prune": "1.5"}, "no whole number"),
        ({"prune": "layers=2,layers=3"}, "says twice"),
        ({"prune": "0.5,,"}, "says no share to keep"),
        ({"prune": "0.5", "settings": {"prune.round": 2}}, "did you mean 'rounds'"),
        ({"settings": {"distil.temperature": 1}}, "did you mean 'distill'"),
        ({"settings": {"temperature": 1}}, "expected SECTION.NAME"),
        ({"settings": {"run.sed": 1}}, "did you mean 'seed'"),
        ({"modle": "x"}, "did you mean 'model'"),
    ],
)
def test_wrong_names_are_one_line_with_the_nearest_right_one(names, says):
    with pytest.raises(JobError, match=says) as error:
        job.named(**{"target": "phone", **names})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("limits", "says"),
    [({"sise_mb": 1}, "did you mean 'size_mb'"), ({"size_mb": -1}, "out of range")],
)
def test_wrong_limits(limits, says):
    with pytest.raises(TargetError, match=says):
        job.named(target="phone", limits=limits)


def test_a_malformed_job_file_names_file_and_line(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("[run]\nseed = = 1\n")
    with pytest.raises(JobError, match=r"job\.toml.*line 2"):
        job.named(path, "phone")
    with pytest.raises(JobError, match="does not exist"):
        job.named(tmp_path / "other.toml", "phone")
    path.write_text("[runn]\nseed = 1\n")
    with pytest.raises(JobError, match=r"job\.toml .*did you mean 'run'"):
        job.named(path, "phone")


def test_what_to_prune_is_read_from_a_text_a_number_or_a_mapping():
    def wish(told):
        return job.named(target="phone", model="m", data="d", prune=told).prune.wish()

    assert wish(None) == wish("none") == {}
    assert wish("0.5") == wish(0.5) == {"": 0.5}
    assert wish("feed_forward=0.5, layers=2") == {"feed_forward": 0.5, "layers": 2}
    assert wish({"feed_forward": 0.5, "layers": 2}) == {"feed_forward": 0.5, "layers": 2}
    made = job.named(target="phone", model="m", data="d", prune="0.5", settings={"prune.epochs": 1})
    assert made.stages == {"prune": {"epochs": 1}} and made.plain()["prune"]["kind"] == "0.5"


def test_duration():
    assert [sections.duration(text, "t") for text in ("90s", "2m", "1h", "5")] == [90, 120, 3600, 5]
    with pytest.raises(JobError):
        sections.duration("0", "t")


def test_a_single_frame_is_data():
    import pandas as pd

    frame = pd.DataFrame({"text": ["a b", "c d"], "label": ["x", "y"]})
    made = job.named(None, "phone", data=frame)
    assert made.data.path is frame and not made.starter


def test_nothing_in_a_mapping_is_not_the_starter_job():
    assert job.named(None, "phone").starter
    assert not job.named(None, "phone", data={}).starter
