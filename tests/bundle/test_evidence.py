"""The evidence pairs a later bundle with the same baseline, row by row, and holds no row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgedistill.bundle import Evidence, evidence
from edgedistill.errors import BundleError, InternalError

LABELS = ("weather", "money", "music & film")


def write(path: Path, held: Evidence) -> Path:
    evidence.write(path, held, LABELS, "0" * 64)
    return path


@pytest.fixture
def held(evidence: Evidence) -> Evidence:
    return evidence


def test_outputs_come_back_by_the_digest_in_any_order(tmp_path: Path, held: Evidence):
    kept = evidence.read(write(tmp_path / "e.npz", held), LABELS)
    assert kept is not None
    asked = [held.digests[2], held.digests[0], held.digests[2]]
    assert np.array_equal(kept.of(asked), held.baseline[[2, 0, 2]])
    assert kept.of([held.digests[0], "f" * 64]) is None


def test_equal_examples_have_equal_digests_and_others_not():
    assert evidence.digest({"text": "a", "text_pair": "b"}) == evidence.digest(
        {"text_pair": "b", "text": "a"}
    )
    others = [{"text": "a"}, {"text": "ab"}, {"text": "a", "text_pair": ""}, {"image": b"a"}]
    assert len({evidence.digest(one) for one in others}) == 4


def test_the_same_evidence_is_the_same_bytes(tmp_path: Path, held: Evidence):
    first, second = write(tmp_path / "a.npz", held), write(tmp_path / "b.npz", held)
    assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_none_is_none_and_damage_is_said(tmp_path: Path, held: Evidence):
    assert evidence.read(tmp_path / "none.npz", LABELS) is None
    path = write(tmp_path / "e.npz", held)
    whole = path.read_bytes()
    for content in (b"", b"x" * 100, whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(BundleError, match="damaged"):
            evidence.read(path, LABELS)


def test_a_pickle_in_it_is_never_loaded(tmp_path: Path):
    path = tmp_path / "e.npz"
    np.savez(path, labels=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(BundleError, match="damaged"):
        evidence.read(path, LABELS)


def test_evidence_of_other_labels_is_refused(tmp_path: Path, held: Evidence):
    with pytest.raises(BundleError, match="other labels"):
        evidence.read(write(tmp_path / "e.npz", held), ("a", "b", "c"))


def test_tables_of_unlike_length_are_our_fault(tmp_path: Path, held: Evidence):
    broken = Evidence(held.digests[:-1], held.truth, held.baseline, held.chosen)
    with pytest.raises(InternalError):
        write(tmp_path / "e.npz", broken)
