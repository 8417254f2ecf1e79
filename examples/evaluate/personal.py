"""Things that the prior has never seen, taught to it from their meshes: `python personal.py OUT [--drafts]`.

Five things put together from primitives. Each is learnt from its mesh, and from three pictures (front, left, back), and
compared with itself from eight other sides; so is what the prior draws of the nearest model that it knows, and with
`--drafts` (two minutes each) the written mesh of "my robot" and of its golden or other variant. Writes a table and
sheet.jpg: rows of truth, nearest known model, learnt from the mesh, from pictures, and drafts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "builtin_prior"))

from gbuffer import draw, pack
from likeness import likeness, over_white
from render import normalise
from sources import Model

from magic3d_cli.guidance.adapters import read_adapters
from magic3d_cli.guidance.builtin.subject import load_subject
from magic3d_cli.guidance.builtin.vocabulary import Caption
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.personalise import Wish, personalise
from magic3d_cli.photos import read_sources
from magic3d_cli.scene.views import Views, turntable

SIZE, SHOWN = 192, 3  # pixels; views of the sheet
PICTURED = {"front": 0, "left": 90, "back": 180}  # azimuths of the pictures, 10 degrees above the horizon
LOOKS = {"robot": "golden", "stool": "red", "signpost": "wooden", "cart": "blue", "snail": "marble"}
Part = tuple[trimesh.Trimesh, tuple[int, int, int]]


def made(kind: str, *numbers: object, at: tuple[float, float, float] = (0, 0, 0), turn: tuple = ()) -> trimesh.Trimesh:
    """A primitive, turned by (degrees, axis) and then moved."""
    mesh = getattr(trimesh.creation, kind)(*numbers)
    if turn:
        mesh.apply_transform(trimesh.transformations.rotation_matrix(np.deg2rad(turn[0]), turn[1]))
    return mesh.apply_translation(at)


def things() -> dict[str, list[Part]]:
    """The five things as coloured parts, front to +Z, Y up."""
    x, y = (1, 0, 0), (0, 1, 0)
    robot = [(made("box", (1, 1.2, 0.7), at=(0, 1.3, 0)), (200, 60, 40)),
             (made("box", (0.6, 0.5, 0.5), at=(0, 2.2, 0)), (230, 200, 60)),
             (made("cylinder", 0.03, 0.4, at=(0.15, 2.6, 0), turn=(90, x)), (60, 60, 70)),
             (made("icosphere", 2, 0.08, at=(0.15, 2.8, 0)), (220, 30, 30))]  # fmt: skip
    for side in (-1, 1):
        robot += [(made("cylinder", 0.14, 0.7, at=(0.3 * side, 0.35, 0), turn=(90, x)), (60, 60, 70)),
                  (made("box", (0.3, 0.12, 0.5), at=(0.3 * side, 0.06, 0.08)), (40, 40, 45)),
                  (made("capsule", 0.9, 0.12, at=(0.65 * side, 1.7, 0), turn=(90, x)), (60, 90, 200)),
                  (made("icosphere", 2, 0.08, at=(0.14 * side, 2.25, 0.26)), (30, 200, 90))]  # fmt: skip
    stool = [(made("cylinder", 0.8, 0.18, at=(0, 1.5, 0), turn=(90, x)), (150, 90, 40))]
    for leg in range(3):
        a = leg * 2 * np.pi / 3
        part = made("cylinder", 0.08, 1.5, turn=(90, x))
        part.apply_transform(trimesh.transformations.rotation_matrix(0.18, (np.sin(a), 0, -np.cos(a))))
        stool.append((part.apply_translation((0.55 * np.cos(a), 0.72, 0.55 * np.sin(a))), (30, 110, 60)))
    post = [(made("cylinder", 0.1, 3, at=(0, 1.5, 0), turn=(90, x)), (110, 110, 115)),
            (made("cylinder", 0.5, 0.12, at=(0, 0.06, 0), turn=(90, x)), (80, 80, 80))]  # fmt: skip
    for height, angle, colour in ((2.6, 20, (220, 40, 40)), (2.1, -35, (240, 240, 240)), (1.6, 70, (40, 80, 200))):
        board = made("box", (1.5, 0.3, 0.08), at=(0.6, 0, 0))
        board.apply_transform(trimesh.transformations.rotation_matrix(np.deg2rad(angle), y))
        post.append((board.apply_translation((0, height, 0)), colour))
    cart = [(made("box", (1.2, 0.5, 1.9), at=(0, 0.75, 0)), (235, 180, 60)),
            (made("box", (1.4, 0.1, 2.1), at=(0, 2.08, 0)), (200, 50, 60))]  # fmt: skip
    for right in (-1, 1):
        for front in (-1, 1):
            wheel = made("cylinder", 0.35, 0.14, at=(0.7 * right, 0.35, 0.6 * front), turn=(90, y))
            post_of_roof = made("cylinder", 0.05, 1.1, at=(0.5 * right, 1.5, 0.85 * front), turn=(90, x))
            cart += [(wheel, (40, 40, 40)), (post_of_roof, (120, 60, 20))]
    snail = [(made("capsule", 1.8, 0.25, at=(0, 0.25, -0.9)), (190, 170, 110)),
             (made("torus", 0.5, 0.28, at=(0, 0.95, -0.2), turn=(90, y)), (150, 70, 40)),
             (made("cylinder", 0.3, 0.4, at=(0, 0.95, -0.2), turn=(90, y)), (230, 150, 90))]  # fmt: skip
    for side in (-1, 1):
        snail += [(made("cylinder", 0.04, 0.6, at=(0.12 * side, 0.7, 1.0), turn=(70, x)), (190, 170, 110)),
                  (made("icosphere", 2, 0.09, at=(0.12 * side, 1.0, 1.1)), (20, 20, 20))]  # fmt: skip
    return {"robot": robot, "stool": stool, "signpost": post, "cart": cart, "snail": snail}


def write(parts: list[Part], path: Path) -> None:
    for mesh, colour in parts:
        mesh.visual.vertex_colors = [*colour, 255]
    trimesh.util.concatenate([mesh for mesh, _ in parts]).export(path)


def model_of(parts: list[Part]) -> Model:
    corners = [mesh.vertices[mesh.faces] for mesh, _ in parts]
    texture = np.concatenate([np.full(len(part), n) for n, part in enumerate(corners)])
    images = [np.array(colour, np.uint8).reshape(1, 1, 3) for _, colour in parts]
    positions = np.concatenate(corners).astype(np.float32)
    return normalise(Model(positions, np.zeros((len(positions), 3, 2), np.float32), texture, images), 0.0)


def model_of_file(path: Path) -> Model:
    mesh = trimesh.load(path, force="mesh", process=False)
    image = np.ascontiguousarray(np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")))
    uvs = mesh.visual.uv[mesh.faces].astype(np.float32)
    corners = mesh.vertices[mesh.faces].astype(np.float32)
    return normalise(Model(corners, uvs, np.zeros(len(uvs), np.int64), [image]), 0.0)


def shown(model: Model, views: Views) -> np.ndarray:
    """RGBA in [0, 1], straight, [B, SIZE, SIZE, 4]."""
    arrays = pack(model)
    buffers = np.stack([draw(*arrays, matrix, SIZE, 2) for matrix in views.world_to_clip().numpy()])
    alpha = buffers[..., 9:].astype(np.float32) / 255
    return np.concatenate([(buffers[..., :3] / 255 / np.maximum(alpha, 1e-3)).clip(0, 1), alpha], -1)


@torch.no_grad()
def shown_volume(prior: DiffusersPrior, volume: torch.Tensor, views: Views) -> np.ndarray:
    maps = prior.volume.render(volume[None], views, SIZE)
    rgba = torch.cat([maps[:, 4:7] / maps[:, :1].clamp(min=0.05), maps[:, :1]], 1)
    return rgba.clamp(0, 1).movedim(1, -1).numpy()


def known(prior: DiffusersPrior, noun: str, style: str | None) -> torch.Tensor:
    """The volume of a model that the prior knows."""
    with torch.no_grad():
        return prior.volume.imagine(condition(prior, Caption(noun, style=style)).states)[0]


def command(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "magic3d_cli", *map(str, arguments), "-q"], check=True)


def taught(out: Path, name: str, parts: list[Part], truth: Model, views: Views, prior: DiffusersPrior) -> dict:
    """Pictures of each way in which a thing is shown."""
    write(parts, out / f"{name}.glb")
    mesh, seen = out / f"{name}.safetensors", out / f"{name}-seen.safetensors"
    if not mesh.exists():
        personalise(Wish(f"my {name}", mesh, mesh=out / f"{name}.glb"), print)
    if not seen.exists():
        paths = []
        for side, azimuth in PICTURED.items():
            image = shown(truth, turntable(1, 10.0, azimuth))[0]
            paths.append(f"{out / f'{name}-{side}.png'}@{azimuth}")
            Image.fromarray((image * 255).round().astype(np.uint8)).save(out / f"{name}-{side}.png")
        personalise(Wish(f"my {name}", seen, pictures=read_sources(paths, 10.0)), print)
    subject = load_subject(read_adapters([str(mesh)])[0])
    return {
        "truth": shown(truth, views),
        "nearest known": shown_volume(prior, known(prior, subject.noun, subject.style), views),
        "from its mesh": shown_volume(prior, subject.volume, views),
        "from three pictures": shown_volume(prior, load_subject(read_adapters([str(seen)])[0]).volume, views),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--drafts", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    prior = DiffusersPrior(describe(of_stage(BUILTIN, "coarse"), "builtin"), torch.device("cpu"), torch.float32)
    views = turntable(8, 20.0, 22.5)  # none of the pictures' own
    found: dict[str, list[dict[str, float]]] = {}
    strips = []
    for name, parts in things().items():
        truth = model_of(parts)
        ways = taught(args.out, name, parts, truth, views, prior)
        if args.drafts:
            for title, words in (("draft", f"my {name}"), ("draft, painted", f"{LOOKS[name]} my {name}")):
                target = args.out / f"{title.replace(', ', '-')}-{name}.glb"
                if not target.exists():
                    command("generate", words, "--adapter", args.out / f"{name}.safetensors", "-o", target)
                ways[title] = shown(model_of_file(target), views)
        for way, images in ways.items():
            one = [likeness(image, real) for image, real in zip(images, ways["truth"], strict=True)]
            found.setdefault(way, []).append({key: float(np.mean([o[key] for o in one])) for key in one[0]})
        picked = [np.concatenate([over_white(image) for image in images[::3][:SHOWN]], 1) for images in ways.values()]
        strips.append(np.concatenate(picked, 0))
    for way, rows in found.items():
        cells = [" ".join(f"{row['iou']:.3f}" for row in rows)]
        cells += [f"{np.mean([row[key] for row in rows]):.3f}" for key in ("iou", "psnr", "psnr_inside")]
        print(f"| {way} | {' | '.join(cells)} |")
    sheet = Image.fromarray((np.concatenate(strips, 1) * 255).round().astype(np.uint8))
    sheet.save(args.out / "sheet.jpg", quality=80)


if __name__ == "__main__":
    main()
