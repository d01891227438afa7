"""Checkpoints: whole or not at all, two kept, a damaged one falls back to the one before."""

from __future__ import annotations

import json

import pytest
import torch

from edgedistill.train import checkpoint


def write(folder, step, value=None):
    tensors = {
        "a": torch.full((4,), float(step if value is None else value)),
        "b": torch.tensor(step),
    }
    checkpoint.write(folder, step, tensors=tensors, rest={"note": f"at {step}"})


def steps(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(tmp_path):
    write(tmp_path, 7)
    tensors, rest = checkpoint.read(tmp_path)
    assert tensors["a"].tolist() == [7.0] * 4 and tensors["b"].item() == 7
    assert rest["step"] == 7 and rest["note"] == "at 7"


def test_nothing_there_is_none(tmp_path):
    assert checkpoint.read(tmp_path) is None
    assert checkpoint.read(tmp_path / "absent") is None


def test_two_are_kept(tmp_path):
    for step in (1, 2, 3, 12):
        write(tmp_path, step)
    assert steps(tmp_path) == ["00000003", "00000012"]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "flipped"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path, name, damage):
    write(tmp_path, 1)
    write(tmp_path, 2)
    path = tmp_path / "00000002" / name
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "gone":
        path.unlink()
    elif name == "state.json":
        path.write_text(json.dumps({**json.loads(whole), "digest": "0" * 64}))
    else:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    tensors, rest = checkpoint.read(tmp_path)
    assert rest["step"] == 1 and tensors["b"].item() == 1
    assert steps(tmp_path) == ["00000001"]


def test_a_half_written_one_is_never_read(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "00000001").rename(tmp_path / "00000005.partial")
    assert checkpoint.read(tmp_path) is None
    assert steps(tmp_path) == []


def test_the_same_step_again_replaces_it(tmp_path):
    write(tmp_path, 3, value=1)
    write(tmp_path, 3, value=2)
    assert checkpoint.read(tmp_path)[0]["a"].tolist() == [2.0] * 4


def test_one_is_due_each_minute_and_less_often_where_writing_is_slow(monkeypatch):
    now = [1000.0]
    monkeypatch.delenv(checkpoint.VARIABLE, raising=False)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    clock = checkpoint.Clock()
    now[0] += 59
    assert not clock.due()
    now[0] += 1
    assert clock.due()
    clock.wrote(6.0)  # 3 % of 200 seconds
    now[0] += 199
    assert not clock.due()
    now[0] += 1
    assert clock.due()
    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    clock.wrote(6.0)
    assert clock.due()
