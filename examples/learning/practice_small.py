"""A practice prior for one CPU core: `python practice_small.py FOLDER --minutes 120`.

The same kind as `practice.py pixel` (DeepFloyd IF's: a UNet over pixels with cross-attention to CLIP text, epsilon
prediction, the view told by words alone, sometimes and unreliably, fronts most often), made smaller: four nouns of one
model each, six colours, plain backdrops, 32 pixels packed 4 x 4. The pictures are painted and lit once and kept as
bytes; backdrop, mirror image, caption and noise are new in every step.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float, UInt8
from practice import TEXT_LENGTH, Average, Captioned, by_the_clock, make_text, make_tokenizer, save
from renders import Model, all_models, draw, dress, lit, load_volume
from torch import Tensor

from magic3d_cli.guidance.builtin.paint import COLOURS

NOUNS = ("car", "chair", "dog", "tree")
PAINTS = ("red", "green", "blue", "yellow", "purple", "white")
SIDE, PATCH = 32, 4
WIDTH = 64
"""Of the text states."""
OWN_COLOUR = 0.15
"""Share of the pictures that show the model's own colours, and are said without one."""
SIGNAL_LIMIT = 5.0
"""Weights of the noise levels are min(SNR, 5) / SNR (Min-SNR, 2303.09556): shapes before grain."""


def make_unet() -> UNet2DConditionModel:
    """8 x 8 positions of 4 x 4 pixels, attention at the coarser level."""
    unet = UNet2DConditionModel(
        sample_size=SIDE // PATCH, in_channels=3 * PATCH**2, out_channels=3 * PATCH**2,
        block_out_channels=(64, 96), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip
    unet.set_attn_processor(AttnProcessor())  # a CPU's fused attention is slow backwards
    return unet


def one_each(nouns: tuple[str, ...] = NOUNS) -> list[Model]:
    """The first model of every noun."""
    models = all_models()
    return [next(m for m in models if m.caption.noun == noun) for noun in nouns]


class Pool:
    """Pictures that were painted and lit once, `count` of them, and what is said of each.

    Attributes:
        rgb, opacity: bytes; colours are straight, not multiplied by the coverage.
    """

    def __init__(self, captioned: Captioned, count: int, size: int = SIDE) -> None:
        self.captioned, generator = captioned, captioned.generator
        paints = torch.tensor([list(COLOURS).index(name) for name in PAINTS])
        rgb, opacity = [], []
        self.told: list[tuple[int, int, float, float]] = []
        for begin in range(0, count, 128):
            n = min(128, count - begin)
            model = torch.multinomial(captioned.by_noun, n, True, generator=generator)
            view = torch.multinomial(captioned.by_view[model], 1, generator=generator)[:, 0]
            buffers, views = captioned.pictures.pick(model, view)
            own = torch.rand(n, generator=generator) < OWN_COLOUR
            colour = torch.where(own, -1, paints[torch.randint(len(paints), (n,), generator=generator)])
            views = lit(views, (0.5, 0.5, 0.0), generator)
            seen, cover = dress(
                buffers, views, captioned.pictures.tones[model], colour, torch.full_like(colour, -1), size
            )
            rgb.append((seen.clamp(0, 1) * 255).round().to(torch.uint8))
            opacity.append((cover * 255).round().to(torch.uint8))
            said = (x.tolist() for x in (model, colour, views.azimuth, views.elevation))
            self.told += list(zip(*said, strict=True))
        self.rgb: UInt8[Tensor, "N 3 s s"] = torch.cat(rgb)
        self.opacity: UInt8[Tensor, "N 1 s s"] = torch.cat(opacity)

    def batch(self, count: int) -> tuple[Float[Tensor, "B 3 s s"], list[str]]:
        """Pictures in [-1, 1] before plain backdrops, half of them mirrored; and captions."""
        generator = self.captioned.generator
        chosen = torch.randint(len(self.rgb), (count,), generator=generator)
        cover = self.opacity[chosen] / 255
        images = self.rgb[chosen] / 255 * cover + (1 - cover) * torch.rand(count, 3, 1, 1, generator=generator)
        mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
        said = [self.captioned._caption(*self.told[number]) for number in chosen.tolist()]
        return torch.where(mirrored, images.flip(3), images) * 2 - 1, said


def noised(
    clean: Float[Tensor, "B C h w"], alphas: Float[Tensor, "T"]
) -> tuple[Float[Tensor, "B C h w"], Tensor, Float[Tensor, "B C h w"], Float[Tensor, "B"]]:
    """Noisy pictures, their timesteps, the noise, and the weight of each one's error."""
    step = torch.randint(len(alphas), (len(clean),))
    noise, level = torch.randn_like(clean), alphas[step][:, None, None, None]
    signal = (alphas[step] / (1 - alphas[step])).clamp(min=1e-4)
    return level.sqrt() * clean + (1 - level).sqrt() * noise, step, noise, signal.clamp(max=SIGNAL_LIMIT) / signal


def teach(pool: Pool, folder: Path, minutes: float, batch: int, rate: float, every: float) -> Iterator[float]:
    """Train for `minutes`, writing the averaged weights to `folder` every `every` minutes; yields each step's loss."""
    tokenizer = make_tokenizer()
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    text, unet = make_text(len(tokenizer), WIDTH), make_unet().to(memory_format=torch.channels_last)
    weights = [*unet.parameters(), *text.parameters()]
    optimiser = torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=1e-2)
    average, saved = Average([unet, text], 0.995), time.monotonic()

    def write() -> None:
        parts = {"unet": copy.deepcopy(unet), "text_encoder": copy.deepcopy(text), "scheduler": scheduler}
        copies = [p for name in ("unet", "text_encoder") for p in parts[name].parameters()]
        with torch.no_grad():
            for weight, mean in zip(copies, average.mean, strict=True):
                weight.copy_(mean)
        save(folder, parts, tokenizer)

    for _ in by_the_clock(minutes * 60, rate, optimiser):
        images, captions = pool.batch(batch)
        noisy, step, noise, weight = noised(F.pixel_unshuffle(images, PATCH), scheduler.alphas_cumprod)
        tokens = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
        states = text(tokens.input_ids).last_hidden_state
        guess = unet(noisy.contiguous(memory_format=torch.channels_last), step, states, return_dict=False)[0]
        loss = (weight * (guess - noise).square().mean((1, 2, 3))).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        average.update()
        yield loss.item()
        if time.monotonic() - saved > every * 60:
            write()
            saved = time.monotonic()
    write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--batch", type=int, default=48, help="pictures a step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--every", type=float, default=2, help="minutes between two checkpoints")
    parser.add_argument("--sets", type=int, default=16, help="sets of four views rendered of each model")
    parser.add_argument("--pool", type=int, default=3072, help="pictures painted and lit beforehand")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)  # two that wait for each other on a busy machine are slower than one
    torch.manual_seed(0)
    begun, shown = time.monotonic(), one_each()
    pictures = draw(load_volume("cpu"), shown, args.sets, 2 * SIDE, (-10.0, 45.0))
    print(f"{len(shown)} models, {args.sets * 4} views each: {time.monotonic() - begun:.0f} s", flush=True)
    pool = Pool(Captioned(pictures, shown, torch.Generator().manual_seed(1), torch.device("cpu")), args.pool)
    print(f"{args.pool} pictures: {time.monotonic() - begun:.0f} s", flush=True)
    mean, begun = 1.0, time.monotonic()
    for step, loss in enumerate(teach(pool, args.folder, args.minutes, args.batch, args.rate, args.every)):
        mean = mean * 0.99 + loss * 0.01
        if step % 10 == 9:
            speed = (step + 1) * args.batch / (time.monotonic() - begun)
            print(f"{step + 1}: {mean:.4f}, {speed:.0f} pictures/s", flush=True)


if __name__ == "__main__":
    main()
