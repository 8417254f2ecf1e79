"""Files that add something to a prior: a person's own thing, a LoRA, a learnt word, an IP-Adapter. Headers only; no
tensors here.

An adapter is one safetensors file. Those of this program say what they are in their metadata; those of others are known
by the names of their tensors. Which adapters a run has is part of what it is: see `marks`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from magic3d_cli.checks import expanded, parse_json
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance import ip_adapter_file
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary

SUBJECT, LORA, TOKENS, IMAGE_PROMPT = "subject", "lora", "tokens", "ip-adapter"
"""Kinds: a thing for the built-in prior; changes to a network's layers; a new word's embeddings (textual inversion); an
IP-Adapter, which shows a prior the picture of --style."""
FORMAT = 1
"""Of this program's own files; raised when an older program could misread them."""
_KEY, _PEFT = "magic3d", "lora_adapter_metadata"
_LORA_ENDS = (
    ".lora_down.weight", ".lora_up.weight", ".lora.down.weight", ".lora.up.weight", ".lora_A.weight", ".lora_B.weight",
    "_lora.down.weight", "_lora.up.weight", ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight",
)  # fmt: skip
_MOST_WEIGHT = 10.0
_MAKE_ONE = 'Make one: magic3d personalise chair.glb --word "my chair" -o chair.safetensors'


@dataclass(frozen=True)
class Adapter:
    """A file that adds something to a prior, by its header."""

    path: Path
    kind: str
    sha256: str
    weight: float = 1.0  # of a LoRA, and the scale of an IP-Adapter
    meta: dict[str, Any] = field(default_factory=dict)  # what this program wrote beside the tensors
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def word(self) -> str | None:
        """What stands for its thing in a prompt, where it has a word."""
        word = self.meta.get("word")
        if self.kind == TOKENS and word is None:  # AUTOMATIC1111 goes by the file's name
            word = next((name for name in self.shapes if name not in ("emb_params", "string_to_param")), None)
            return word or self.path.stem
        return word

    @property
    def encoder(self) -> Path:
        """The folder of the image encoder of an IP-Adapter."""
        return self.path.parent / ip_adapter_file.ENCODER

    @property
    def mark(self) -> str:
        """Identifies it, and how strongly it counts."""
        return self.sha256 if self.weight == 1.0 else f"{self.sha256}*{self.weight:g}"

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"file": str(self.path.absolute()), "kind": self.kind, "sha256": self.sha256, "weight": self.weight}


def read_adapters(texts: Iterable[str]) -> tuple[Adapter, ...]:
    """Adapters given as FILE or FILE=WEIGHT. Raises UsageError for what is no adapter, and where two have one word."""
    found = [_read(*_split(text)) for text in texts]
    words = [adapter.word for adapter in found if adapter.word is not None]
    twice = next((word for word in words if words.count(word) > 1), None)
    if twice is not None:
        raise UsageError(f"Two adapters have the word {twice!r}.", "Make one of them anew with another --word.")
    same = next((a for n, a in enumerate(found) if a.sha256 in [b.sha256 for b in found[:n]]), None)
    if same is not None:
        raise UsageError(f"The adapter {same.path} is given twice.", "Name it once; FILE=WEIGHT makes it stronger.")
    return tuple(found)


def vocabulary_with(path: Path, adapters: Sequence[Adapter]) -> Vocabulary:
    """A prior's word list with the words of things of a person's own.

    Raises EnvironmentFault for a list that cannot be read, UsageError where a thing takes the place of one that it does
    not have.
    """
    vocabulary = Vocabulary.load(path)
    for adapter in adapters:
        if adapter.kind != SUBJECT:
            continue
        word, noun, style = (adapter.meta.get(key) for key in ("word", "noun", "style"))
        if not isinstance(word, str) or noun not in vocabulary.nouns or style not in (None, *vocabulary.styles[noun]):
            raise UsageError(
                f"{adapter.path} was made for another prior: it takes the place of {noun!r} ({style}), which this one "
                "does not have.",
                "Make it anew for this prior: magic3d personalise",
            )
        vocabulary = vocabulary.taught(word, noun, style)
    return vocabulary


def check_used(adapters: Sequence[Adapter], closed: Sequence[bool]) -> None:
    """Raises UsageError for an adapter that none of a run's priors can use.

    `closed` says of each prior whether it has a vocabulary of its own, as the built-in one.
    """
    for adapter in adapters:
        if adapter.kind == SUBJECT and not any(closed):
            raise UsageError(
                f"{adapter.path} is a thing for the built-in prior, and this run has another one.",
                "Use --prior builtin",
            )
        if adapter.kind != SUBJECT and all(closed):
            what = {LORA: "a LoRA", TOKENS: "a learnt word", IMAGE_PROMPT: "an IP-Adapter"}[adapter.kind]
            raise UsageError(
                f"{adapter.path} is {what} for an open-vocabulary prior, and this run has the built-in one alone.",
                "Name the prior that it was made for: --prior sd15",
            )


def image_prompt(adapters: Sequence[Adapter]) -> Adapter | None:
    """The IP-Adapter among adapters."""
    return next((adapter for adapter in adapters if adapter.kind == IMAGE_PROMPT), None)


def check_shown(adapters: Sequence[Adapter], styled: bool) -> None:
    """Raises UsageError for an IP-Adapter without a picture, and for two."""
    shown = image_prompt(adapters)
    if shown is not None and not styled:
        raise UsageError(
            f"{shown.path} is an IP-Adapter, which shows the prior a picture, and there is none.",
            f"Say which: --style picture.png --adapter {shown.path}",
        )
    if sum(adapter.kind == IMAGE_PROMPT for adapter in adapters) > 1:
        raise UsageError("Two IP-Adapters are given, for one picture.", "Use one of them.")


def check_company(adapters: Sequence[Adapter], pictured: bool, variations: int | None) -> None:
    """Raises UsageError for what adapters do not go with."""
    if pictured and any(adapter.kind == SUBJECT for adapter in adapters):
        raise UsageError(
            "--image and the thing of --adapter both say what it looks like.", "Use one or the other of them."
        )
    if adapters and variations is not None:
        raise UsageError(
            "--variations does not take adapters.", "Leave out --variations, and try some --seed one by one."
        )


def marks(adapters: Sequence[Adapter], style: str | None = None) -> str | None:
    """What stands for the adapters of a run and the style of this digest, wherever their files lie; None for none."""
    return " ".join([adapter.mark for adapter in adapters] + ([f"style:{style}"] if style else [])) or None


def kept(saved: Sequence[dict[str, Any]], given: Sequence[Adapter], checkpoint: Path) -> tuple[Adapter, ...]:
    """The adapters that a checkpoint was made with, found again by their hashes among those given or where they lay.

    Raises UsageError where one is missing or changed, and where another one is given.
    """
    try:
        saved = [
            {"sha256": str(one["sha256"]), "file": str(one["file"]), "weight": float(one["weight"])} for one in saved
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{checkpoint} does not say what its adapters were.", "Begin anew, with --adapter FILE."
        ) from error
    wanted = {one["sha256"] for one in saved}
    foreign = next((adapter for adapter in given if adapter.sha256 not in wanted), None)
    if foreign is not None:
        raise UsageError(
            f"{checkpoint} was {'not made with' if saved else 'made without'} the adapter {foreign.path}.",
            "Begin anew with it: magic3d generate PROMPT --adapter FILE",
        )
    at_hand = {adapter.sha256: adapter for adapter in given}
    found = []
    for one in saved:
        adapter = at_hand.get(one["sha256"])
        path = Path(one["file"])
        if adapter is None and path.is_file():
            adapter = _read(path, float(one["weight"]))
        if adapter is None or adapter.sha256 != one["sha256"]:
            how = "has changed since" if path.is_file() else "is no longer there"
            raise UsageError(
                f"{checkpoint} was made with the adapter {path}, which {how}.", "Say where it is now: --adapter FILE"
            )
        found.append(adapter)
    return tuple(found)


def edited(
    saved: Sequence[dict[str, Any]], given: Sequence[Adapter], checkpoint: Path
) -> tuple[tuple[Adapter, ...], tuple[Adapter, ...]]:
    """The adapters that an edited run has, see `kept`, and those of its edit: with the given ones added.

    A given IP-Adapter takes the place of the run's own. Raises UsageError as `kept` does.
    """
    known = {str(one.get("sha256")) for one in saved}
    found = kept(saved, [adapter for adapter in given if adapter.sha256 in known], checkpoint)
    before = tuple(replace(a, weight=float(one["weight"])) for a, one in zip(found, saved, strict=True))
    replaced = {adapter.sha256 for adapter in given}
    if (shown := image_prompt(before)) is not None and image_prompt(given) is not None:
        replaced.add(shown.sha256)
    return before, (*(adapter for adapter in before if adapter.sha256 not in replaced), *given)


def _split(text: str) -> tuple[Path, float | None]:
    """A file, and the weight after its =."""
    name, equals, number = text.rpartition("=")
    if not equals or expanded(text).exists():
        return expanded(text), None
    try:
        weight = float(number)
    except ValueError as error:
        raise UsageError(
            f"--adapter {text!r} has no number after its =.", "Use FILE=WEIGHT: cat.safetensors=0.8"
        ) from (error)
    if not 0 < weight <= _MOST_WEIGHT:
        raise UsageError(f"--adapter {text!r}: the weight is out of range.", f"Use a number up to {_MOST_WEIGHT:g}.")
    return expanded(name), weight


def _read(path: Path, weight: float | None = None) -> Adapter:
    if path.is_dir():
        path = ip_adapter_file.find_in(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"There is no adapter {path}.", _MAKE_ONE) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Give a file that you may read.") from error
    shapes, metadata = _header(path, data)
    meta = _own(path, metadata)
    kind = meta.get("kind") or _kind_of(path, shapes)
    if kind not in (SUBJECT, LORA, TOKENS, IMAGE_PROMPT):
        raise _foreign(path, f"its kind, {kind!r}, is not known to this version")
    if kind in (SUBJECT, TOKENS) and weight not in (None, 1.0):
        raise UsageError(f"Only a LoRA and an IP-Adapter have a weight; {path} is neither.", f"--adapter {path}")
    if weight is None:
        weight = ip_adapter_file.SCALE if kind == IMAGE_PROMPT else 1.0
    if kind == IMAGE_PROMPT:
        ip_adapter_file.check_file(path, shapes, weight)
    return Adapter(path, kind, hashlib.sha256(data).hexdigest(), weight, meta, shapes)


def _header(path: Path, data: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Shape of each tensor, and the metadata. Each kind of damage gets its own message."""
    if data[8:9] != b"{":
        if data[:2] == b"PK" or data[:1] == b"\x80":
            raise _foreign(path, "it is pickled (a .pt, .bin or .ckpt file), which can run code when it is loaded",
                           "Use its .safetensors version, or convert it: https://huggingface.co/spaces/safetensors/convert")  # fmt: skip  # noqa: E501
        raise _foreign(path, "it is not in safetensors format" if data else "it is empty")
    (length,) = struct.unpack("<Q", data[:8])
    try:
        shell = parse_json(data[8 : 8 + length])
        metadata = shell.pop("__metadata__", {})
        shapes = {name: tuple(entry["shape"]) for name, entry in shell.items()}
        end = max((int(entry["data_offsets"][1]) for entry in shell.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise _foreign(path, "its header is damaged", "Copy or download it again.") from error
    if 8 + length + end != len(data):
        raise _foreign(path, "part of it is missing, as after an unfinished copy", "Copy or download it again.")
    return shapes, metadata if isinstance(metadata, dict) else {}


def _own(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """What this program wrote into a file of its own; nothing for one of others."""
    if _KEY not in metadata:
        try:  # what PEFT notes of a LoRA: its alpha
            peft = parse_json(metadata.get(_PEFT, "{}"))
        except (ValueError, TypeError):
            peft = {}
        return {"peft": peft} if isinstance(peft, dict) and peft else {}
    try:
        meta = parse_json(metadata[_KEY])
        known = isinstance(meta, dict) and ("kind" in meta or "stage" in meta)
    except (ValueError, TypeError):
        known = False
    if not known:
        raise _foreign(path, "its header is damaged", "Copy or download it again.")
    if "stage" in meta:
        raise _foreign(path, "it is a run's checkpoint", f"Go on from it: magic3d refine {path}")
    if not isinstance(meta.get("format"), int) or meta["format"] > FORMAT:
        raise UsageError(f"{path} was written by a newer magic3d.", "Update this one: pip install --upgrade magic3d")
    return meta


def _kind_of(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    """What a file of others is, by the names of its tensors."""
    if ip_adapter_file.is_one(shapes):
        return IMAGE_PROMPT
    if any(name.endswith(_LORA_ENDS) for name in shapes):
        return LORA
    if {"clip_l", "clip_g"} & set(shapes):
        raise _foreign(path, "it is a word for SDXL, whose two text encoders are not supported here")
    if len(shapes) == 1 and all(len(shape) in (1, 2) for shape in shapes.values()):
        return TOKENS
    if any(".hada_w1" in name or ".lokr_w1" in name for name in shapes):
        raise _foreign(path, "it is a LyCORIS (LoHa or LoKr), of which only LoRA is supported")
    raise _foreign(path, "it holds neither a LoRA's tensors nor a word's nor an IP-Adapter's")


def header_of(meta: dict[str, Any]) -> dict[str, str]:
    """The metadata of a file of this program."""
    return {_KEY: json.dumps({**meta, "format": FORMAT}, sort_keys=True)}


def _foreign(path: Path, why: str, next_step: str = _MAKE_ONE) -> UsageError:
    return UsageError(f"{path} is not an adapter: {why}.", next_step)
