"""What is made from one picture, against the truth that the picture does not show.

    python examples/evaluate/from_picture.py DATA OUT --known 8 --unknown 4

A model that the prior never saw is drawn once, from 30 degrees to its right, and turned into a mesh by each variant:

- `both`, as shipped: from 20 degrees above, which is not told;
- `level`: the same from 0 degrees above; `misstated`: from 20 degrees above, of which 5 are told;
- `photo`, `drawing`: as `both`, from a picture with a background and a shadow, light, noise or ink (`depictions.py`);
- `reference`: the picture's losses alone, told the elevation; `prior`: told the noun alone; `lookup`: the prior's model
  that looks most like the picture, as it is. These are the controls: `both` has to be better than each.

The written GLB is compared with the real model from the picture's camera, and from seven other sides at two elevations,
turned and scaled to the same bounding sphere; the truth mirrored has to be less like it. `likeness.py` says how.
Writes `OUT/results.json`, `OUT/table.md`, and `OUT/sheet.png`: each picture, the truth's four sides, then those of each
variant. Two minutes a mesh on two cores; finished ones are kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from depictions import DEPICTIONS
from likeness import chamfer, chamfer_fitted, likeness, normal_angle, on_triangles, over_white, second_face, turned
from PIL import Image
from truth import UNKNOWN, arrays_of, buffers_of, held_out, listed, pictures

from magic3d_cli import generate
from magic3d_cli import pictures as looking
from magic3d_cli.asset.check import read_mesh, sample
from magic3d_cli.asset.preview import _perspective_weights, render_glb
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin.encoder import likely_models
from magic3d_cli.guidance.builtin.looks import Looks
from magic3d_cli.guidance.builtin.shape import VolumeShape
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.kernels.dispatch import rasterize
from magic3d_cli.reference import read_cutout
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.reference import Camera
from magic3d_cli.scene.views import Views, turntable

SIZE = 256
AZIMUTH = 30.0
"""Of the picture, to the right of the model's front."""
POINTS = 4000
"""On each surface."""
NOUNS = ("car", "dog", "chair", "mug", "elephant", "horse", "truck", "armchair", "lamp", "sailboat", "pagoda", "toilet",
         "bus", "vase", "sofa", "lion", "barrel", "tent", "table", "castle")  # fmt: skip
"""Of the first objects that the prior knows; then any others."""


@dataclass(frozen=True)
class Variant:
    """How a mesh is made: from a picture taken this far above the horizon, of which `told` degrees are told."""

    elevation: float = 20.0
    told: float | None = None
    depiction: str = ""  # of `depictions`; none: its own colours, cut out
    alone: bool = False  # the picture's losses alone


PICTURED = {
    "both": Variant(),
    "level": Variant(elevation=0.0),
    "misstated": Variant(told=5.0),
    "photo": Variant(depiction="photo"),
    "drawing": Variant(depiction="drawing"),
    "reference": Variant(told=20.0, alone=True),
}
VARIANTS = (*PICTURED, "prior", "lookup")

Shown = tuple[Callable[[Views], np.ndarray], tuple[np.ndarray, np.ndarray], float]
"""What is compared with the truth: pictures from views, points and normals (zeros where there are none) of the surface,
and the azimuth at which the reference picture's camera stands."""


def ring(azimuth: float, elevation: float, half_height: float = 1.12) -> Views:
    """Eight flat views from one azimuth on."""
    return turntable(8, elevation, azimuth, half_height=half_height)


def of_truth(data: Path, source: str, yaw: float, views: Views, size: int = SIZE) -> np.ndarray:
    """The real model in its bounding sphere, RGBA in [0, 1]."""
    positions = arrays_of(data, source, yaw)[0][0].reshape(-1, 3)
    radius = float(np.linalg.norm(positions, axis=1).max())
    seen = views.replace(half_height=views.half_height * radius)
    return pictures(data, source, yaw, seen, size).astype(np.float32) / 255


def truth_surface(data: Path, source: str, yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """Points on the real model in its bounding sphere, and normals."""
    triangles = arrays_of(data, source, yaw)[0][0]
    return on_triangles(triangles / np.linalg.norm(triangles.reshape(-1, 3), axis=1).max(), POINTS)


def of_mesh(path: Path, views: Views, size: int = SIZE) -> np.ndarray:
    """A written mesh in its bounding sphere, RGBA in [0, 1]: its coverage from renders before black and white."""
    black, white = (
        render_glb(path, views.replace(backdrop=torch.full((len(views), 3), grey)), size).astype(np.float32) / 255
        for grey in (0.0, 1.0)
    )
    alpha = 1 - (white - black).mean(-1, keepdims=True)
    return np.concatenate([black / np.maximum(alpha, 1e-3), alpha], -1).clip(0, 1)


def mesh_surface(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points on a written mesh in its bounding sphere, and normals."""
    mesh = read_mesh(path)
    centred = mesh.positions - (mesh.positions.min(0) + mesh.positions.max(0)) / 2
    return on_triangles((centred / np.linalg.norm(centred, axis=1).max())[mesh.faces], POINTS)


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


def make(variant: str, noun: str, picture: Path, output: Path) -> dict:
    """One mesh; its report. Raises UsageError where the prior does not know the noun."""
    known = output.with_suffix(".json")
    if output.is_file() and known.is_file():
        return json.loads(known.read_text())
    if variant == "prior":
        report = generate(noun, output=output, force=True, fresh=True).report
    else:
        fits, how = looking.FITS, PICTURED[variant]
        looking.FITS = 2.0 if how.alone else fits  # nothing fits: the picture alone
        try:
            report = generate(image=picture, elevation=how.told, output=output, force=True, fresh=True).report
        finally:
            looking.FITS = fits
    known.write_text(json.dumps(report))
    return report


@cache
def _prior() -> tuple[DiffusersPrior, Looks]:
    prior = DiffusersPrior(describe(of_stage(BUILTIN, "coarse"), "builtin"), torch.device("cpu"), torch.float32)
    assert prior.vocabulary is not None
    return prior, Looks.load(BUILTIN, prior.vocabulary)


def looked_up(picture: Path) -> tuple[Shown, str]:
    """The built-in prior's model that looks most like a picture, unchanged, and its noun."""
    prior, looks = _prior()
    rgba = read_cutout(picture).rgba
    sighting = looks.like(rgba, 1, likely=likely_models(BUILTIN, rgba))[0]
    network = prior.volume
    assert network is not None
    states = condition(prior, sighting.caption).states
    points = VolumeShape(network, states).surface(POINTS, torch.Generator().manual_seed(0)).numpy()
    radius = float(np.linalg.norm(points, axis=1).max())
    volume = network.imagine(states)

    @torch.no_grad()
    def seen(views: Views) -> np.ndarray:
        maps = network.render(volume, views.replace(half_height=views.half_height * radius), SIZE)
        alpha = maps[:, :1]
        return torch.cat([maps[:, 4:7] / alpha.clamp(min=1e-3), alpha], 1).movedim(1, -1).numpy().clip(0, 1)

    return (seen, (points / radius, np.zeros_like(points)), sighting.azimuth), sighting.caption.noun


def compared(shown: Shown, data: Path, source: str, yaw: float) -> tuple[dict[str, float], np.ndarray]:
    """What is measured of the unseen sides, and four sides as RGB."""
    look, surface, azimuth = shown
    elevations = (0.0, 20.0)
    ours = [look(ring(azimuth, elevation)) for elevation in elevations]
    real = [of_truth(data, source, yaw, ring(AZIMUTH, elevation)) for elevation in elevations]
    sides = [likeness(o[k], r[k]) for o, r in zip(ours, real, strict=True) for k in range(1, 8)]
    found = {key: float(np.mean([side[key] for side in sides])) for key in sides[0]}
    # The truth mirrored in the plane of the picture's axis: its view at -a, flipped, is what it shows at a.
    mirrored = [likeness(o[k], r[-k][:, ::-1]) for o, r in zip(ours, real, strict=True) for k in range(1, 8)]
    found |= {f"mirrored_{key}": float(np.mean([side[key] for side in mirrored])) for key in ("iou", "psnr")}
    front = [look(ring(azimuth - AZIMUTH, 0.0))[[0, 4]], of_truth(data, source, yaw, ring(0.0, 0.0))[[0, 4]]]
    found["second_face"] = second_face(*front[0]) - second_face(*front[1])
    points, normals = (turned(part, azimuth) for part in surface)
    others = tuple(turned(part, AZIMUTH) for part in truth_surface(data, source, yaw))
    found["chamfer"] = chamfer(points, others[0])
    found["chamfer_fitted"] = chamfer_fitted(points, others[0], 20.0)
    if normals.any():
        found["normal_angle"] = normal_angle((points, normals), (others[0], others[1]))
    return found, np.concatenate([over_white(ours[1][k]) for k in (0, 2, 4, 6)], 1)


COLUMNS = {
    "iou": "overlap", "mirrored_iou": "mirrored", "psnr": "PSNR, dB", "mirrored_psnr": "mirrored",
    "psnr_inside": "inside, dB", "chamfer": "Chamfer", "chamfer_fitted": "depth fitted", "normal_angle": "normals",
    "second_face": "second face",
}  # fmt: skip
LIKENESS = ("iou", "psnr", "psnr_inside")


def table(results: list[dict[str, Any]]) -> str:
    """Means of each kind of objects and variant, in Markdown."""
    lines = [f"| objects | variant | {' | '.join(COLUMNS.values())} | at the picture: overlap, PSNR, inside |",
             "| --- " * (len(COLUMNS) + 3) + "|"]  # fmt: skip
    for kind in dict.fromkeys(row["kind"] for row in results):
        for variant in VARIANTS:
            rows = [row for row in results if row["kind"] == kind and row["variant"] == variant]
            if not rows:
                continue
            cells = []
            for key in COLUMNS:
                values = [row["unseen"][key] for row in rows if key in row["unseen"]]
                digits = 1 if "psnr" in key or "angle" in key else 3
                cells.append(f"{np.mean(values):.{digits}f}" if values else "")
            seen = [row["reference"] for row in rows if "reference" in row]
            means = [float(np.mean([one[key] for one in seen])) for key in LIKENESS] if seen else []
            cells.append("{:.3f}, {:.1f}, {:.1f}".format(*means) if means else "")
            lines.append(f"| {len(rows)} {kind} | {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--known", type=int, default=8, help="objects whose nouns the prior knows")
    parser.add_argument("--unknown", type=int, default=4, help="objects of unknown.tsv")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    models = held_out()
    known = [next(row for row in models if row[0] == noun) for noun in NOUNS if any(r[0] == noun for r in models)]
    known += [row for row in models if row[0] not in NOUNS]
    kinds = {"known": known[: args.known], "unknown": listed(UNKNOWN)[: args.unknown]}
    # In turns, so that a run that is cut off has some of both.
    order = sorted((n / len(rows), kind, n) for kind, rows in kinds.items() for n in range(len(rows)))
    objects = [(kind, *kinds[kind][n]) for _, kind, n in order]
    results: list[dict[str, Any]] = []
    lines = []
    for kind, noun, source, yaw in objects:
        stem = noun.replace(" ", "-")
        line = [over_white(of_truth(args.data, source, yaw, ring(AZIMUTH, 20.0))[k]) for k in (0, 2, 4, 6)]
        for variant in args.variants:
            how = PICTURED.get(variant, Variant())
            picture = args.out / f"{stem}-{how.depiction or format(how.elevation, '.0f')}.png"
            camera = turntable(1, how.elevation, AZIMUTH)
            if how.depiction:
                drawn, _ = DEPICTIONS[how.depiction](buffers_of(args.data, source, yaw, camera, 768)[0], len(lines))
            else:
                drawn = pictures(args.data, source, yaw, camera, 768)[0]
            Image.fromarray(drawn).save(picture)
            row: dict[str, Any] = {"kind": kind, "noun": noun, "source": source, "variant": variant}
            if variant == "lookup":
                shown, row["prompt"] = looked_up(picture)
            else:
                output = args.out / f"{stem}-{variant}.glb"
                try:
                    report = make(variant, noun, picture, output)
                except UsageError as error:
                    print(f"{noun}, {variant}: {error.what}", flush=True)
                    line.append(np.ones((SIZE, 4 * SIZE, 3), np.float32))
                    continue
                row |= {"prompt": report["prompt"], "seconds": sum(report["seconds"].values())}
                seen_from = report["pictures"]["references"][0] if "pictures" in report else {"azimuth": AZIMUTH}
                shown = (lambda views, path=output: of_mesh(path, views), mesh_surface(output), seen_from["azimuth"])
                if "pictures" in report:
                    reference = Saved.load(output.with_suffix(".run") / "fine.ckpt").pictured.references[0]
                    rgb, mask, _ = reference.at(384)
                    row["reference"] = likeness(at_reference(output, report), np.dstack([rgb.numpy(), mask.numpy()]))
                    row["azimuth"] = (seen_from["azimuth"] - AZIMUTH + 180) % 360 - 180
                    row["elevation"] = seen_from["elevation"]
            row["unseen"], sides = compared(shown, args.data, source, yaw)
            line.append(sides)
            results.append(row)
            print(json.dumps(row), flush=True)
        lines.append(np.concatenate(line, 1))
        sheet = (np.concatenate(lines) * 255).round().astype(np.uint8)
        Image.fromarray(sheet).resize((sheet.shape[1] // 2, sheet.shape[0] // 2)).save(args.out / "sheet.png")
        (args.out / "results.json").write_text(json.dumps(results, indent=1))
        (args.out / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
