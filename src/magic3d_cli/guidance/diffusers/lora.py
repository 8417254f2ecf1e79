"""A LoRA (Hu et al., arXiv 2106.09685) that is learnt here: on a prior's attention, in force only where asked for.

It stays outside the network and is added by hooks while it is `applied`, so that the prior is its own pretrained self
at all other times, bit by bit, and several may be learnt on one network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers that get a LoRA [diffusers, train_dreambooth_lora.py]."""
TIME = {"UNet2DConditionModel": "time_embedding", "PixArtTransformer2DModel": "adaln_single.emb.timestep_embedder"}
"""The layer of each class of network that embeds the time, to which a camera's embedding is added."""
_WIDTH = 256  # of the hidden layer between a camera and the time's embedding


class LowRank(nn.Module):
    """What is added to a linear layer's output, `up @ down` of its input: nothing at first, as `up` is zero."""

    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        device = layer.weight.device
        self.down = nn.Parameter((torch.randn(rank, layer.in_features, generator=generator) / rank).to(device))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))

    def forward(self, inputs: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return F.linear(F.linear(inputs, self.down.to(inputs.dtype)), self.up.to(inputs.dtype))


class Lora(nn.Module):
    """A LoRA on all of a network's attention; float32, whatever the network is."""

    def __init__(self, network: Any, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.parts = {
            name: LowRank(layer, rank, generator) for name, layer in network.named_modules() if name.endswith(ATTENTION)
        }
        self.layers = nn.ModuleList(self.parts.values())

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """The network has it within."""
        with ExitStack() as hooks:
            for name, part in self.parts.items():
                hooks.enter_context(_added(network.get_submodule(name), part))
            yield


class CameraLora(Lora):
    """A LoRA and what tells the network the camera: numbers of it, embedded and added to the time's embedding.

    The embedding is zero at first too: ProlificDreamer's code begins with a random one, so that its second score is off
    before anything was learnt.
    """

    def __init__(self, network: Any, numbers: int, rank: int, generator: torch.Generator) -> None:
        super().__init__(network, rank, generator)
        self.time = TIME[type(network).__name__]
        width = network.get_submodule(self.time).linear_2.out_features
        first, last = nn.Linear(numbers, _WIDTH), nn.Linear(_WIDTH, width)
        with torch.no_grad():
            first.weight.copy_(torch.randn(first.weight.shape, generator=generator) / numbers**0.5)
            for zero in (first.bias, last.weight, last.bias):
                zero.zero_()
        self.camera = nn.Sequential(first, nn.SiLU(), last).to(next(network.parameters()).device)

    @contextmanager
    def told(self, network: nn.Module, camera: Float[Tensor, "B F"]) -> Iterator[None]:
        """The network has the LoRA within, and is told the camera of each row."""
        told = self.camera(camera)
        with self.applied(network), _added(network.get_submodule(self.time), lambda inputs: told.to(inputs.dtype)):
            yield


@contextmanager
def _added(layer: nn.Module, what: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What is made of a layer's input is added to its output."""
    hook = layer.register_forward_hook(lambda module, inputs, output: output + what(inputs[0]))
    try:
        yield
    finally:
        hook.remove()
