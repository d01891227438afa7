import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from edgedistill.data import sources, split
from edgedistill.data.rows import Rows
from edgedistill.errors import DataError
from edgedistill.sections import DataSpec


def rows(start, count, labels=("play", "stop")):
    return [(f"sentence number {n}", labels[n % len(labels)]) for n in range(start, start + count)]


def csv(path, content, header="text,label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in content)]) + "\n")


def read(path, **told):
    return sources.read(DataSpec(path=str(path), **told))


@pytest.fixture
def folder(tmp_path):
    csv(tmp_path / "train.csv", rows(0, 40))
    csv(tmp_path / "validation.csv", rows(40, 10))
    csv(tmp_path / "test.csv", rows(50, 10))
    return tmp_path


def test_a_folder_of_splits(folder):
    csv(folder / "oos_test.csv", rows(0, 3))
    data = read(folder)
    assert (data.name, data.task) == (folder.name, "text-classification")
    assert data.columns == {"text": "text", "label": "label"}
    assert {name: len(part) for name, part in data.splits.items()} == {
        "train": 40, "validation": 10, "test": 10,
    }  # fmt: skip
    assert set(data.origin.values()) == {"given"}
    assert data.ignored == ("oos_test.csv",)
    assert data.preview[1] == {"text": "sentence number 1", "label": "stop"}
    assert len(data.preview) == 3
    assert data.labels() == ["play", "stop"]
    assert not data.warnings


def test_the_split_is_written_as_rows(folder, tmp_path):
    part = read(folder).splits["validation"]
    part.write(tmp_path / "out")
    written = Rows(tmp_path / "out")
    assert list(written.examples()) == [{"text": text} for text, _ in rows(40, 10)]
    assert written.truth == [label for _, label in rows(40, 10)]


def test_one_cell_changes_the_digest_of_its_split_alone(folder):
    before = read(folder)
    text = (folder / "test.csv").read_text()
    (folder / "test.csv").write_text(text.replace("number 55", "number five"))
    after = read(folder)
    changed = {name for name in before.splits
               if before.splits[name].digest != after.splits[name].digest}  # fmt: skip
    assert changed == {"test"}


def test_the_digest_is_of_the_used_columns_alone(folder, tmp_path):
    before = read(folder).splits["train"].digest
    lines = [{"id": index, "said": text, "intent": label}
             for index, (text, label) in enumerate(rows(0, 40))]  # fmt: skip
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    csv(other / "dev.csv", rows(40, 10), "said,intent")
    csv(other / "test.csv", rows(50, 10), "said,intent")
    assert read(other).splits["train"].digest == before


def test_missing_splits_are_cut_by_the_hash_of_each_row(tmp_path):
    csv(tmp_path / "rows.csv", rows(0, 200))
    data = read(tmp_path / "rows.csv")
    assert data.origin == {"train": "cut", "validation": "cut", "test": "cut"}
    for name, low, high in (("test", 0, 0.2), ("validation", 0.2, 0.3), ("train", 0.3, 1)):
        for example in data.splits[name].examples:
            assert low <= split.position(split.normalised(example)) < high


def test_a_group_stays_in_one_split(tmp_path):
    content = [(f"sentence number {n}", f"{n % 2},customer {n // 10}") for n in range(300)]
    csv(tmp_path / "rows.csv", content, "text,label,who")
    data = read(tmp_path, text="text", label="label", group="who")
    homes: dict[int, set[str]] = {}
    for name, part in data.splits.items():
        for example in part.examples:
            homes.setdefault(int(example["text"].split()[-1]) // 10, set()).add(name)
    assert all(len(home) == 1 for home in homes.values())
    assert {next(iter(home)) for home in homes.values()} == {"train", "validation", "test"}


def test_rows_without_a_group_are_each_their_own(tmp_path):
    content = [
        (text, f"{label},{'' if n % 3 else ' '}") for n, (text, label) in enumerate(rows(0, 300))
    ]
    csv(tmp_path / "rows.csv", content, "text,label,who")
    data, alone = read(tmp_path, group="who"), read(tmp_path)
    for name, part in alone.splits.items():
        assert list(data.splits[name].examples) == list(part.examples)


def test_rows_without_a_group_are_of_none_in_common(folder):
    for name, content in (("train", rows(0, 40)), ("test", rows(50, 10))):
        csv(folder / f"{name}.csv", [(t, f"{label},") for t, label in content], "text,label,who")
    csv(folder / "validation.csv", [(t, f"{y},ann") for t, y in rows(40, 10)], "text,label,who")
    assert not read(folder, group="who").warnings


def test_overlap_is_counted_and_said(folder):
    csv(folder / "test.csv", [*rows(50, 10), ("Sentence  NUMBER 3", "stop")])
    data = read(folder)
    assert data.overlap["test in train"] == 1
    assert "1 of 11 test rows have inputs that train has too" in data.warnings


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([("", "play"), (" ", "stop")], "2 rows with an empty text (first: line 42)"),
        ([("a sentence", "")], "1 row with an empty label (first: line 42)"),
    ],
)
def test_bad_rows_are_counted_or_dropped(folder, bad, message):
    csv(folder / "train.csv", [*rows(0, 40), *bad])
    with pytest.raises(DataError) as error:
        read(folder)
    assert str(error.value).startswith(f"train.csv: {message}")
    assert "data.bad_rows=drop" in str(error.value)
    data = read(folder, bad_rows="drop")
    assert len(data.splits["train"]) == 40
    assert any(message in line for line in data.warnings)


def test_unknown_labels_are_counted_or_dropped(folder):
    csv(folder / "test.csv", [*rows(50, 10), ("a b", "stopp"), ("c d", "stopp")])
    message = r"2 rows with a label that no training row has: 'stopp' \(first: line 12\)"
    with pytest.raises(DataError, match=rf"test\.csv: {message}.*did you mean 'stop'"):
        read(folder)
    data = read(folder, bad_rows="drop")
    assert len(data.splits["test"]) == 10
    assert any("left out" in line for line in data.warnings)


def test_half_a_character_is_a_bad_row(folder):
    lines = [{"text": "half a \ud83d", "label": "play"}]
    lines += [{"text": text, "label": label} for text, label in rows(0, 40)]
    (folder / "train.csv").unlink()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"half a character .*first: line 1\)"):
        read(folder)


@pytest.mark.parametrize("role", ["label", "who"])
def test_half_a_character_in_a_label_or_a_group_is_a_bad_row(folder, role):
    lines = [{"text": text, "label": label, "who": "ann"} for text, label in rows(0, 40)]
    lines[3][role] = "half a \ud83d"
    (folder / "train.csv").unlink()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    csv(
        folder / "validation.csv",
        [(t, f"{label},bob") for t, label in rows(40, 10)],
        "text,label,who",
    )
    csv(folder / "test.csv", [(t, f"{label},cy") for t, label in rows(50, 10)], "text,label,who")
    said = f"a {'group' if role == 'who' else role} with half a character"
    with pytest.raises(DataError, match=rf"1 row with {said} .*first: line 4\)"):
        read(folder, group="who")
    data = read(folder, group="who", bad_rows="drop")
    assert len(data.splits["train"]) == 39
    assert any(said in line and "left out" in line for line in data.warnings)


def test_a_group_that_is_none_names_file_and_line(tmp_path):
    lines = [{"text": text, "label": label, "who": "ann"} for text, label in rows(0, 40)]
    lines[5]["who"] = ["ann", "bob"]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(
        DataError, match=r"train\.jsonl, line 6, 'who': expected a text, found a list"
    ):
        read(tmp_path, group="who")


def test_no_training_rows(folder):
    (folder / "train.csv").unlink()
    with pytest.raises(DataError, match="no training rows"):
        read(folder)


def test_a_split_without_rows(folder):
    csv(folder / "test.csv", [])
    with pytest.raises(DataError, match=r"test\.csv' holds no rows"):
        read(folder)


def test_a_test_split_without_truth_is_left_aside(folder):
    csv(folder / "test.csv", [(text, -1) for text, _ in rows(50, 10)])
    data = read(folder)
    assert (data.origin["test"], data.origin["validation"]) == ("cut", "given")
    assert "test.csv has no labels" in data.warnings[0]


def test_a_column_that_another_split_lacks(folder):
    csv(folder / "test.csv", rows(50, 10), "text,labels")
    with pytest.raises(DataError, match=r"test\.csv has no column 'label' .*'text', 'labels'"):
        read(folder)


@pytest.mark.parametrize(
    ("content", "told", "message"),
    [
        ([("one and the same", "ab"[n % 2]) for n in range(240)], {},
         r"all 240 rows have the same input: there is nothing to cut validation and test from"),
        ([(f"sentence {n}", f"{'ab'[n % 2]},me") for n in range(240)], {"group": "who"},
         "all 240 rows have the same group"),
        ([(f"sentence {n % 2}", "ab"[n % 2]) for n in range(240)], {},
         "240 rows have only 2 different inputs: too few to cut"),
    ],
)  # fmt: skip
def test_rows_that_are_alike_can_not_be_cut(tmp_path, content, told, message):
    csv(tmp_path / "rows.csv", content, "text,label,who" if told else "text,label")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "rows.csv", **told)


def test_a_row_is_placed_by_its_line_where_the_file_has_lines(folder, tmp_path):
    begin = 'text,label\n\n"two\nlines",play\n'
    end = "".join(f"{text},{label}\n" for text, label in rows(0, 40))
    (folder / "train.csv").write_text(f"{begin}{end},stop\n")
    with pytest.raises(DataError, match=r"an empty text \(first: line 45\)"):
        read(folder)
    (folder / "train.csv").unlink()
    lines = [{"text": text, "label": label} for text, label in [*rows(0, 40), ("", "stop")]]
    (folder / "train.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"an empty text \(first: line 81\)"):
        read(folder)
    (folder / "train.jsonl").unlink()
    (folder / "train.json").write_text(json.dumps(lines))
    with pytest.raises(DataError, match=r"an empty text \(first: row 41\)"):
        read(folder)


def test_a_row_keeps_its_line_where_others_are_left_out(folder):
    csv(folder / "test.csv", [("", "play"), *rows(50, 10), ("a b", "other")])
    data = read(folder, bad_rows="drop")
    assert any("first: line 2)" in line for line in data.warnings)
    assert any("'other' (first: line 13)" in line for line in data.warnings)


def test_too_few_rows_to_cut(tmp_path):
    csv(tmp_path / "rows.csv", rows(0, 4))
    with pytest.raises(DataError, match="too few to cut"):
        read(tmp_path)


def test_one_label_alone_and_numbers(folder):
    csv(folder / "train.csv", rows(0, 40, labels=("play",)))
    with pytest.raises(DataError, match="all rows have the label 'play'"):
        read(folder, bad_rows="drop")
    csv(folder / "train.csv", rows(0, 40, labels=("0.5", "1.0")))
    with pytest.raises(DataError, match=r"numbers .* not yet"):
        read(folder)


def test_labels_without_a_test_row_are_listed(folder):
    csv(folder / "train.csv", [*rows(0, 40), ("something rare here", "rare")])
    assert "1 of 3 labels have no test row: rare" in read(folder).warnings


def test_unlabelled_rows_need_no_label(folder):
    csv(folder / "unlabelled.csv", [(text, "") for text, _ in rows(100, 5)])
    data = read(folder)
    assert len(data.splits["unlabelled"]) == 5
    assert data.splits["unlabelled"].truth is None


def pictures(folder, count, value):
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.full((4, 5), value + index, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def test_image_folders_by_split_and_cut(tmp_path):
    for number, name in enumerate(("train", "val", "test")):
        for place, label in enumerate(("cat", "dog")):
            pictures(tmp_path / "given" / name / label, 5, 80 * number + 40 * place)
    data = read(tmp_path / "given")
    assert data.task == "image-classification"
    assert {name: len(part) for name, part in data.splits.items()} == {
        "train": 10, "validation": 10, "test": 10,
    }  # fmt: skip
    assert data.preview[0] == {"image": "0.png (5 x 4)", "label": "cat"}
    for place, label in enumerate(("cat", "dog")):
        pictures(tmp_path / "whole" / label, 40, 100 * place)
    assert set(read(tmp_path / "whole").origin.values()) == {"cut"}


def test_a_damaged_image_is_counted_or_dropped(tmp_path):
    for place, label in enumerate(("cat", "dog")):
        pictures(tmp_path / label, 40, 100 * place)
    broken = tmp_path / "cat" / "5.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError, match=r"1 row with an image that can't be used .*cat/5\.png"):
        read(tmp_path)
    data = read(tmp_path, bad_rows="drop")
    assert sum(len(part) for part in data.splits.values()) == 79


def test_arrays_of_images(tmp_path):
    draws = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", 20), ("test", 8), ("val", 8)):
        arrays[f"x_{name}"] = draws.random((count, 6, 7, 3)).astype(np.float32)
        arrays[f"y_{name}"] = np.arange(count) % 4
    np.savez(tmp_path / "d.npz", **arrays)
    data = read(tmp_path / "d.npz")
    assert data.labels() == ["0", "1", "2", "3"]
    assert data.preview[0] == {"image": "7 x 6 RGB", "label": "0"}
    data.splits["test"].write(tmp_path / "out")
    assert Rows(tmp_path / "out").example(3)["image"].startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_long_texts_lie_in_memory_once(tmp_path, suffix):
    """Decoded, split and hashed one by one: a smiley in one text does not widen all others."""
    lines = [{"text": f"{n} " + "some words " * 100, "label": "ab"[n % 2]} for n in range(4000)]
    lines[7]["text"] += "\U0001f600"
    made = ["text,label", *(f"{line['text']},{line['label']}" for line in lines)]
    made = made if suffix == "csv" else [json.dumps(line) for line in lines]
    path = tmp_path / f"train.{suffix}"
    path.write_text("\n".join(made), encoding="utf-8")
    read(tmp_path)  # whatever is imported and kept
    tracemalloc.start()
    data = read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data.splits["train"]) > 2400
    assert peak < 1.5 * path.stat().st_size


def test_reading_csv_loads_nothing_heavy(folder):
    code = (
        "import sys; from edgedistill.data import sources; "
        "from edgedistill.sections import DataSpec; "
        f"sources.read(DataSpec(path={str(folder)!r})); "
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'PIL', "
        "'sklearn', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_line_is_a_row(tmp_path):
    (tmp_path / "rows.csv").write_text("\n".join(f"{text},{label}" for text, label in rows(0, 40)))
    with pytest.raises(DataError, match="first line looks like a row"):
        read(tmp_path)


def test_one_column_for_two_things(folder):
    with pytest.raises(DataError, match="'text' is named both as text and as label"):
        read(folder, text="text", label="text")


def test_a_text_that_is_none(tmp_path):
    lines = [{"text": {"en": f"a b {n}"}, "label": n % 2} for n in range(40)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"train\.jsonl, line 1, 'text': expected a text"):
        read(tmp_path, text="text")


def test_a_missing_image_file_is_a_bad_row(tmp_path):
    for place, label in enumerate(("cat", "dog")):
        pictures(tmp_path / label, 40, 100 * place)
    (tmp_path / "cat" / "x.png").symlink_to("/none")
    with pytest.raises(DataError, match=r"1 row with an image .*x\.png"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["x", "x_test"])
def test_a_folder_of_archives_named_by_split_is_read(tmp_path, name):
    pixels = np.arange(24 * 16, dtype=np.uint8).reshape(24, 4, 4)
    truth = np.array(["a", "b"] * 12)
    np.savez(tmp_path / "train.npz", x=pixels, y=truth)
    np.savez(tmp_path / "test.npz", **{name: pixels[:6] + 1, name.replace("x", "y"): truth[:6]})
    data = read(tmp_path)
    assert data.origin == {"train": "cut", "validation": "cut", "test": "given"}
    assert len(data.splits["test"]) == 6


def test_a_folder_with_an_archive_of_several_splits_says_to_name_it(tmp_path):
    pixels, truth = np.zeros((4, 4, 4), np.uint8), np.array(["a", "b"] * 2)
    several = {"x_train": pixels, "y_train": truth, "x_test": pixels, "y_test": truth}
    np.savez(tmp_path / "train.npz", **several)
    with pytest.raises(DataError, match="name the archive itself"):
        read(tmp_path)
