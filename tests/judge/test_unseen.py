"""Rows with words that training has not: which they are, and what they show."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill import judge
from edgedistill.judge import unseen


def test_a_word_is_a_run_of_letters_whatever_its_case():
    assert unseen.words("Don't PAY €20, café_x 今天") == {"don", "t", "pay", "café", "x", "今天"}


def test_rows_hold_a_new_word_or_do_not():
    training = ["Play the song", "what's up 2"]
    texts = ["the SONG", "the songs", "s 77 !", "", "UP? new"]
    assert unseen.holding(texts, training).tolist() == [False, True, False, False, True]


def test_accuracy_and_paired_drop_are_of_those_rows_alone():
    truth = np.array([0, 1, 1, 0, -1])
    mine = np.eye(2)[[1, 1, 0, 0, 0]]
    theirs = np.eye(2)[[0, 1, 1, 1, 0]]
    which = np.array([True, True, True, False, True])
    found = judge.unseen_words(mine, truth, theirs, which)
    assert (found.rows, found.accuracy) == (3, pytest.approx(100 / 3))
    assert found.baseline_accuracy == pytest.approx(100)
    assert found.drop.value == pytest.approx(200 / 3) and found.drop.low < found.drop.value
    own = judge.unseen_words(theirs, truth, None, which)
    assert own.accuracy == own.baseline_accuracy == pytest.approx(100) and own.drop is None


def test_without_such_rows_nothing_is_claimed():
    found = judge.unseen_words(np.eye(2), np.array([0, 1]), None, np.zeros(2, bool))
    assert (found.rows, found.accuracy, found.drop) == (0, None, None)
