"""The list of commands and flags is frozen: a knob belongs in a target, a recipe or `--set`.

A flag that is added, renamed or removed is a change of the contract: change DESIGN and this table.
"""

import subprocess
import sys

import click
import pytest

from edgedistill import job
from edgedistill.cli import cli

JOB = """--target --model --data --task --student --recipe --prune --quantize --limit --objective
 --strict --best-effort --private --on-device --allow-pickle --allow-code --set --seed --threads
 --time-limit --out --store --json -v --verbose -q --quiet"""
CONTRACT = {  # the second half of DESIGN
    "build": f"[JOB.toml] {JOB}",
    "plan": f"[JOB.toml] {JOB}",
    "check": "BUNDLE --data --target --limit --strict --on-device --baseline --format",
    "bench": "WHAT --on-device --compare",
    "eval": "BUNDLE --data --cpu",
    "predict": "BUNDLE WHAT",
    "verify": "BUNDLE",
    "inspect": "WHAT",
    "targets": "[NAME|FILE]",
    "store list": "",
    "store show": "KEY",
    "store drop": "[KEY",
    "store verify": "",
}
BESIDE = {  # what we have beside it
    "bench": "--target --seconds --store --json",
    "eval": "--json",
    "predict": "--top --json",
    "verify": "--json",
    "inspect": "--json",
    "targets": "--json",
    "store list": "--store --json",
    "store show": "--store --json",
    "store drop": "--stage --unused-for --down-to --store --json",
    "store verify": "--store --json",
}


def commands(group=cli, path=()):
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from commands(each, (*path, name))
        else:
            yield " ".join((*path, name)), each


def flags(text):
    return sorted(word for word in text.split() if word.startswith("-"))


def test_the_commands_are_those_of_the_contract():
    assert {name for name, _ in commands()} == set(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_the_flags_of_a_command_are_frozen(name):
    found = dict(commands())[name]
    options = [each for each in found.params if isinstance(each, click.Option)]
    made = sorted(flag for each in options for flag in (*each.opts, *each.secondary_opts))
    assert made == sorted(flags(CONTRACT[name]) + flags(BESIDE.get(name, "")))


@pytest.mark.parametrize("name", CONTRACT)
def test_the_arguments_of_a_command_are_frozen(name):
    wanted = [word for word in CONTRACT[name].split() if not word.startswith("-")]
    found = [each for each in dict(commands())[name].params if isinstance(each, click.Argument)]
    assert len(found) == len(wanted)


def test_each_flag_of_a_job_has_the_same_name_in_python():
    build = dict(commands())["build"]
    shown = {"json", "verbose", "quiet"}
    named = {
        option.removeprefix("--").replace("-", "_")
        for each in build.params
        for option in each.opts
        if option.startswith("--")
    } - shown
    python = {*job.NAMES, "data", "target", "student", "limits", "settings"}
    assert {"limits" if n == "limit" else "settings" if n == "set" else n for n in named} == python


@pytest.mark.parametrize("name", CONTRACT)
def test_each_command_and_flag_is_explained(command, name):
    said = command(*name.split(), "--help")
    assert said.code == 0 and not said.err
    found = dict(commands())[name]
    assert found.help
    for each in found.params:
        if isinstance(each, click.Option):
            assert each.help, f"{name} {each.opts[0]} says nothing"
            assert each.opts[0] in said.out


HEAVY = {
    "torch", "transformers", "onnx", "onnxruntime", "optimum", "datasets", "sklearn", "scipy",
    "pandas", "pyarrow", "tokenizers", "PIL", "numpy",
}  # fmt: skip


@pytest.mark.parametrize("line", ["--help", "build --help", "bench --help", "store --help"])
def test_help_loads_nothing_heavy(line):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "edgedistill", *line.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {each.rpartition("|")[2].strip().split(".")[0] for each in done.stderr.splitlines()}
    assert "click" in loaded and not loaded & HEAVY
    assert "Usage: edgedistill" in done.stdout
