"""The layer map: uniform, last, first, or given; what can not be is said."""

from __future__ import annotations

import pytest
import torch

from edgedistill import settings
from edgedistill.errors import JobError
from edgedistill.losses import _layers, hidden_states


@pytest.mark.parametrize(
    ("told", "student", "teacher", "found"),
    [
        ("uniform", 2, 6, [2, 5]),
        ("uniform", 4, 12, [2, 5, 8, 11]),
        ("uniform", 1, 6, [5]),
        ("uniform", 4, 6, [0, 2, 3, 5]),
        ("last", 2, 6, [4, 5]),
        ("first", 2, 6, [0, 1]),
        ("uniform", 3, 3, [0, 1, 2]),
        ((1, 1), 2, 6, [1, 1]),
    ],
)
def test_maps_by_hand(told, student, teacher, found):
    assert _layers.pairs(told, student, teacher, "it") == found


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("unifrom", "it: unknown map 'unifrom': did you mean 'uniform'"),
        ((1,), "0 to 5, for each of the student's 2, got 1"),
        ((1, 6), "0 to 5, for each of the student's 2, got 1, 6"),
        ((-1, 2), "got -1, 2"),
    ],
)
def test_a_map_that_can_not_be_is_one_line(told, says):
    with pytest.raises(JobError, match=says) as error:
        _layers.pairs(told, 2, 6, "it")
    assert "\n" not in str(error.value)


def test_a_deeper_student_needs_its_layers_told():
    with pytest.raises(JobError, match="give their numbers"):
        _layers.pairs("last", 4, 2, "it")
    assert _layers.pairs((0, 0, 1, 1), 4, 2, "it") == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("written", "read"), [("last", "last"), ("1,3", (1, 3)), ([1, 3], (1, 3)), (2, (2,))]
)
def test_a_map_is_a_setting_of_a_file_or_a_command_line(written, read):
    made = settings.coerce(hidden_states.Settings, {"map": written}, "it")
    assert made.map == read
    assert settings.coerce(hidden_states.Settings, settings.plain(made), "it") == made


def test_means_leave_padding_out_even_where_it_is_no_number():
    values = torch.tensor([[1.0, 2.0, float("nan")]])
    valid = torch.tensor([[True, True, False]])
    assert _layers.mean_over(values, valid).item() == 1.5
    assert _layers.mean_over(values, torch.zeros_like(valid)).item() == 0
