"""Wrong input of every kind, each made of a string of bytes: the same bytes, the same input.

The bytes are read as decisions: which seed to begin with, where to spoil it, how. So a fuzzer that knows nothing of PNG
or of glTF, but sees which code an input reaches, can look for bytes that reach more.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import trimesh
from PIL import Image, ImageDraw

T = TypeVar("T")
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 20, 1 << 40)
WORDS = (
    *("a", "red", "dog", "car", "with", "and", "of", "wooden", "on", "two", "'", '"', "\\", "%s", "{0}", "\x1b[31m"),
    *("🐉", "дракон", "竜", "\u202e", "\udcff", "\n", "", " ", "-", "--", "=", "/", "..", "~", "NaN", "a" * 300, "[b]"),
)
VALUES = (
    *("", "-1", "0", "1", "1e9", "nan", "inf", "-inf", "0x10", "9" * 20, "1.5", "2", "64", "auto", "draft", "cpu", "z"),
    *("paper", "standard", "glb", "obj", "builtin", "sd15", "sd", "a/b", "..", "/", "~", "~nobody/x.glb", "x.glb"),
    *("x.obj", "dir.glb", "dir", "dir/x.glb", "absent/x.glb", "x." + "g" * 300, "é.glb", "\udcff.glb", "builtin=0.5"),
    *("builtin=", "=1", "text.glb", "builtin:a dog", "car.run", "car.glb", "car.run/coarse.ckpt", "broken.ckpt", "-"),
    *("thing.png", "thing.png@90", "thing.png@", "list.txt", "list.csv", "list.jsonl", "top+front", "0,0,0,1,1,1"),
    *("sds", "vsd", "dreamcraft3d", "my chair", "30", "none", "local", "none.toml", "vehicle", "\x00", "a dog"),
)
SENSIBLE = {
    **{"--preset": "draft", "-o": "y.glb", "--output": "y.glb", "--seed": "7", "--device": "cpu", "--faces": "500"},
    **{"--texture-size": "64", "--format": "obj", "-f": "obj", "--prior": "builtin", "--also-prior": "sd15=0.5"},
    **{"--image": "thing.png", "--images": ".", "--mask": "thing.png", "--style": "thing.png", "--box": "top+front"},
    **{"--init": "car.run", "--height": "1.5", "--lod": "2", "--elevation": "20", "--fov": "40", "--imagine": "0.5"},
    **{"--word": "my chair", "--kind": "chair", "--prompt": "a red dog", "--seeds": "2", "--workers": "2"},
    **{"--variations": "3", "--recipe": "dreamcraft3d", "--up": "z", "--older-than": "0", "--ray": "local"},
}
JSON_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        1 << 31,
        1 << 70,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "x",
        "é\udcff",
    ),
    *("../..", "x" * 999, "nan", [], [0], [[]], {}, {"x": 0}, [1, 2, 3, 4]),
)


class Choices:
    """Decisions that are read from bytes; when those run out, each is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def bytes(self, count: int) -> bytes:
        taken = self._data[self._place : self._place + count]
        self._place += count
        return taken.ljust(count, b"\0")

    def below(self, limit: int) -> int:
        """A number from 0 up."""
        size = 1 if limit <= 1 << 8 else 2 if limit <= 1 << 16 else 4
        return int.from_bytes(self.bytes(size)) % max(limit, 1)

    def pick(self, some: Sequence[T]) -> T:
        return some[self.below(len(some))]

    def chance(self, percent: int) -> bool:
        """First decisions are to be harmless: the byte 0 is no."""
        return self.below(100) >= 100 - percent


def spoilt(data: bytes, choices: Choices, others: Sequence[bytes] = ()) -> bytes:
    """Some bytes of it changed, cut, repeated, or from another file."""
    for _ in range(choices.pick((1, 1, 1, 2, 2, 3, 5))):
        size = len(data)
        reach = min(size, 128) if choices.chance(50) else size  # headers decide more
        place, kind = choices.below(reach or 1), choices.below(8)
        if kind == 0:
            data = data[:place] + bytes([(data[place] if size else 0) ^ 1 << choices.below(8)]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + choices.bytes(1) + data[place + 1 :]
        elif kind == 2:
            number, width = choices.pick(EXTREMES), choices.pick((2, 4, 8))
            order = choices.pick(("little", "big"))
            part = (number & (1 << 8 * width) - 1).to_bytes(width, order)  # type: ignore[arg-type]
            data = data[:place] + part + data[place + width :]
        elif kind == 3:
            data = data[:place] if choices.chance(50) else data[place:]
        elif kind == 4:
            data = data[:place] + data[place + 1 + choices.below(64) :]
        elif kind == 5:
            data = data[:place] + data[place : place + 1 + choices.below(256)] + data[place:]
        elif kind == 6 and others:
            other = choices.pick(others)
            data = data[:place] + other[min(place, choices.below(len(other) or 1)) :]
        else:
            data = data[:place] + choices.bytes(1 + choices.below(8)) + data[place:]
    return data


def spoilt_json(document: Any, choices: Choices) -> Any:
    """One to three values of it, at any depth, replaced, removed or repeated."""
    document = json.loads(json.dumps(document))
    for _ in range(1 + choices.below(3)):
        if not isinstance(document, dict | list):
            return document
        here: Any = document
        while True:
            keys: list[Any] = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = choices.pick(keys)
            if isinstance(here[key], dict | list) and here[key] and not choices.chance(20):
                here = here[key]
                continue
            kind = choices.below(6)
            if kind == 4:
                del here[key]
            elif kind == 5 and isinstance(here, list):
                here.extend(here[: 1 + choices.below(200)])
            elif kind == 3 and isinstance(here[key], int | float):
                here[key] = choices.pick((-here[key], here[key] + 1, here[key] * 1000, str(here[key]), [here[key]]))
            else:
                here[key] = copy.deepcopy(choices.pick(JSON_VALUES))
            break
    return document


def command_line(choices: Choices, options: dict[str, list[str]]) -> list[str]:
    """A command, some words, some of its options or of another's, with and without values."""
    command = choices.pick([*options, "generate", "generate", "gnerate", "", "-"])
    own = options.get(command) or options["generate"]
    words = [" ".join(choices.pick(WORDS) for _ in range(choices.below(7)))]
    if choices.chance(40):
        words = [
            choices.pick(("a red dog", "A Dog!!", "dog, red", "два a car", "a wooden car with wheels", "a dog's chair"))
        ]
    if choices.chance(20):
        words = [choices.pick(WORDS) for _ in range(choices.below(4))]
    if choices.chance(2):
        words = [choices.pick(WORDS) * 5_000]
    if command not in ("generate", "help") or choices.chance(10):
        words = (
            [choices.pick(VALUES)] if choices.chance(50) else [choices.pick(("car.run", "car.glb", "list.txt", "."))]
        )
        words += [choices.pick(VALUES)] if choices.chance(20) or command == "edit" else []
    given: list[str] = []
    for _ in range(choices.below(5)):
        option, value = choices.pick([*own, "--json", "--dry-run"]), choices.pick(VALUES)
        if choices.chance(60):
            given += [option, SENSIBLE[option]] if option in SENSIBLE else [option]
        else:
            given += choices.pick(([option, value], [option], [f"{option}={value}"], [option[:-1]]))
    if command in ("generate", "edit", "refine") and choices.chance(70):
        given.append("--dry-run")
    return [*given, command, *words] if choices.chance(10) else [command, *words, *given]


def prompt(choices: Choices, words: Sequence[str]) -> str:
    """Letters of all of Unicode, surrogates too; words that are known, and near ones; up to 100,000 letters."""
    parts: list[str] = []
    for _ in range(1 + choices.below(8)):
        kind = choices.below(8)
        if kind < 3:
            parts.append(choices.pick(words))
        elif kind == 3:
            word = choices.pick(words)
            place = choices.below(len(word) or 1)
            end = choices.pick((1, 0, 2))  # another letter, one more, one less
            parts.append(word[:place] + chr(97 + choices.below(26)) * (end != 2) + word[place + min(end, 1) :])
        elif kind == 4:
            top = choices.pick((0x250, 0x3000, 0xD800, 0x110000))
            parts.append("".join(chr(choices.below(top)) for _ in range(1 + choices.below(6))))
        elif kind == 5 and choices.chance(30):
            parts.append(choices.bytes(1 + choices.below(8)).decode("utf-8", "surrogateescape"))
        elif kind == 6:
            parts.append(choices.pick(WORDS))
        else:
            parts.append(
                choices.pick(("a", "with", "and", ",", ".", "!", "on a", "made of", "no", "without", "#ff0000", "2"))
            )
    text = choices.pick((" ", " ", " ", "", "-", ", ")).join(parts)
    return text * choices.pick((1,) * 30 + (20, 100_000 // max(len(text), 1)))


def pictures() -> list[tuple[str, bytes]]:
    """A thing in front of nothing, in each format and kind of pixels that people have; suffix and bytes."""
    thing = Image.new("RGBA", (48, 40))
    drawing = ImageDraw.Draw(thing)
    drawing.ellipse((8, 6, 40, 34), fill=(200, 40, 30, 255))
    drawing.rectangle((16, 12, 28, 22), fill=(40, 40, 200, 255))
    on_white = Image.new("RGB", thing.size, "white")
    on_white.paste(thing, mask=thing.getchannel("A"))
    grey, found = on_white.convert("L"), list[tuple[str, bytes]]()

    def save(image: Image.Image, suffix: str, **options: Any) -> None:
        stream = io.BytesIO()
        image.save(stream, options.pop("format", suffix.upper()), **options)
        found.append((suffix, stream.getvalue()))

    depths = Image.fromarray((np.asarray(grey, np.uint16) * 257).astype(np.uint16))
    for image in (thing, on_white, grey, thing.convert("LA"), on_white.convert("P"), grey.convert("1"), depths):
        save(image, "png")
    save(thing.quantize(8), "png", transparency=0)
    for mode in ("RGB", "L", "CMYK"):
        save(on_white.convert(mode), "jpeg", quality=80)
    turned = Image.Exif()
    turned[0x0112] = 6
    save(on_white, "jpeg", progressive=True, exif=turned)
    save(thing, "webp", lossless=True)
    save(on_white, "webp", quality=50)
    save(thing, "webp", save_all=True, append_images=[thing.rotate(90)])
    save(on_white, "gif")
    save(on_white, "gif", save_all=True, append_images=[on_white.rotate(90)], loop=0)
    save(thing, "tiff")
    save(on_white, "tiff", compression="tiff_lzw")
    save(on_white, "tiff", compression="jpeg")
    save(depths, "tiff")
    save(grey.convert("F"), "tiff", compression="tiff_deflate")
    save(on_white, "tiff", save_all=True, append_images=[on_white])
    for suffix, kind in (
        ("bmp", "BMP"),
        ("ppm", "PPM"),
        ("tga", "TGA"),
        ("ico", "ICO"),
        ("jp2", "JPEG2000"),
        ("pcx", "PCX"),
    ):
        save(on_white, suffix, format=kind)
    found.append(("svg", b"<svg xmlns='http://www.w3.org/2000/svg'><circle r='4'/></svg>"))
    return found


def sealed_png(data: bytes) -> bytes:
    """With right checksums, so that what is spoilt is read at all."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, place = data[:8], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        if len(body) < 4 + length:
            break
        out += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return out + data[place:]


def meshes() -> list[tuple[str, bytes]]:
    """A small mesh in each format, with a texture, with colours and with neither; suffix and bytes."""
    chance = random.Random(0)
    box = trimesh.creation.box((1, 2, 0.5))
    image = Image.frombytes("RGB", (8, 8), chance.randbytes(192))
    textured = box.copy()
    textured.visual = trimesh.visual.TextureVisuals(uv=np.tile([[0.1, 0.9]], (len(box.vertices), 1)), image=image)
    coloured = box.copy()
    coloured.visual.vertex_colors = np.tile([[200, 10, 10, 255]], (len(box.vertices), 1))
    found = [("glb", textured.export(file_type="glb")), ("glb", coloured.export(file_type="glb"))]
    scene = trimesh.Scene([textured, coloured.apply_translation((2, 0, 0))])
    found.append(("glb", scene.export(file_type="glb")))
    found.append(("obj", coloured.export(file_type="obj").encode()))
    found.append(("obj", b"mtllib m.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 1\nvn 0 0 1\n"
                         b"f 1/1/1 2/2/1 3/1/1\nf 1 2 4\nf -1 -2 -3 -4\n"))  # fmt: skip
    for suffix in ("ply", "stl", "off"):
        made = coloured.export(file_type=suffix)
        found.append((suffix, made if isinstance(made, bytes) else made.encode()))
    found.append(("ply", coloured.export(file_type="ply", encoding="ascii")))
    found.append(("stl", box.export(file_type="stl_ascii").encode()))
    text, buffers = None, {}
    for name, data in textured.scene().export(file_type="gltf").items():
        text, buffers = (data, buffers) if name.endswith(".gltf") else (text, {**buffers, name: data})
    document = json.loads(text or "{}")
    for buffer in document["buffers"]:
        encoded = base64.b64encode(buffers[buffer["uri"]]).decode()
        buffer["uri"] = f"data:application/octet-stream;base64,{encoded}"
    return [*found, ("gltf", json.dumps(document).encode())]


def spoilt_mesh(suffix: str, data: bytes, choices: Choices, others: Sequence[bytes]) -> bytes:
    """Its bytes; or of glTF the JSON, in a file that is whole otherwise."""
    if choices.chance(50) and suffix == "glb":
        (length,) = struct.unpack("<I", data[12:16])
        text = json.dumps(spoilt_json(json.loads(data[20 : 20 + length]), choices)).encode()
        text += b" " * (-len(text) % 4)
        rest = data[20 + length :]
        return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest
    if choices.chance(70) and suffix == "gltf":
        return json.dumps(spoilt_json(json.loads(data), choices)).encode()
    return spoilt(data, choices, others)


def spoilt_checkpoint(path: Path, choices: Choices) -> None:
    """Its bytes; or its header, or some numbers and names of its tensors, with the right checksum."""
    from magic3d_cli.run import checkpoint

    kind = choices.below(4)
    if kind == 0:
        path.write_bytes(spoilt(path.read_bytes(), choices))
        return
    tensors, header = checkpoint.load(path)
    if kind in (1, 2):
        header = spoilt_json(header, choices)
        if choices.chance(50) and isinstance(header.get("settings"), dict):
            header["settings"] = spoilt_json(header["settings"], choices)
    else:
        name = choices.pick(sorted(tensors))
        tensor, change = tensors[name].clone(), choices.below(6)
        if change == 0 and tensor.is_floating_point() and tensor.numel():
            start = choices.below(tensor.numel())
            tensor.view(-1)[start : start + 1 + choices.below(64)] = choices.pick(
                (float("nan"), float("inf"), -1e30, 1e30)
            )
        elif change == 1:
            tensor = tensor[: choices.below(len(tensor) or 1)] if tensor.dim() else tensor[None]
        elif change == 2:
            tensor = tensor.to(choices.pick(_types()))
        elif change == 3:
            tensor = tensor[None]
        elif change == 4:
            tensors["x"] = tensor.clone()
        del tensors[name]
        if change != 5:
            tensors[name] = tensor
    checkpoint.save(path, tensors, header)


def _types() -> list[Any]:
    import torch

    return [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.bfloat16]
