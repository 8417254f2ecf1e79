"""Train the built-in prior: `python train.py POOL RUN --minutes 90`, then `--stage fine --start RUN/coarse`.

One process does what it can in the minutes it is given: the learning rate follows elapsed time to zero, weights
are exported (EMA, diffusers layout) and a checkpoint written every few minutes, and the same command resumes.
On a CUDA GPU the same script runs in bf16 with more --captions.

The network is `magic3d_cli.guidance.volume_unet.VolumeUNet` on space-to-depth pixels: the caption becomes a
feature volume that is composited along the asked camera's rays, and a UNet denoises beside that feature image. A
batch is `--captions` times `--views` of each, so volumes are made once a caption. Loss: v-weighted error of the
clean image (Salimans and Ho 2022) with the weight clipped, plus the error of the feature image's first channels
against the model's coverage, normals and own colour, which teaches shape long before painted pixels would.
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

import numpy as np
import torch
from diffusers import DDPMScheduler
from gbuffer import halve, premultiplied
from manifest import NOUNS
from paint import COLOURS, MATERIALS, dress
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from magic3d_cli.guidance.volume_unet import SUPERVISED, VolumeUNet
from magic3d_cli.views import Views, ViewSampling, sample_views

RAYS = 32
TEXT_WIDTH, TEXT_LENGTH = 192, 8
SIGMA2_FLOOR = 0.15
STAGES = {"coarse": (64, 0.0, 1.0), "fine": (128, 0.0, 0.8)}
"""Image size and the range of diffusion times a stage learns; the fine stage does not ask for the largest."""
MAPS_WEIGHT = 2.0
"""Weight of the feature image's error."""


@dataclass
class Style:
    """One training model: its caption words and its rendered pool."""

    noun: str
    token: str
    buffers: np.ndarray  # uint8 [views, S, S, 10], memory-mapped
    cameras: np.ndarray  # [views, 4]
    mean: float  # mean luminance of the model


def load_pool(pool: Path, size: int) -> list[Style]:
    """Every style's geometry buffers at `size` pixels, in memory if they had to be reduced."""
    styles = []
    for noun in NOUNS:
        for token in noun.styles:
            stem = token.strip("<>")
            buffers = np.load(pool / f"{stem}.npy", mmap_mode="r")
            while buffers.shape[1] > size:
                buffers = halve(np.asarray(buffers))
            some = np.asarray(buffers[:32]).astype(np.float32)
            luma = (some[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)).sum() / some[..., 9].sum()
            cameras = np.load(pool / f"{stem}.cameras.npy")
            styles.append(Style(noun.token, token, buffers, cameras, max(float(luma), 0.04)))
    return styles


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
    channels = 3 * (size // RAYS) ** 2
    return VolumeUNet(sample_size=RAYS, in_channels=channels, out_channels=channels), text


class Batches:
    """Random captions, several views of each, composed by a background thread; draws are balanced by noun."""

    def __init__(self, styles: list[Style], size: int, captions: int, views: int, seed: int) -> None:
        self.size, self.captions, self.views = size, captions, views
        self.nouns: dict[str, list[Style]] = {}
        for style in styles:
            self.nouns.setdefault(style.noun, []).append(style)
        self.generator = torch.Generator().manual_seed(seed)
        self.random = np.random.default_rng(seed)
        self.queue: queue.Queue[tuple[Tensor, Tensor, Tensor, list[str]]] = queue.Queue(4)
        threading.Thread(target=self._fill, daemon=True).start()

    def _fill(self) -> None:
        while True:
            self.queue.put(self.make())

    def make(self) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Images [B, 3, size, size] in [-1, 1], feature targets [B, 7, RAYS, RAYS], features [B, 23], captions."""
        random, names, batch = self.random, list(self.nouns), self.captions * self.views
        views = sample_views(batch, ViewSampling(), self.generator, stratified=False)
        cameras = np.empty((batch, 4), np.float32)
        images = np.empty((batch, 3, self.size, self.size), np.float32)
        targets = np.empty((batch, SUPERVISED, RAYS, RAYS), np.float32)
        captions, picks = [], []
        for _ in range(self.captions):
            options = self.nouns[names[random.integers(len(names))]]
            style = options[random.integers(len(options))]
            paint = random.random()
            colour = list(COLOURS)[random.integers(len(COLOURS))] if 0.3 < paint < 0.75 else None
            material = list(MATERIALS)[random.integers(len(MATERIALS))] if paint > 0.65 else None
            words = [colour, material, style.noun, style.token if random.random() > 0.1 else None]
            captions.append("" if random.random() < 0.1 else " ".join(w for w in words if w))
            picks += [(style, colour, material, random.integers(len(style.cameras))) for _ in range(self.views)]
        # The views' cameras come from the pool; their lights are drawn about those cameras.
        for b, (style, _, _, index) in enumerate(picks):
            cameras[b] = style.cameras[index]
        views = turned(views, torch.from_numpy(cameras))
        for b, (style, colour, material, index) in enumerate(picks):
            backdrop = np.tile(views.backdrop[b].numpy(), (4, 1))
            if not views.plain[b]:
                backdrop = np.clip(0.5 + random.normal(0, 0.2, 3) + random.normal(0, 0.12, (4, 3)), 0, 1)
            dress(
                style.buffers[index], self.size, style.mean,
                np.array(COLOURS[colour][1] if colour else (-1, -1, -1), np.float32),
                list(MATERIALS).index(material) if material else -1,
                views.light[b].numpy(), float(views.ambient[b]), int(views.shading[b]),
                backdrop.astype(np.float32), float(views.plain[b]), images[b],
            )  # fmt: skip
            premultiplied(style.buffers[index], targets[b])
        return torch.from_numpy(images), torch.from_numpy(targets), views.features(), captions


def turned(views: Views, cameras: Tensor) -> Views:
    """The views with other cameras [B, 4], their lights kept at the same angle to the camera."""
    old = torch.stack(views.axes(), 1)
    views = views.replace(azimuth=cameras[:, 0], elevation=cameras[:, 1], fov=cameras[:, 2], frame=cameras[:, 3])
    new = torch.stack(views.axes(), 1)
    return views.replace(light=(new.mT @ (old @ views.light[:, :, None]))[:, :, 0])


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
    parser.add_argument("--stage", choices=STAGES, default="coarse")
    parser.add_argument("--start", type=Path, help="exported prior whose weights to start from")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--captions", type=int, default=8, help="captions in a batch")
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
    batch = args.captions * args.views
    batches = Batches(load_pool(args.pool, size), size, args.captions, args.views, seed=1000 + step)
    begun, last_save, window, first = time.time() - spent, time.time(), [], step
    while (fraction := (time.time() - begun) / (60 * args.minutes)) < 1:
        rate = args.lr * min(1, (step + 1) / 300) * (0.5 + 0.5 * math.cos(math.pi * fraction))
        for group in optimiser.param_groups:
            group["lr"] = rate
        images, targets, features, captions = batches.queue.get()
        clean = torch.nn.functional.pixel_unshuffle(images.to(device), size // RAYS)
        # A third of the draws are nearly pure noise: there everything must come from caption and camera.
        u = torch.rand(len(clean), device=device)
        u = torch.where(torch.rand_like(u) < 0.33, 0.8 + 0.2 * u, u)
        t = ((low + (high - low) * u) * 1000).long().clamp(0, 999)
        alpha = alphas[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn_like(clean)
        ids = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt").to(device)
        jitter = torch.rand(batch, RAYS, RAYS, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            states = text(ids.input_ids).last_hidden_state
            output = unet(
                noisy.contiguous(memory_format=torch.channels_last), t, states, features.to(device), jitter
            )  # fmt: skip
        error = (output.sample.float() - clean).square().mean((1, 2, 3))
        told = torch.tensor([c != "" for c in captions], device=device).repeat_interleave(args.views)
        shape = (output.maps[:, :SUPERVISED].float() - targets.to(device)).square().mean((1, 2, 3))
        shape = (shape * told).sum() / told.sum().clamp(min=1)
        loss = (error / (1 - alpha.view(-1)).clamp(min=SIGMA2_FLOOR)).mean() + MAPS_WEIGHT * shape
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        decay = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - decay)
        window.append(torch.stack([loss.detach(), error.detach().mean(), shape.detach()]))
        if step % 200 == 0:
            mean = torch.stack(window).mean(0).tolist()
            window.clear()
            speed = (step - first) * batch / (time.time() - begun - spent)
            errors = f"loss {mean[0]:.4f} mse {mean[1]:.4f} shape {mean[2]:.4f}"
            print(f"{args.stage} {step} {errors} lr {rate:.2e} {speed:.1f} images/s {fraction:.0%}", flush=True)
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
