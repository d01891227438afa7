"""What shows only while a build runs, or in a file that was made: one line, and nothing left."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

ROOM = ["unshare", "--map-root-user", "--mount"]  # mounts of our own, gone with the process


def told(small, names, **changes):
    """Return the arguments of a build like the tiny one, with some names and settings changed."""
    settings = {**names["settings"], **changes.pop("settings", {})}
    return small.command({**names, "settings": settings, **changes})[3:]


@pytest.fixture
def out(tmp_path):
    (tmp_path / "dist").mkdir()
    return tmp_path / "dist" / "out"


def refused(said, out, words, code=2):
    assert said.code == code, said
    for each in words:
        assert each in said.error(), said.err
    assert not said.out and not list(out.parent.iterdir()), "something was left"


def test_a_loss_that_is_no_number(command, small, tiny_built, out, tmp_path):
    line = told(small, tiny_built, out=out, settings={"distill.rate": 1e30})
    refused(command(*line), out, ["is not a number at step", "try a lower rate"])
    scratch = [each.name for each in (tmp_path / "scratch").iterdir()]
    assert not [name for name in scratch if name != ".ses"]  # .ses is onnxruntime's own
    assert command("store", "verify", "--store", tiny_built["store"]).code == 0


def test_a_device_that_is_not_there(command, small, tiny_built, out):
    line = told(small, tiny_built, out=out, settings={"distill.device": "mps"})
    refused(command(*line), out, ["distill.device", "no 'mps' here"], 3)


def test_a_teacher_whose_labels_are_in_another_order(command, small, tiny_built, out, tmp_path):
    (trained,) = Path(tiny_built["store"], "v1", "finetune").glob("*/config.json")
    model = Path(shutil.copytree(trained.parent, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    right = [config["id2label"][str(index)] for index in range(3)]
    wrong = [*right[1:], right[0]]
    config["id2label"] = dict(enumerate(wrong))
    config["label2id"] = {label: index for index, label in enumerate(wrong)}
    (model / "config.json").write_text(json.dumps(config))
    said = command(*told(small, tiny_built, model=model, out=out))
    pairs = [f"'{seen}' is '{true}'" for seen, true in zip(wrong, right, strict=True)]
    refused(said, out, ["no better than", "labels permuted", *pairs])


def test_weights_of_other_sizes_than_the_config_says(command, small, tiny_built, out, tmp_path):
    model = Path(shutil.copytree(tiny_built["model"], tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    said = command(*told(small, tiny_built, model=model, out=out))
    refused(said, out, ["other shapes than its config.json says"])


# ---------------------------------------------------------------- a bundle that was changed


@pytest.mark.parametrize("verb", ["verify", "check", "eval", "predict", "inspect", "bench"])
def test_a_flipped_byte_in_a_bundle(command, tiny_built, tmp_path, verb):
    bundle = Path(shutil.copytree(tiny_built["out"], tmp_path / "bundle"))
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    before = sorted(each.name for each in bundle.iterdir())
    said = command(verb, bundle, *(["w0 w20"] if verb == "predict" else []))
    assert said.code == 2 and "model.onnx" in said.error() and not said.out, said
    assert sorted(each.name for each in bundle.iterdir()) == before


def test_a_file_of_the_user_in_a_bundle_is_left_alone(command, small, tiny_built, out):
    shutil.copytree(tiny_built["out"], out)
    (out / "notes.txt").write_text("mine")
    said = command(*told(small, tiny_built, out=out))
    assert said.code == 2 and "notes.txt" in said.error()
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("verb", ["inspect", "bench"])
@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/etc/hostname"])
def test_external_data_that_is_missing_or_outside(command, tmp_path, verb, place):
    folder = tmp_path / "model"
    folder.mkdir()
    if place.startswith(".."):
        (tmp_path / "weights.bin").write_bytes(bytes(16))
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": "16"}.items():
        weight.external_data.add(key=key, value=value)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    add = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([add], "graph", value[:1], value[1:], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(str(folder / "model.onnx"))
    said = command(verb, folder / "model.onnx", "--json")
    error = json.loads(said.out)["error"]
    line = said.error()
    assert said.code == error["exit_code"] == 2, said
    assert "another file" in line or "xternal data" in line, line


# ---------------------------------------------------------------- a disk without room


def roomy():
    try:
        return subprocess.run([*ROOM, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not roomy(), reason="mounts of its own are not permitted here")


def mounted(place, options, arguments, then=()):
    """Run a command where a small file system is mounted at a place; returns what it said."""
    line = [sys.executable, "-m", "edgedistill"]
    script = f"mount -t tmpfs -o {options} none {shlex.quote(str(place))} || exit 99\n"
    script += shlex.join([*line, *map(str, arguments)]) + "; code=$?\n"
    if then:
        script += shlex.join([*line, *map(str, then)]) + " >&2 || exit 98\n"
    script += f"ls -A {shlex.quote(str(place))} >&2; exit $code\n"
    return subprocess.run(
        [*ROOM, "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def only_error(done):
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("edgedistill: ")]
    assert "Traceback" not in done.stderr
    return line


@needs_mounts
@pytest.mark.parametrize(
    ("size", "says"), [("64k", "the disk is full"), ("1m", "free")], ids=["full", "too small"]
)
def test_a_full_disk_leaves_a_valid_store(small, tiny_built, out, tmp_path, size, says):
    store = tmp_path / "store"
    store.mkdir()
    line = told(small, tiny_built, out=out, store=store)
    done = mounted(store, f"size={size}", line, then=("store", "verify", "--store", store))
    assert done.returncode == 3, done.stderr
    assert says in only_error(done) and "everything holds" in done.stderr
    assert not list(out.parent.iterdir())


@needs_mounts
def test_a_full_disk_under_the_bundle(small, tiny_built, out):
    done = mounted(out.parent, "size=64k", told(small, tiny_built, out=out))
    assert done.returncode == 3, done.stderr
    line = only_error(done)
    assert "the disk is full" in line
    left = done.stderr.split(line)[1].split()
    assert set(left) <= {"out.lock"}, left


@needs_mounts
def test_a_read_only_store(small, tiny_built, out, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    done = mounted(store, "ro", told(small, tiny_built, out=out, store=store))
    assert done.returncode == 3, done.stderr
    assert "no permission" in only_error(done) or "Read-only" in only_error(done)
    assert not list(out.parent.iterdir())
