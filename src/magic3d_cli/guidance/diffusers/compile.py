"""Compiling a prior's networks where it pays, never at the price of a run: what fails to compile runs as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from magic3d_cli.errors import first_line, out_of_memory
from magic3d_cli.settings import GuidanceSettings

BACKEND = "inductor"
_paused: ContextVar[bool] = ContextVar("paused", default=False)


def pays(settings: GuidanceSettings, device: torch.device) -> bool:
    """Whether to compile: in presets with work enough for it, and on a GPU, where it takes a minute or two."""
    return settings.compile and device.type == "cuda"


def compile_at_first_call(network: nn.Module, name: str, tell: Callable[[str], None]) -> None:
    """Have `torch.compile` make a network faster, in place, for each size of batch at its first call.

    That call is tried first, with its gradient where it has one: a compiler, or a GPU's driver, that is missing shows
    only then. `tell` is told how long it took, or once why the network stays as it is. Running out of memory is the
    caller's to solve, with smaller batches.
    """
    plain, fast = network.forward, torch.compile(network.forward, backend=BACKEND, dynamic=False)
    known: set[torch.Size] = set()

    def attempt(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _paused.get() or args[0].shape in known:
            return
        known.add(args[0].shape)
        network.forward = fast
        begun = time.monotonic()
        try:
            _run(network, args, kwargs)
        except Exception as error:  # the compiler's own, its backend's, a missing C compiler's
            network.forward = plain
            if out_of_memory(error):
                known.clear()
                raise
            hook.remove()
            cause = getattr(error, "inner_exception", error)  # of torch's "backend='inductor' raised:"
            tell(f"The {name} runs uncompiled: {first_line(cause)[:200]}")
        else:
            seconds = time.monotonic() - begun
            tell(f"Compiled the {name} for batches of {len(args[0])} in {seconds:.0f} s; it is done once.")

    hook = network.register_forward_pre_hook(attempt, with_kwargs=True)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Networks run as they are, and are not compiled: a counter of operations fails for good within the compiler."""
    token = _paused.set(True)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        _paused.reset(token)


def _run(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Call a network, and its gradient with respect to its first argument where that wants one; nothing is kept."""
    image: Tensor = args[0]
    if torch.is_grad_enabled() and image.requires_grad:
        image = image.detach().requires_grad_()
        torch.autograd.grad(network(image, *args[1:], **kwargs).sum(), image)
    else:
        network(*args, **kwargs)
