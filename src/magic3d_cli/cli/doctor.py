"""`magic3d doctor`: what this machine has, what is used of it, and what would make it faster."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import put
from magic3d_cli.version import __version__

PACKAGES = ("torch", "diffusers", "transformers", "numba", "xatlas", "pygltflib", "trimesh")
LICENCE = "research and evaluation only"
OPTIONAL = {
    "nvdiffrast": (
        f"nvdiffrast (licence: {LICENCE}) would find visible triangles, whether faster is not "
        "measured; with nvcc installed: pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast"
    ),
    # Its setup.py needs pkg_resources, which newer versions of setuptools lack.
    "tinycudann": (
        "tinycudann (licence: BSD-3-Clause) would do the hash encoding, whether faster is not measured; with nvcc "
        'installed: pip install "setuptools<81" && '
        "pip install --no-build-isolation git+https://github.com/NVlabs/tiny-cuda-nn#subdirectory=bindings/torch"
    ),
}
"""Packages that a GPU can do without, and what is said where they are missing."""
ROOM = 10e9  # bytes


@reported
def doctor(as_json: options.Json = False) -> None:
    """Check this installation.

    Tells versions, the GPU, the kernels, the priors, and what is missing.

    Exits with 3 when magic3d cannot work here.
    """
    found = examine()
    put(json.dumps(found) if as_json else _told(found))
    if found["faults"]:
        raise typer.Exit(3)


def examine() -> dict[str, Any]:
    """Everything that is found; `faults` keep magic3d from working, `advice` would make it better."""
    from importlib import metadata  # takes longer to import than a typing mistake may take to be answered

    faults: list[str] = []
    versions: dict[str, str] = {"magic3d": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            faults.append(f"{package} is missing; next: pip install --force-reinstall magic3d")
    for package in OPTIONAL:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    found: dict[str, Any] = {"system": f"{platform.system()} {platform.machine()}", "versions": versions}
    advice: list[str] = []
    if not faults:
        found |= _machine(advice) | _priors(faults)
    free = shutil.disk_usage(Path.cwd()).free
    if free < ROOM:
        advice.append(f"Only {free / 1e9:.1f} GB free in this folder; a run keeps up to 1 GB beside its asset.")
    return {**found, "faults": faults, "advice": advice}


def _machine(advice: list[str]) -> dict[str, Any]:
    import torch

    from magic3d_cli.guidance.diffusers.prior import default_dtype
    from magic3d_cli.kernels import numba_cache
    from magic3d_cli.kernels.dispatch import NVDIFFRAST, TRIANGLES, backends

    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {"device": device, "threads": torch.get_num_threads(), "memory_gigabytes": _memory()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
        found["gpus"] = torch.cuda.device_count()
    elif torch.version.cuda is None:
        found["gpu"] = "none that PyTorch can use: this is its CPU build"
        if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
            advice.append("There is an NVIDIA driver; install a CUDA build of PyTorch: https://pytorch.org/get-started")
    else:
        found["gpu"] = "none that PyTorch can use"
    choices = backends(torch.device(device))
    found["kernels"] = {operation: str(choice) for operation, choice in choices.items()}
    if choices[TRIANGLES].backend == NVDIFFRAST:
        found["nvdiffrast_licence"] = f"{LICENCE}; MAGIC3D_KERNELS=nvrtc does without it"
    if not numba_cache.CACHE:
        found["kernel_cache"] = "none: no folder can be written"
        advice.append("Kernels are compiled at every start (half a minute); name a folder for them: NUMBA_CACHE_DIR")
    elif numba_cache.TEMPORARY is not None:
        found["kernel_cache"] = str(numba_cache.TEMPORARY)
        advice.append(
            "Compiled kernels are kept in a temporary folder, because neither the package nor the home folder can be "
            "written; name a folder that stays: NUMBA_CACHE_DIR"
        )
    found["prior_precision"] = str(default_dtype(torch.device(device))).removeprefix("torch.")
    for package, line in OPTIONAL.items() if device == "cuda" else ():
        if importlib.util.find_spec(package) is None:
            advice.append(line)
    return found


def _memory() -> float | None:
    """Of the whole machine, where the system tells."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _priors(faults: list[str]) -> dict[str, Any]:
    from magic3d_cli.errors import Magic3DError
    from magic3d_cli.guidance.diffusers.catalogue import HUB, locate
    from magic3d_cli.guidance.diffusers.files import weight_shapes, weights_sha256
    from magic3d_cli.guidance.diffusers.hub import INSTALLED, state_of

    found = {}
    try:
        for stage in ("coarse", "fine"):
            folder = locate("builtin", stage)
            weight_shapes(folder / "unet")
            found[f"builtin, {stage}"] = weights_sha256(folder)[:12]
    except Magic3DError as error:
        faults.append(f"{error.what} next: {error.next_step}")
    found |= {name: INSTALLED for name, source in HUB.items() if state_of(source) == INSTALLED}
    settings = {name: os.environ[name] for name in ("HF_HOME", "HF_HUB_OFFLINE") if name in os.environ}
    return {"priors": found, "hub": settings}


def _told(found: dict[str, Any]) -> str:
    """For people: one line a fact."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict) and value:
            lines.append(f"{name}: " + ", ".join(f"{key} {text}" for key, text in value.items()))
        elif value is not None and not isinstance(value, dict | list):
            lines.append(f"{name.replace('_', ' ')}: {value}")
    lines += [f"missing: {fault}" for fault in found["faults"]] + [f"advice: {line}" for line in found["advice"]]
    return "\n".join([*lines, "magic3d cannot work here." if found["faults"] else "magic3d works here."])
