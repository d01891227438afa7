"""`edgedistill targets`: the file that it prints is one to start from."""

import json
from pathlib import Path

import pytest

from edgedistill import plugins


@pytest.mark.parametrize("name", ["phone", "mobile"])
def test_a_target_is_printed_as_its_file(command, name):
    said = command("targets", name)
    assert said.code == 0 and not said.err
    assert said.out == plugins.find_file("targets", "phone").read_text(encoding="utf-8")


def test_what_is_printed_is_a_target_under_another_name(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = command("targets", "phone").out
    Path("mine.toml").write_text(printed.replace("size_mb = 25", "size_mb = 2"), encoding="utf-8")
    said = command("targets", "mine.toml", "--json")
    assert json.loads(said.out)["name"] == "mine" and json.loads(said.out)["limits"]["size_mb"] == 2
    assert "size_mb = 2\n" in command("targets", "mine.toml").out
    Path("mine.toml").write_text(printed.replace("size_mb = 25", "sise_mb = 2"), encoding="utf-8")
    said = command("targets", "mine.toml")
    assert said.code == 2 and "did you mean 'size_mb'" in said.error() and not said.out
