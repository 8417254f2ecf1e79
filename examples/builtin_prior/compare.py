"""How far a prior's volumes are from the models' true views: `python compare.py POOL [PRIOR] [--only TOKENS]`.

Mean squared errors at 128 pixels over views that were kept out of training or not, as the pool has them: of the feature
image (coverage, world normal and own colour, times coverage; [0, 1] and [-1, 1]), and of the painted picture before a
grey backdrop, in one light, in [-1, 1], for the model as it is, in three colours and three materials.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from batches import Style, find_styles, indexed, load_tones
from gbuffer import premultiplied
from paint import dress
from render import SIZE
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.scene.views import turntable

PAINTS = ((None, None), ("red", None), ("blue", None), ("white", None), (None, "gold"), (None, "wood"), (None, "stone"))


class Prior:
    """A prior's words and volumes."""

    def __init__(self, folder: Path) -> None:
        self.volume = CaptionVolume.from_pretrained(folder / "volume").float().eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
        self.text = CLIPTextModel.from_pretrained(folder / "text_encoder").float()
        nouns = json.loads((folder / "vocabulary.json").read_text())["nouns"]
        self.styles = {style for noun in nouns.values() for style in noun["styles"]}

    def states(self, caption: str) -> torch.Tensor:
        ids = self.tokenizer([caption], padding="max_length", max_length=8, return_tensors="pt").input_ids
        return self.text(ids).last_hidden_state


@torch.inference_mode()
def errors(prior: Prior, style: Style, count: int) -> list[float]:
    """Of the feature image: coverage, normals, own colour; then of the pictures, for each of PAINTS."""
    buffers = np.load(f"{style.path}.npy", mmap_mode="r")[-count:]
    cameras = torch.from_numpy(
        np.load(f"{style.path}.cameras.npy")[len(np.load(f"{style.path}.npy", mmap_mode="r")) - count :]
    )
    views = turntable(count).replace(
        azimuth=cameras[:count, 0], elevation=cameras[:count, 1], fov=cameras[:count, 2],
        half_height=cameras[:count, 3], solid_background=torch.ones(count), backdrop=torch.full((count, 3), 0.5),
    )  # fmt: skip
    true = np.empty((count, 7, SIZE, SIZE), np.float32)
    for b, buffer in enumerate(buffers):
        premultiplied(buffer, true[b])
    found: list[float] = []
    for colour, material in PAINTS:
        caption = " ".join(word for word in (colour, material, style.noun, style.token) if word)
        look = prior.volume(prior.states(caption), views.camera_embedding(), SIZE)
        if not found:
            apart = (look.maps[:, :7] - torch.from_numpy(true)).square()
            found = [apart[:, :1].mean().item(), apart[:, 1:4].mean().item(), apart[:, 4:].mean().item()]
        pictures = np.empty((count, 3, SIZE, SIZE), np.float32)
        for b, buffer in enumerate(buffers):
            light, grey = views.light[b].numpy(), np.full((4, 3), 0.5, np.float32)
            dress(
                buffer, SIZE, load_tones(style), *indexed(colour, material),
                light, float(views.ambient[b]), int(views.shading[b]), grey, 1.0, pictures[b],
            )  # fmt: skip
        found.append((look.rgb - torch.from_numpy(pictures)).square().mean().item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("prior", type=Path, nargs="?", default=BUILTIN)
    parser.add_argument("--only", nargs="+", help="style tokens, such as '<chair-0>'")
    parser.add_argument("--views", type=int, default=12)
    args = parser.parse_args()
    prior, rows = Prior(args.prior), []
    for style in find_styles(args.pool):
        wanted = style.token in args.only if args.only else style.token in prior.styles
        if wanted and Path(f"{style.path}.npy").exists():
            rows.append(errors(prior, style, args.views))
            maps = float(np.average(rows[-1][:3], weights=(1, 3, 3)))
            print(f"{style.token} maps {maps:.4f} pictures {np.mean(rows[-1][3:]):.4f}", flush=True)
    mean = np.mean(rows, 0)
    maps = np.average(mean[:3], weights=(1, 3, 3))
    print(f"{len(rows)} models: feature image {maps:.4f}, of it", *(f"{error:.4f}" for error in mean[:3]))
    names = [" ".join(word for word in paint if word) or "own" for paint in PAINTS]
    told = (f"{name} {error:.4f}" for name, error in zip(names, mean[3:], strict=True))
    print("pictures", *told)


if __name__ == "__main__":
    main()
