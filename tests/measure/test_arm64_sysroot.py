"""The arm64 system in a folder: made whole or not at all; what lacks is one line."""

import json

import pytest

from edgedistill.measure import arm64, arm64_sysroot, emulation


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """Put a failing apt-get, and an emulator and dpkg-deb that do nothing, in the way."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dpkg-deb", "qemu"):
        (folder / name).write_text("#!/bin/sh\n")
    (folder / "apt-get").write_text(
        "#!/bin/sh\necho 'W: odd' >&2\necho \"E: Unable to locate package python3\" >&2\nexit 100\n"
    )
    for each in folder.iterdir():
        each.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(emulation, "QEMU_ARM64", ("qemu",))
    return folder


def made(folder):
    version = arm64_sysroot.importlib.metadata.version("onnxruntime")
    told = {"format": 1, "interpreter": "usr/bin/python3.11", "python": "3.11", "numpy": "2.4"}
    folder.mkdir()
    record = {**told, "onnxruntime": version, "packages": [], "bytes": 5_000_000}
    (folder / arm64.RECORD).write_text(json.dumps(record))
    return folder


def test_what_is_there_is_left_as_it_is(tmp_path, tools, capsys):
    assert arm64_sysroot.main([str(made(tmp_path / "a"))]) == 0
    said = capsys.readouterr().err
    assert said.startswith("there") and "5 MB" in said
    assert f"export EDGEDISTILL_ARM64_SYSROOT={tmp_path / 'a'}" in said


def test_a_folder_of_something_else_is_refused(tmp_path, tools, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis").touch()
    assert arm64_sysroot.main([str(tmp_path / "a")]) == 2
    assert "is not empty and holds no arm64 system" in capsys.readouterr().err
    assert (tmp_path / "a" / "thesis").exists()


def test_packages_that_are_not_to_be_had_leave_nothing(tmp_path, tools, capsys):
    place = made(tmp_path / "a")
    before = sorted(tmp_path.rglob("*"))
    assert arm64_sysroot.main([str(place), "--again"]) == 3
    said = capsys.readouterr().err
    assert "E: Unable to locate package python3" in said and len(said.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("tool", ["apt-get", "dpkg-deb", "qemu"])
def test_a_missing_tool_is_one_line(tmp_path, tools, capsys, monkeypatch, tool):
    (tools / tool).unlink()
    monkeypatch.setenv("PATH", str(tools))
    assert arm64_sysroot.main([str(tmp_path / "a")]) == 3
    said = capsys.readouterr().err
    assert tool in said and len(said.splitlines()) == 1 and not (tmp_path / "a").exists()


def test_a_face_of_the_system_has_its_folders_and_its_own_cpuinfo(tmp_path):
    system = made(tmp_path / "a")
    (system / "usr" / "bin").mkdir(parents=True)
    (system / "usr" / "bin" / "x").write_text("x")
    with arm64.face(system, "Features: fp\n") as folder:
        assert (folder / "usr" / "bin" / "x").read_text() == "x"
        assert (folder / "proc" / "cpuinfo").read_text() == "Features: fp\n"
    assert not folder.exists() and (system / "usr" / "bin" / "x").exists()
