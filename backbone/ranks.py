"""Processes that train one network together, each with its share of the rows of every batch (data parallel).

What only some rows go into is asked of all processes: outputs are gathered, gradients added up. Everything else all of
them do alike, from the same seeds, so that their weights stay the same to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engram.backbone.errors import must

_PATIENCE = timedelta(seconds=60)


class Ranks:
    """This process among those that work together. Every call is one of all of them, in the same order.

    Attributes:
        part: which part of the images that are computed at the moment are this process's; 1 where that is no batch.

    Args:
        rank: the number of this one, from 0.
        count: how many there are.
        store: what they find one another by; None where nothing is exchanged.
    """

    def __init__(self, rank: int, count: int, store: Any = None) -> None:
        self.rank, self.count, self.store = rank, count, store
        self.part = 1.0

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Which of so many rows are this process's: runs of equal length, the first ones longer by one.

        >>> [Ranks(rank, 3).share(8) for rank in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        least, more = divmod(rows, self.count)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def leave(self) -> None:
        """Go on alone, once all are done with what they do together.

        Who ends while another one is still to take up what both have exchanged takes it from it.
        """
        _here.clear()
        if self.store is not None:
            self.store.set(f"done/{self.rank}", "")
            with suppress(RuntimeError):  # one was killed, or is busy: nothing is lost but its part in this
                self.store.wait([f"done/{rank}" for rank in range(self.count)], _PATIENCE)
        dist.destroy_process_group()
        self.store = None  # the last process that lets go of a store's file removes it

    def any(self, asked: bool) -> bool:
        """Whether any process was asked."""
        told = torch.tensor(int(asked))
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told)

    def agreed(self, value: int) -> int:
        """The first process's value."""
        told = torch.tensor(value)
        dist.broadcast(told, 0)
        return int(told)

    def take_over(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors the values that the first process has, in place."""
        for tensor in tensors:
            dense = tensor.detach().contiguous()
            dist.broadcast(dense, 0)
            tensor.detach().copy_(dense)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """The sums over processes of tensors of one type and device, in place."""
        if not tensors:
            return
        flat = self.total(torch.cat([tensor.reshape(-1) for tensor in tensors]))
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def total(self, own: Tensor) -> Tensor:
        """The sum over processes of a tensor that is of one shape everywhere, in its place."""
        dist.all_reduce(own)
        return own

    def every(self, own: Tensor) -> Tensor:
        """own: [...], of one shape everywhere -> [count, ...], by the numbers of the processes."""
        found = own.new_empty(self.count * own.numel())
        dist.all_gather_into_tensor(found, own.reshape(-1))
        return found.view(self.count, *own.shape)

    def in_turn(self, own: Sequence[Sequence[float]], count: int, width: int) -> list[list[float]]:
        """What processes have found that take ``count`` things in turn, in the order of these.

        own: ``width`` numbers for each thing that this one took.
        """
        held = torch.zeros(-(-count // self.count), width, dtype=torch.float64)
        held[: len(own)] = torch.tensor(own, dtype=torch.float64).view(-1, width)
        return self.every(held).transpose(0, 1).flatten(0, 1)[:count].tolist()

    def gathered(self, own: Tensor, rows: int) -> Tensor:
        """The rows of all processes. A gradient goes back to this one's.

        Each is to go on from there as all others do: their gradients are sums over all rows already.

        Args:
            own: [b, ...], those of `share`; where that is empty any one row, which is dropped.
            rows: how many there are in all, B.

        Returns: [B, ...].
        """
        share = self.share(rows)
        found = _Gathered.apply(own[: share.stop - share.start].float(), self, rows)
        return found.to(own.dtype)  # type: ignore[no-any-return]


class _Gathered(torch.autograd.Function):
    """`Ranks.gathered`, of float32."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks, rows: int) -> Tensor:  # type: ignore[override]
        ctx.share = ranks.share(rows)
        whole = own.new_zeros(rows, *own.shape[1:])
        whole[ctx.share] = own
        return ranks.total(whole)  # half the time of a gather where messages are small

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return grad[ctx.share], None, None


_here: list[Ranks] = []


def current() -> Ranks | None:
    """The processes that this one works with; None where it works alone."""
    return _here[-1] if _here else None


def part() -> float:
    """Which part of the images of a step are this process's: what a mean over its own is to count for."""
    return _here[-1].part if _here else 1.0


def join(device: str, store: str | None = None) -> Ranks:
    """Work with the other processes that torchrun, or whoever sets what it sets, has started.

    Args:
        device: as `engram.backbone.contract.Services.device` says it; each process has a GPU of its own.
        store: a file by which they find one another; None for the address that the environment says.

    Raises:
        UserError: there are fewer GPUs than processes on this machine.
    """
    gpus = device.startswith("cuda")
    if gpus:
        own, needed = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if (there := torch.cuda.device_count()) < needed:
            raise must("--devices", f"at most {there}, the GPUs of this machine", needed, "Or use --device cpu.")
        torch.cuda.set_device(own)
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    stores: Any = dist  # of which torch's stubs leave out those
    place = next(iter(stores.rendezvous("env://", rank, count)))[0] if store is None else stores.FileStore(store, count)
    ranks = Ranks(rank, count, place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", store=place, rank=rank, world_size=count)
    _here.append(ranks)
    return ranks
