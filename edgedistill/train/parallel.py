"""Data-parallel training: several processes run the same loop, each on its part of every batch.

A step's batch is `batch` rows a process, drawn in the same order everywhere; process r takes every
world-th row from the r-th on. Gradients are averaged in one reduction, each loss weighted by how
many labels or rows it is a mean over, so that two processes of batch b make the step of one process
of batch 2b, to rounding (losses over tokens: where the parts hold as many tokens; losses that
compare the rows of a batch with each other see a part's rows alone). Process 0 validates, averages
weights, writes checkpoints and keeps the best; the others do as it says.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from edgedistill.errors import DataError, JobError, WorkerDied

JOIN_S = 300.0  # in which all must have joined: they load torch first
NO_WEIGHT = 1e-12  # of a loss that counts no row here: it stays in the sum
SILENCE_S = 1800.0  # after which a process that does not answer counts as gone: validations pass


@dataclass(frozen=True)
class Group:
    """The processes that train together, as one of them sees it."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Say whether this process validates and writes."""
        return self.rank == 0

    def mine(self, indices: np.ndarray) -> np.ndarray:
        """Return this process's rows of a batch."""
        return indices[self.rank :: self.world]

    def scaled(self, terms: Sequence[Any], examples: Any, indices: np.ndarray) -> tuple[Any, ...]:
        """Return the terms of a batch's loss, weighted so that the mean over processes is its own.

        A loss is a mean over rows, or (where it needs the truth) over those whose label is known.
        """
        if self.world == 1:
            return tuple(terms)
        made = []
        for term in terms:
            counted = np.ones(len(indices))
            if getattr(term.plugin, "NEEDS_TRUTH", not term.plugin.READS_TEACHER):
                counted = examples.truth[indices] >= 0
            share = self.world * self.mine(counted).sum() / max(float(counted.sum()), 1.0)
            share = max(float(share), NO_WEIGHT)
            made.append(dataclasses.replace(term, first=term.first * share, last=term.last * share))
        return tuple(made)

    def average(self, parameters: Iterable[Any], loss: float) -> float:
        """Average the gradients in place, and return the average of the losses."""
        if self.world == 1:
            return loss
        import torch

        found = [each.grad for each in parameters if each.grad is not None]
        value = found[0].new_tensor([loss])
        flat = torch.cat([*(each.reshape(-1) for each in found), value])
        with _together():
            torch.distributed.all_reduce(flat)
        flat /= self.world
        parts = flat[:-1].split([each.numel() for each in found])
        torch._foreach_copy_(found, [p.view_as(g) for p, g in zip(parts, found, strict=True)])
        return float(flat[-1])

    def first(self, value: int, device: str) -> int:
        """Return process 0's value."""
        if self.world == 1:
            return value
        import torch

        told = torch.tensor([value], device=device)
        with _together():
            torch.distributed.broadcast(told, 0)
        return int(told)

    def begin(self, whole: Any, step: int, rows: int, device: str) -> None:
        """Give all process 0's weights, once it is sure that they start at the same step.

        Raises `WorkerDied` where one does not see the checkpoints of process 0.
        """
        if self.world == 1:
            return
        import torch

        if rows < self.world:
            raise DataError(f"{rows} rows can't be shared by {self.world} processes")
        furthest = torch.tensor([step, -step], device=device)
        with _together():
            torch.distributed.all_reduce(furthest, torch.distributed.ReduceOp.MAX)
            if int(furthest[0]) != -int(furthest[1]):
                raise WorkerDied(
                    "the processes that train together see different checkpoints: their stores "
                    "must lie on one file system (--store)"
                )
            for tensor in whole.state_dict().values():
                torch.distributed.broadcast(tensor, 0)


ALONE = Group()


def current(processes: int) -> Group:
    """Return the group that this process has joined.

    Raises `JobError` where a step wants more processes than there are.
    """
    if processes == 1:
        return ALONE
    import torch.distributed as dist

    world = dist.get_world_size() if dist.is_initialized() else 1
    if world != processes:
        raise JobError(
            f"the training is for {processes} processes, and here are {world}: start it with "
            f"torchrun --nproc-per-node {processes} -m edgedistill ..."
        )
    return Group(dist.get_rank(), world)


def host() -> Any:
    """Return a new store through which the others find this process; `.port` is where."""
    from torch.distributed import TCPStore

    # a port of its own for each training: that of the launcher may be taken, or not yet free
    return TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)


def guest(address: str, port: int) -> Any:
    """Return the store of the process that leads. Raises `WorkerDied` where it is gone."""
    from torch.distributed import TCPStore

    with _together():
        return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=JOIN_S))


@contextmanager
def joined(store: Any, *, rank: int, world: int, device: str) -> Iterator[None]:
    """Be one of a group: by gloo, on CUDA by nccl, each process on the GPU of its LOCAL_RANK."""
    import torch
    import torch.distributed as dist

    cuda = device == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    with _together():
        store.set_timeout(timedelta(seconds=JOIN_S))
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=SILENCE_S),
        )
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    """Turn what torch says of a peer that is gone into our error."""
    try:
        yield
    except RuntimeError as error:  # DistError, DistNetworkError and gloo's own are such
        raise WorkerDied(
            f"a process that trains beside this one ended or is silent: {_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
