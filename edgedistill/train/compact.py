"""Embedding tables of only the rows that the data use.

A row of the table whose piece never occurs has a gradient of zero, and AdamW without weight decay
leaves it as it is; yet a dense optimizer walks over all 30,000 rows in every step, and gradients
of that size are zeroed, summed and clipped. Training on the rows that occur gives the very same
weights in a fraction of the time (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

PAYS_BELOW = 0.7  # of the table's rows


@contextmanager
def compact(model: Any, used: np.ndarray) -> Iterator[None]:
    """Replace the input embeddings by the rows in `used`, and put them back at the end.

    Nothing changes where it does not pay or the model has no table of pieces. Piece numbers stay as
    they are, so that whatever else the model reads of them (positions, padding) is not touched.
    """
    import torch
    from torch import nn

    class Compact(nn.Module):
        places: Any

        def __init__(self, table: nn.Embedding, rows: Any, places: Any) -> None:
            super().__init__()
            self.weight = nn.Parameter(table.weight.detach()[rows].clone())
            self.register_buffer("places", places, persistent=False)
            self.padding = None if table.padding_idx is None else int(places[table.padding_idx])

        def forward(self, pieces: Any) -> Any:
            return nn.functional.embedding(self.places[pieces], self.weight, self.padding)

    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding) or table.max_norm is not None:
        yield
        return
    shared = sum(parameter is table.weight for _, parameter in _all_parameters(model))
    rows = np.union1d(used, [] if table.padding_idx is None else [table.padding_idx])
    if shared > 1 or len(rows) >= PAYS_BELOW * table.num_embeddings:
        yield
        return
    chosen = torch.from_numpy(rows.astype(np.int64)).to(table.weight.device)
    places = torch.full((table.num_embeddings,), -1, dtype=torch.int64, device=chosen.device)
    places[chosen] = torch.arange(len(rows), device=chosen.device)
    small = Compact(table, chosen, places)
    model.set_input_embeddings(small)
    try:
        yield
    finally:
        table.to(small.weight.device)  # the model may have moved while the table was out of it
        with torch.no_grad():
            table.weight[chosen.to(table.weight.device)] = small.weight
        model.set_input_embeddings(table)


def _all_parameters(model: Any) -> Any:
    return model.named_parameters(remove_duplicate=False)
