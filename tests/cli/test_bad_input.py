"""Bad input through the real command: one clear line, exit 2, nothing half-written.

Each case spoils one thing of a job that would build. What needs a trained model or a full disk is
in test_bad_runs.py.
"""

import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def sound(small, tmp_path_factory):
    """A job of texts whose model has its head, and one of images."""
    folder = tmp_path_factory.mktemp("sound")
    small.job(folder / "texts", head=True)
    tiny = small.tiny()
    images = folder / "images"
    tiny.model(images / "model", "vit")
    draw = np.random.default_rng(0)
    from PIL import Image

    for split, count in {"train": 8, "validation": 4, "test": 4}.items():
        for number, label in enumerate(tiny.LABELS):
            place = images / "rows" / split / label
            place.mkdir(parents=True)
            for index in range(count):
                made = Image.fromarray(tiny.pixels(number, draw, 3))
                made.save(place / f"{index}.png")
    (images / "roomy.toml").write_text(small.TARGET)
    return folder


@pytest.fixture(params=["texts"])
def job(request, sound, tmp_path, monkeypatch):
    """A copy to be spoilt, the current folder."""
    folder = Path(shutil.copytree(sound / request.param, tmp_path / "job"))
    monkeypatch.chdir(folder)
    return folder


of_images = pytest.mark.parametrize("job", ["images"], indirect=True)


@pytest.fixture
def refused(command, job, tmp_path):
    """Run a build that must be refused with exit 2 in one line; returns the line.

    What is known from the rows may stand before it, so that people see what was inferred.
    """

    def run(*more, verb="build", **names):
        told = {"model": "model", "data": "rows", "target": "roomy.toml", "out": "out", **names}
        given = [part for name, value in told.items() if value for part in (f"--{name}", value)]
        before = sorted(str(each) for each in job.rglob("*"))
        said = command(verb, *given, *more)
        assert said.code == 2, said
        assert not said.out, said
        assert sorted(str(each) for each in job.rglob("*")) == before, "something was left"
        assert not list((tmp_path / "scratch").iterdir())
        return said.error()

    return run


# ---------------------------------------------------------------- names and values


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--target fone", "did you mean 'phone'?"),
        ("--task text-clasification", "did you mean 'text-classification'?"),
        ("--recipe logit", "did you mean 'logits'?"),
        ("--quantize dynamic_int", "did you mean 'dynamic_int8'?"),
        ("--objective latencyy", "did you mean 'latency'?"),
        ("--prune heads", "write 0.5 or heads=0.5"),
        ("--prune 1.5", "write 0.5 or feed_forward=0.5"),
        ("--prune heads=0.5", "can't be pruned alone"),
        ("--prune feed_foward=0.5", "did you mean 'feed_forward'?"),
        ("--prune layers=99", "can't be kept"),
        ("--student 1 --prune layers=0.5", "leaves all of it"),
        ("--student static --prune 0.5", "have nothing to prune"),
        ("--prune 0.5 --set prune.rounds=0", "prune.rounds: 0 is out of range"),
        ("--set data.text=txt", "did you mean 'text'?"),
        ("--set data.label=lable", "did you mean 'label'?"),
        ("--set distill.temprature=2", "did you mean 'temperature'?"),
        ("--set distil.temperature=2", "did you mean 'distill'?"),
        ("--set distill.temperature=-2", "out of range"),
        ("--set distill.temperature", "expected NAME=VALUE"),
        ("--set task.metric=acuracy", "did you mean 'accuracy'?"),
        ("--limit sise_mb=4", "did you mean 'size_mb'?"),
        ("--limit size_mb=-4", "size_mb"),
        ("--limit size_mb=small", "size_mb"),
        ("--limit max_drop_points=101", "max_drop_points"),
        ("--limit size_mb=nan", "size_mb"),
        ("--limit size_mb=4 --limit size_mb=5", "size_mb is given twice: 4 and 5"),
        ("--set run.seed=1 --set run.seed=2", "run.seed is given twice: 1 and 2"),
        ("--modell x", "--model"),
        ("--seed soon", "run.seed: expected a whole number"),
        ("--threads 0", "run.threads: 0 is out of range"),
        ("--time-limit soon", "expected a time such as"),
        ("--student 9", "9"),
        ("--student 2x33", "33"),
        ("--student 2by32", "2by32"),
        ("--student ./nowhere", "nowhere"),
    ],
)
def test_a_wrong_name_or_value(refused, line, says):
    assert says in refused(*line.split())


def test_an_unknown_loss_of_a_recipe(refused, job):
    Path("mine.toml").write_text('about = "mine"\n[losses.soft_label]\nweight = 1\n')
    assert "did you mean 'soft_labels'?" in refused("--recipe", "mine.toml")


@pytest.mark.parametrize("verb", ["build", "plan"])
def test_code_of_a_stranger_needs_leave(refused, verb):
    Path("mine.py").write_text("raise SystemExit('it ran')\n")
    Path("mine.toml").write_text('about = "mine"\n[losses."mine.py"]\nweight = 1\n')
    assert "--allow-code" in refused("--recipe", "mine.toml", verb=verb)


def test_a_malformed_job_file_names_file_and_line(refused):
    Path("job.toml").write_text("[run]\nseed = 1\nthreads = = 2\n")
    line = refused("job.toml")
    assert "job.toml" in line and "line 3" in line


def test_a_malformed_target_names_file_and_line(refused):
    Path("mine.toml").write_text('name = "mine"\nabout = \n')
    line = refused(target="mine.toml")
    assert "mine.toml" in line and "line 2" in line


@pytest.mark.parametrize(
    ("names", "more", "says"),
    [
        ({}, ["nofile.toml"], "nofile.toml"),
        ({}, ["romy.toml"], "job file 'romy.toml' does not exist: did you mean 'roomy.toml'?"),
        ({}, ["rows/tran.csv"], "did you mean 'rows/train.csv'?"),
        ({}, ["none/job.toml"], "there is no folder 'none'"),
        ({}, ["rows"], "job file 'rows' is a folder: rows go to --data, a model goes to --model"),
        ({}, ["model"], "'model' is a folder"),
        ({"model": "modell"}, [], "'modell' is no folder here (did you mean 'model'?), and"),
        ({"model": "rows/model"}, [], "'rows/model' is no folder here, and can't be fetched"),
        ({"model": "other/model"}, [], "'other/model' is no folder here, and can't be fetched"),
        ({"target": "romy.toml"}, [], "target file 'romy.toml' does not exist: did you"),
        ({}, ["--recipe", "romy.toml"], "recipe file 'romy.toml' does not exist: did"),
        ({}, ["--quantize", "rows/tran.py"], "'rows/tran.py' does not exist"),
        ({"model": "./modell"}, [], "did you mean 'model'?"),
        ({"data": "./rowz"}, [], "did you mean 'rows'?"),
        ({"data": "rows/trian.csv"}, [], "did you mean 'rows/train.csv'?"),
        ({"target": "./roomyy.toml"}, [], "roomyy.toml"),
        ({"model": None}, [], "--model"),
        ({"data": None}, [], "--data"),
        ({"target": None}, [], "no target"),
    ],
)
def test_what_is_missing_is_named(refused, names, more, says):
    assert says in refused(*more, **names)


# ---------------------------------------------------------------- rows


def rewrite(name, change):
    path = Path("rows") / name
    path.write_bytes(change(path.read_bytes()))


def test_an_empty_folder_of_rows(refused, job):
    (job / "empty").mkdir()
    assert "empty" in refused(data="empty")


def test_a_file_of_a_byte_order_mark_alone(refused):
    rewrite("train.csv", lambda content: b"\xef\xbb\xbf\n")
    assert "train.csv' is empty" in refused()


@pytest.mark.parametrize("quote", ["\x1b[31mw1 w20\x07", '"w1\nw20"'], ids=["escape", "two lines"])
def test_a_plan_shows_texts_with_control_characters_escaped(command, job, quote):
    rewrite(
        "train.csv",
        lambda content: content.replace(b"label\r\n", b"label\r\n" + quote.encode() + b",red\r\n"),
    )
    said = command("plan", "--model", "model", "--data", "rows", "--target", "roomy.toml")
    assert said.code == 0 and "\x1b" not in said.out and "\x07" not in said.out
    shown = [line for line in said.out.splitlines() if "text: " in line]
    assert len(shown) == 3 and "| label: red" in shown[0] and "\\" in shown[0]


def test_no_training_rows(refused):
    rewrite("train.csv", lambda content: content.splitlines(keepends=True)[0])
    assert "no training row" in refused() or "no row" in refused()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (b",red\n", ("1 row", "empty text", "line 242")),
        (b"w0 w20,\n", ("1 row", "empty label", "line 242")),
        (b"w0 w20,rde\n", ("'rde'", "did you mean 'red'?")),
        (b"w0,w20,red\n", ("train.csv",)),
        (b'"w0 w20,red\n', ("train.csv",)),
        ("w0 café,red\n".encode("latin-1"), ("train.csv", "242", "data.encoding")),
    ],
    ids=["empty text", "empty label", "other label", "three cells", "open quote", "no text"],
)
def test_a_bad_row_is_counted_with_its_place(refused, row, says):
    rewrite("train.csv", lambda content: content + row)
    line = refused()
    for words in says:
        assert words in line, line


def test_a_test_row_of_an_unknown_label(refused):
    rewrite("test.csv", lambda content: content + b"w0 w20,violet\n")
    line = refused()
    assert "violet" in line and "line 92" in line


def test_labels_that_differ_between_teacher_and_rows(refused):
    for name in ("train", "validation", "test"):
        rewrite(f"{name}.csv", lambda content: content.replace(b",red", b",crimson"))
    line = refused()
    assert "crimson" in line and "red" in line


# ---------------------------------------------------------------- images


def png(side):
    """Return a PNG whose header claims a side, with next to no content."""

    def part(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", pixels) + part(b"IEND", b"")


@of_images
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda content: b"no image at all", "image"),
        (lambda content: content[: len(content) // 2], "truncated"),
        (lambda content: png(60_000), "absurd size"),
    ],
    ids=["no image", "truncated", "absurd size"],
)
def test_a_bad_image_is_counted_with_its_file(refused, spoil, says):
    path = Path("rows/train/green/3.png")
    path.write_bytes(spoil(path.read_bytes()))
    line = refused()
    assert "1 row" in line and "3.png" in line and says in line, line


@of_images
@pytest.mark.parametrize("way", ["--model", "--student"])
def test_a_model_and_rows_of_different_kinds(refused, sound, way):
    """Each model with the other's rows; its folder's encoder is not the trouble."""
    texts = sound / "texts"
    told = {"model": "model" if way == "--student" else texts / "model"}
    line = refused(way, texts / "model", **told)
    assert line == "'model', of type bert, reads texts, and these rows are images"
    told = {"model": texts / "model" if way == "--student" else "model", "data": texts / "rows"}
    line = refused(way, "model", **told)
    assert line == "'model', of type vit, reads images, and these rows are texts"
    for name in ("preprocessor_config.json", "image.json"):
        Path("model", name).unlink(missing_ok=True)
    assert line == refused(way, "model", **told)


def test_a_revision_is_of_the_hub(refused):
    line = refused("--set", "model.revision=main")
    assert line == "model.revision is of a model on the hub, and 'model' is here: leave it out"


@of_images
def test_an_archive_of_pickles_is_never_loaded(refused):
    np.savez("rows.npz", x=np.array([{"a": 1}], dtype=object), y=np.array([0]))
    assert "rows.npz" in refused(data="rows.npz")


# ---------------------------------------------------------------- models


def configure(**changes):
    path = Path("model/config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_truncated_weights(refused):
    path = Path("model/model.safetensors")
    path.write_bytes(path.read_bytes()[:5000])
    assert "model.safetensors" in refused()


def test_a_pickle_is_never_loaded_without_leave(refused):
    Path("model/model.safetensors").rename("model/pytorch_model.bin")
    line = refused()
    assert "pickle" in line and "--allow-pickle" in line


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_is_no_model_names_the_missing_file(refused, name):
    Path("model", name).unlink()
    assert name in refused()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"auto_map": {"AutoModel": "theirs.Model"}}, "code"),
        ({"model_type": "albert"}, "bert"),
        ({"model_type": "gpt2"}, "bert"),
        ({"problem_type": "multi_label_classification"}, "not yet"),
        ({"problem_type": "regression"}, "not yet"),
    ],
    ids=["remote code", "albert", "gpt2", "several labels", "a number"],
)
def test_a_model_that_can_not_be_taken(refused, changes, says):
    configure(**changes)
    assert says in refused()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": "four"}, "'num_hidden_layers' is 'four'"),
        ({"num_hidden_layers": -1}, "'num_hidden_layers' is -1"),
        ({"num_attention_heads": 0}, "'num_attention_heads' is 0"),
        ({"num_hidden_layers": 9}, "lack 80 tensors"),
    ],
)
def test_a_config_that_can_not_be(refused, changes, says):
    configure(**changes)
    assert says in refused()


def test_a_model_file_that_is_no_json(refused):
    Path("model/config.json").write_text("{")
    assert "config.json" in refused()


# ---------------------------------------------------------------- the output folder


def test_a_folder_of_the_user_is_left_alone(refused):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    assert "thesis.txt" in refused(out="mine")
    assert Path("mine/thesis.txt").read_text() == "years of work"


def test_the_root_is_no_place_for_a_bundle(refused):
    assert "choose another with --out" in refused(out="/")


@pytest.mark.parametrize("names", [{"store": "/proc/none"}, {"out": "/proc/none/out"}])
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_place_where_nothing_can_be_made_is_3_at_once(command, job, names):
    told = {"model": "model", "data": "rows", "target": "roomy.toml", "out": "out", **names}
    said = command("build", *(part for name in told for part in (f"--{name}", told[name])))
    assert said.code == 3 and "/proc" in said.error() and not said.out, said


def test_a_file_of_the_user_is_left_alone(refused):
    Path("mine").write_text("years of work")
    assert "mine" in refused(out="mine")
    assert Path("mine").read_text() == "years of work"
