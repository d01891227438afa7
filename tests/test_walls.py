"""The walls of the house: which way imports go, what stays light, what is public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgedistill

HOUSE = Path(edgedistill.__file__).parent
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "datasets", "sklearn", "optimum", "pandas"}

# Rooms by storey: a room imports from its own storey or from those below.
STOREYS = [
    {"errors", "settings", "progress", "records", "plugins", "job", "jobfile", "sections",
     "target"},
    {"tasks", "families", "losses", "schemes", "graph", "train", "data", "store"},
    {"planner", "judge", "measure", "stages", "bundle", "report"},
    {"builder"},
    {"bench", "suites", "inspection"},
    {"cli", "__main__", "__init__"},
]  # fmt: skip


def modules():
    for path in sorted(HOUSE.rglob("*.py")):
        yield path, path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imported(tree, *, top_only=False):
    """Yield the full names of the modules that a file imports."""
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "edgedistill":
                yield from (f"edgedistill.{alias.name}" for alias in node.names)


def storey(room):
    found = [index for index, rooms in enumerate(STOREYS) if room in rooms]
    assert found, f"the room '{room}' has no storey: add it to STOREYS"
    return found[0]


def test_imports_go_one_way():
    wrong = []
    for path, room in modules():
        for name in imported(ast.parse(path.read_text())):
            parts = name.split(".")
            if parts[0] != "edgedistill" or len(parts) < 2 or parts[1].startswith("__"):
                continue
            if storey(parts[1]) > storey(room):
                wrong.append(f"{path.relative_to(HOUSE)} imports {name}")
    assert not wrong


def test_no_stage_imports_another_and_plugins_are_found_not_imported():
    wrong = []
    doors = ("stages", "tasks", "families", "losses", "schemes")
    for path, room in modules():
        for name in imported(ast.parse(path.read_text())):
            parts = name.split(".")
            if len(parts) > 2 and parts[1] in doors and not parts[2].startswith("_"):
                named = HOUSE / parts[1] / f"{parts[2]}.py"
                if named.exists() and (room != parts[1] or room == "stages"):
                    wrong.append(f"{path.relative_to(HOUSE)} imports {name}")
    assert not wrong


@pytest.mark.parametrize("folder", ["stages", "tasks", "families", "losses", "schemes", "cli"])
def test_module_level_is_light(folder):
    for path in (HOUSE / folder).glob("*.py"):
        tops = {name.split(".")[0] for name in imported(ast.parse(path.read_text()), top_only=True)}
        assert not tops & HEAVY, f"{path.name} imports {tops & HEAVY} at its top"


def test_plan_and_help_load_nothing_heavy():
    code = (
        "import sys, edgedistill, edgedistill.cli, edgedistill.planner, "
        "edgedistill.builder.prepare, edgedistill.builder.driver; "
        "print([name for name in ('torch', 'transformers', 'datasets', 'sklearn', 'onnx') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_probe_stands_alone():
    tree = ast.parse((HOUSE / "measure" / "probe.py").read_text())
    tops = {name.split(".")[0] for name in imported(tree)}
    assert tops - set(sys.stdlib_module_names) <= {"numpy", "onnxruntime"}
    ast.parse((HOUSE / "measure" / "probe.py").read_text(), feature_version=(3, 8))


def test_public_names():
    assert set(edgedistill.__all__) == {"Bundle", "Report", "__version__", "build", "load", "plan"}
    for name in edgedistill.__all__:
        assert getattr(edgedistill, name) is not None


@pytest.mark.parametrize("room", ("builder", "train"))
def test_a_room_that_lists_its_modules_lists_them_all(room):
    text = (HOUSE / room / "__init__.py").read_text()
    modules = {each.stem for each in (HOUSE / room).glob("*.py")} - {"__init__"}
    assert {each for each in modules if each not in text} == set()


def test_the_tree_of_errors_names_them_all():
    from edgedistill import errors

    found = {
        name
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, BaseException)
    }
    assert {name for name in found if name not in errors.__doc__} == set()
