"""The files of a pipeline in diffusers layout: where its parts are, and whether their weights are whole.

No weight is read into memory here. Pickled weights are refused: loading one runs whatever code its author put in.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from magic3d_cli.checks import parse_json
from magic3d_cli.errors import EnvironmentFault

PROJECTIONS = ("clip_camera_projection", "cc_projection")
"""Zero-1-to-3's layer for picture and camera, as two authors name it."""
CAMERA_LAYER = "camera_proj"
"""MVDream's layers for the camera, where an author keeps them beside the network."""
WEIGHTED = (
    "unet", "transformer", "text_encoder", "text_encoder_2", "image_encoder", *PROJECTIONS, CAMERA_LAYER, "vae",
    "volume",
)  # fmt: skip
"""Components of a pipeline that this program loads; the rest (safety checker, ...) is left alone."""
_SETTINGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
}


def has(index: dict[str, Any], part: str) -> bool:
    """Whether a pipeline's index names a part; diffusers writes [null, null] for one that was left out."""
    return index.get(part) not in (None, [None, None])


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
        data = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EnvironmentFault(
            f"{path} cannot be read: {error.strerror}.", "The prior is incomplete; fetch it again."
        ) from error
    except ValueError as error:
        raise EnvironmentFault(f"{path} cannot be read: {error}.", renewal(path)) from error
    if not isinstance(data, dict):
        raise EnvironmentFault(f"{path} is not a JSON object.", renewal(path))
    return data


def renewal(path: Path) -> str:
    """How a damaged file of a prior is had anew."""
    if path.is_symlink():  # to the hub cache's own copy, which would be linked again while it is there
        return f"Delete it, and the same command fetches it again: rm {shlex.quote(str(path.resolve()))}"
    return "The prior is damaged, perhaps by a copy or a download that stopped; fetch it again."


def weight_variant(folder: Path) -> str | None:
    """The diffusers "variant" of the safetensors in a component's folder: None (plain) or, say, "fp16".

    Raises EnvironmentFault when there are no safetensors, with its own message for pickled weights.
    """
    names = [path.name for path in folder.glob("*.safetensors") if path.is_file()]
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


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a component that are loaded, all there by name. Raises EnvironmentFault where one is not."""
    variant = weight_variant(folder)
    middle = f".{variant}" if variant else ""
    files = [path for path in folder.glob(f"*model{middle}.safetensors") if path.is_file()]
    indices = sorted(folder.glob(f"*model.safetensors.index{middle}.json"))
    if not files and not indices:
        raise EnvironmentFault(
            f"{folder} holds weights in several files, but not the index that names them.",
            "The prior is incomplete; fetch it again.",
        )
    for index in indices:
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise EnvironmentFault(f"{index} names no files.", renewal(index))
        parts = [folder / str(name) for name in sorted(set(shards.values()))]
        missing = [path.name for path in parts if not path.is_file()]
        if missing:
            raise EnvironmentFault(
                f"{folder} is incomplete: {len(missing)} of the {len(parts)} files of its weights are missing "
                f"({missing[0]}).",
                "Fetch the prior again.",
            )
        files += parts
    return files


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of a component, from the headers of its files alone.

    Raises EnvironmentFault where weights are missing or cut short.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:  # compares the file's length with what its header promises
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise EnvironmentFault(f"{path} is damaged or incomplete: {error}.", renewal(path)) from error
    return shapes


def is_whole(folder: Path) -> bool:
    """Whether all that a pipeline's index names and this program needs is there by name, with plain weights."""
    try:
        index = read_json(folder / "model_index.json")
        wanted = {name: part_of(folder, name) for name in (*WEIGHTED, *_SETTINGS) if has(index, name)}
        for name in wanted.keys() & set(WEIGHTED):
            if weight_variant(wanted[name]) is not None:
                return False
            weight_files(wanted[name])
    except EnvironmentFault:
        return False
    return all((path / _SETTINGS.get(name, "config.json")).is_file() for name, path in wanted.items())


def weights_sha256(folder: Path) -> str:
    """Hash over the names and bytes of all safetensors of a pipeline, and of its scheduler's settings.

    Raises EnvironmentFault when a file cannot be read.
    """
    index = read_json(folder / "model_index.json")
    parts = [part_of(folder, name) for name in WEIGHTED if has(index, name)]
    files = [path for part in parts for path in sorted(part.glob("*.safetensors"))]
    return _sha256_of([*files, part_of(folder, "scheduler") / "scheduler_config.json"])


def part_sha256(folder: Path) -> str:
    """Hash over the names and bytes of the safetensors of one component. Errors as `weights_sha256`."""
    return _sha256_of(sorted(folder.glob("*.safetensors")))


def _sha256_of(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
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
