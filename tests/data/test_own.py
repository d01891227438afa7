"""A second, small set of rows: read, split, held against the general one."""

import pytest

from edgedistill.data import sources, split
from edgedistill.errors import DataError
from edgedistill.sections import DataSpec


def csv(path, rows, header="text,label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n")


def rows(start, count, word="sentence", labels=("play", "stop", "wait")):
    return [(f"{word} number {n}", labels[n % len(labels)]) for n in range(start, start + count)]


@pytest.fixture
def general(tmp_path):
    csv(tmp_path / "general" / "train.csv", rows(0, 60))
    csv(tmp_path / "general" / "validation.csv", rows(60, 15))
    csv(tmp_path / "general" / "test.csv", rows(75, 15))
    return tmp_path / "general"


def read(general, own, **told):
    return sources.read(DataSpec(path=str(general), own=str(own), **told))


def given(folder, **more):
    parts = {"train": rows(0, 20, "own"), "validation": rows(20, 6, "own")}
    for name, part in {**parts, "test": rows(26, 6, "own"), **more}.items():
        csv(folder / f"{name}.csv", part)
    return folder


def test_splits_that_are_given_and_the_general_ones_stay_as_they_were(general, tmp_path):
    data = read(general, given(tmp_path / "mine"))
    assert {name: len(data.splits[name]) for name in split.OWN} == {
        "own_train": 20,
        "own_validation": 6,
        "own_test": 6,
    }
    assert set(data.origin.values()) == {"given"} and not data.warnings
    assert data.own == ("mine", {"text": "text", "label": "label"})
    before = sources.read(DataSpec(path=str(general)))
    assert all(data.splits[name].digest == part.digest for name, part in before.splits.items())
    assert before.own is None


def test_missing_splits_are_cut(general, tmp_path):
    csv(tmp_path / "mine.csv", rows(0, 60, "own", ("play",)))
    data = read(general, tmp_path / "mine.csv")
    assert {data.origin[name] for name in split.OWN} == {"cut"}
    for example in data.splits["own_test"].examples:
        assert split.position(split.normalised(example)) < 0.2
    csv(tmp_path / "few.csv", rows(0, 3, "own"))
    with pytest.raises(DataError, match=r"own few\.csv: 3 rows are too few to cut"):
        read(general, tmp_path / "few.csv")


def test_labels_are_among_the_general_ones(general, tmp_path):
    folder = given(tmp_path / "mine", train=[*rows(0, 20, "own"), ("own x", "pause")])
    told = r"own train\.csv: 1 rows .* no general training row has.*'pause' \(first: line 22\)"
    with pytest.raises(DataError, match=told):
        read(general, folder)
    data = read(general, folder, bad_rows="drop")
    assert len(data.splits["own_train"]) == 20
    assert any("'pause'" in line and "left out" in line for line in data.warnings)


def test_no_own_training_row_stands_in_the_general_test_nor_the_other_way(general, tmp_path):
    folder = given(
        tmp_path / "mine",
        train=[*rows(0, 20, "own"), *rows(70, 8)],  # five of validation, three of test
        test=[*rows(26, 6, "own"), *rows(5, 2)],
    )
    data = read(general, folder)
    assert len(data.splits["own_train"]) == 20 and len(data.splits["own_test"]) == 6
    said = "\n".join(data.warnings)
    assert "8 of 28 own train rows stand in general validation or test: left out" in said
    assert "2 of 8 own test rows stand in general train: left out" in said
    with pytest.raises(
        DataError, match="6 of 6 own test rows stand in general train: no row is left"
    ):
        read(general, given(tmp_path / "other", test=rows(0, 6)))


def test_columns_may_have_other_names_but_not_another_kind(general, tmp_path):
    csv(tmp_path / "mine" / "rows.csv", rows(0, 60, "own"), "said,intent")
    data = read(general, tmp_path / "mine", text="text", label="label")
    assert data.own == ("mine", {"text": "said", "label": "intent"})
    pairs = [(f"own number {n},and then {n}", "play") for n in range(60)]
    csv(tmp_path / "pairs.csv", pairs, "premise,hypothesis,intent")
    with pytest.raises(
        DataError, match=r"own rows .* have text and text_pair, the general ones text"
    ):
        read(general, tmp_path / "pairs.csv")


def test_unlabelled_rows_are_apart_from_the_own_test_too(general, tmp_path):
    (general / "unlabelled.txt").write_text("own number 27\nsomething else\n")
    data = read(general, given(tmp_path / "mine"))
    assert len(data.splits["unlabelled"]) == 1
    assert any("1 of own_test" in line for line in data.warnings)


def test_a_set_that_is_not_there(general, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match=r"'.*mime' does not exist: did you mean '.*mine'"):
        read(general, tmp_path / "mime")
    csv(tmp_path / "mine" / "test.csv", rows(0, 9))
    with pytest.raises(DataError, match=r"'mine' \(data\.own\) has no training rows"):
        read(general, tmp_path / "mine")


@pytest.mark.parametrize(
    ("weight", "general", "own", "times"),
    [(0.3, 700, 300, 1), (0.3, 15_000, 100, 64), (0.5, 100, 10, 10), (0.1, 10, 1000, 1)],
)
def test_own_rows_are_repeated_until_they_make_up_their_share(weight, general, own, times):
    assert split.repeats(weight, general, own) == times
