"""Compiling a prior's networks where it pays, never at the price of a run: what fails to compile runs as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from magic3d_cli.settings import GuidanceSettings

BACKEND = "inductor"


def pays(settings: GuidanceSettings, device: torch.device) -> bool:
    """Whether to compile: in presets with work enough for it, and on a GPU, where it takes a minute or two."""
    return settings.compile and device.type == "cuda"


def compile_at_first_call(network: nn.Module, name: str, tell: Callable[[str], None]) -> None:
    """Have `torch.compile` make a network faster, in place, for the shapes of its first call.

    That call is tried first, with its gradient where it has one: a compiler, or a GPU's driver, that is missing shows
    only then. `tell` is told once how long it took, or why the network stays as it is. Running out of memory is the
    caller's to solve, with smaller batches.
    """

    def attempt(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hook.remove()
        begun = time.monotonic()
        try:
            network.compile(backend=BACKEND)
            _run(network, args, kwargs)
        except torch.OutOfMemoryError:
            network._compiled_call_impl = None
            compile_at_first_call(network, name, tell)
            raise
        except Exception as error:  # the compiler's own, its backend's, a missing C compiler's
            network._compiled_call_impl = None
            cause = getattr(error, "inner_exception", error)  # of torch's "backend='inductor' raised:"
            reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
            tell(f"The {name} runs uncompiled: {reason}")
        else:
            tell(f"Compiled the {name} in {time.monotonic() - begun:.0f} s; it is done once.")

    hook = network.register_forward_pre_hook(attempt, with_kwargs=True)


def _run(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Call a network, and its gradient with respect to its first argument where that wants one; nothing is kept."""
    image: Tensor = args[0]
    if torch.is_grad_enabled() and image.requires_grad:
        image = image.detach().requires_grad_()
        torch.autograd.grad(network(image, *args[1:], **kwargs).sum(), image)
    else:
        network(*args, **kwargs)
