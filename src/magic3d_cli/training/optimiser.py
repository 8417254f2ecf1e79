"""Adam that survives a bad step and can be resumed bit for bit; shared by both stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from magic3d_cli.errors import Collapsed

_PATIENCE = 20  # consecutive non-finite gradients before the run is given up


class FiniteAdam:
    """Adam with the settings of [ts]; a step whose gradient is not finite is skipped and counted.

    `what` names what it optimises, where it is not the scene.
    """

    def __init__(self, groups: list[dict[str, Any]], what: str = "") -> None:
        self.what = what
        self.adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self.skipped = 0  # in a row

    def zero_grad(self) -> None:
        self.adam.zero_grad(set_to_none=True)

    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.adam.param_groups for parameter in group["params"]]

    def step(self) -> bool:
        """Whether the step was taken. Raises Collapsed after 20 bad ones in a row."""
        sums = [p.grad.sum() for p in self.parameters() if p.grad is not None]
        if sums and bool(torch.isfinite(torch.stack(sums)).all()):
            self.adam.step()
            self.skipped = 0
            return True
        self.skipped += 1
        if self.skipped >= _PATIENCE:
            raise Collapsed(
                f"The gradient{self.what and f' of {self.what}'} was not finite for {self.skipped} steps in a row.",
                "Try another --seed; on a GPU in half precision, another --prior.",
            )
        return False


def pack_state(modules: Mapping[str, nn.Module], optimiser: FiniteAdam) -> dict[str, Tensor]:
    """Parameters, buffers and Adam's moments as named CPU tensors."""
    tensors = {
        f"{name}.{key}": value.detach().cpu().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for index, entry in optimiser.adam.state_dict()["state"].items():
        for key, value in entry.items():
            tensors[f"adam.{index}.{key}"] = torch.as_tensor(value).detach().cpu().clone()
    return tensors


def unpack_state(modules: Mapping[str, nn.Module], optimiser: FiniteAdam, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `pack_state`. Raises KeyError or RuntimeError when the tensors do not fit."""
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict(
            {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        )
    state = optimiser.adam.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = value.clone()
    optimiser.adam.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
