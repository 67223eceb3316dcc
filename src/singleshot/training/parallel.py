"""The processes that train together: one, or all that `torchrun` has started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from singleshot.devices import find_device
from singleshot.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The place of this process among all. With one process, every exchange is free."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the first process: it writes all files."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.world == 1:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def broadcast(self, value: T) -> T:
        """The first process's value."""
        if self.world == 1:
            return value
        from accelerate.utils import broadcast_object_list

        box: list[Any] = [value]
        broadcast_object_list(box)
        return box[0]  # type: ignore[no-any-return]

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, without a host sync."""
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through this before all others."""
        if self.world > 1 and not self.first:
            dist.barrier()
        yield
        if self.world > 1 and self.first:
            dist.barrier()


@contextmanager
def start_ranks(device: str) -> Iterator[Ranks]:
    """Join the process group that `torchrun` has started (gloo on the CPU, NCCL on CUDA), and leave it at the end."""
    found = find_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 and not dist.is_initialized():
        # The current device too: streams, events and pinned memory are those of the current one.
        with torch.cuda.device(found) if found.type == "cuda" else nullcontext():
            yield Ranks(0, 1, found)
        return
    if found.type == "mps":
        raise UserError(f"device {device!r} cannot be used by several processes; start one, or take cpu")
    from accelerate import PartialState

    ours = not dist.is_initialized()
    state = PartialState(cpu=found.type == "cpu")
    try:
        yield Ranks(state.process_index, state.num_processes, torch.device(state.device))
    finally:
        if ours:
            state.destroy_process_group()
            PartialState._reset_state()
