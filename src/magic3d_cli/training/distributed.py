"""Several processes, one asset: `torchrun --nproc-per-node N -m magic3d_cli generate ...`.

Every process draws the whole batch's random numbers and works on its own share of the views; gradients are averaged
before each step. So all processes hold the same scene, and N of them do what one does with the same batch.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.run.directory import CHECKPOINTS, RunDirectory
from magic3d_cli.settings import Settings


@dataclass(frozen=True)
class Ranks:
    """This process's place among all."""

    index: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0

    def own(self, whole: Any) -> Any:
        """This process's share of anything that can be sliced by view."""
        share = len(whole) // self.count
        return whole if self.count == 1 else whole[self.index * share : (self.index + 1) * share]

    def draw(self, sample: Callable[[int], Tensor], share: int) -> Tensor:
        """Its share of the random numbers that `sample` draws for everybody's views; every process has `share`."""
        return self.own(sample(share * self.count))

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

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the process that leads."""
        for tensor in tensors if self.count > 1 else ():
            dist.broadcast(tensor, 0)

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.count == 1:
            return flag
        flags = torch.tensor(float(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags)


def current() -> Ranks:
    """The processes of this run: one, unless `joined`."""
    return Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()


@contextmanager
def joined(device: str, settings: Settings) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started, if it did.

    Raises UsageError when a step's views cannot be shared out evenly, EnvironmentFault when there are not enough GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    for stage, views in (("coarse", settings.coarse.views), ("fine", settings.fine.views)):
        if views % count:
            raise UsageError(
                f"The {stage} stage's {views} views a step cannot be shared out evenly to {count} processes.",
                f"Use a --nproc-per-node that divides {settings.coarse.views} and {settings.fine.views}.",
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
        yield current()
    finally:
        dist.destroy_process_group()


@contextmanager
def run_directory(ranks: Ranks, run: RunDirectory) -> Iterator[RunDirectory]:
    """The run's folder for the process that leads; for any other a copy to resume from and to forget."""
    with ExitStack() as stack:
        if not ranks.leads:
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / run.path.name
            copy.mkdir()
            for name in CHECKPOINTS:
                if (run.path / name).is_file():
                    shutil.copyfile(run.path / name, copy / name)
            run = RunDirectory(copy)
        if ranks.count > 1:
            dist.barrier()  # before the leader changes what the others copy
        yield run
