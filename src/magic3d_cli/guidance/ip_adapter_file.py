"""The file of an IP-Adapter (Ye et al., arXiv 2308.06721): where it lies, and what is wrong with it. No tensors here.

Its authors publish `models/ip-adapter_sd15.safetensors`, and CLIP's image encoder beside it in `models/image_encoder/`.
Its tensors are `image_proj.*`, the layers that make tokens of a picture's embedding, and `ip_adapter.N.to_k_ip.weight`
and `to_v_ip.weight`, their keys and values for the N-th attention of the network. Other variants have other layers.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from magic3d_cli.errors import UsageError

SCALE, MOST_SCALE = 0.5, 1.0
"""How strongly the picture counts unless that is said [the authors' README, beside a prompt]; at 1 it leads."""
ENCODER = "image_encoder"
"""The folder of the image encoder."""
NAME = "ip-adapter_sd15.safetensors"
GET = (
    f"hf download h94/IP-Adapter models/{NAME} models/{ENCODER}/config.json models/{ENCODER}/model.safetensors "
    "--local-dir IP-Adapter"
)
"""How that of Stable Diffusion 1.5 is had (2.6 GB with its encoder, Apache-2.0)."""
PROJECTION, NORM = "image_proj.proj", "image_proj.norm"
_PREFIXES, _ENDS = ("image_proj.", "ip_adapter."), (".to_k_ip.weight", ".to_v_ip.weight")
_FACE = "its pictures are faces, embedded by a network of InsightFace that is not used here"
_PATCHES = "it reads patches of the picture, not its one embedding"
_VARIANTS = {  # by a tensor that only they and those before have
    "image_proj.perceiver_resampler.proj_in.weight": ("FaceID Plus", _FACE),
    "image_proj.latents": ("Plus", _PATCHES),
    "image_proj.proj.3.weight": ("Full", _PATCHES),
    "image_proj.proj.2.weight": ("FaceID", _FACE),
}


def is_one(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is an IP-Adapter, of any variant."""
    return any(name.startswith(_PREFIXES) for name in names)


def find_in(folder: Path) -> Path:
    """The IP-Adapter of a folder, or of its folder models. Raises UsageError where there is none, or more than one."""
    for place in (folder, folder / "models"):
        names = sorted(path.name for path in place.glob("ip-adapter*") if path.is_file())
        fit = [name for name in names if name.endswith(".safetensors")]
        if NAME in fit or len(fit) == 1:
            return place / (NAME if NAME in fit else fit[0])
        if fit:
            raise UsageError(f"{place} holds several IP-Adapters: {', '.join(fit)}.", f"--adapter {place / fit[0]}")
        if names:
            raise UsageError(
                f"{place / names[0]} is pickled, which can run code when it is loaded.",
                f"Use its .safetensors version: {GET}",
            )
    raise UsageError(
        f"{folder} is a folder, and holds no IP-Adapter ({NAME}).",
        "Give the .safetensors file of an adapter: --adapter FILE",
    )


def check_file(path: Path, names: Collection[str], scale: float) -> None:
    """Raises UsageError for another variant than the plain one, a scale above 1, and a missing image encoder."""
    variant = next((entry for key, entry in _VARIANTS.items() if key in names), None)
    if variant is None and any("_lora." in name for name in names):
        variant = "FaceID", _FACE
    if variant is not None:
        raise UsageError(
            f"{path} is an IP-Adapter {variant[0]}, which is not supported: {variant[1]}.",
            f"Use the plain one, {NAME}: {GET}",
        )
    wanted = {f"{layer}.{part}" for layer in (PROJECTION, NORM) for part in ("weight", "bias")}
    odd = wanted ^ {name for name in names if not (name.startswith(_PREFIXES[1]) and name.endswith(_ENDS))}
    if odd:
        raise UsageError(
            f"{path} looks like an IP-Adapter, but {min(odd)} is missing in it or unknown.", f"Download it anew: {GET}"
        )
    if scale > MOST_SCALE:
        raise UsageError(
            f"--adapter {path}={scale:g}: an IP-Adapter's weight is at most {MOST_SCALE:g}.",
            f"Take {SCALE:g} for picture and prompt alike, {MOST_SCALE:g} for the picture.",
        )
    folder = path.parent / ENCODER
    files = [file.name for file in folder.glob("*")]
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        pickled = any(name.endswith(".bin") for name in files)
        why = "has only pickled weights, which can run code" if pickled else "is missing or incomplete"
        raise UsageError(
            f"{path} needs the image encoder that it was trained with, and the folder {folder} {why}.",
            f"Download both as they lie there: {GET}",
        )
