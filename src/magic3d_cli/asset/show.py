"""What shows an asset without a 3D program: an animated turntable, a contact sheet, a page for any browser."""

from __future__ import annotations

import base64
import html
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.check import FileMesh, read_mesh
from magic3d_cli.asset.formats.glb import glb_bytes
from magic3d_cli.asset.mesh import vertex_normals
from magic3d_cli.asset.preview import render_mesh
from magic3d_cli.checks import parse_json
from magic3d_cli.scene.views import DIFFUSE, Views, turntable

TEMPLATE = Path(__file__).with_name("viewer.html")
_MILLISECONDS = 3000  # of a whole turn, and about of a film
_SHORTEST_FRAME, _LONGEST_FRAME, _HELD = 40, 250, 1500  # milliseconds, of a film; the last of its last frame


def lit(views: Views) -> Views:
    """The same views with a light above the camera's right shoulder."""
    light = torch.nn.functional.normalize(views.light + torch.stack(views.axes()[:2]).sum(0) * 0.5, dim=-1)
    return views.replace(shading=torch.full((len(views),), DIFFUSE), light=light)


def frames(mesh: FileMesh, count: int, size: int) -> list[UInt8[np.ndarray, "size size 3"]]:
    """Pictures once round the object, from the front over its left side."""
    return list(render_mesh(mesh, lit(turntable(count)), size))


def animation(pictures: list[UInt8[np.ndarray, "H W 3"]]) -> bytes:
    """A WebP that turns forever; every browser and most programs show it."""
    first, *rest = (Image.fromarray(picture) for picture in pictures)
    buffer = io.BytesIO()
    first.save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=round(_MILLISECONDS / len(pictures)),
        loop=0,
        quality=85,
        method=2,
    )
    return buffer.getvalue()


def film(frames: list[Path]) -> bytes | None:
    """An animated WebP of a run's frames, the last one held; None where fewer than two are whole."""
    pictures = []
    for path in frames:
        try:
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        except OSError:
            continue  # a disk that was full at that moment
    if len(pictures) < 2:
        return None
    largest = max(picture.size for picture in pictures)
    first, *rest = (picture.resize(largest) for picture in pictures)
    each = min(_LONGEST_FRAME, max(_SHORTEST_FRAME, round(_MILLISECONDS / len(pictures))))
    buffer = io.BytesIO()
    durations = [each] * len(rest) + [_HELD]
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=85, method=2)
    return buffer.getvalue()


def sheet(mesh: FileMesh, size: int) -> bytes:
    """PNG of front, left, back and right, and below them the colours alone without light."""
    views = turntable(4)
    strips = [np.concatenate(list(render_mesh(mesh, some, size)), axis=1) for some in (lit(views), views)]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(strips, axis=0)).save(buffer, "PNG")
    return buffer.getvalue()


def page(glb: bytes, title: str) -> bytes:
    """One HTML file that shows the asset from file://, without network."""
    view = turntable(1)
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in (
        ("@DISTANCE@", f"{float(view.distance[0]):.6f}"),
        ("@TITLE@", html.escape(title)),
        ("@GLB@", base64.b64encode(glb).decode()),
    ):
        text = text.replace(name, value)
    return text.encode()


def as_glb(path: Path, mesh: FileMesh) -> tuple[bytes, str]:
    """A GLB of the asset and a title: the file's own bytes where it is one."""
    if path.suffix.lower() == ".glb":
        data = path.read_bytes()
        return data, _title(data) or path.stem
    asset = Asset(
        positions=mesh.positions.astype(np.float32),
        normals=vertex_normals(mesh.positions, mesh.faces).astype(np.float32),
        uvs=mesh.uvs.astype(np.float32),
        faces=mesh.faces,
        texture=mesh.texture,
    )
    return glb_bytes(asset, path.stem), path.stem


def _title(glb: bytes) -> str:
    """The prompt, where magic3d wrote the file."""
    try:
        document = parse_json(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])
        return str(document["asset"]["extras"]["prompt"])
    except (ValueError, KeyError, TypeError):
        return ""


def video(pictures: list[UInt8[np.ndarray, "H W 3"]]) -> bytes:
    """An MP4 (H.264) of one turn, for programs that show no animated WebP. Needs imageio-ffmpeg; sides are even."""
    import imageio_ffmpeg

    height, width = pictures[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "turntable.mp4"
        rate = 1000 * len(pictures) / _MILLISECONDS
        writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=rate, quality=8, macro_block_size=2)
        writer.send(None)
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture))
        writer.close()
        return path.read_bytes()


def show(path: Path, stem: Path, count: int, size: int, mp4: bool = False) -> dict[Path, bytes]:
    """The files for an asset, by path: STEM.html, STEM-sheet.png, STEM-turntable.webp, with `mp4` STEM-turntable.mp4.

    Raises UsageError where the file holds no textured mesh.
    """
    mesh = read_mesh(path)
    glb, title = as_glb(path, mesh)
    turn = frames(mesh, count, size)
    return {
        stem.with_name(f"{stem.name}.html"): page(glb, title),
        stem.with_name(f"{stem.name}-sheet.png"): sheet(mesh, size),
        stem.with_name(f"{stem.name}-turntable.webp"): animation(turn),
        **({stem.with_name(f"{stem.name}-turntable.mp4"): video(turn)} if mp4 else {}),
    }
