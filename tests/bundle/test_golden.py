"""Golden vectors: read by any language, exact in their encoding, held within a stated tolerance."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgedistill.bundle import golden
from edgedistill.errors import InternalError

EXAMPLES = [{"text": "a"}, {"text": "b"}]
ENCODED = [{"input_ids": np.array([1, 2], np.int32)}, {"input_ids": np.array([3], np.int32)}]
OUTPUTS = np.array([[4.0, -4.0], [1.5, 0.1]], np.float32)


def document(precision: str = "fp32") -> dict:
    made = golden.make(
        EXAMPLES, ENCODED, OUTPUTS, task="t", output="logits", precision=precision
    )  # fmt: skip
    return json.loads(golden.dump(made))


def compare(said: dict, outputs: np.ndarray = OUTPUTS, encoded=ENCODED) -> golden.Agreement:
    by_text = {one["text"]: row for one, row in zip(EXAMPLES, encoded, strict=True)}
    by_first = {1: outputs[0], 3: outputs[1]}
    return golden.compare(
        said,
        labels=2,
        encode=lambda example: by_text[example["text"]],
        run=lambda row: by_first[int(row["input_ids"][0])],
    )


def test_what_is_written_comes_back_to_the_bit():
    said = document()
    assert said["rows"][0]["encoded"] == {
        "input_ids": {"type": "int32", "shape": [2], "data": [1, 2]}
    }
    assert np.array_equal(np.array(said["rows"][1]["output"], np.float32), OUTPUTS[1])
    found = compare(said)
    assert found.holds and found.agreement == 1 and found.max_difference < 1e-6


def test_long_arrays_stand_as_base64():
    pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    packed = golden._pack(pixels)
    assert set(packed) == {"type", "shape", "base64"}
    assert np.array_equal(golden._unpack(json.loads(json.dumps(packed))), pixels)
    wide = np.arange(5000, dtype=">i4")
    assert np.array_equal(golden._unpack(golden._pack(wide)), wide)


def test_int8_is_allowed_more_than_float():
    assert document("fp32")["tolerance"] < document("int8")["tolerance"] < 0.1


def test_a_difference_within_the_tolerance_holds_and_beyond_it_does_not():
    said = document()
    near, far = OUTPUTS.copy(), OUTPUTS.copy()
    near[0, 0] += 0.9 * said["tolerance"]
    far[0, 0] += 1.5 * said["tolerance"]
    assert compare(said, near).holds
    found = compare(said, far)
    assert not found.holds and "golden row 0" in found.reason


def test_another_best_label_lowers_the_agreement():
    found = compare(document(), OUTPUTS[:, ::-1])
    assert not found.holds and found.agreement == 0


def test_outputs_that_are_no_numbers_do_not_hold():
    assert not compare(document(), np.full_like(OUTPUTS, np.nan)).holds


def test_other_tokens_do_not_hold_though_the_outputs_are_the_same():
    other = [{"input_ids": np.array([1, 9], np.int32)}, ENCODED[1]]
    found = compare(document(), encoded=other)
    assert not found.holds and "other inputs" in found.reason
    assert found.max_difference < 1e-6


@pytest.mark.parametrize(("step", "same"), [(1, True), (2, False)])
def test_pixels_may_differ_by_one_step(step: int, same: bool):
    stored = {"pixels": np.full((2, 2, 1), 7, np.uint8)}
    assert golden._same(stored, {"pixels": stored["pixels"] + step}) is same


def test_a_model_that_answers_with_no_number_is_never_bundled():
    broken = np.array([[1.0, np.nan]], np.float32)
    with pytest.raises(InternalError):
        golden.make(
            EXAMPLES[:1], ENCODED[:1], broken, task="t", output="logits", precision="fp32"
        )  # fmt: skip
