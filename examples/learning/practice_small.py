"""A practice prior for one CPU core: `python practice_small.py FOLDER --minutes 120`.

The same kind as `practice.py pixel` (DeepFloyd IF's: a UNet over pixels with cross-attention to CLIP text, epsilon
prediction, the view told by words alone, sometimes and unreliably, fronts most often), made smaller: four nouns of one
model each, six colours, plain backdrops, 32 pixels packed 4 x 4. The pictures are painted and lit once and kept as
bytes; backdrop, size, mirror image, caption and noise are new in every step. For the first part of the time (`--told`)
every caption tells the view, rightly, and all sides are as frequent; then as the web has them. `--resume` goes on with
what FOLDER has, `--start PRIOR` begins with the weights of one that was written before.
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
from jaxtyping import Float, Int, UInt8
from practice import (
    TEXT_LENGTH,
    Average,
    Captioned,
    by_the_clock,
    make_text,
    make_tokenizer,
    save,
)
from renders import Model, all_models, draw, dress, lit, load_volume
from torch import Tensor, nn

from magic3d_cli.guidance.builtin.paint import COLOURS

NOUNS = ("car", "chair", "dog", "tree")
PAINTS = ("red", "green", "blue", "yellow", "purple", "white")
SIDE, PATCH = 32, 4
GROUPS = 2
WIDTH = 64
"""Of the text states."""
OWN_COLOUR = 0.15
"""Share of the pictures that show the model's own colours, and are said without one."""
SIGNAL_LIMIT = 5.0
"""Weights of low noise are min(SNR, 5) / SNR (Min-SNR, 2303.09556): shapes before grain."""
LEAST_SIGNAL = 0.02
"""Of the squared share of the signal, which divides the weights: reached at timestep 908 of 1000."""
HIGH_MORE_OFTEN = 0.7
"""Timesteps are a uniform number to this power: one of ten is below 200 of 1000."""
SAID = 0.3
"""Weight of what the text encoder learns beside: see `unsaid`."""
AVERAGED = 0.999
ZOOM = (0.85, 1.45)
"""Of what a picture shows, beside its camera's own."""


def make_unet() -> UNet2DConditionModel:
    """8 x 8 positions of 4 x 4 pixels, attention at the coarser level; untrained, it says that all it sees is noise.

    That is nearly right at high noise, where samples and distillation begin, and takes a small network thousands of
    steps to find. The first convolution copies the pixels and their negatives, the last block hands them on by its
    shortcut, and silu(x) - silu(-x) = x. Each group that is normalised holds pixels with their negatives, so that its
    mean is zero; few groups, as the size of each is lost.
    """
    channels = 3 * PATCH**2
    unet = UNet2DConditionModel(
        sample_size=SIDE // PATCH, in_channels=channels, out_channels=channels,
        block_out_channels=(2 * channels, 2 * channels), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=GROUPS,
    )  # fmt: skip
    unet.set_attn_processor(AttnProcessor())  # a CPU's fused attention is slow backwards
    last = unet.up_blocks[-1].resnets[-1]
    copied = torch.cat([torch.cat([part, -part]) for part in torch.eye(channels).chunk(GROUPS)])
    with torch.no_grad():
        for layer in (unet.conv_in, last.conv2, last.conv_shortcut, unet.conv_out):
            layer.weight.zero_()
            layer.bias.zero_()
        unet.conv_in.weight[:, :, 1, 1] = copied
        last.conv_shortcut.weight[:, -2 * channels :, 0, 0] = torch.eye(2 * channels)
        unet.conv_out.weight[:, :, 1, 1] = copied.T
    return unet


def one_each(nouns: tuple[str, ...] = NOUNS) -> list[Model]:
    """The first model of every noun."""
    models = all_models()
    return [next(m for m in models if m.caption.noun == noun) for noun in nouns]


class Pool:
    """Pictures that were painted and lit once, `count` of them, and what is said of each.

    Attributes:
        rgb, opacity: bytes; colours are straight, not multiplied by the coverage.
        told: the model, its colour (-1: its own), azimuth and elevation of each.
        fronts: how often each is taken where fronts are most frequent.
    """

    def __init__(self, captioned: Captioned, count: int, size: int = SIDE) -> None:
        self.captioned, generator = captioned, captioned.generator
        paints = torch.tensor([list(COLOURS).index(name) for name in PAINTS])
        rgb, opacity, fronts = [], [], []
        self.told: list[tuple[int, int, float, float]] = []
        for begin in range(0, count, 128):
            n = min(128, count - begin)
            model = torch.multinomial(captioned.by_noun, n, True, generator=generator)
            view = torch.randint(captioned.by_view.shape[1], (n,), generator=generator)
            fronts.append(captioned.by_view[model, view])
            buffers, views = captioned.pictures.pick(model, view)
            own = torch.rand(n, generator=generator) < OWN_COLOUR
            colour = torch.where(own, -1, paints[torch.randint(len(paints), (n,), generator=generator)])
            views = lit(views, (0.45, 0.45, 0.1), generator)
            seen, cover = dress(
                buffers, views, captioned.pictures.tones[model], colour, torch.full_like(colour, -1), size
            )
            rgb.append((seen.clamp(0, 1) * 255).round().to(torch.uint8))
            opacity.append((cover * 255).round().to(torch.uint8))
            said = (x.tolist() for x in (model, colour, views.azimuth, views.elevation))
            self.told += list(zip(*said, strict=True))
        self.rgb: UInt8[Tensor, "N 3 s s"] = torch.cat(rgb)
        self.opacity: UInt8[Tensor, "N 1 s s"] = torch.cat(opacity)
        self.fronts: Float[Tensor, "N"] = torch.cat(fronts)

    def batch(self, count: int, told: bool) -> tuple[Float[Tensor, "B 3 s s"], list[str]]:
        """Pictures in [-1, 1] before plain backdrops, half of them mirrored; and captions.

        If `told`, all sides are as frequent and each caption tells its own.
        """
        generator = self.captioned.generator
        often = torch.ones_like(self.fronts) if told else self.fronts
        chosen = torch.multinomial(often, count, True, generator=generator)
        cover = self.opacity[chosen] / 255
        zoom = ZOOM[0] + (ZOOM[1] - ZOOM[0]) * torch.rand(count, 1, 1, generator=generator)
        grid = F.affine_grid(torch.eye(2, 3) / zoom, [count, 4, *cover.shape[2:]], align_corners=False)
        seen = F.grid_sample(torch.cat([self.rgb[chosen] / 255 * cover, cover], 1), grid, align_corners=False)
        images = seen[:, :3] + (1 - seen[:, 3:]) * torch.rand(count, 3, 1, 1, generator=generator)
        mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
        said = [self.captioned.caption(*self.told[number], told) for number in chosen.tolist()]
        return torch.where(mirrored, images.flip(3), images) * 2 - 1, said


def noised(
    clean: Float[Tensor, "B C h w"], alphas: Float[Tensor, "T"]
) -> tuple[Float[Tensor, "B C h w"], Tensor, Float[Tensor, "B C h w"], Float[Tensor, "B"]]:
    """Noisy pictures, their timesteps, the noise, and the weight of each one's error.

    Timesteps are high more often than low. Divided by the signal's share, the noise's error counts as that of v would,
    where little of the picture is left.
    """
    step = (len(alphas) * torch.rand(len(clean)).pow(HIGH_MORE_OFTEN)).long()
    noise, level = torch.randn_like(clean), alphas[step]
    signal = (level / (1 - level)).clamp(min=1e-4)
    weight = signal.clamp(max=SIGNAL_LIMIT) / signal / level.clamp(min=LEAST_SIGNAL)
    level = level[:, None, None, None]
    return level.sqrt() * clean + (1 - level).sqrt() * noise, step, noise, weight


def unsaid(probe: nn.Linear, states: Float[Tensor, "B L D"], ids: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
    """How badly a linear map of each state tells the words up to it.

    CLIP's encoders come trained to sum up what is said. This one would learn from the noise's error alone, and leaves
    the words out that change it little: after 100,000 pictures all views had the same states.
    """
    words = torch.zeros(*ids.shape, probe.out_features).scatter_(2, ids[..., None], 1.0).cumsum(1).clamp(max=1)
    return F.binary_cross_entropy_with_logits(probe(states), words, reduction="sum") / ids.numel()


class Training:
    """Networks, their averages and the optimiser; written and read together."""

    def __init__(self, folder: Path, rate: float, bfloat16: bool) -> None:
        self.bfloat16 = bfloat16
        self.folder, self.state, self.tokenizer = folder, folder / "training.pt", make_tokenizer()
        self.scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
        self.text = make_text(len(self.tokenizer), WIDTH)
        self.unet = make_unet().to(memory_format=torch.channels_last)
        self.probe = nn.Linear(WIDTH, len(self.tokenizer))
        self.weights = [*self.unet.parameters(), *self.text.parameters(), *self.probe.parameters()]
        self.optimiser = torch.optim.AdamW(self.weights, rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
        self.average, self.spent = Average([self.unet, self.text], AVERAGED), 0.0

    def tokens(self, captions: list[str]) -> Int[Tensor, "B L"]:
        told = dict(padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
        return self.tokenizer(captions, **told).input_ids

    def step(self, images: Float[Tensor, "B 3 s s"], captions: list[str]) -> float:
        noisy, step, noise, weight = noised(F.pixel_unshuffle(images, PATCH), self.scheduler.alphas_cumprod)
        ids = self.tokens(captions)
        states = self.text(ids).last_hidden_state
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            guess = self.unet(noisy, step, states, return_dict=False)[0].float()
        loss = (weight * (guess - noise).square().mean((1, 2, 3))).mean()
        self.optimiser.zero_grad(set_to_none=True)
        (loss + SAID * unsaid(self.probe, states, ids)).backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step()
        self.average.update()
        return loss.item()

    def write(self) -> None:
        """The averaged weights as a prior, and what resuming needs."""
        parts = {"unet": copy.deepcopy(self.unet), "text_encoder": copy.deepcopy(self.text)}
        copies = [p for part in parts.values() for p in part.parameters()]
        with torch.no_grad():
            for weight, mean in zip(copies, self.average.mean, strict=True):
                weight.copy_(mean)
        save(self.folder, {**parts, "scheduler": self.scheduler}, self.tokenizer)
        weights = [weight.detach() for weight in self.weights]
        kept = {"weights": weights, "mean": self.average.mean, "averaged": self.average.step}
        kept |= {"optimiser": self.optimiser.state_dict(), "spent": self.spent}
        torch.save(kept, self.state.with_suffix(".new"))
        self.state.with_suffix(".new").replace(self.state)

    def begin(self, prior: Path) -> None:
        """With the weights of a prior that was written before."""
        for part, folder in ((self.unet, "unet"), (self.text, "text_encoder")):
            part.load_state_dict(type(part).from_pretrained(prior / folder).state_dict())
        self.average = Average([self.unet, self.text], AVERAGED)

    def read(self) -> None:
        kept = torch.load(self.state, weights_only=True)
        with torch.no_grad():
            for weight, value in zip(self.weights, kept["weights"], strict=True):
                weight.copy_(value)
        self.average.mean, self.average.step, self.spent = kept["mean"], kept["averaged"], kept["spent"]
        self.optimiser.load_state_dict(kept["optimiser"])


def teach(
    training: Training, pool: Pool, minutes: float, batch: int, rate: float, every: float, told: float
) -> Iterator[float]:
    """Train for `minutes` in all, a share `told` of them with every view told, writing to the folder every `every`
    minutes; yields each step's loss.
    """
    begun = time.monotonic() - training.spent
    saved = training.spent
    for _ in by_the_clock(minutes * 60, rate, training.optimiser, training.spent):
        yield training.step(*pool.batch(batch, training.spent < told * minutes * 60))
        training.spent = time.monotonic() - begun
        if training.spent - saved > every * 60:
            training.write()
            saved = training.spent
    training.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--batch", type=int, default=8, help="pictures a step")
    parser.add_argument("--bfloat16", action="store_true", help="a third faster where the processor has it")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--every", type=float, default=2, help="minutes between two checkpoints")
    parser.add_argument("--sets", type=int, default=24, help="sets of four views rendered of each model")
    parser.add_argument("--pool", type=int, default=6144, help="pictures painted and lit beforehand")
    parser.add_argument("--told", type=float, default=0.7, help="share of the time in which every view is told")
    parser.add_argument("--start", type=Path, help="a prior to begin with")
    parser.add_argument("--resume", action="store_true", help="go on with what FOLDER has")
    args = parser.parse_args()
    torch.set_num_threads(1)  # two that wait for each other on a busy machine are slower than one
    torch.manual_seed(0)
    training = Training(args.folder, args.rate, args.bfloat16)
    if args.start:
        training.begin(args.start)
    if args.resume:
        training.read()
    begun, shown = time.monotonic(), one_each()
    pictures = draw(load_volume("cpu"), shown, args.sets, 2 * SIDE, (-10.0, 45.0))
    seed = 1 + training.average.step
    pool = Pool(Captioned(pictures, shown, torch.Generator().manual_seed(seed), torch.device("cpu")), args.pool)
    print(f"{args.pool} pictures of {args.sets * 4} views: {time.monotonic() - begun:.0f} s", flush=True)
    mean, begun, first = 1.0, time.monotonic(), training.average.step
    for loss in teach(training, pool, args.minutes, args.batch, args.rate, args.every, args.told):
        mean, step = mean * 0.99 + loss * 0.01, training.average.step
        if step % 50 == 0:
            speed = (step - first) * args.batch / (time.monotonic() - begun)
            print(f"{step}: {mean:.4f}, {speed:.0f} pictures/s", flush=True)


if __name__ == "__main__":
    main()
