"""Embedding tables of only the rows that occur: the very same training, put back as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgedistill.train.compact import compact


class Small(nn.Module):
    """Counts what RoBERTa counts: positions from the padding's number on."""

    def __init__(self, pieces=50, padding=1):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(pieces, 8, padding_idx=padding)
        self.out = nn.Linear(8, 3)

    def get_input_embeddings(self):
        return self.table

    def set_input_embeddings(self, table):
        self.table = table

    def forward(self, ids):
        return self.out(self.table(ids).mean(1) * (ids != 1).sum(1, keepdim=True))


IDS = torch.tensor([[4, 9, 9, 1], [30, 4, 2, 17]])
USED = np.array([2, 4, 9, 17, 30])


def trained(model, steps=5):
    tables, rest = list(model.table.parameters()), list(model.out.parameters())
    groups = [{"params": tables, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.01}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, fused=True)
    for step in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(IDS), torch.tensor([step % 3, 1])).backward()
        optimizer.step()


def test_training_is_the_same_and_rows_that_do_not_occur_stay():
    whole = Small()
    small = copy.deepcopy(whole)
    first = whole.table.weight.detach().clone()
    with compact(small, USED):
        assert small.table.weight.shape == (6, 8)  # and the padding
        trained(small)
    trained(whole)
    assert isinstance(small.table, nn.Embedding)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, small.state_dict()[name]), name
    unused = sorted(set(range(50)) - set(USED.tolist()))
    assert torch.equal(small.table.weight[unused], first[unused])
    assert not torch.equal(small.table.weight[USED], first[USED])


def test_a_piece_that_was_not_counted_is_an_error_not_another_row():
    model = Small()
    with compact(model, USED), pytest.raises(IndexError):
        model(torch.tensor([[3]]))


def test_it_is_left_where_it_does_not_pay():
    model = Small()
    with compact(model, np.arange(40)):
        assert model.table.weight.shape == (50, 8)


def test_a_table_that_is_shared_is_left():
    model = Small()
    model.head = nn.Linear(8, 50, bias=False)
    model.head.weight = model.table.weight
    with compact(model, USED):
        assert model.table.weight.shape == (50, 8)


def test_the_table_is_put_back_after_an_error():
    model = Small()
    with pytest.raises(KeyboardInterrupt), compact(model, USED):
        raise KeyboardInterrupt
    assert model.table.weight.shape == (50, 8)
