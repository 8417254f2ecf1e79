"""Rebuild a textured model from 40 posed renders, step by step: `python reconstruct.py [MODEL] [-o OUT]`.

An image loss takes the place of distillation, so nothing here depends on a prior. The coarse stage is fitted,
turned into a mesh, refined on the same images, exported, and the written GLB drawn again from held-out views
by code that shares nothing with the writer. PSNR is reported after each step: it says where quality is lost.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from model import Model, load_model, psnr, robot, silhouette_iou
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.write import write
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.diffusers.prior import resize
from magic3d_cli.presets import preset
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views, turntable
from magic3d_cli.settings import AssetSettings, FieldSettings, Settings
from magic3d_cli.training.loop import Stage
from magic3d_cli.training.terms import LossTerm, Step, ViewGroup


@dataclass(frozen=True)
class Poses:
    """Posed pictures with coverage: what a photographer with a perfect mask would bring."""

    views: Views
    images: Float[Tensor, "N 3 S S"]  # colour on black, that is premultiplied
    masks: Float[Tensor, "N 1 S S"]

    def draw(self, count: int, generator: torch.Generator) -> Views:
        """Some of the poses, before random backdrops so that what is empty has to be transparent."""
        index = torch.randperm(len(self.views), generator=generator)[:count]
        return self.views[index].replace(backdrop=torch.rand(len(index), 3, generator=generator))

    def loss(self, render: Render, step: Step) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Squared error against the pictures in a prior's range of [-1, 1], summed over each image."""
        images, views = render.rgb, step.views
        index = (views.azimuth.cpu()[:, None] == self.views.azimuth).float().argmax(1)
        size = images.shape[1]
        colour, mask = (resize(x[index], size).to(images) for x in (self.images, self.masks))
        truth = (colour + (1 - mask) * views.backdrop[:, :, None, None]).permute(0, 2, 3, 1)
        error = (images - truth).square()
        return 2 * error.sum() / len(views), {"psnr": -10 * math.log10(float(error.detach().mean()) + 1e-12)}


def take_poses(model: Model, count: int, size: int) -> Poses:
    """`count` pictures from all round, a spiral over elevations -15 to 75 degrees, even by area."""
    index = torch.arange(count) + 0.5
    low, high = math.sin(math.radians(-15)), math.sin(math.radians(75))
    black = turntable(count).replace(
        azimuth=index * math.pi * (3 - math.sqrt(5)) % (2 * math.pi),
        elevation=torch.asin(low + (high - low) * index / count),
        backdrop=torch.zeros(count, 3),
    )
    images, masks = zip(*(model.render(black[i : i + 1], size) for i in range(count)), strict=True)
    return Poses(black, torch.cat(images).permute(0, 3, 1, 2).contiguous(), torch.cat(masks)[:, None])


def from_poses(poses: Poses, stage: Stage, count: int) -> ViewGroup:
    """Views from the poses in place of random ones, with the regularisers of the stage."""
    random = stage.random_views(LossTerm("picture", poses.loss))
    return replace(random, draw=lambda progress, generator: poses.draw(count, generator))


def settings_for(coarse_steps: int, fine_steps: int, size: int, faces: int = 20_000) -> Settings:
    """Coarse renders of `size` pixels, fine ones of twice that; hardly regularised: images say it all."""
    base = preset("standard")
    coarse = replace(
        base.coarse,
        steps=coarse_steps,
        views=4,
        render_size=size,
        warmup=0.0,
        sparsity=0.01,
        opaqueness=0.0,
        orientation=0.0,
        predicted_normal=0.0,
        field=FieldSettings(
            levels=10, log2_size=16, base_resolution=8, finest_resolution=256, hidden=32, density_gain=10.0
        ),
    )
    fine = replace(base.fine, steps=fine_steps, views=2, render_size=2 * size, normal_consistency=0.005)
    asset = AssetSettings(faces=faces, texture_size=1024)
    return replace(base, coarse=coarse, fine=fine, asset=asset)


def reconstruct(model: Model, settings: Settings, out: Path, poses: int = 40, size: int = 128) -> dict[str, float]:
    """PSNR (dB) and silhouette IoU on held-out views after every step; the asset is written into `out`."""
    pictures = take_poses(model, poses, settings.fine.render_size)
    views = turntable(8, elevation=25, start=22.5)
    truth, mask = model.render(views, size, samples=3)
    rows, report = [truth], {}

    def judge(name: str, images: Tensor, opacity: Tensor) -> None:
        rows.append(images.clamp(0, 1))
        report[f"{name}_psnr_db"] = round(psnr(images, truth), 2)
        report[f"{name}_iou"] = round(silhouette_iou(opacity, mask), 4)

    coarse = CoarseStage(settings, 0)
    coarse.run([from_poses(pictures, coarse, settings.coarse.views)])
    image = coarse.render(views, size)
    judge("field", image.rgb, image.opacity)
    fine = FineStage.from_coarse(settings, coarse)
    image = fine.render(views, size)
    judge("mesh", image.rgb, image.opacity)
    fine.run([from_poses(pictures, fine, settings.fine.views)])
    image = fine.render(views, size)
    judge("refined", image.rgb, image.opacity)
    vertices, faces = (x.detach().cpu().numpy() for x in fine.mesh())
    asset = build_asset(vertices, faces, fine.albedo, settings.asset)
    path = write(asset, out / "model.glb", "model")[0]
    judge("asset", *where_it_was(load_model(path, fit=False), vertices, faces).render(views, size, samples=3))
    strip = torch.cat([torch.cat(list(row), 1) for row in rows], 0)
    Image.fromarray((strip * 255).round().byte().numpy()).save(out / "reconstruct.png")
    return report


def where_it_was(written: Model, vertices: np.ndarray, faces: np.ndarray) -> Model:
    """The asset moved back from standing on the ground to where its surface was extracted.

    Shift only, found by matching its vertices to the nearest planes of the surface (Chen and Medioni 1992).
    """
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    keep = np.linalg.norm(normals, axis=1) > 1e-12
    centres, normals = (
        corners[keep].mean(1),
        normals[keep] / np.linalg.norm(normals[keep], axis=1, keepdims=True),
    )
    points, tree = written.vertices.double().numpy(), cKDTree(centres)
    low, high = ([f(x, axis=0) for x in (points, vertices)] for f in (np.min, np.max))
    shift = (low[1] + high[1] - low[0] - high[0]) / 2
    for _ in range(20):
        nearest = tree.query(points + shift)[1]
        apart = ((centres[nearest] - points - shift) * normals[nearest]).sum(1)
        shift = shift + np.linalg.lstsq(normals[nearest], apart, rcond=None)[0]
    return replace(written, vertices=written.vertices + torch.from_numpy(shift).float())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a textured mesh; default: a built-in toy robot")
    parser.add_argument("-o", "--out", type=Path, help="folder for model.glb and reconstruct.png")
    parser.add_argument("--poses", type=int, default=40)
    parser.add_argument("--size", type=int, default=64, help="pixels of a coarse render; the fine ones have twice")
    parser.add_argument("--steps", type=int, nargs=2, default=(600, 200), metavar=("COARSE", "FINE"))
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="reconstruct-"))
    out.mkdir(parents=True, exist_ok=True)
    model = load_model(args.model) if args.model else robot()
    report = reconstruct(model, settings_for(*args.steps, args.size), out, args.poses)
    print(json.dumps({**report, "folder": str(out)}))


if __name__ == "__main__":
    main()
