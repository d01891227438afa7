"""Narrower encoders by projection: the residual stream turned onto its principal components.

With P (hidden x narrower, orthonormal columns) the stream x becomes z = P'x: tables become E P,
matrices that read the stream W P, those that write it P'W, vectors P'b (as SliceGPT does for
networks without centring; Ashkboos et al., 2024). P holds the principal components of the table of
embeddings (weighing its rows by how often they are used gained nothing, by trial); where there is
no such table, those of all that reads or writes the stream together, each at the same weight.

LayerNorm is not a rotation's friend. Its centring is kept exactly: the direction of the mean is in
the span of P, and P is turned so that it is the mean of z too. Its scale g is not: P'diag(g)P is
replaced by its diagonal, times sqrt(c hidden / narrower), where c is the part that P keeps of the
squared weight of what writes the stream (a norm over fewer dimensions gives a shorter vector).

Heads and feed-forward neurons are chosen as in `_width`; so are the outputs of a pooler or of a
head's first layer, since what stands behind them is no linear map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedistill.families import _width
from edgedistill.records import Shape

Pairs = Mapping[str, tuple[Any, Any]]  # the teacher's name of a tensor: the teacher's, ours


class Projection:
    """What narrows the tensors of one teacher to those of one student."""

    def __init__(
        self, pairs: Pairs, stack: str, teacher: Shape, student: Shape, *, table: str | None = None
    ) -> None:
        self._stack, self._teacher = stack, teacher
        self._pooled = _pooled(pairs, stack, teacher)
        self._kept = _width.keep(pairs, stack, teacher, student)
        self._basis, part = _basis(
            {
                (name, axis): ours
                for name, (ours, small) in pairs.items()
                for axis, kind in enumerate(_width.axes(name, ours, small, stack, teacher))
                if kind == "hidden" and ours.ndim > 1 and (name, axis) not in self._pooled
            },
            table,
            student["hidden"],
        )
        self._louder = (part * teacher["hidden"] / student["hidden"]) ** 0.5

    def cut(self, name: str, ours: Any, small: Any) -> Any:
        """Return a teacher's tensor at the student's width; None where nothing fits."""
        import torch

        axes = _width.axes(name, ours, small, self._stack, self._teacher)
        if ours.ndim == 1 and axes == ["hidden"] and _scales(name):
            return (self._basis.square().T @ ours.double() * self._louder).to(ours.dtype)
        for axis, kind in enumerate(axes):
            if kind == "hidden" and (name, axis) not in self._pooled:
                ours = _turned(ours, axis, self._basis)
            elif kind == "twice":
                ours = _turned(ours, axis, torch.block_diag(self._basis, self._basis))
            elif kind:
                chosen = self._kept[""].get(kind)
                if chosen is None:
                    chosen = self._kept.get(_width.layer(name, self._stack), {}).get(kind)
                if chosen is None:
                    return None
                ours = ours.index_select(axis, chosen)
        return ours if ours.shape == small.shape else None


def _turned(values: Any, axis: int, basis: Any) -> Any:
    """Multiply one axis of a tensor by the basis."""
    import torch

    turned = torch.tensordot(values.double(), basis, dims=([axis], [0]))
    return turned.movedim(-1, axis).to(values.dtype)


def _scales(name: str) -> bool:
    """Say whether a vector scales the stream, dimension by dimension: norms, DINOv2's layers."""
    return name.endswith((".weight", ".lambda1"))


def _pooled(pairs: Pairs, stack: str, teacher: Shape) -> set[tuple[str, int]]:
    """Return the axes, by tensor, of what a pooler gives: no dimensions of the stream any more."""
    found: set[tuple[str, int]] = set()
    axes = {
        name: _width.axes(name, ours, small, stack, teacher)
        for name, (ours, small) in pairs.items()
        if not _width.layer(name, stack) and "embedding" not in name
    }
    pools = [name for name, each in axes.items() if each == ["hidden", "hidden"]]
    for name in pools:
        found |= {(name, 0), (name.removesuffix("weight") + "bias", 0)}
    if pools:
        found |= {(name, 1) for name, each in axes.items() if each == [None, "hidden"]}
    return found


def _basis(
    along: Mapping[tuple[str, int], Any], table: str | None, narrow: int
) -> tuple[Any, float]:
    """Return P, (hidden, narrower) float64, and the part that it keeps of what is written.

    `along`: the tensors that read or write the stream, by name and the axis that runs over it.
    """
    import torch

    if (table, 1) in along:
        total = written = _squared(along[table or "", 1], 1)
    else:
        each = {key: _squared(values, key[1]) for key, values in along.items() if values.any()}
        total = sum(each.values())
        written = sum(one for (n, axis), one in each.items() if axis == 0 or "embedding" in n)
    hidden = len(total)
    mean = torch.full((hidden, 1), hidden**-0.5, dtype=torch.float64)
    across = torch.eye(hidden, dtype=torch.float64) - mean @ mean.T
    vectors = torch.linalg.eigh(across @ total @ across)[1]  # the greatest come last
    kept = vectors[:, hidden - narrow + 1 :].flip(1)
    part = float((kept.T @ written @ kept).trace() / (across @ written @ across).trace())
    return torch.cat([mean, kept], dim=1) @ _onto_the_mean(narrow), part


def _squared(values: Any, axis: int) -> Any:
    """Return W'W over one axis of a tensor, (hidden, hidden) float64, at a weight of 1."""
    each = values.double().movedim(axis, -1).flatten(0, -2)
    return each.T @ each / each.square().sum()


def _onto_the_mean(size: int) -> Any:
    """Return the reflection that takes the first axis to the mean of all (Householder, 1958)."""
    import torch

    mean = torch.full((size, 1), size**-0.5, dtype=torch.float64)
    first = torch.zeros(size, 1, dtype=torch.float64)
    first[0] = 1.0
    across = first - mean
    return torch.eye(size, dtype=torch.float64) - 2 * across @ across.T / across.square().sum()
