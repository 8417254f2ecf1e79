"""Train the built-in prior: `python train.py POOL RUN --minutes 90`, then `--stage fine --start RUN/coarse`.

One process does what it can in the minutes it is given: the learning rate follows elapsed time to zero, weights
are exported (EMA, diffusers layout) and a checkpoint written every few minutes, and the same command resumes.
On a CUDA GPU the same script runs in bf16 with a larger --batch.

The network is a `UNet2DConditionModel` on 4x4 space-to-depth pixels that predicts the clean image. Camera, light,
shading mode and backdrop enter as its class embedding, the caption as pooled text (DeepFloyd IF's way) and by
cross attention at the lowest resolution. Loss: v-weighted error of the clean image (Salimans and Ho 2022), weight
clipped at sigma^2 = 0.4: what decides shape is learned first, fine denoising last. Small batches, because on two
cores steps are scarcer than images.
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
from diffusers import DDPMScheduler, UNet2DConditionModel
from gbuffer import halve
from manifest import NOUNS
from paint import COLOURS, MATERIALS, dress
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from magic3d_cli.views import FEATURES, Views, ViewSampling, sample_views

PATCH = 4
TEXT_WIDTH, TEXT_LENGTH = 192, 8
SIGMA2_FLOOR = 0.4
STAGES = {"coarse": (64, 0.0, 1.0), "fine": (128, 0.0, 0.55)}
"""Image size and the range of diffusion times a stage learns; the fine stage only asks for small ones."""


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


def make_models(vocabulary: int, size: int) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=TEXT_WIDTH, intermediate_size=2 * TEXT_WIDTH, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=TEXT_LENGTH, projection_dim=TEXT_WIDTH,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=size // PATCH, in_channels=3 * PATCH**2, out_channels=3 * PATCH**2,
        down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3,
        mid_block_type="UNetMidBlock2DCrossAttn", block_out_channels=(96, 160, 256), layers_per_block=1,
        norm_num_groups=16, attention_head_dim=4, cross_attention_dim=TEXT_WIDTH,
        encoder_hid_dim=TEXT_WIDTH, encoder_hid_dim_type="text_proj",
        addition_embed_type="text", addition_embed_type_num_heads=4,
        class_embed_type="projection", projection_class_embeddings_input_dim=FEATURES,
        resnet_time_scale_shift="scale_shift", time_embedding_dim=320,
    )  # fmt: skip
    # PyTorch's default initialisation lets the conditioning only whisper: with these gains camera and backdrop reach
    # the picture after 5,000 images, without them not after 8,000 (six nouns).
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "time_emb_proj.weight" in name:
                parameter.mul_(4)
            elif "class_embedding" in name and "weight" in name:
                parameter.mul_(3)
    return unet, text


class Batches:
    """Random captioned views, composed by a background thread; draws are balanced by noun."""

    def __init__(self, styles: list[Style], size: int, batch: int, seed: int) -> None:
        self.size, self.batch = size, batch
        self.nouns: dict[str, list[Style]] = {}
        for style in styles:
            self.nouns.setdefault(style.noun, []).append(style)
        self.generator = torch.Generator().manual_seed(seed)
        self.random = np.random.default_rng(seed)
        self.queue: queue.Queue[tuple[Tensor, Tensor, list[str]]] = queue.Queue(4)
        threading.Thread(target=self._fill, daemon=True).start()

    def _fill(self) -> None:
        while True:
            self.queue.put(self.make())

    def make(self) -> tuple[Tensor, Tensor, list[str]]:
        """Images [B, 3, size, size] in [-1, 1], view features [B, 23], captions."""
        random, names = self.random, list(self.nouns)
        views = sample_views(self.batch, ViewSampling(), self.generator, stratified=False)
        cameras = np.empty((self.batch, 4), np.float32)
        images = np.empty((self.batch, 3, self.size, self.size), np.float32)
        # The views' cameras come from the pool; their lights are drawn about those cameras.
        picks, captions = [], []
        for b in range(self.batch):
            options = self.nouns[names[random.integers(len(names))]]
            style = options[random.integers(len(options))]
            index = random.integers(len(style.cameras))
            cameras[b] = style.cameras[index]
            picks.append((style, index))
        views = turned(views, torch.from_numpy(cameras))
        for b, (style, index) in enumerate(picks):
            paint = random.random()
            colour = list(COLOURS)[random.integers(len(COLOURS))] if 0.3 < paint < 0.75 else None
            material = list(MATERIALS)[random.integers(len(MATERIALS))] if paint > 0.65 else None
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
            words = [colour, material, style.noun, style.token if random.random() > 0.1 else None]
            captions.append("" if random.random() < 0.1 else " ".join(w for w in words if w))
        return torch.from_numpy(images), views.features(), captions


def turned(views: Views, cameras: Tensor) -> Views:
    """The views with other cameras [B, 4], their lights kept at the same angle to the camera."""
    old = torch.stack(views.axes(), 1)
    views = views.replace(azimuth=cameras[:, 0], elevation=cameras[:, 1], fov=cameras[:, 2], frame=cameras[:, 3])
    new = torch.stack(views.axes(), 1)
    return views.replace(light=(new.mT @ (old @ views.light[:, :, None]))[:, :, 0])


def export(folder: Path, unet: UNet2DConditionModel, text: CLIPTextModel, scheduler: DDPMScheduler,
           tokenizer: PreTrainedTokenizerFast) -> None:  # fmt: skip
    """Write the diffusers layout in fp16."""
    copy.deepcopy(unet).half().save_pretrained(folder / "unet")
    copy.deepcopy(text).half().save_pretrained(folder / "text_encoder")
    scheduler.save_pretrained(folder / "scheduler")
    tokenizer.save_pretrained(folder / "tokenizer")
    index = {
        "_class_name": "DiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
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
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    size, low, high = STAGES[args.stage]
    device = torch.device(args.device)
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    unet, text = make_models(len(tokenizer), size)
    if args.start:
        started = UNet2DConditionModel.from_pretrained(args.start / "unet", use_safetensors=True)
        unet.load_state_dict(started.state_dict())
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
    batches = Batches(load_pool(args.pool, size), size, args.batch, seed=1000 + step)
    begun, last_save, window, first = time.time() - spent, time.time(), [], step
    while (fraction := (time.time() - begun) / (60 * args.minutes)) < 1:
        rate = args.lr * min(1, (step + 1) / 300) * (0.5 + 0.5 * math.cos(math.pi * fraction))
        for group in optimiser.param_groups:
            group["lr"] = rate
        images, features, captions = batches.queue.get()
        clean = torch.nn.functional.pixel_unshuffle(images.to(device), PATCH)
        # Half the draws are nearly pure noise: only there must shape come from caption and camera alone.
        u = torch.rand(len(clean), device=device)
        u = torch.where(torch.rand_like(u) < 0.5, 0.85 + 0.15 * u, u)
        t = ((low + (high - low) * u) * 1000).long().clamp(0, 999)
        alpha = alphas[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn_like(clean)
        ids = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt").to(device)
        with torch.autocast(device.type, torch.bfloat16):
            states = text(ids.input_ids).last_hidden_state
            guess = unet(
                noisy.contiguous(memory_format=torch.channels_last),
                t,
                states,
                class_labels=features.to(device),
            ).sample
        error = (guess.float() - clean).square().mean((1, 2, 3))
        loss = (error / (1 - alpha.view(-1)).clamp(min=SIGMA2_FLOOR)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        decay = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - decay)
        window.append(torch.stack([loss.detach(), error.detach().mean()]))
        if step % 200 == 0:
            mean = torch.stack(window).mean(0).tolist()
            window.clear()
            speed = (step - first) * args.batch / (time.time() - begun - spent)
            print(f"{args.stage} {step} loss {mean[0]:.4f} mse {mean[1]:.4f} lr {rate:.2e} {speed:.1f} images/s "
                  f"{fraction:.0%}", flush=True)  # fmt: skip
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
