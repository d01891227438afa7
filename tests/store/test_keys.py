"""What changes a key, and what does not: one thing at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgedistill import plugins
from edgedistill.errors import InternalError, JobError, MissingPackage
from edgedistill.records import Source, Step
from edgedistill.store import code, keys

TOYS = Path(__file__).parent / "toys"
ROWS, ENCODER = "ab" * 32, "cd" * 32


def encode(**settings) -> Step:
    inputs = {
        "rows.0": Source("rows", settings.pop("rows", ROWS), Path("/a/rows")),
        "encoder.0": Source("encoder", settings.pop("encoder_hash", ENCODER), Path("/a/encoder")),
    }
    told = {"labels": ["no", "yes"], "encoder": {"max_length": 8}, "seed": 0, **settings}
    return Step("encode", {"task": "text-classification", **told}, inputs)


def keyed(*, rows: str, test: str, **told) -> dict[str, str]:
    train, held = encode(rows=rows, **told), encode(rows=test, **told)
    graph = Source("graph", "12" * 32, Path("/a/graph"))
    settings = {"task": "text-classification", "encoder": {"max_length": 8}}
    evaluate = Step("evaluate", settings, {"graph.0": graph, "rows.0": held})
    return {"train": keys.key(train), "test": keys.key(held), "evaluate": keys.key(evaluate)}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"seed": 1}, {"train", "test", "evaluate"}),
        ({"labels": ["yes", "no"]}, {"train", "test", "evaluate"}),  # label order is a setting
        ({"encoder": {"max_length": 9}}, {"train", "test", "evaluate"}),
        ({"encoder_hash": "c0" * 32}, {"train", "test", "evaluate"}),  # a byte of the tokenizer
        ({"rows": "a0" * 32}, {"train"}),  # a cell of train, and the same test rows
    ],
)
def test_an_input_or_a_setting_changes_the_keys_below_it(told, expected) -> None:
    before = keyed(rows=ROWS, test="ef" * 32)
    assert changed(before, keyed(**{"rows": ROWS, "test": "ef" * 32, **told})) == expected


def test_a_cell_of_test_trains_nothing_again() -> None:
    before = keyed(rows=ROWS, test="ef" * 32)
    assert changed(before, keyed(rows=ROWS, test="e0" * 32)) == {"test", "evaluate"}


def test_a_package_version_changes_the_keys_of_those_who_name_it(monkeypatch) -> None:
    before = keyed(rows=ROWS, test="ef" * 32)
    real = keys.version
    monkeypatch.setattr(
        keys, "version", lambda name: "0.1" if name == "onnxruntime" else real(name)
    )
    assert changed(before, keyed(rows=ROWS, test="ef" * 32)) == {"evaluate"}


def test_a_local_suffix_of_a_version_changes_nothing(monkeypatch) -> None:
    before = keyed(rows=ROWS, test="ef" * 32)
    real = keys.version
    monkeypatch.setattr(keys, "version", lambda name: real(name).partition("+")[0] + "+cpu")
    assert changed(before, keyed(rows=ROWS, test="ef" * 32)) == set()


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("stages/encode.py", {"train", "test", "evaluate"}),
        ("stages/evaluate.py", {"evaluate"}),
        ("tasks/text_classification.py", {"train", "test", "evaluate"}),  # a plugin
        ("graph/session.py", {"evaluate"}),  # imported by the stage
        ("data/rows.py", {"train", "test", "evaluate"}),
        ("tasks/image_classification.py", set()),  # a plugin that is not used
        ("stages/quantize.py", set()),
        ("cli/__init__.py", set()),
    ],
)
def test_a_byte_of_code_changes_the_keys_of_those_who_run_it(monkeypatch, file, expected) -> None:
    before = keyed(rows=ROWS, test="ef" * 32)
    real = code._read
    touched = code.PACKAGE / file
    assert touched.is_file()
    monkeypatch.setattr(code, "_read", lambda path: real(path) + b"#" * (path == touched))
    assert changed(before, keyed(rows=ROWS, test="ef" * 32)) == expected


def test_paths_names_facts_and_the_order_of_settings_change_nothing() -> None:
    settings = {"labels": ["a", "b"], "encoder": {"max_length": 8, "z": 1}, "seed": 0}
    turned = {"seed": 0.0, "encoder": {"z": 1, "max_length": 8}, "labels": ("a", "b")}
    told = {"task": "text-classification"}
    here = Source("rows", ROWS, Path("/here"), "a.csv", {"rows": 3})
    there = Source("rows", ROWS, Path("/there"), "b.csv")
    encoder = Source("encoder", ENCODER, Path("/e"))
    one = Step("encode", told | settings, {"rows.0": here, "encoder.0": encoder})
    two = Step("encode", turned | told, {"encoder.0": encoder, "rows.0": there})
    assert keys.key(one) == keys.key(two)


def test_a_default_left_out_is_the_default_given() -> None:
    assert keys.key(encode()) == keys.key(encode(made=[]))


def test_surroundings_change_nothing(tmp_path: Path) -> None:
    script = (
        "import json, sys; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from pathlib import Path\n"
        "from edgedistill.store import keys\n"
        "from edgedistill.records import Source, Step\n"
        "s = {'task': 'text-classification', 'labels': ['n', 'y'],"
        "     'encoder': {'max_length': 8}}\n"
        f"i = {{'rows.0': Source('rows', '{ROWS}', Path.cwd()), "
        f"'encoder.0': Source('encoder', '{ENCODER}', Path.cwd())}}\n"
        "a = Step('encode', s, i)\n"
        f"b = Step({str(TOYS / 'count.py')!r}, {{}}, {{'from.0': a}})\n"
        "print(keys.key(a), keys.key(b))\n"
    )
    house = json.dumps([str(code.PACKAGE.parent)])
    seen = set()
    for number, told in enumerate(
        [
            {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"},
            {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8"},
            {"PYTHONVERBOSE": "1", "EDGEDISTILL_STORE": "/elsewhere", "HOME": str(tmp_path)},
        ]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", script, house],
            cwd=place,
            env={"PATH": os.environ["PATH"], **told},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout)
    assert len(seen) == 1


# ---------------------------------------------------------------- strangers' files


def stranger(folder: Path, text: str | None = None, **settings) -> Step:
    folder.mkdir(exist_ok=True)
    file = folder / "count.py"
    if text is None:
        shutil.copy(TOYS / "count.py", file)
    else:
        file.write_bytes(text.encode())
    return Step(str(file), settings, {})


def test_a_strangers_file_is_known_by_its_bytes_not_its_place_or_time(tmp_path: Path) -> None:
    text = (TOYS / "count.py").read_text()
    one = keys.key(stranger(tmp_path / "a", text))
    two = stranger(tmp_path / "b", text)
    os.utime(two.stage, (1, 1))
    assert keys.key(two) == one
    assert keys.key(stranger(tmp_path / "c", text.replace("\n", "\r\n"))) == one
    assert (
        keys.key(stranger(tmp_path / "d", text.replace('"total": total', '"total": tick'))) != one
    )


def test_a_changed_strangers_file_is_run_as_changed(tmp_path: Path) -> None:
    text = "WHO = {}\nfrom edgedistill.settings import setting\n"
    file = tmp_path / "who.py"
    for who in (1, 2, 3):  # the same size in the same second: a stale .pyc would not notice
        file.write_text(text.format(who))
        assert who == plugins.find("losses", str(file), allow_code=True).WHO


def test_what_lies_beside_a_strangers_file_and_is_imported_counts(tmp_path: Path) -> None:
    text = (TOYS / "count.py").read_text() + "\n\ndef never():\n    import beside\n"
    one, two = tmp_path / "a", tmp_path / "b"
    for folder, value in ((one, 1), (two, 2)):
        step = stranger(folder, text)
        (folder / "beside.py").write_text(f"VALUE = {value}\n")
        (folder / "ignored.py").write_text(f"VALUE = {value}\n")
        assert keys.key(step)
    assert keys.key(Step(str(one / "count.py"), {}, {})) != keys.key(
        Step(str(two / "count.py"), {}, {})
    )
    (two / "beside.py").write_text("VALUE = 1\n")
    assert keys.key(Step(str(one / "count.py"), {}, {})) == keys.key(
        Step(str(two / "count.py"), {}, {})
    )


def test_a_strangers_plugin_in_settings_counts_by_its_bytes(tmp_path: Path) -> None:
    made = []
    for folder, text in (("a", "X = 1\n"), ("b", "X = 1\n"), ("c", "X = 2\n")):
        (tmp_path / folder).mkdir()
        loss = tmp_path / folder / "mine.py"
        loss.write_text(text)
        step = Step(str(TOYS / "count.py"), {"loss": str(loss)}, {})
        assert str(tmp_path) not in json.dumps(keys.recipe(step))
        made.append(keys.key(step))
    assert made[0] == made[1] != made[2]


def test_code_that_is_no_python_is_named_with_its_line(tmp_path: Path) -> None:
    step = stranger(tmp_path / "a", "x = 1\ndef (:\n")
    with pytest.raises(JobError, match=r"count\.py', line 2"):
        keys.key(step)


def test_refuse_strangers_names_the_file(tmp_path: Path) -> None:
    step = stranger(tmp_path / "a")
    keys.refuse_strangers([encode()])
    with pytest.raises(JobError, match="--allow-code"):
        keys.refuse_strangers([Step("encode", encode().settings, {"rows.0": step})])


# ---------------------------------------------------------------- the closure of imports


def test_the_closure_follows_every_form_of_import() -> None:
    seen = set(code.closure(code.PACKAGE / "stages" / "evaluate.py"))
    assert {"edgedistill.graph.session", "edgedistill.graph", "edgedistill.errors"} <= seen
    assert "edgedistill" not in seen  # the public door leads to everything
    assert not any(name.startswith(("edgedistill.cli", "edgedistill.build")) for name in seen)
    assert "edgedistill.data.rows" in code.closure(code.PACKAGE / "stages" / "encode.py")


def test_imports_in_functions_relative_and_by_name_are_seen(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, text in {
        "start.py": "def f():\n    from parts import inner\nimport importlib\n"
        "x = importlib.import_module('named')\n",
        "named.py": "",
        "parts/__init__.py": "",
        "parts/inner.py": "from . import other\nfrom .third import y\nimport start\nimport json\n",
        "parts/other.py": "",
        "parts/third.py": "y = 1\nimport edgedistill.progress\n",
        "unused.py": "",
    }.items():
        (tmp_path / name).write_text(text)
    seen = set(code.closure(tmp_path / "start.py"))
    ours = {name for name in seen if not name.startswith("edgedistill")}
    assert ours == {code.ITSELF, "named", "parts", "parts.inner", "parts.other", "parts.third"}
    assert "edgedistill.progress" in seen and "edgedistill.records" in seen


# ---------------------------------------------------------------- the rest


def test_a_key_is_a_full_sha256_of_what_the_contract_names() -> None:
    step = encode()
    made = keys.recipe(step)
    assert sorted(made) == ["code", "inputs", "packages", "settings", "stage"]
    assert made["inputs"] == {"rows.0": ROWS, "encoder.0": ENCODER}
    assert keys.key(step) == keys.digest(made) and len(keys.key(step)) == 64
    assert keys.key(Source("rows", ROWS, Path("x"))) == ROWS


def test_every_step_pays_for_what_is_undecided_or_unknown() -> None:
    with pytest.raises(JobError, match="did you mean 'seed'"):
        keys.key(encode(sead=1))
    with pytest.raises(InternalError, match="auto"):
        keys.key(Step(str(TOYS / "count.py"), {"loss": "auto"}, {}))


def test_a_missing_package_is_named(monkeypatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def gone(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(keys, "version", gone)
    with pytest.raises(MissingPackage, match="pip install"):
        keys.key(encode(seed=99))


def test_packed_steps_come_back_with_the_same_keys(tmp_path: Path, monkeypatch) -> None:
    first = encode()
    (tmp_path / "mine.py").write_text("X = 1\n")
    shutil.copy(TOYS / "count.py", tmp_path / "count.py")
    monkeypatch.chdir(tmp_path)
    step = Step("count.py", {"loss": "mine.py"}, {"from.0": first, "from.1": first})
    packed = json.loads(json.dumps(keys.pack(step)))
    assert len(packed["steps"]) == 2 and len(packed["sources"]) == 2
    monkeypatch.chdir("/")
    again = keys.unpack(packed)
    assert keys.key(again) == keys.key(step)
    assert again.inputs["from.0"] is again.inputs["from.1"]
    (tmp_path / "mine.py").write_text("X = 2\n")
    with pytest.raises(JobError, match="changed while the build ran"):
        keys.unpack(packed)
