import hashlib

import pytest

from edgedistill.data import split


def hashes(count):
    texts = [{"text": f"row number {index}"} for index in range(count)]
    return [split.hashed(split.normalised(text)) for text in texts]


def test_shares_are_as_the_contract_says():
    parts = split.cut(hashes(5000), ("validation", "test"))
    assert sorted(index for part in parts.values() for index in part) == list(range(5000))
    assert len(parts["test"]) / 5000 == pytest.approx(0.20, abs=0.02)
    assert len(parts["validation"]) / 5000 == pytest.approx(0.10, abs=0.02)


def test_a_rows_split_is_its_own_hash():
    key = split.normalised({"text": "Play some  JAZZ"})
    assert key == b"play some jazz\x1f"
    place = int(hashlib.sha256(key).hexdigest()[:16], 16) / 2**64
    assert split.position(key) == pytest.approx(place)


def test_adding_rows_moves_none():
    few, many = (split.cut(hashes(count), ("validation", "test")) for count in (300, 900))
    for name, chosen in few.items():
        assert chosen == [index for index in many[name] if index < 300]


def test_a_missing_validation_takes_no_row_that_would_be_test():
    both = split.cut(hashes(500), ("validation", "test"))
    one = split.cut(hashes(500), ("validation",))
    assert one["validation"] == both["validation"]
    assert sorted(both["train"] + both["test"]) == one["train"]


def test_inputs_equal_for_people_are_equal():
    same = ["Straße  frei", " STRASSE frei\n", "ｓｔｒａｓｓｅ frei"]
    assert len({split.normalised({"text": text}) for text in same}) == 1
    first, second = {"text": "a b", "text_pair": "c"}, {"text": "a", "text_pair": "b c"}
    assert split.normalised(first) != split.normalised(second)


def test_the_fingerprint_sees_every_cell_and_the_order():
    contents, truth = [b"a", b"bc", b""], ["x", "y", "x"]
    first = split.fingerprint("text", contents, truth)
    assert first == split.fingerprint("text", list(contents), tuple(truth))
    others = [
        split.fingerprint("text", [b"ab", b"c", b""], truth),
        split.fingerprint("text", contents[::-1], truth[::-1]),
        split.fingerprint("text", contents, ["x", "y", "y"]),
        split.fingerprint("text", contents, None),
        split.fingerprint("image", contents, truth),
    ]
    assert len({first, *others}) == 6


def test_overlap_is_counted_for_every_pair():
    found = split.overlap({"train": [b"a", b"b"], "validation": [b"b"], "test": [b"b", b"b", b"c"]})
    assert found == {"validation in train": 1, "test in train": 2, "test in validation": 2}


def test_labels_go_by_number_or_by_name():
    assert split.ordered(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert split.ordered(["b", "10", "B"]) == ["10", "B", "b"]


def test_contradictions_are_counted_once_an_input():
    assert split.contradictions([b"a", b"a", b"a", b"b"], ["x", "y", "x", "x"]) == 1
