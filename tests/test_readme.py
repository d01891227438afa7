"""README and CONTRIBUTING name what there is, and what they name is there."""

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from edgedistill import plugins, suites, target
from edgedistill.cli import cli

HOUSE = Path(__file__).parent.parent
README = (HOUSE / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (HOUSE / "CONTRIBUTING.md").read_text(encoding="utf-8")
DOCS = {f"docs/{each.name}": each.read_text("utf-8") for each in (HOUSE / "docs").glob("*.md")}
PAGES = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING, **DOCS}
TOLD = "\n".join([README, *DOCS.values()])  # what a user can read


def code(text):
    """Return what stands in backticks and in blocks."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.S)
    return [*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))]


def test_readme_names_every_command():
    for name, command in cli.commands.items():
        assert f"edgedistill {name}" in README, name
        if isinstance(command, click.Group):
            for inner in command.commands:
                assert f"`{inner}`" in README or f"{name} {inner}" in README, f"{name} {inner}"


@pytest.mark.parametrize("kind", ["targets", "recipes", "tasks", "schemes"])
def test_the_pages_name_every_target_recipe_task_and_scheme(kind):
    for name in plugins.names(kind):
        assert re.search(rf"`{name}`|\b{name}\b", TOLD), f"{kind}: {name}"


def test_readme_leads_to_every_page():
    assert all(f"]({page})" in README for page in DOCS)


def test_readme_names_every_alias_and_suite():
    for name in plugins.names("targets"):
        for alias in target.load(name).aliases:
            assert f"`{alias}`" in README
    for name in suites.names():
        assert f"edgedistill bench {name}" in README


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist_with_their_flags(page):
    found = 0
    for piece in code(PAGES[page]):
        for line in piece.replace("\\\n", " ").splitlines():
            match = re.match(r"(?:\S*/)?edgedistill ([a-z]+)(.*)", line.strip())
            if not match:
                continue
            command = cli.commands.get(match[1])
            assert command, line
            known = {flag for each in command.params for flag in each.opts}
            for group in getattr(command, "commands", {}).values():
                known |= {flag for each in group.params for flag in each.opts}
            flags = re.findall(r"(?<!\S)--?[a-z][a-z-]*", match[2].split("#")[0])
            assert set(flags) <= known | {"--help"}, line
            found += 1
    assert found or page != "README.md"


def make_targets():
    text = (HOUSE / "Makefile").read_text()
    return set(re.search(r"^\.PHONY:(.*)$", text, re.M)[1].split())


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_that_are_named_exist(page):
    named = set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", PAGES[page], re.M))
    named = {name for pair in named for name in pair if name}
    assert named <= make_targets()
    assert page != "README.md" or {"demo", "test"} <= named


def test_every_make_target_has_a_rule_that_make_accepts():
    for name in make_targets():
        line = ["make", "-n", name]
        done = subprocess.run(line, cwd=HOUSE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_ci_runs_what_readme_says():
    script = (HOUSE / ".ci" / "run").read_text()
    called = [shlex.split(line)[1] for line in script.splitlines() if line.startswith("make ")]
    assert "test" in called and set(called) <= make_targets()


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_that_are_named_exist(page):
    text = PAGES[page]
    links = re.findall(r"\]\(([^)#\s]+)", text)
    for link in links:
        place = (HOUSE / page).parent / link
        assert "://" in link or place.exists(), link
    folders = "edgedistill|tests|targets|benchmarks|losses|recipes|families|tasks|schemes|stages"
    for piece in code(re.sub(r"```.*?```", "", text, flags=re.S)):
        if re.fullmatch(rf"(?:(?:{folders})/)[\w./-]*\w|[\w-]+\.txt|[A-Z]+\.md", piece):
            if "NAME" in piece or "SUITE" in piece:
                continue
            places = (HOUSE / piece, HOUSE / "edgedistill" / piece)
            assert any(each.exists() for each in places), piece


def test_the_tree_names_what_is_there_and_nothing_else():
    tree = next(block for block in code(CONTRIBUTING) if block.startswith("edgedistill/\n"))
    named = set()
    for line in tree.splitlines()[1:]:
        match = re.match(r"  (\w[\w.]*/?)\s{2,}\S", line)
        if match:
            named.add(match[1].rstrip("/"))
        elif line[:1].strip():
            break
    house = HOUSE / "edgedistill"
    there = {each.name for each in house.iterdir() if each.name not in ("__pycache__",)}
    assert named - there == set(), "named, and not there"
    assert there - named <= {"__main__.py", "py.typed"}, "there, and not named"


def test_contributing_names_every_folder_of_plugins():
    for kind in plugins.SINGULAR:
        place = "benchmarks/cases" if kind == "cases" else kind
        assert re.search(rf"`[\w/]*{place}/", CONTRIBUTING), kind
