"""Train the built-in prior: `python train.py POOL RUN`; the shipped weights came from this command.

Four stages, each from what the last one learned, each for the minutes it is given: the learning rate follows
elapsed time to zero, weights are exported (EMA, diffusers layout) to RUN/<stage> and a checkpoint is written every
few minutes, and the same command resumes. On a CUDA GPU the same script runs in bf16 with larger batches.

The network is `magic3d_cli.guidance.volume_unet.VolumeUNet` on space-to-depth pixels: the caption becomes a
volume that is composited along the asked camera's rays, and a UNet denoises beside that feature image.

- volume: the caption's volume alone, against the models' voxels (voxels.py). A caption learns a whole shape at once,
  which takes minutes where views take hours.
- shapes: several views of each caption, so that volumes are made once a caption. Loss: v-weighted error of the clean
  image (Salimans and Ho 2022) with the weight clipped, plus the error of the feature image's first channels against
  the model's coverage, normals and own colour, plus the volume's.
- coarse, fine: the denoiser alone, at the image sizes of the two priors.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from batches import RAYS, Batches, ViewBatches, VoxelBatches, find_styles
from diffusers import DDPMScheduler
from jaxtyping import Float, Int
from manifest import NOUNS
from paint import COLOURS, MATERIALS
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from magic3d_cli.guidance.volume_unet import SUPERVISED, Volume, VolumeUNet, VolumeUNetOutput

CELLS = 32
"""Side of the space-to-depth image."""
TEXT_WIDTH, TEXT_LENGTH = 192, 8


@dataclass(frozen=True)
class Stage:
    """Image size, the range of diffusion times learned, minutes, captions a batch, views of each, learning rate.

    `shapes` is the learning rate of what the volume stage learns, as a share of `lr`: at the denoiser's full rate
    shapes blur. With none at all a step costs half, and both priors imagine the same object.
    """

    size: int
    times: tuple[float, float]
    minutes: float
    captions: int
    views: int
    lr: float
    shapes: float


STAGES = {
    "volume": Stage(64, (0.0, 1.0), 14, 24, 0, 1.5e-3, 1.0),
    "shapes": Stage(64, (0.0, 1.0), 44, 5, 4, 1e-3, 0.2),
    "coarse": Stage(64, (0.0, 1.0), 30, 8, 4, 1e-3, 0.0),
    "fine": Stage(128, (0.0, 0.8), 12, 8, 4, 7e-4, 0.0),  # the program asks it for no more
}
SIGMA2_FLOOR = 0.15
MAPS_WEIGHT = 2.0
"""Weight of the feature image's error."""
SOLID_WEIGHT = 10.0
"""Weight of the voxels' cross-entropy beside the error of their normals and colours."""
VOXELS_WEIGHT = 0.3
"""Weight of both beside the views' error. Voxels make thin parts a voxel thick; views know better."""
VOXEL_CAPTIONS = 2
"""Captions of a batch whose voxels are compared beside their views: all would cost a third of the step."""
EMA = 0.999


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words: a closed vocabulary, so that an unknown word cannot be mistaken for a known one."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *COLOURS, *MATERIALS]
    words += [noun.token for noun in NOUNS] + [style for noun in NOUNS for style in noun.styles]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )  # fmt: skip


def make_models(vocabulary: int, size: int) -> tuple[VolumeUNet, CLIPTextModel]:
    """The denoiser, and word embeddings in the form of a CLIP text model without layers."""
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=TEXT_WIDTH, intermediate_size=TEXT_WIDTH, num_hidden_layers=0,
            num_attention_heads=1, max_position_embeddings=TEXT_LENGTH, projection_dim=TEXT_WIDTH,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    with torch.no_grad():  # the layer norm that follows makes words vectors of unit scale; their order says nothing
        text.get_parameter(next(n for n, _ in text.named_parameters() if "position_embedding" in n)).zero_()
    channels = 3 * (size // CELLS) ** 2
    unet = VolumeUNet(sample_size=CELLS, in_channels=channels, out_channels=channels, rays=RAYS // CELLS)
    return unet, text


def voxel_loss(
    volume: Volume, solid: Float[Tensor, "C 64 64 64"], surface: Int[Tensor, "C 32 32 32 7"], told: Float[Tensor, "C"]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of solid voxels, and the error of normal and own colour where there is surface."""
    raw, count = volume.density.float(), told.sum().clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(raw, solid, reduction="none").mean((1, 2, 3))
    wanted = surface.float()
    wanted = torch.cat([(wanted[..., :3] - 128) / 127, wanted[..., 3:6] / 255], -1)
    seen = surface[..., 6:] > 0
    error = ((volume.features[..., :6].float() - wanted) * seen).square().sum((1, 2, 3, 4))
    error = error / (6 * seen.sum((1, 2, 3, 4)))
    entropy, error = (entropy * told).sum() / count, (error * told).sum() / count
    few, wanted = (raw[:4] > 0)[told[:4] > 0], (solid[:4] > 0)[told[:4] > 0]
    both = (few & wanted).sum() / (few | wanted).sum().clamp(min=1)
    return SOLID_WEIGHT * entropy + error, {"entropy": entropy, "surface": error, "iou": both}


def view_loss(
    output: VolumeUNetOutput, clean: Tensor, targets: Float[Tensor, "B 7 R R"], alpha: Tensor, told: Float[Tensor, "C"]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Error of the clean image, and of the feature image where the caption is told."""
    error = (output.sample.float() - clean).square().mean((1, 2, 3))
    shape = (output.maps[:, :SUPERVISED].float() - targets).square().mean((1, 2, 3))
    each = told.repeat_interleave(len(shape) // len(told))
    shape = (shape * each).sum() / each.sum().clamp(min=1)
    loss = (error / (1 - alpha.view(-1)).clamp(min=SIGMA2_FLOOR)).mean() + MAPS_WEIGHT * shape
    return loss, {"mse": error.mean(), "shape": shape}


def denoise(
    unet: VolumeUNet, states: Tensor, images: Float[Tensor, "B 3 S S"], features: Float[Tensor, "B 23"],
    alphas: Float[Tensor, "T"], times: tuple[float, float],
) -> tuple[VolumeUNetOutput, Tensor, Tensor]:  # fmt: skip
    """The network's output at random noise levels, the clean space-to-depth image, and alpha [B, 1, 1, 1]."""
    clean = F.pixel_unshuffle(images, images.shape[-1] // CELLS)
    # A third of the draws are nearly pure noise: there everything must come from caption and camera.
    u = torch.rand(len(clean), device=clean.device)
    u = torch.where(torch.rand_like(u) < 0.33, 0.8 + 0.2 * u, u)
    t = ((times[0] + (times[1] - times[0]) * u) * 1000).long().clamp(0, 999)
    alpha = alphas[t].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn_like(clean)
    jitter = torch.rand(len(clean), RAYS, RAYS, device=clean.device)
    return unet(noisy.contiguous(memory_format=torch.channels_last), t, states, features, jitter), clean, alpha


def export(folder: Path, unet: VolumeUNet, text: CLIPTextModel, scheduler: DDPMScheduler,
           tokenizer: PreTrainedTokenizerFast) -> None:  # fmt: skip
    """Write the diffusers layout in fp16."""
    copy.deepcopy(unet).half().save_pretrained(folder / "unet")
    copy.deepcopy(text).half().save_pretrained(folder / "text_encoder")
    scheduler.save_pretrained(folder / "scheduler")
    tokenizer.save_pretrained(folder / "tokenizer")
    index = {
        "_class_name": "DiffusionPipeline",
        "unet": ["magic3d", "VolumeUNet"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    vocabulary = {
        "nouns": {n.name: {"words": list(n.words), "styles": n.styles} for n in NOUNS},
        "colours": {name: list(words) for name, (words, _) in COLOURS.items()},
        "materials": {name: list(words) for name, words in MATERIALS.items()},
    }
    (folder.parent / "vocabulary.json").write_text(json.dumps(vocabulary, indent=1) + "\n")


class Training:
    """One stage on the way."""

    def __init__(self, name: str, stage: Stage, pool: Path, run: Path, start: Path | None, device: str) -> None:
        self.name, self.stage, self.run, self.device = name, stage, run, torch.device(device)
        torch.manual_seed(0)
        self.tokenizer = make_tokenizer()
        self.unet, self.text = make_models(len(self.tokenizer), stage.size)
        if start:
            started = load_file(start / "unet" / "diffusion_pytorch_model.safetensors")
            own = self.unet.state_dict()  # another image size has other first and last layers
            fitting = {k: v.float() for k, v in started.items() if k in own and own[k].shape == v.shape}
            self.unet.load_state_dict(own | fitting)
            self.text.load_state_dict(CLIPTextModel.from_pretrained(start / "text_encoder").float().state_dict())
        self.scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
        self.alphas = self.scheduler.alphas_cumprod.to(self.device)
        self.unet.to(self.device, memory_format=torch.channels_last)
        self.text.to(self.device)
        self.parameters = [*self.unet.parameters(), *self.text.parameters()]
        self.optimiser = self._optimiser()
        self.ema_unet, self.ema_text = copy.deepcopy(self.unet), copy.deepcopy(self.text)
        self.step, self.spent = 0, 0.0
        self.checkpoint = run / f"{name}.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            for key, part in self._parts().items():
                part.load_state_dict(state[key])
            self.step, self.spent = state["step"], state["spent"]
        self.batches = self._batches(pool).start()

    def _optimiser(self) -> torch.optim.Optimizer:
        unet = self.unet
        imagining = (unet.caption, unet.root, unet.decoder, unet.densities, unet.colours, self.text)
        learnt = {parameter for module in imagining for parameter in module.parameters()}
        for parameter in [*learnt, *unet.paint.parameters()]:
            parameter.requires_grad_(self.stage.shapes > 0)
        groups = [
            {"params": [p for p in self.parameters if p in learnt], "share": self.stage.shapes},
            {"params": [p for p in self.parameters if p not in learnt], "share": 1.0},
        ]
        return torch.optim.AdamW(groups, self.stage.lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)

    def _batches(self, pool: Path) -> Batches:
        stage, styles, seed = self.stage, find_styles(pool), 1000 + self.step
        if stage.views == 0:
            return VoxelBatches(styles, stage.captions, seed)
        solid = VOXEL_CAPTIONS if stage.shapes else 0
        return ViewBatches(styles, stage.size, stage.captions, stage.views, solid, seed)

    def _parts(self) -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
        modules = {"unet": self.unet, "text": self.text, "ema_unet": self.ema_unet, "ema_text": self.ema_text}
        return {**modules, "optimiser": self.optimiser}

    def loss(self, data: list[Tensor], captions: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The stage's loss and what it is made of."""
        ids = self.tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
        states = self.text(ids.input_ids.to(self.device)).last_hidden_state
        told = torch.tensor([float(caption != "") for caption in captions], device=self.device)
        if self.stage.views == 0:
            return voxel_loss(self.unet.imagine(states), *data, told)
        solid, surface, images, targets, features = data
        output, clean, alpha = denoise(self.unet, states, images, features, self.alphas, self.stage.times)
        loss, parts = view_loss(output, clean, targets, alpha, told)
        if self.stage.shapes == 0:
            return loss, parts
        few = Volume(*(voxels[:VOXEL_CAPTIONS] for voxels in vars(output.volume).values()))
        shape, more = voxel_loss(few, solid, surface, told[:VOXEL_CAPTIONS])
        return loss + VOXELS_WEIGHT * shape, parts | more

    def update(self, rate: float) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of the optimiser at this learning rate; the loss and its parts."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        data, captions = self.batches.queue.get()
        with torch.autocast(self.device.type, torch.bfloat16):
            loss, parts = self.loss([tensor.to(self.device) for tensor in data], captions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages = [*self.ema_unet.parameters(), *self.ema_text.parameters()]
            torch._foreach_lerp_(averages, self.parameters, 1 - decay)
        return loss.detach(), {name: part.detach() for name, part in parts.items()}

    def train(self) -> None:
        """Until the stage's minutes are over."""
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
        export(self.run / self.name, self.ema_unet, self.ema_text, self.scheduler, self.tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--stage", choices=STAGES, help="only this one")
    parser.add_argument("--start", type=Path, help="exported weights to start from instead of the stage before's")
    for name in ("minutes", "lr"):
        parser.add_argument(f"--{name}", type=float, help="instead of the stage's own")
    for name in ("captions", "views"):
        parser.add_argument(f"--{name}", type=int, help="instead of the stage's own")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    given = {name: value for name in ("minutes", "lr", "captions", "views") if (value := getattr(args, name))}
    args.run.mkdir(parents=True, exist_ok=True)
    before = None
    for name, stage in STAGES.items():
        if args.stage in (None, name):
            start = args.start or (args.run / before if before and (args.run / before).is_dir() else None)
            Training(name, replace(stage, **given), args.pool, args.run, start, args.device).train()
        before = name


if __name__ == "__main__":
    main()
