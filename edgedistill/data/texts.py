"""Text examples by column: a row becomes a mapping only when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

from edgedistill.data.rows import Example


class Texts(Sequence[Example]):
    """Examples of one text or two each; a mapping a row would weigh more than a short text."""

    def __init__(self, columns: Mapping[str, Sequence[str]]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> Example | Texts:
        if isinstance(index, slice):
            return Texts({name: texts[index] for name, texts in self._columns.items()})
        return {name: texts[index] for name, texts in self._columns.items()}

    def pick(self, indices: Sequence[int]) -> Texts:
        """Return the rows at these indices."""
        return Texts({name: [each[i] for i in indices] for name, each in self._columns.items()})
