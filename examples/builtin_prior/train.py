"""Train the built-in prior: `python train.py POOL RUN`; the shipped weights came from this command.

Six stages, each from what the last one learned, each for the minutes it is given: the learning rate follows
elapsed time to zero, weights are exported (EMA, diffusers layout) to RUN/<stage> and a checkpoint is written every
few minutes, and the same command resumes. On a CUDA GPU the same script runs in bf16 with larger batches.

The network is `magic3d_cli.guidance.volume_unet.VolumeUNet` on space-to-depth pixels: the caption becomes a
volume that is composited along the asked camera's rays, and a UNet denoises beside that feature image.

- volume: a latent of every model, and the decoder that makes its voxels (voxels.py) of it (an auto-decoder: DeepSDF,
  Park et al. 2019). Some thousand places of a model are compared, and no view has to be looked at.
- shapes: both together, against voxels and views: coverage, normals and own colour of several views of a model. Voxels
  make thin parts a voxel thick; views know better.
- captions: from a caption to its model's latent, as coefficients of the latents' principal components.
- paint: from a point's own colour, normal and position and a caption to the colour that the caption asks for.
- coarse, fine: the denoiser beside pictures that no longer change, at the image sizes of the two priors. Loss:
  v-weighted error of the clean image (Salimans and Ho 2022) with the weight clipped.
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

import torch
import torch.nn.functional as F
from batches import Batches, CaptionBatches, PaintBatches, ShapeBatches, ViewBatches, VoxelBatches, find_styles
from diffusers import DDPMScheduler
from jaxtyping import Float, Int
from manifest import NOUNS
from paint import COLOURS, MATERIALS
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from magic3d_cli.guidance.volume_unet import SURFACE, VolumeUNet, words
from magic3d_cli.views import views_from_features

CELLS = 32
"""Side of the space-to-depth image."""
TEXT_WIDTH, TEXT_LENGTH = 192, 8


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
    "shapes": Stage(11, 1e-3, 6, 3),
    "captions": Stage(4, 2e-3, 512),
    "paint": Stage(4, 2e-3, 256),
    "coarse": Stage(22, 1e-3, 8, 4),
    "fine": Stage(9, 7e-4, 4, 8, 128, (0.0, 0.8)),  # the program asks it for no more
}
_DECODING = ("planes", "voxel")
LEARNT = {
    "volume": _DECODING,
    "shapes": _DECODING,
    "captions": ("caption", "root"),
    "paint": ("painter", "wording"),
}
"""Parts of the network that a stage learns; coarse and fine learn what is left."""
SIGMA2_FLOOR = 0.15
ENTROPY_WEIGHT = 1.0
"""Of the voxels' cross-entropy beside the error of their normals and colours."""
VOXEL_WEIGHT = 0.01
"""Of the voxels' loss beside the error of the feature image."""
LATENT_NOISE = 0.05
"""Added to latents, which start at twice as much and grow, so that a caption need not hit them exactly."""
LATENT_PACE = 10.0
"""Learning rate of latents beside the decoder's: each is seen once in some sixty steps."""
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
    # Fixed, and so all different: shapes alone would teach the names of colours to mean the same.
    text.requires_grad_(False)
    channels = 3 * (size // CELLS) ** 2
    unet = VolumeUNet(sample_size=CELLS, in_channels=channels, out_channels=channels, rays=size // CELLS)
    return unet, text


def known_latents(checkpoint: Path) -> Float[Tensor, "S N"]:
    """The latents that a stage has learned."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["ema"]["latents.weight"]


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


@torch.no_grad()
def factorise(latents: Float[Tensor, "S N"], root: nn.Linear) -> Float[Tensor, "S E"]:
    """Give `root` the latents' principal components; what it has to be told to give each latent back."""
    mean = latents.mean(0)
    left, sizes, right = torch.linalg.svd(latents - mean, full_matrices=False)
    scale = sizes.square().mean().sqrt() / math.sqrt(len(latents))
    width = min(root.in_features, len(sizes))
    root.weight.zero_()
    root.weight[:, :width] = right[:width].T * scale
    root.bias.copy_(mean)
    return F.pad(left * sizes / scale, (0, root.in_features - width))[:, : root.in_features]


def denoising_loss(output: Tensor, clean: Tensor, alpha: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Error of the clean image, weighted by noise level."""
    error = (output.float() - clean).square().mean((1, 2, 3))
    return (error / (1 - alpha.view(-1)).clamp(min=SIGMA2_FLOOR)).mean(), {"mse": error.mean()}


def denoise(
    unet: VolumeUNet, states: Tensor, images: Float[Tensor, "B 3 S S"], features: Float[Tensor, "B 23"],
    alphas: Float[Tensor, "T"], times: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The network's output at random noise levels, the clean space-to-depth image, and alpha [B, 1, 1, 1]."""
    clean = F.pixel_unshuffle(images, images.shape[-1] // CELLS)
    # A third of the draws are nearly pure noise: there everything must come from caption and camera.
    u = torch.rand(len(clean), device=clean.device)
    u = torch.where(torch.rand_like(u) < 0.33, 0.8 + 0.2 * u, u)
    t = ((times[0] + (times[1] - times[0]) * u) * 1000).long().clamp(0, 999)
    alpha = alphas[t].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn_like(clean)
    size = CELLS * unet.rays
    jitter = torch.rand(len(clean), size, size, device=clean.device)
    output = unet(noisy.contiguous(memory_format=torch.channels_last), t, states, features, jitter)
    return output.sample, clean, alpha


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
        self.model = nn.ModuleDict({"unet": self.unet, "text": self.text})
        if name in ("volume", "shapes"):
            self.model["latents"] = nn.Embedding(len(find_styles(pool)), self.unet.root.out_features)
            nn.init.normal_(self.model["latents"].get_parameter("weight"), std=2 * LATENT_NOISE)
        if name == "shapes":
            self.model["latents"].load_state_dict({"weight": known_latents(run / "volume.pt")})
        self.model.to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model)
        self.scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
        self.alphas = self.scheduler.alphas_cumprod.to(self.device)
        self.learnt = self._learnt()
        pairs = zip(self.model.parameters(), self.ema.parameters(), strict=True)
        self.averages = [average for parameter, average in pairs if parameter.requires_grad]
        groups = [{"params": self.learnt, "pace": 1.0}]
        if "latents" in self.model:
            latents = list(self.model["latents"].parameters())
            groups = [{"params": [p for p in self.learnt if p is not latents[0]], "pace": 1.0}]
            groups += [{"params": latents, "pace": LATENT_PACE}]
        self.optimiser = torch.optim.AdamW(groups, stage.lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
        self.step, self.spent = 0, 0.0
        self.checkpoint = run / f"{name}.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            for key, part in self._parts().items():
                part.load_state_dict(state[key])
            self.step, self.spent = state["step"], state["spent"]
        self.styles = find_styles(pool)
        if name == "captions":
            self.targets = factorise(known_latents(run / "shapes.pt").to(self.device), self.unet.root)
            self.ema["unet"].root.load_state_dict(self.unet.root.state_dict())

    def _learnt(self) -> list[nn.Parameter]:
        """What this stage learns; the rest is frozen."""
        before = [part for parts in LEARNT.values() for part in parts]
        for part, module in self.unet.named_children():
            module.requires_grad_(part in LEARNT[self.name] if self.name in LEARNT else part not in before)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @cached_property
    def batches(self) -> Batches:
        """Made only when asked for: a finished stage needs none."""
        stage, styles, seed = self.stage, self.styles, 1000 + self.step
        kinds = {"volume": VoxelBatches, "captions": CaptionBatches, "paint": PaintBatches}
        if self.name in kinds:
            return kinds[self.name](styles, stage.captions, seed).start()
        kind = ShapeBatches if self.name == "shapes" else ViewBatches
        return kind(styles, stage.size, stage.captions, stage.views, seed).start()

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"model": self.model, "ema": self.ema, "optimiser": self.optimiser}

    def loss(self, data: list[Tensor], captions: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The stage's loss and what it is made of."""
        if self.name in ("volume", "shapes"):
            return self._volume_loss(*data)
        ids = self.tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
        states = self.text(ids.input_ids.to(self.device)).last_hidden_state
        if self.name == "captions":
            error = (self.unet.caption(words(states)).float() - self.targets[data[0]]).square().sum(1).mean()
            return error, {"error": error / self.targets.square().sum(1).mean()}
        if self.name == "paint":
            maps, albedos = data
            error = (self.unet.painter(maps, self.unet.wording(words(states))) - albedos).square().mean()
            return error, {"error": error}
        images, features = data
        return denoising_loss(*denoise(self.unet, states, images, features, self.alphas, self.stage.times))

    def _volume_loss(
        self, indices: Tensor, places: Tensor, solid: Tensor, looks: Tensor, *views: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Against voxels, and against views if there are any; see `VoxelBatches` and `ShapeBatches`."""
        latents = self.model["latents"](indices)
        latents = (latents + LATENT_NOISE * torch.randn_like(latents)).view(-1, *self.unet.latent_shape)
        found = self.unet.decode(latents, torch.cat([places.flatten(), *views[:1]])).float()
        loss, parts = voxel_loss(found[: places.numel()].view(*places.shape, -1), solid, looks)
        if not views:
            return loss, parts
        shell, inside, images, features = views
        # Far from the surface nothing is seen to change: there the volume is what the voxels say.
        volume = found.new_zeros(*inside.shape, found.shape[-1])
        volume[..., 0] = torch.where(inside > 0, 10.0, -10.0)
        volume = volume.flatten(0, 3).index_copy(0, shell, found[places.numel() :]).view(volume.shape)
        size = images.shape[-1]
        jitter = torch.rand(len(features), size, size, device=self.device)
        maps = self.unet.render(volume, views_from_features(features), size, jitter)[:, : 1 + SURFACE]
        error = (maps - images).square().mean()
        return error + VOXEL_WEIGHT * loss, {"maps": error, **parts}

    def update(self, rate: float) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of the optimiser at this learning rate; the loss and its parts."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["pace"]
        data, captions = self.batches.queue.get()
        with torch.autocast(self.device.type, torch.bfloat16):
            loss, parts = self.loss([tensor.to(self.device) for tensor in data], captions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learnt, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
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
        export(self.run / self.name, self.ema["unet"], self.ema["text"], self.scheduler, self.tokenizer)


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
