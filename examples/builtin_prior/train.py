"""Train the built-in prior: `python train.py POOL RUN --stage volume`, then coarse, then fine, each from the last.

    python train.py POOL RUN --stage volume --minutes 15
    python train.py POOL RUN --stage coarse --start RUN/volume --minutes 60
    python train.py POOL RUN --stage fine --start RUN/coarse --minutes 20

One process does what it can in the minutes it is given: the learning rate follows elapsed time to zero, weights
are exported (EMA, diffusers layout) and a checkpoint written every few minutes, and the same command resumes.
On a CUDA GPU the same script runs in bf16 with more --captions.

The network is `magic3d_cli.guidance.volume_unet.VolumeUNet` on space-to-depth pixels: the caption becomes a
volume that is composited along the asked camera's rays, and a UNet denoises beside that feature image.

- volume: the caption's volume alone, against the models' voxels (voxels.py). A caption learns a whole shape at once,
  which takes minutes where views take hours.
- coarse, fine: `--captions` times `--views` of each in a batch, so volumes are made once a caption. Loss: v-weighted
  error of the clean image (Salimans and Ho 2022) with the weight clipped, plus the error of the feature image's first
  channels against the model's coverage, normals and own colour.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from gbuffer import halve, premultiplied
from jaxtyping import Float, Int
from manifest import NOUNS, file_stem
from paint import COLOURS, MATERIALS, dress
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast
from voxels import SOLID

from magic3d_cli.guidance.volume_unet import SUPERVISED, VolumeUNet
from magic3d_cli.views import Views, ViewSampling, sample_views

CELLS, RAYS = 32, 64
"""Sides of the space-to-depth image and of the feature image."""
TEXT_WIDTH, TEXT_LENGTH = 192, 8
SIGMA2_FLOOR = 0.15
STAGES = {"volume": (64, 0.0, 1.0), "coarse": (64, 0.0, 1.0), "fine": (128, 0.0, 0.8)}
"""Image size and the range of diffusion times a stage learns; the fine stage does not ask for the largest."""
MAPS_WEIGHT = 2.0
"""Weight of the feature image's error."""
SOLID_WEIGHT = 10.0
"""Weight of the voxels' cross-entropy beside the error of their normals and colours."""


@dataclass
class Style:
    """One training model: its caption words and where its data is."""

    noun: str
    token: str
    path: Path  # without suffix


@dataclass
class Rendered:
    """A model's pool of views."""

    style: Style
    buffers: np.ndarray  # uint8 [views, S, S, 10], memory-mapped
    cameras: np.ndarray  # [views, 4]
    mean: float  # mean luminance of the model


def find_styles(pool: Path) -> list[Style]:
    return [
        Style(noun.token, token, pool / file_stem(*model))
        for noun in NOUNS
        for token, model in zip(noun.styles, noun.models, strict=True)
    ]


def load_views(style: Style, size: int) -> Rendered:
    """A style's geometry buffers at `size` pixels, in memory if they had to be reduced."""
    buffers = np.load(f"{style.path}.npy", mmap_mode="r")
    while buffers.shape[1] > size:
        buffers = halve(np.asarray(buffers))
    some = np.asarray(buffers[:32]).astype(np.float32)
    luma = (some[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)).sum() / some[..., 9].sum()
    return Rendered(style, buffers, np.load(f"{style.path}.cameras.npy"), max(float(luma), 0.04))


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


class Batches:
    """Random captions, drawn in balance by noun, and what belongs to them, made by a background thread."""

    def __init__(self, styles: list[Style], seed: int) -> None:
        self.nouns: dict[str, list[int]] = {}
        for index, style in enumerate(styles):
            self.nouns.setdefault(style.noun, []).append(index)
        self.styles, self.names = styles, list(self.nouns)
        self.random = np.random.default_rng(seed)
        self.queue: queue.Queue[tuple[Any, list[str]]] = queue.Queue(4)

    def start(self) -> Batches:
        threading.Thread(target=self._fill, daemon=True).start()
        return self

    def _fill(self) -> None:
        while True:
            self.queue.put(self.make())

    def make(self) -> tuple[Any, list[str]]:
        raise NotImplementedError

    def draw(self) -> tuple[int, str | None, str | None, str]:
        """A style, colour, material and the caption that tells some of them."""
        random = self.random
        options = self.nouns[self.names[random.integers(len(self.names))]]
        index = options[random.integers(len(options))]
        paint = random.random()
        colour = list(COLOURS)[random.integers(len(COLOURS))] if 0.3 < paint < 0.75 else None
        material = list(MATERIALS)[random.integers(len(MATERIALS))] if paint > 0.65 else None
        style = self.styles[index]
        words = [colour, material, style.noun, style.token if random.random() > 0.1 else None]
        return index, colour, material, " ".join(w for w in words if w)


class VoxelBatches(Batches):
    """Captions and their models' voxels."""

    def __init__(self, styles: list[Style], captions: int, seed: int) -> None:
        super().__init__(styles, seed)
        self.captions = captions
        self.voxels = [dict(np.load(f"{style.path}.voxels.npz")) for style in styles]

    def make(self) -> tuple[tuple[Tensor, Tensor], list[str]]:
        """Solid, float32 [B, 64, 64, 64], surface, uint8 [B, 32, 32, 32, 7], and the captions."""
        draws = [self.draw() for _ in range(self.captions)]
        chosen = [self.voxels[index] for index, *_ in draws]
        solid = np.stack([np.unpackbits(v["solid"]).reshape(SOLID, SOLID, SOLID) for v in chosen])
        surface = np.stack([v["surface"] for v in chosen])
        return (torch.from_numpy(solid).float(), torch.from_numpy(surface)), [caption for *_, caption in draws]


class ViewBatches(Batches):
    """Captions and several painted views of each."""

    def __init__(self, styles: list[Style], size: int, captions: int, views: int, seed: int) -> None:
        super().__init__(styles, seed)
        self.size, self.captions, self.views = size, captions, views
        self.rendered = [load_views(style, size) for style in styles]
        self.generator = torch.Generator().manual_seed(seed)

    def make(self) -> tuple[tuple[Tensor, Tensor, Tensor], list[str]]:
        """Images [B, 3, size, size] in [-1, 1], feature targets [B, 7, RAYS, RAYS], features [B, 23]; captions."""
        random, batch = self.random, self.captions * self.views
        views = sample_views(batch, ViewSampling(), self.generator, stratified=False)
        cameras = np.empty((batch, 4), np.float32)
        images = np.empty((batch, 3, self.size, self.size), np.float32)
        targets = np.empty((batch, SUPERVISED, RAYS, RAYS), np.float32)
        captions, picks = [], []
        for _ in range(self.captions):
            index, colour, material, caption = self.draw()
            captions.append("" if random.random() < 0.1 else caption)
            model = self.rendered[index]
            picks += [(model, colour, material, random.integers(len(model.cameras))) for _ in range(self.views)]
        # The views' cameras come from the pool; their lights are drawn about those cameras.
        for b, (model, _, _, index) in enumerate(picks):
            cameras[b] = model.cameras[index]
        views = turned(views, torch.from_numpy(cameras))
        for b, (model, colour, material, index) in enumerate(picks):
            backdrop = np.tile(views.backdrop[b].numpy(), (4, 1))
            if not views.plain[b]:
                backdrop = np.clip(0.5 + random.normal(0, 0.2, 3) + random.normal(0, 0.12, (4, 3)), 0, 1)
            dress(
                model.buffers[index], self.size, model.mean,
                np.array(COLOURS[colour][1] if colour else (-1, -1, -1), np.float32),
                list(MATERIALS).index(material) if material else -1,
                views.light[b].numpy(), float(views.ambient[b]), int(views.shading[b]),
                backdrop.astype(np.float32), float(views.plain[b]), images[b],
            )  # fmt: skip
            premultiplied(model.buffers[index], targets[b])
        return (torch.from_numpy(images), torch.from_numpy(targets), views.features()), captions


def turned(views: Views, cameras: Tensor) -> Views:
    """The views with other cameras [B, 4], their lights kept at the same angle to the camera."""
    old = torch.stack(views.axes(), 1)
    views = views.replace(azimuth=cameras[:, 0], elevation=cameras[:, 1], fov=cameras[:, 2], frame=cameras[:, 3])
    new = torch.stack(views.axes(), 1)
    return views.replace(light=(new.mT @ (old @ views.light[:, :, None]))[:, :, 0])


def volume_loss(
    unet: VolumeUNet, states: Tensor, solid: Float[Tensor, "C 64 64 64"], surface: Int[Tensor, "C 32 32 32 7"]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of solid voxels, and the error of normal and own colour where there is surface."""
    _, volume = unet.imagine(states)
    raw = volume.density.float()
    entropy = F.binary_cross_entropy_with_logits(raw, solid)
    wanted = surface.float()
    wanted = torch.cat([(wanted[..., :3] - 128) / 127, wanted[..., 3:6] / 255], -1)
    seen = surface[..., 6:] > 0
    error = ((volume.features[..., :6].float() - wanted) * seen).square().sum() / (6 * seen.sum())
    few, wanted = raw[:4] > 0, solid[:4] > 0
    both = (few & wanted).sum() / (few | wanted).sum()
    return SOLID_WEIGHT * entropy + error, {"entropy": entropy, "surface": error, "iou": both}


def view_loss(
    unet: VolumeUNet, states: Tensor, images: Float[Tensor, "B 3 S S"], targets: Float[Tensor, "B 7 R R"],
    features: Float[Tensor, "B 23"], told: Tensor, alphas: Float[Tensor, "T"], times: tuple[float, float],
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Error of the clean image at random noise levels, and of the feature image. `told` [B]: captions not empty."""
    clean = F.pixel_unshuffle(images, images.shape[-1] // CELLS)
    # A third of the draws are nearly pure noise: there everything must come from caption and camera.
    u = torch.rand(len(clean), device=clean.device)
    u = torch.where(torch.rand_like(u) < 0.33, 0.8 + 0.2 * u, u)
    t = ((times[0] + (times[1] - times[0]) * u) * 1000).long().clamp(0, 999)
    alpha = alphas[t].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn_like(clean)
    jitter = torch.rand(len(clean), RAYS, RAYS, device=clean.device)
    output = unet(noisy.contiguous(memory_format=torch.channels_last), t, states, features, jitter)
    error = (output.sample.float() - clean).square().mean((1, 2, 3))
    shape = (output.maps[:, :SUPERVISED].float() - targets).square().mean((1, 2, 3))
    shape = (shape * told).sum() / told.sum().clamp(min=1)
    loss = (error / (1 - alpha.view(-1)).clamp(min=SIGMA2_FLOOR)).mean() + MAPS_WEIGHT * shape
    return loss, {"mse": error.mean(), "shape": shape}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--start", type=Path, help="exported prior whose weights to start from")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--captions", type=int, help="captions in a batch; 24 for volumes, 8 for views")
    parser.add_argument("--views", type=int, default=2, help="views of each caption")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    size, low, high = STAGES[args.stage]
    device = torch.device(args.device)
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    unet, text = make_models(len(tokenizer), size)
    if args.start:
        started = VolumeUNet.from_pretrained(args.start / "unet", use_safetensors=True)
        own = unet.state_dict()  # another image size has other first and last layers
        fitting = {k: v.float() for k, v in started.state_dict().items() if own[k].shape == v.shape}
        unet.load_state_dict(own | fitting)
        text.load_state_dict(CLIPTextModel.from_pretrained(args.start / "text_encoder").float().state_dict())
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    alphas = scheduler.alphas_cumprod.to(device)
    unet, text = unet.to(device, memory_format=torch.channels_last), text.to(device)
    parameters = [*unet.parameters(), *text.parameters()]
    optimiser = torch.optim.AdamW(parameters, args.lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    ema_unet, ema_text = copy.deepcopy(unet), copy.deepcopy(text)
    averages = [*ema_unet.parameters(), *ema_text.parameters()]
    step, spent = 0, 0.0
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / f"{args.stage}.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        for module, key in ((unet, "unet"), (text, "text"), (ema_unet, "ema_unet"), (ema_text, "ema_text")):
            module.load_state_dict(state[key])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    styles, captions_each = find_styles(args.pool), args.captions or (24 if args.stage == "volume" else 8)
    batches: Batches
    if args.stage == "volume":
        batches, batch = VoxelBatches(styles, captions_each, seed=1000 + step), captions_each
    else:
        batches = ViewBatches(styles, size, captions_each, args.views, seed=1000 + step)
        batch = captions_each * args.views
    batches.start()
    begun, last_save, window, first = time.time() - spent, time.time(), [], step
    while (fraction := (time.time() - begun) / (60 * args.minutes)) < 1:
        rate = args.lr * min(1, (step + 1) / 300) * (0.5 + 0.5 * math.cos(math.pi * fraction))
        for group in optimiser.param_groups:
            group["lr"] = rate
        data, captions = batches.queue.get()
        data = [tensor.to(device) for tensor in data]
        ids = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt").to(device)
        with torch.autocast(device.type, torch.bfloat16):
            states = text(ids.input_ids).last_hidden_state
            if args.stage == "volume":
                loss, parts = volume_loss(unet, states, *data)
            else:
                told = torch.tensor([c != "" for c in captions], device=device).repeat_interleave(args.views)
                loss, parts = view_loss(unet, states, *data, told, alphas, (low, high))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        decay = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - decay)
        window.append(torch.stack([loss.detach(), *(part.detach() for part in parts.values())]))
        if step % 100 == 0:
            mean = torch.stack(window).mean(0).tolist()
            window.clear()
            speed = (step - first) * batch / (time.time() - begun - spent)
            errors = " ".join(f"{name} {value:.4f}" for name, value in zip(["loss", *parts], mean, strict=True))
            print(f"{args.stage} {step} {errors} lr {rate:.2e} {speed:.1f} a second {fraction:.0%}", flush=True)
        if time.time() - last_save > 180:
            last_save = time.time()
            save(checkpoint, unet, text, ema_unet, ema_text, optimiser, step, time.time() - begun)
            export(args.run / args.stage, ema_unet, ema_text, scheduler, tokenizer)
    save(checkpoint, unet, text, ema_unet, ema_text, optimiser, step, time.time() - begun)
    export(args.run / args.stage, ema_unet, ema_text, scheduler, tokenizer)


def save(path: Path, unet, text, ema_unet, ema_text, optimiser, step: int, spent: float) -> None:
    state = {
        "unet": unet.state_dict(), "text": text.state_dict(), "ema_unet": ema_unet.state_dict(),
        "ema_text": ema_text.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "spent": spent,
    }  # fmt: skip
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    main()
