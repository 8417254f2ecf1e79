"""Input that can be checked before torch is imported and any work starts. All raise UsageError."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from magic3d_cli.errors import UsageError
from magic3d_cli.settings import BSD, METHODS, SDS

PRESETS = ("draft", "standard", "paper")
INITS = ("auto", "ball")
BUILTIN_SHAPE = "builtin:"
UPS = ("y", "z", "x", "-y", "-z", "-x")
DEVICES = ("auto", "cpu", "cuda")
NO_LORA = {
    "builtin": "has no attention that a LoRA could change",
    "picture": "is told a picture and the camera, and no words",
    "sets": "is shown views in sets, with a loss of its own",
}
"""Why priors of each kind are guided by the first of these alone."""
BOOTSTRAPPING_RECIPES = ("dreamcraft3d",)
"""Those whose texture bootstrapped score distillation may paint."""
RECIPES = ("magic123", "zero123", "realfusion", "make-it-3d", "dreamcraft3d")
DRAWING_RECIPES = ("dreamcraft3d",)
"""Those that draw a picture of the prompt where none is given."""
FORMATS = ("glb", "obj", "usdz", "ply", "stl", "3mf")
FACES = (100, 2_000_000)
TEXTURE = (64, 8192)
NAME = 235
"""Bytes of an output's name, at most: systems take 255, and _LOD6_roughness.png.tmp is 20 more than .glb."""
HEIGHT = (0.001, 10_000.0)  # metres
LOD = (0, 6)
HALVES = {"left": (0, 0.5, 1), "right": (0, 0, 0.5), "top": (1, 0.5, 1), "bottom": (1, 0, 0.5), "front": (2, 0.5, 1),
          "back": (2, 0, 0.5)}  # fmt: skip
"""Halves of a thing as it sees itself: axis, and from where to where in shares of its extent."""


def check_prompt(prompt: str) -> str:
    """The prompt without surrounding space. Undecodable bytes, which Python passes on as surrogates, are refused."""
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise UsageError("The prompt holds bytes that are not UTF-8 text.", "Type it again, or check the locale.")
    if not prompt.strip():
        raise UsageError("The prompt is empty.", 'Say what to make: magic3d generate "a metal dragon"')
    return prompt.strip()


def shown(text: str, most: int = 60) -> str:
    """A person's text on one line of a terminal: no control characters, not too long."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in choices:
        raise UsageError(f"{option} {value!r} is unknown.{meant(value, choices)}", f"Use one of: {', '.join(choices)}.")
    return value


def check_recipe(recipe: str | None, pictured: bool) -> None:
    """A known recipe, with the pictures that it needs."""
    if recipe is None:
        return
    check_choice("--recipe", recipe, RECIPES)
    if not pictured and recipe not in DRAWING_RECIPES:
        raise UsageError(
            f"The recipe {recipe} makes what a picture shows, and there is none.",
            f"Show one: magic3d generate --image FILE --recipe {recipe}; {DRAWING_RECIPES[0]} draws its own.",
        )


def check_distillation(method: str | None, recipe: str | None = None) -> None:
    """A known method, where one is asked for; a recipe has its own."""
    if method is None:
        return
    check_choice("--distillation", method, METHODS)
    fits = method == SDS or (method == BSD and recipe in BOOTSTRAPPING_RECIPES)
    if recipe is not None and not fits:
        raise UsageError(
            f"--distillation {method} does not go with --recipe {recipe}, which has numbers of its own.",
            "Leave out one of them.",
        )


def check_followed(method: str | None, priors: Mapping[str, Mapping[str, str | None]]) -> list[str]:
    """Why some of the priors do not follow a method of distillation; of each stage, by a prior's name its key of
    `NO_LORA`, or None where it learns. BSD is for the fine stage's. Raises where none follows."""
    if method in (None, SDS):
        return []
    kinds = {name: kind for stage, some in priors.items() if method != BSD or stage == "fine"
             for name, kind in some.items()}  # fmt: skip
    reasons = [f"{Path(name).name} {NO_LORA[kind]}" for name, kind in kinds.items() if kind]
    if len(reasons) == len(kinds):
        raise UsageError(
            f"--distillation {method} teaches a LoRA of the prior what the scene looks like: {'; '.join(reasons)}.",
            "Use a prior of words, for example --prior sd15, or leave out --distillation.",
        )
    return reasons


def meant(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'draft'?" after a slip, with the space before it; nothing where no word is close."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def is_checkpoint(path: Path) -> bool:
    """Whether a file is named as a run's checkpoints are; everything else is taken for a mesh."""
    return path.suffix == ".ckpt"


def check_seed(seed: int) -> int:
    """A seed that torch takes."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} is out of range.", "Use a whole number from 0 up.")
    return seed


def check_sizes(
    faces: int | None, texture_size: int | None, height: float | None = None, lod: int | None = None
) -> None:
    """The asset's settings that were given are within bounds."""
    given: tuple[tuple[float | None, tuple[float, float], str], ...] = (
        (faces, FACES, "--faces"),
        (texture_size, TEXTURE, "--texture-size"),
        (height, HEIGHT, "--height"),
        (lod, LOD, "--lod"),
    )
    for value, (low, high), option in given:
        if value is not None and not low <= value <= high:
            raise UsageError(f"{option} {value} is out of range.", f"Use a number from {low} to {high}.")


def check_box(text: str) -> tuple[float, float, float, float, float, float]:
    """A part of a thing: the lowest and the highest x, y and z, in shares of its extents."""
    low, high = [0.0] * 3, [1.0] * 3
    if re.fullmatch(r"[a-z+ ]*[a-z][a-z+ ]*", text):
        for half in text.split("+"):
            axis, start, end = HALVES[check_choice("--box", half.strip(), tuple(HALVES))]
            low[axis], high[axis] = max(low[axis], start), min(high[axis], end)
    else:
        try:
            numbers = [float(number) for number in text.split(",")]
            low, high = numbers[:3], numbers[3:]
        except ValueError:
            numbers = []
        if len(numbers) != 6:
            raise UsageError(
                f"--box {shown(text)!r} is neither halves nor six numbers.",
                f"Use {', '.join(HALVES)}, joined by +, or X0,Y0,Z0,X1,Y1,Z1: --box 0,0.5,0,1,1,1 is the upper half.",
            )
    if not all(0 <= start < end <= 1 for start, end in zip(low, high, strict=True)):
        raise UsageError(
            f"--box {shown(text)!r} is empty or leaves the object.",
            "Numbers go from 0 to 1, the lowest corner first: 0,0.5,0,1,1,1 is the upper half.",
        )
    return (low[0], low[1], low[2], high[0], high[1], high[2])


def check_added(priors: list[str]) -> list[tuple[str, float]]:
    """Names and weights of NAME or NAME=WEIGHT."""
    added = []
    for text in priors:
        name, equals, weight = text.rpartition("=")
        try:
            added.append((name, float(weight)) if equals else (text, 1.0))
        except ValueError as error:
            raise UsageError(
                f"--also-prior {text!r} has no number after its =.", "Use NAME=WEIGHT: builtin=0.5"
            ) from error
        if not (0 < added[-1][1] < float("inf")):
            raise UsageError(f"--also-prior {text!r}: the weight is out of range.", "Use a number above 0.")
    return added


def expanded(path: str | Path) -> Path:
    """A path with the home folder in place of a leading ~; UsageError for the home of somebody unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path} begins with nobody's home folder.", "Write the folder in full.") from error


def check_picture(path: Path) -> Path:
    """A file that is there; what it holds is seen when it is read."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", f"Give a picture, or all pictures in it: --images {path}")
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Give the path of a picture: PNG, JPEG, WebP, TIFF, BMP, GIF.")
    return path


def place_of(text: str) -> tuple[Path, float | None]:
    """A file, and the azimuth after its @ in degrees; None where none is said.

    Raises UsageError for an azimuth that is none. A file may have an @ in its own name.
    """
    path, (name, at, number) = expanded(text), text.rpartition("@")
    if path.exists() or not (at and name):
        return path, None
    file = expanded(name)
    try:
        return file, in_range(float(number), text) % 360.0
    except ValueError as error:
        if not file.exists():
            return path, None
        raise UsageError(f"{text}: what follows @ is no number.", "Use degrees: left.png@90") from error


def in_range(azimuth: float, said: str) -> float:
    """The azimuth. Raises UsageError for one that is out of range; `said` is where it stands, for the message."""
    if not -360 <= azimuth <= 360:
        raise UsageError(f"{said}: the azimuth is out of range.", "Use degrees from -360 to 360.")
    return azimuth


def check_name_length(output: Path) -> None:
    """Room for what the names of files beside it add: a level, a texture, the end of a file that is half written."""
    length = len(os.fsencode(output.name))
    if length > NAME:
        raise UsageError(
            f"The name {shown(output.name)} is too long: {length} bytes, and files beside it have longer names.",
            f"Use at most {NAME} bytes.",
        )


def fbx_command(glb: Path) -> str:
    """What has Blender convert a GLB to FBX, with its texture inside."""
    source, target = (repr(str(path)) for path in (glb, glb.with_suffix(".fbx")))
    steps = (
        "import bpy",
        "bpy.ops.object.select_all(action='SELECT')",
        "bpy.ops.object.delete()",
        f"bpy.ops.import_scene.gltf(filepath={source})",
        f"bpy.ops.export_scene.fbx(filepath={target}, path_mode='COPY', embed_textures=True)",
    )
    return f"blender --background --factory-startup --python-expr {_double_quoted('; '.join(steps))}"


def _double_quoted(text: str) -> str:
    """For a shell: readable where the text holds single quotes."""
    return '"' + re.sub(r'(["\\\\$`])', r"\\\1", text) + '"'


def check_output(output: Path) -> Path:
    """A file that can be written: known suffix, existing folder, permission.

    A missing folder is an error rather than made: it is more often a typing mistake than a wish.
    """
    output = expanded(output)
    if output.suffix.lower() == ".fbx":
        glb = output.with_suffix(".glb")
        raise UsageError(
            f"{output}: FBX is not written here; Blender makes it of a GLB.",
            f"Use -o {shlex.quote(str(glb))}, then: {fbx_command(glb)}",
        )
    if output.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(
            f"{output} has no known suffix: the suffix says which format to write.",
            f"Use one of: {', '.join(str(output.with_suffix('.' + f)) for f in FORMATS)}"
            if output.name
            else f"Use a file name that ends in {', '.join('.' + f for f in FORMATS)}.",
        )
    folder = output.parent
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist.", f"mkdir -p {shlex.quote(str(folder))}")
    if output.is_dir():
        raise UsageError(f"{output} is a folder.", f"Name a file: -o {output / 'model.glb'}")
    check_name_length(output)
    blocked = output if output.exists() else folder
    if not os.access(blocked, os.W_OK):
        raise UsageError(f"{blocked} cannot be written: permission denied.", "Choose another place with -o.")
    return output


def default_output(prompt: str) -> Path:
    """A file in the current folder named after the prompt: "a metal dragon" -> metal-dragon.glb."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    while len(words) > 1 and words[0] in ("a", "an", "the"):
        words = words[1:]
    return Path(("-".join(words)[:60].strip("-") or "object") + ".glb")


def parse_json(text: str | bytes) -> Any:
    """As `json.loads`; whatever cannot be read is a ValueError, lists of a hundred thousand levels too."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its lists are too deep") from error
