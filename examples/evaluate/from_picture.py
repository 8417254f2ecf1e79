"""What is made from one picture, against the truth that the picture does not show.

    python examples/evaluate/from_picture.py DATA OUT --objects 8

A model that the prior never saw is drawn once, by default from 30 degrees to its right and 15 above, and turned into a
mesh by each variant: `both` (as shipped), `reference` (the picture alone), `prior` (the noun alone). The written GLB is
then compared with the real model from the picture's camera, and from seven other sides at two elevations, turned and
scaled to the same bounding sphere. Writes `OUT/results.json`, and `OUT/sheet.png`: each picture, then four sides of
each variant. Two minutes a mesh on two cores; finished ones are kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from truth import arrays_of, held_out, pictures

from magic3d_cli import generate
from magic3d_cli import pictures as looking
from magic3d_cli.asset.check import read_mesh, sample
from magic3d_cli.asset.preview import _perspective_weights, render_glb
from magic3d_cli.kernels.dispatch import rasterize
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.reference import Camera
from magic3d_cli.scene.views import Views, turntable

SIZE = 256
VARIANTS = ("both", "reference", "prior")
NOUNS = ("car", "dog", "chair", "mug", "elephant", "horse", "truck", "armchair", "lamp", "sailboat", "pagoda", "toilet",
         "bus", "vase", "sofa", "lion", "barrel", "tent", "table", "castle")  # fmt: skip
"""Of the first objects; then any others."""


def ring(azimuth: float, elevation: float, half_height: float = 1.12) -> Views:
    """Eight flat views from one azimuth on."""
    return turntable(8, elevation, azimuth, half_height=half_height)


def of_truth(data: Path, source: str, yaw: float, views: Views, size: int = SIZE) -> np.ndarray:
    """The real model in its bounding sphere, RGBA in [0, 1]."""
    positions = arrays_of(data, source, yaw)[0][0].reshape(-1, 3)
    radius = float(np.linalg.norm(positions, axis=1).max())
    seen = views.replace(half_height=views.half_height * radius)
    return pictures(data, source, yaw, seen, size).astype(np.float32) / 255


def of_mesh(path: Path, views: Views, size: int = SIZE) -> np.ndarray:
    """A written mesh in its bounding sphere, RGBA in [0, 1]: its coverage from renders before black and white."""
    black, white = (
        render_glb(path, views.replace(backdrop=torch.full((len(views), 3), grey)), size).astype(np.float32) / 255
        for grey in (0.0, 1.0)
    )
    alpha = 1 - (white - black).mean(-1, keepdims=True)
    return np.concatenate([black / np.maximum(alpha, 1e-3), alpha], -1).clip(0, 1)


def likeness(ours: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Overlap of silhouettes, and PSNR before white: of all pixels and of those that either covers."""
    a, b = ours[..., 3] > 0.5, real[..., 3] > 0.5
    over = [image[..., :3] * image[..., 3:] + 1 - image[..., 3:] for image in (ours, real)]
    error = ((over[0] - over[1]) ** 2).mean(-1)
    union = a | b
    return {
        "iou": float((a & b).sum() / max(union.sum(), 1)),
        "psnr": float(-10 * np.log10(max(error.mean(), 1e-9))),
        "psnr_inside": float(-10 * np.log10(max(error[union].mean(), 1e-9))),
    }


def at_reference(path: Path, report: dict, size: int = 384) -> np.ndarray:
    """The written mesh from the picture's own camera, where it stood during the run; RGBA in [0, 1]."""
    camera = Camera(**{k: report["pictures"]["references"][0][k] for k in Camera.__dataclass_fields__})
    placed = report["asset"]["size"]
    mesh = read_mesh(path)
    points = mesh.positions / placed["scale"] + np.array(placed["origin"])
    clip = torch.from_numpy(np.c_[points, np.ones(len(points))]).float() @ camera.views().world_to_clip()[0].T
    ids = rasterize(clip[None], torch.from_numpy(mesh.faces), 2 * size)[0].numpy()
    rows, columns = np.nonzero(ids >= 0)
    corners = mesh.faces[ids[rows, columns]]
    weights = _perspective_weights(clip.numpy()[corners].astype(float), rows, columns, 2 * size)
    image = np.zeros((2 * size, 2 * size, 4), np.float32)
    image[rows, columns, :3] = sample(mesh.texture, (mesh.uvs[corners] * weights[:, :, None]).sum(1))
    image[rows, columns, 3] = 1
    image[..., :3] *= image[..., 3:]
    small = image.reshape(size, 2, size, 2, 4).mean((1, 3))
    small[..., :3] /= np.maximum(small[..., 3:], 1e-3)
    return small


def make(variant: str, noun: str, picture: Path, output: Path, elevation: float | None) -> dict:
    """One mesh; its report."""
    known = output.with_suffix(".json")
    if output.is_file() and known.is_file():
        return json.loads(known.read_text())
    fits = looking.FITS
    if variant == "prior":
        report = generate(noun, output=output, force=True, fresh=True).report
    else:
        looking.FITS = 2.0 if variant == "reference" else fits  # nothing fits: the picture alone
        try:
            report = generate(image=picture, elevation=elevation, output=output, force=True, fresh=True).report
        finally:
            looking.FITS = fits
    known.write_text(json.dumps(report))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--azimuth", type=float, default=30.0)
    parser.add_argument("--elevation", type=float, default=15.0)
    parser.add_argument("--told", type=float, help="elevation that is told; default: it is found out")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    models = held_out()
    chosen = [next(row for row in models if row[0] == noun) for noun in NOUNS if any(r[0] == noun for r in models)]
    chosen += [row for row in models if row[0] not in NOUNS]
    results, lines = [], []
    for noun, source, yaw in chosen[: args.objects]:
        picture = args.out / f"{noun.replace(' ', '-')}.png"
        shown = pictures(args.data, source, yaw, turntable(1, args.elevation, args.azimuth), 768)[0]
        Image.fromarray(shown).save(picture)
        line = [_over_white(np.asarray(Image.fromarray(shown).resize((SIZE, SIZE)), np.float32) / 255)]
        real = [of_truth(args.data, source, yaw, ring(args.azimuth, elevation)) for elevation in (0.0, 20.0)]
        line += [_over_white(real[1][k]) for k in (0, 2, 4, 6)]
        for variant in args.variants:
            output = args.out / f"{picture.stem}-{variant}.glb"
            report = make(variant, noun, picture, output, args.told)
            turned = report["pictures"]["references"][0]["azimuth"] if "pictures" in report else args.azimuth
            ours = [of_mesh(output, ring(turned, elevation)) for elevation in (0.0, 20.0)]
            sides = [likeness(o[k], r[k]) for o, r in zip(ours, real, strict=True) for k in range(1, 8)]
            flipped = [likeness(o[k], r[-k][:, ::-1]) for o, r in zip(ours, real, strict=True) for k in (2, 6)]
            row = {"noun": noun, "source": source, "variant": variant, "prompt": report["prompt"],
                   "seconds": sum(report["seconds"].values()),
                   "unseen": {key: float(np.mean([side[key] for side in sides])) for key in sides[0]},
                   "mirrored_iou": float(np.mean([side["iou"] for side in flipped]))}  # fmt: skip
            if "pictures" in report:
                reference = Saved.load(output.with_suffix(".run") / "fine.ckpt").pictured.references[0]
                rgb, mask, _ = reference.at(384)
                row["reference"] = likeness(at_reference(output, report), np.dstack([rgb.numpy(), mask.numpy()]))
                row["azimuth"] = (turned - args.azimuth + 180) % 360 - 180
            results.append(row)
            print(json.dumps(row), flush=True)
            line += [_over_white(ours[1][k]) for k in (0, 2, 4, 6)]
        lines.append(np.concatenate(line, 1))
        sheet = (np.concatenate(lines) * 255).round().astype(np.uint8)
        Image.fromarray(sheet).resize((sheet.shape[1] // 2, sheet.shape[0] // 2)).save(args.out / "sheet.png")
        (args.out / "results.json").write_text(json.dumps(results, indent=1))
    for variant in args.variants:
        mine = [row for row in results if row["variant"] == variant]
        means = {f"{part} {key}": np.mean([row[part][key] for row in mine])
                 for part in ("unseen", "reference") if part in mine[0] for key in mine[0][part]}  # fmt: skip
        print(variant, {key: round(float(value), 3) for key, value in means.items()})


def _over_white(image: np.ndarray) -> np.ndarray:
    return (image[..., :3] * image[..., 3:] + 1 - image[..., 3:]).clip(0, 1)


if __name__ == "__main__":
    main()
