"""How to repeat a build: the command in its report."""

import shlex

from edgedistill import job
from edgedistill.builder import record


def test_the_command_names_what_was_named_without_the_folders_of_this_machine(tmp_path):
    (tmp_path / "mine").mkdir()
    told = job.named(
        target="phone",
        model="microsoft/MiniLM-L12-H384-uncased",
        data=str(tmp_path / "mine"),
        settings={"data.text": "q/a", "student.from": ["org/student", "./other/place"]},
    )
    line = record.command(told)
    parts = shlex.split(line)
    assert parts[parts.index("--model") + 1] == "microsoft/MiniLM-L12-H384-uncased"
    assert parts[parts.index("--data") + 1] == "mine"
    assert "data.text=q/a" in parts and "student.from=org/student,place" in parts
    assert str(tmp_path) not in line


def test_a_folder_here_that_looks_like_an_id_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "customers" / "acme").mkdir(parents=True)
    assert "customers" not in record.command(job.named(target="phone", data="customers/acme"))
