"""Another processor, by emulation: what it answers, and what is said where it can't be."""

import platform
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.errors import ModelError, SurroundingsError, UsageError
from edgedistill.measure import arm64, emulation

there = pytest.mark.skipif(
    platform.machine() != "x86_64" or not any(map(shutil.which, emulation.QEMU)),
    reason="qemu-user-static is not installed",
)
arm_too = pytest.mark.skipif(
    not any(map(shutil.which, emulation.QEMU_ARM64)) or arm64.record(arm64.place()) is None,
    reason=f"no arm64 system is made: {arm64.MAKER}",
)
SESSION = {"threads": 1, "optimization": "all"}


def product(path, terms=64):
    """Write u8 x s8 products of `terms` terms of 255 x 127, which saturate at 16 bits by pairs."""
    weights = numpy_helper.from_array(np.full((terms, 8), 127, np.int8), "weights")
    nodes = [
        helper.make_node("MatMulInteger", ["x", "weights"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["out"], to=TensorProto.FLOAT),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", terms])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph(nodes, "g", [given], [out], [weights])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@there
@pytest.mark.parametrize(("cpu", "sum_"), [("haswell", 1_048_544), ("Nehalem", 2_072_640)])
def test_full_range_products_saturate_on_haswell_and_nowhere_else(tmp_path, cpu, sum_):
    model = product(tmp_path / "m.onnx")
    feeds = [{"x": np.full((1, 64), 255, np.uint8)}] * 2
    made = emulation.outputs(emulation.find(cpu), model, SESSION, feeds, "out")
    assert [each.shape for each in made] == [(1, 8), (1, 8)]
    assert {float(value) for each in made for value in each.ravel()} == {sum_}


@there
def test_kernels_that_are_named_for_this_host_are_not_taken_there(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")  # whose instructions a Nehalem lacks
    model = product(tmp_path / "m.onnx")
    feeds = [{"x": np.full((1, 64), 255, np.uint8)}]
    assert emulation.outputs(emulation.find("Nehalem"), model, SESSION, feeds, "out")


@there
def test_a_model_that_cannot_be_run_there_is_one_line(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="as Haswell: "):
        emulation.outputs(emulation.find("Haswell"), tmp_path / "m.onnx", SESSION, [], "out")


@there
@arm_too
@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76", "arm64-max"])
def test_full_range_products_are_exact_on_arm64(tmp_path, cpu):
    model = product(tmp_path / "m.onnx")
    feeds = [{"x": np.full((1, 64), 255, np.uint8)}]
    (made,) = emulation.outputs(emulation.find(cpu), model, SESSION, feeds, "out")
    assert set(made.ravel().tolist()) == {2_072_640}


@there
@pytest.mark.parametrize("processor", ["x86-64", "x86-64+avx2"])
def test_a_processor_is_what_it_stands_for(processor):
    assert emulation.standing_for(processor).instructions == processor


@there
@arm_too
@pytest.mark.parametrize("processor", ["arm64", "arm64+dotprod"])
def test_an_arm64_processor_is_what_it_stands_for(processor):
    assert emulation.standing_for(processor).instructions == processor


@there
def test_what_no_emulator_has_is_said():
    with pytest.raises(SurroundingsError, match="qemu emulates no processor with these"):
        emulation.standing_for("x86-64+vnni")


@there
def test_time_bounds_the_rows_of_a_run(tmp_path):
    model = product(tmp_path / "m.onnx")
    feeds = [{"x": np.full((1, 64), 255, np.uint8)}] * 50
    made = emulation.outputs(emulation.find("Nehalem"), model, SESSION, feeds, "out", seconds=0)
    assert len(made) == 1


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Put two emulators that only list processors in the way, as different qemus list them."""
    for name, listed in {
        "qemu-x86_64": "Available CPUs:\nx86 486-v1\nx86 Haswell   (alias)\nx86 Haswell-v1  Intel\n"
        "x86 athlon  (alias)\nx86 max  x\n"
        "\nRecognized CPUID flags:\n  3dnow avx\n",
        "qemu-aarch64": "CPUs:\n  arm926\n  cortex-a7\n  cortex-a72\n  cortex-m3\n  max\n",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'E'\n{listed}E\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(emulation, "QEMU", ("qemu-x86_64",))
    monkeypatch.setattr(emulation, "QEMU_ARM64", ("qemu-aarch64",))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv(arm64.VARIABLE, str(tmp_path / "nowhere"))
    return tmp_path


def test_an_unknown_processor_names_the_nearest_else_all_that_there_are(fake):
    with pytest.raises(UsageError) as told:
        emulation.find("haswel")
    assert str(told.value) == "--cpu: unknown processor 'haswel': did you mean 'Haswell'?"
    with pytest.raises(UsageError, match="'zzzzz': known: Haswell, max, cortex-a72"):
        emulation.find("zzzzz")


def test_an_arm64_processor_without_a_system_names_the_command_that_makes_one(fake):
    with pytest.raises(SurroundingsError) as told:
        emulation.find("Cortex-A72")
    words = f"emulating cortex-a72 needs an arm64 system in a folder, and '{fake}/nowhere' holds "
    assert str(told.value) == f"{words}none: python -m edgedistill.measure.arm64_sysroot"


def test_what_lacks_for_a_processor_of_a_target_is_one_line_without_places(fake):
    with pytest.raises(SurroundingsError) as told:
        emulation.standing_for("arm64")
    assert str(told.value) == f"there is no arm64 system to run ({arm64.MAKER})"
    (fake / "qemu-aarch64").unlink()
    with pytest.raises(SurroundingsError) as told:
        emulation.standing_for("arm64")
    assert str(told.value) == "qemu is not installed (apt install qemu-user-static)"


def test_without_qemu_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(SurroundingsError, match="apt install qemu-user-static"):
        emulation.find("Haswell")


def test_with_half_of_qemu_it_says_which_half_lacks(fake):
    (fake / "qemu-aarch64").unlink()
    with pytest.raises(
        SurroundingsError, match="cortex-a72 needs qemu-aarch64, which is not there"
    ):
        emulation.find("cortex-a72")


def test_features_and_cpuinfo_are_spelled_as_linux_does():
    flags = arm64.features([0b11 | 1 << 20, 1 << 13])
    assert flags == ["fp", "asimd", "asimddp", "i8mm"]
    told = arm64.cpuinfo(flags, 0x414FD0B1).splitlines()
    assert "Features\t: fp asimd asimddp i8mm" in told
    assert "CPU implementer\t: 0x41" in told and "CPU part\t: 0xd0b" in told
    assert "CPU variant\t: 0x4" in told and "CPU revision\t: 1" in told
    assert "CPU implementer\t: 0x41" in arm64.cpuinfo(flags, 0x000F0510)
