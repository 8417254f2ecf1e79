"""Train the built-in prior: `python train.py POOL RUN`.

Four stages, each from what the last one learned, each for the minutes it is given: the learning rate follows
elapsed time to zero, weights are exported (EMA, diffusers layout) to RUN/<stage> and a checkpoint is written every
few minutes, and the same command resumes. On a CUDA GPU, and on CPUs that have it, it runs in bf16.

The caption becomes a volume that is composited along the asked camera's rays
(`magic3d_cli.guidance.builtin.volume.CaptionVolume`), and a UNet (`volume_unet.VolumeUNet`) on space-to-depth pixels
denoises beside that picture. Both priors share the volume.

- volume: a latent of every model, and the decoder that makes its voxels (voxels.py) of it (an auto-decoder: DeepSDF,
  Park et al. 2019). Some thousand places of a model are compared, and no view has to be looked at.
- shapes: both together, against voxels and views: coverage, normals and own colour of several views of a model. Voxels
  make thin parts a voxel thick; views know better.
- coarse, fine: the denoiser beside pictures that no longer change, at the image sizes of the two priors. Loss:
  v-weighted error of the clean image (Salimans and Ho 2022) with the weight clipped.

Before the denoisers, `remember.py` puts the models into the volume. Further models can be put there at any time,
without training decoder or denoisers anew: `fit.py` finds their latents.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from batches import Batches, ShapeBatches, ViewBatches, VoxelBatches, find_styles
from diffusers import DDPMScheduler
from jaxtyping import Float, Int
from safetensors.torch import load_file
from tokens import TEXT_LENGTH, TEXT_WIDTH, find_tokenizer, make_text
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from magic3d_cli.guidance.builtin.unet import VolumeUNet
from magic3d_cli.guidance.builtin.volume import SURFACE, CaptionVolume, fill
from magic3d_cli.scene.views import views_from_embedding

CELLS = 32
"""Side of the space-to-depth image."""


@dataclass(frozen=True)
class Stage:
    """Minutes, learning rate, captions a batch, views of each; image size and range of diffusion times learned."""

    minutes: float
    lr: float
    captions: int
    views: int = 0
    size: int = 64
    times: tuple[float, float] = (0.0, 1.0)


STAGES = {
    "volume": Stage(25, 3e-3, 8),
    "shapes": Stage(57, 1e-3, 4, 3, 128),
    "coarse": Stage(22, 1e-3, 8, 4),
    "fine": Stage(12, 7e-4, 4, 6, 256, (0.0, 0.8)),  # the program asks it for no more
}
_DECODING = ("volume.planes", "volume.voxel", "volume.cell")
LEARNT = {
    "volume": _DECODING,
    "shapes": _DECODING,
    "coarse": ("unet",),
    "fine": ("unet",),
}
"""Parts of the networks that a stage learns."""
SIGMA2_FLOOR = 0.15
ENTROPY_WEIGHT = 1.0
"""Of the voxels' cross-entropy beside the error of their normals and colours."""
CELL_WEIGHT = 0.3
"""Of the cells' cross-entropies beside the voxels' loss."""
VOXEL_WEIGHT = 0.01
"""Of the voxels' loss beside the error of the feature image."""
LATENT_NOISE = 0.05
"""Added to latents, which start at twice as much and grow, so that a caption need not hit them exactly."""
LATENT_PACE = 50.0
"""Learning rate of latents beside the decoder's: each is seen once in some sixty steps."""
NEAR_WEIGHT = 4.0
"""Of cells near surfaces beside others: a surface left out is worse than some voxels read in vain."""
EMA = 0.999


def make_models(vocabulary: int, size: int, **stored: int) -> nn.ModuleDict:
    """The volume, with room for what is `stored` in it, the denoiser, and word embeddings."""
    channels = 3 * (size // CELLS) ** 2
    unet = VolumeUNet(sample_size=CELLS, in_channels=channels, out_channels=channels)
    volume = CaptionVolume(cross_attention_dim=TEXT_WIDTH, **stored)
    return nn.ModuleDict({"volume": volume, "unet": unet, "text": make_text(vocabulary)})


def stored_sizes(start: Path) -> dict[str, int]:
    """What a prior's volume remembers, in words, models and bytes; nothing if there is none."""
    path = start / "volume" / "config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    return {name: config[name] for name in ("names", "models", "stored") if name in config}


def known_latents(checkpoint: Path) -> Float[Tensor, "S N"]:
    """The latents that a stage has learned."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["latents"]["weight"]


def cell_loss(cells: Float[Tensor, "2 C P 2"], known: Int[Tensor, "2 2 C P"]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of which cells are near a surface, and of which of the others are inside."""
    near, inside = known.float()
    weight = torch.tensor(NEAR_WEIGHT, device=cells.device)
    loss = F.binary_cross_entropy_with_logits(cells[..., 0], near, pos_weight=weight)
    loss = loss + F.binary_cross_entropy_with_logits(cells[..., 1], inside, weight=1 - near)
    missed = ((cells[..., 0] < 0) * near).sum() / near.sum()
    return loss, {"cells": loss, "missed": missed}


def voxel_loss(
    voxels: Float[Tensor, "3 C P 7"], solid: Int[Tensor, "3 C P"], looks: Int[Tensor, "C P 6"]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of solid voxels, and the error of normal and own colour of the first ones, which hold surface."""
    raw, found = voxels[..., 0], voxels[0, ..., 1:]
    entropy = F.binary_cross_entropy_with_logits(raw, solid.float())
    normal_error = (found[..., :3] - (looks[..., :3].float() - 128) / 127).square().mean()
    colour_error = (found[..., 3:] - looks[..., 3:].float() / 255).square().mean()
    wrong = ((raw > 0) != (solid > 0)).float().mean()
    parts = {"entropy": entropy, "normal": normal_error, "colour": colour_error, "wrong": wrong}
    return ENTROPY_WEIGHT * entropy + 0.5 * normal_error + 10 * colour_error, parts


def take_over(model: nn.Module, folder: Path, but: tuple[str, ...] = ()) -> None:
    """Load exported weights, those of another image size and of fewer words too; leave out some."""
    own = model.state_dict()
    for path in folder.glob("*.safetensors"):
        for name, weight in load_file(path).items():
            if name in but:
                continue
            weight = repatched(name, weight, own[name].shape).to(own[name].dtype)
            own[name][: len(weight)] = weight  # words that are new come last, and keep their own vectors
        model.load_state_dict(own)


def repatched(name: str, weight: Tensor, shape: torch.Size) -> Tensor:
    """The first or the last layer for finer pixels: it reads their mean, and tells all of them the same."""
    axis = {"conv_in.weight": 1, "conv_out.weight": 0, "conv_out.bias": 0}.get(name)
    if axis is None or weight.shape == shape:
        return weight
    images = 16 if axis else 3  # the noisy, the shown, and the feature image's; the clean one
    old, new = (math.isqrt(s[axis] // images) for s in (weight.shape, shape))
    weight = weight.movedim(axis, 0).unflatten(0, (images, old, old))
    weight = weight.repeat_interleave(new // old, 1).repeat_interleave(new // old, 2)
    weight = weight / (new // old) ** 2 if axis else weight
    return weight.flatten(0, 2).movedim(0, axis)


def denoising_loss(output: Tensor, clean: Tensor, alpha: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Error of the clean image, weighted by noise level."""
    error = (output.float() - clean).square().mean((1, 2, 3))
    return (error / (1 - alpha.view(-1)).clamp(min=SIGMA2_FLOOR)).mean(), {"mse": error.mean()}


def denoise(
    volume: CaptionVolume, unet: VolumeUNet, states: Tensor, images: Float[Tensor, "B 3 S S"],
    features: Float[Tensor, "B 23"], alphas: Float[Tensor, "T"], times: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The network's output at random noise levels, the clean space-to-depth image, and alpha [B, 1, 1, 1]."""
    clean = F.pixel_unshuffle(images, images.shape[-1] // CELLS)
    # A third of the draws are nearly pure noise: there everything must come from caption and camera.
    u = torch.rand(len(clean), device=clean.device)
    u = torch.where(torch.rand_like(u) < 0.33, 0.8 + 0.2 * u, u)
    t = ((times[0] + (times[1] - times[0]) * u) * 1000).long().clamp(0, 999)
    alpha = alphas[t].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn_like(clean)
    size = images.shape[-1]
    with torch.no_grad():  # volumes learn from the models alone: a young denoiser's gradients would blur them
        look = volume(states, features, size, torch.rand(len(clean), size, size, device=clean.device))
    output = unet(noisy.contiguous(memory_format=torch.channels_last), t, features, look)
    return output.sample, clean, alpha


def export(run: Path, name: str, models: nn.ModuleDict, scheduler: DDPMScheduler,
           tokenizer: PreTrainedTokenizerFast) -> None:  # fmt: skip
    """Write RUN/<name> in diffusers layout, in fp16, and beside it what the stages share."""
    parts: dict[str, Any] = {"text_encoder": models["text"], "volume": models["volume"]}
    if name in ("coarse", "fine"):
        parts[f"{name}/unet"] = models["unet"]
    for folder, model in parts.items():
        copy.deepcopy(model).half().save_pretrained(run / folder)
    scheduler.save_pretrained(run / "scheduler")
    tokenizer.save_pretrained(run / "tokenizer")
    index = {
        "_class_name": "DiffusionPipeline",
        "unet": ["magic3d", "VolumeUNet"],
        "volume": ["magic3d", "CaptionVolume"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    }
    if name in ("coarse", "fine"):
        (run / name / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32: without AVX512-BF16 a CPU's convolutions become twenty times slower."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


class Training:
    """One stage on the way."""

    def __init__(self, name: str, stage: Stage, pool: Path, run: Path, start: Path, device: str) -> None:
        self.name, self.stage, self.run, self.device = name, stage, run, torch.device(device)
        torch.manual_seed(0)
        self.tokenizer = find_tokenizer(start)
        self.styles = find_styles(pool)
        if name in ("coarse", "fine"):  # those that the volume remembers and the pool shows
            words = self.tokenizer.get_vocab()
            self.styles = [s for s in self.styles if s.token in words and Path(f"{s.path}.npy").exists()]
        self.model = make_models(len(self.tokenizer), stage.size, **stored_sizes(start))
        for part, folder in {"volume": "volume", "text": "text_encoder", "unet": f"{name}/unet"}.items():
            take_over(self.model[part], start / folder)
        if name == "fine" and not (start / "fine").exists():
            take_over(self.model["unet"], start / "coarse" / "unet")
        self.model.to(self.device, memory_format=torch.channels_last)
        self.volume, self.unet, self.text = self.model.values()
        self.ema = copy.deepcopy(self.model)
        self.scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
        self.alphas = self.scheduler.alphas_cumprod.to(self.device)
        self.learnt = self._learnt()
        pairs = zip(self.model.parameters(), self.ema.parameters(), strict=True)
        self.averages = [average for parameter, average in pairs if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self.learnt, stage.lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
        if name in ("volume", "shapes"):
            # Only the latents of a step's models have a gradient: nine in ten would be moved by none.
            numbers = math.prod(self.volume.latent_shape)
            self.latents = nn.Embedding(len(self.styles), numbers, sparse=True).to(self.device)
            nn.init.normal_(self.latents.weight, std=2 * LATENT_NOISE)
            self.latent_optimiser = torch.optim.SparseAdam(self.latents.parameters(), betas=(0.9, 0.99))
        if name == "shapes":
            self.latents.load_state_dict({"weight": known_latents(run / "volume.pt")})
        self.step, self.spent = 0, 0.0
        self.checkpoint = run / f"{name}.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            for key, part in self._parts().items():
                part.load_state_dict(state[key])
            self.step, self.spent = state["step"], state["spent"]

    def _learnt(self) -> list[nn.Parameter]:
        """What this stage learns; the rest is frozen."""
        self.model.requires_grad_(False)
        for part in LEARNT[self.name]:
            self.model.get_submodule(part).requires_grad_(True)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @cached_property
    def batches(self) -> Batches:
        """Made only when asked for: a finished stage needs none."""
        stage, styles, seed = self.stage, self.styles, 1000 + self.step
        if self.name == "volume":
            return VoxelBatches(styles, stage.captions, seed).start()
        kind = ShapeBatches if self.name == "shapes" else ViewBatches
        return kind(styles, stage.size, stage.captions, stage.views, seed).start()

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        parts = {"model": self.model, "ema": self.ema, "optimiser": self.optimiser}
        if self.name in ("volume", "shapes"):
            parts |= {"latents": self.latents, "latent_optimiser": self.latent_optimiser}
        return parts

    def loss(self, data: list[Tensor], captions: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The stage's loss and what it is made of."""
        if self.name in ("volume", "shapes"):
            return self._volume_loss(*data)
        ids = self.tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
        states = self.text(ids.input_ids.to(self.device)).last_hidden_state
        images, features = data
        return denoising_loss(*denoise(self.volume, self.unet, states, images, features, self.alphas, self.stage.times))

    def _volume_loss(
        self, indices: Tensor, places: Tensor, solid: Tensor, looks: Tensor, cell_places: Tensor, cells: Tensor,
        *views: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Against voxels and cells, and against views if there are any; see `VoxelBatches` and `ShapeBatches`."""
        latents = self.latents(indices)
        latents = (latents + LATENT_NOISE * torch.randn_like(latents)).view(-1, *self.volume.latent_shape)
        planes = self.volume.refine(latents)
        found = self.volume.voxels(planes, torch.cat([places.flatten(), *views[:1]])).float()
        loss, parts = voxel_loss(found[: places.numel()].view(*places.shape, -1), solid, looks)
        found_cells = self.volume.cells(planes, cell_places.flatten()).float()
        more, other = cell_loss(found_cells.view(*cell_places.shape, -1), cells)
        loss, parts = loss + CELL_WEIGHT * more, parts | other
        if not views:
            return loss, parts
        shell, inside, images, features = views
        # Far from the surface nothing is seen to change: there the volume is what the voxels say.
        volume = fill(inside, shell, found[places.numel() :])
        size = images.shape[-1]
        jitter = torch.rand(len(features), size, size, device=self.device)
        maps = self.volume.render(volume, views_from_embedding(features), size, jitter)[:, : 1 + SURFACE]
        error = (maps - images).square().mean()
        return error + VOXEL_WEIGHT * loss, {"maps": error, **parts}

    def update(self, rate: float) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of the optimiser at this learning rate; the loss and its parts."""
        self.optimiser.param_groups[0]["lr"] = rate
        data, captions = self.batches.next()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast_bf16(self.device)):
            loss, parts = self.loss([tensor.to(self.device) for tensor in data], captions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learnt, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.name in ("volume", "shapes"):
            self.latent_optimiser.param_groups[0]["lr"] = rate * LATENT_PACE
            self.latent_optimiser.step()
            self.latent_optimiser.zero_grad()
        self.step += 1
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.learnt, 1 - decay)
        return loss.detach(), {name: part.detach() for name, part in parts.items()}

    def train(self) -> None:
        """Until the stage's minutes are over."""
        if self.spent >= 60 * self.stage.minutes:
            return
        print(f"{self.name}: {len(self.batches.styles)} models", flush=True)  # read before the clock starts
        begun, saved, first, window = time.time() - self.spent, time.time(), self.step, []
        batch = self.stage.captions * max(self.stage.views, 1)
        while (fraction := (time.time() - begun) / (60 * self.stage.minutes)) < 1:
            rate = self.stage.lr * min(1, (self.step + 1) / 300) * (0.5 + 0.5 * math.cos(math.pi * fraction))
            loss, parts = self.update(rate)
            window.append(torch.stack([loss, *parts.values()]))
            if self.step % 100 == 0:
                mean = torch.stack(window).mean(0).tolist()
                window.clear()
                speed = (self.step - first) * batch / (time.time() - begun - self.spent)
                errors = " ".join(f"{name} {value:.4f}" for name, value in zip(["loss", *parts], mean, strict=True))
                print(f"{self.name} {self.step} {errors} {speed:.1f} a second {fraction:.0%}", flush=True)
            if time.time() - saved > 180:
                saved = time.time()
                self.save(saved - begun)
        self.save(time.time() - begun)

    def save(self, spent: float) -> None:
        """Checkpoint and export."""
        state = {key: part.state_dict() for key, part in self._parts().items()}
        torch.save({**state, "step": self.step, "spent": spent}, self.checkpoint.with_suffix(".part"))
        self.checkpoint.with_suffix(".part").rename(self.checkpoint)
        export(self.run, self.name, self.ema, self.scheduler, self.tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--stage", choices=STAGES, help="only this one")
    parser.add_argument("--start", type=Path, help="another run or prior to start from instead of RUN")
    for name in ("minutes", "lr"):
        parser.add_argument(f"--{name}", type=float, help="instead of the stage's own")
    for name in ("captions", "views"):
        parser.add_argument(f"--{name}", type=int, help="instead of the stage's own")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    given = {name: value for name in ("minutes", "lr", "captions", "views") if (value := getattr(args, name))}
    args.run.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if args.stage in (None, name):
            start = args.start or args.run
            if name == "coarse" and args.stage is None:
                from remember import remember  # which needs this module

                remember(args.run, args.pool, args.run)
            Training(name, replace(stage, **given), args.pool, args.run, start, args.device).train()


if __name__ == "__main__":
    main()
