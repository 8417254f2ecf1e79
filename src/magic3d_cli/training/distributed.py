"""Several processes, one asset: `torchrun --nproc-per-node N -m magic3d_cli generate ...`.

Every process draws the random views, noise and timesteps of the whole batch and works on its own shard; gradients are
averaged before each step. So all processes hold the same scene, and N of them take the step that one would with the
same batch, but for the coarse stage's normal regularisers: each process draws its own sample of points for them, which
has the same mean and less variance.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from magic3d_cli.errors import EnvironmentFault, UsageError


@dataclass(frozen=True)
class Processes:
    """This process's place among all that make one asset; by default it is alone."""

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0

    def shard(self, whole: Any) -> Any:
        """This process's part of anything that can be sliced by view."""
        size = len(whole) // self.count
        return whole if self.count == 1 else whole[self.index * size : (self.index + 1) * size]

    def draw(self, sample: Callable[[int], Tensor], size: int) -> Tensor:
        """This process's shard of the random numbers that `sample` draws for all views; each process has `size`."""
        return self.shard(sample(size * self.count))

    def average_gradients(self, parameters: list[Tensor]) -> None:
        """Replace gradients by their mean over the processes; where no process has one, there is none."""
        if self.count == 1:
            return
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        dist.all_reduce(present, op=dist.ReduceOp.MAX)
        used = [p for p, some in zip(parameters, present.tolist(), strict=True) if some]
        for parameter in used:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        self.average([parameter.grad for parameter in used if parameter.grad is not None])

    def average(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their mean over the processes."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by the main process's."""
        for tensor in tensors if self.count > 1 else ():
            dist.broadcast(tensor, 0)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor(float(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined(device: str, views: Mapping[str, int], together: Mapping[str, int] | None = None) -> Iterator[Processes]:
    """Meet the other processes that torchrun started, if it did.

    Args:
        views: of a step, by stage.
        together: how many of them are a set, which one process has whole; by stage, else 1.

    Raises UsageError when a step's views cannot be shared out evenly, EnvironmentFault when there are not enough GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    sets = {stage: number // (together or {}).get(stage, 1) for stage, number in views.items()}
    for stage, number in sets.items():
        if number % count:
            what = f"{number} views" if number == views[stage] else f"{number} sets of views"
            raise UsageError(
                f"The {stage} stage's {what} a step cannot be shared out evenly to {count} processes.",
                f"Use a --nproc-per-node that divides {' and '.join(map(str, sets.values()))}.",
            )
    if device == "cuda":
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > gpus:
            raise EnvironmentFault(
                f"{here} processes want a GPU each, and this machine has {gpus}.", f"Use --nproc-per-node {gpus}."
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
