"""Render the training views of the built-in prior: `python render.py DATA OUT`.

DATA holds four unpacked Debian packages, side by side (`apt-get download NAME; dpkg-deb -x NAME*.deb DATA`):
sweethome3d-furniture, megaglest-data, 0ad-data, supertuxkart-data. OUT receives per model `<name>.npy`, uint8
[views, 128, 128, 10] geometry buffers (see gbuffer.py), `<name>.large.npy`, the first few of them at 256 pixels, and
`<name>.cameras.npy`, float32 [views, 4]: azimuth, elevation, fov, half_height. 22 MB and two
seconds a model. Finished models are kept, so it can be interrupted, and run again after the manifest has grown.
"""

from __future__ import annotations

import argparse
import json
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from gbuffer import draw, pack
from manifest import file_stem, read_manifest
from shapes import make_shape
from sources import Model, catalogue, read_actor, read_g3d, read_sh3f, read_stk

from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.scene.shape import scale_into_scene
from magic3d_cli.scene.views import sample_views
from magic3d_cli.settings import ViewSampling

SIZE = 128


WHITE, MOST = 0.85, 1.35
"""Dim models are brightened until their brightest twentieth reaches WHITE, at most by the factor MOST: many textures
were painted for games that light them, and are darker than the thing they show."""

_unpacking = threading.Lock()


def load(data: Path, source: str) -> Model:
    """The model that a manifest source such as "0ad:fauna/lion" names."""
    kind, name = source.split(":", 1)
    if kind == "shape":
        return make_shape(name)
    if kind == "0ad":
        package = next(data.rglob("mods/public/public.zip"))
        with zipfile.ZipFile(package) as archive:
            actor, _, choice = name.partition("#")  # "flora/trees/apple#1": variant 1, with its props
            return read_actor(archive, actor, int(choice or 0), bool(choice))
    if kind == "megaglest":
        return read_g3d(next(data.rglob("techs/megapack")).parents[1] / name)
    if kind == "stk":
        return read_stk(next(data.rglob("supertuxkart/data")), name)
    packed = next(data.rglob(f"furniture/{kind}.sh3f"))
    folder = packed.with_suffix("")
    with _unpacking:  # two workers must not unpack one catalogue at once
        if not folder.exists():
            with zipfile.ZipFile(packed) as archive:
                archive.extractall(folder)
    return read_sh3f(folder, catalogue(folder)[int(name)])


def normalise(model: Model, yaw: float) -> Model:
    """Turned by `yaw` degrees about +Y, centred on its bounding box, scaled into the scene."""
    a = np.deg2rad(yaw)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    points = model.positions @ turn.T
    low, high = points.reshape(-1, 3).min(0), points.reshape(-1, 3).max(0)
    half = (high - low) / 2
    scale = scale_into_scene(half)
    model.positions = ((points - (low + high) / 2) * scale).astype(np.float32)
    return model


def dimness(buffers: np.ndarray) -> np.float32:
    """The factor by which WHITE and MOST brighten a model with these geometry buffers."""
    some = buffers[:: max(1, len(buffers) // 64)]
    luma = (some[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32))[some[..., 9] > 250] / 255
    return np.float32(np.clip(WHITE / max(np.percentile(luma, 95), 1e-3), 1, MOST) if len(luma) else 1.0)


def brighten(buffers: np.ndarray, factor: np.float32) -> None:
    """Brighten geometry buffers in place."""
    covered = buffers[..., 9:]  # colour is stored times coverage
    buffers[..., :3] = np.minimum(buffers[..., :3] * factor + 0.5, covered).astype(np.uint8)


def known_styles(prior: Path) -> set[str]:
    """The style tokens of all models that a prior remembers."""
    nouns = json.loads((prior / "vocabulary.json").read_text(encoding="utf-8"))["nouns"]
    return {style for noun in nouns.values() for style in noun["styles"]}


def render(data: Path, out: Path, source: str, yaw: float, views: int, seed: int, large_views: int = 10) -> None:
    """Write one model's geometry buffers and cameras."""
    stem = file_stem(source, yaw)
    target = out / f"{stem}.npy"
    if target.exists():
        return
    arrays = pack(normalise(load(data, source), yaw))
    generator = torch.Generator().manual_seed(zlib.crc32(stem.encode()) + seed)
    cameras = sample_views(views, ViewSampling(), generator, stratified=False)
    clip = cameras.world_to_clip().numpy()
    buffers = np.stack([draw(*arrays, clip[i], SIZE, 2) for i in range(views)])
    large = np.stack([draw(*arrays, clip[i], 2 * SIZE, 2) for i in range(min(views, large_views))])
    factor = dimness(buffers)
    brighten(buffers, factor)
    brighten(large, factor)
    np.save(out / f"{stem}.large.npy", large)
    numbers = torch.stack([cameras.azimuth, cameras.elevation, cameras.fov, cameras.half_height], -1)
    np.save(out / f"{stem}.cameras.npy", numbers.numpy().astype(np.float32))
    with open(target.with_suffix(".part"), "wb") as file:
        np.save(file, buffers)
    target.with_suffix(".part").rename(target)
    print(f"{stem}: {len(arrays[0])} triangles, coverage {buffers[..., 9].mean() / 255:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--views", type=int, default=96)
    parser.add_argument("--large", type=int, default=10, help="views drawn at twice the size as well")
    parser.add_argument("--new", action="store_true", help="only models that the prior that ships does not know")
    parser.add_argument("--manifest", type=Path, default=Path(__file__).with_name("manifest.tsv"))
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cameras")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    known = known_styles(BUILTIN) if args.new else set()
    with ThreadPoolExecutor(args.workers) as pool:
        futures = [
            pool.submit(render, args.data, args.out, source, yaw, args.views, args.seed, args.large)
            for noun in read_manifest(args.manifest)
            for style, (source, yaw) in zip(noun.styles, noun.models, strict=True)
            if style not in known
        ]
        for future in futures:
            future.result()


if __name__ == "__main__":
    main()
