"""Practice priors: small open-vocabulary diffusion models of Stable Diffusion's, DeepFloyd IF's and MVDream's own kind.

    python practice.py small FOLDER     DeepFloyd IF's kind for one CPU core: four nouns, six colours, 32 pixels
    python practice.py pixel FOLDER     the same for a GPU: twelve nouns of two models each, sixteen colours, 64 pixels
    python practice.py latent FOLDER    over the latents of an autoencoder of its own: Stable Diffusion's kind
    python practice.py views FOLDER     four views at once, told their cameras: MVDream's kind; --start PIXEL

All three of a GPU, one after the other, from pictures that are painted once: `practice.py pixel views latent FOLDER`.

Like their big brothers they are told the view by words alone, sometimes and unreliably, and have seen fronts most
often: second faces are to be expected. Written in diffusers layout, so `magic3d generate "a red car" --prior FOLDER`
runs the same code as with `--prior sd15`. Training ends after `--minutes`; the rate falls to zero by the clock. For a
first part of the time (`--told`) every caption tells the view, rightly, and all sides are as frequent; then as the web
has them. `--resume` goes on with what FOLDER has, `--start PRIOR` begins with the weights of one written before.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from captioned import TEXT_LENGTH, VIEWS_SAID, VIEWS_WRONG, Captions, Pool, make_tokenizer, taught_models
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float, Int
from renders import SET, draw, load_volume
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from magic3d_cli.guidance.builtin.paint import COLOURS
from magic3d_cli.guidance.diffusers.mvdream import CAMERA_SETTINGS, attend_across_views

SIGNAL_LIMIT = 5.0
"""Weights of low noise are min(SNR, 5) / SNR (Min-SNR, 2303.09556): shapes before grain."""
LEAST_SIGNAL = 0.02
"""Of the squared share of the signal, which divides the weights: reached at timestep 908 of 1000."""
HIGH_MORE_OFTEN = 0.7
"""Timesteps are a uniform number to this power: one of ten is below 200 of 1000."""
SAID = 0.3
"""Weight of what the text encoder learns beside: see `unsaid`."""
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class Kind:
    """What a practice prior is taught, and how large it is.

    Attributes:
        size: of its pictures, in pixels. A UNet sees them packed `patch` x `patch` to a position; or, if `latent`, as
            latents of half the side.
        levels: channels of the UNet's levels; all but the first have attention.
        groups: of the normalisations. text: width of the text states.
        styles: models of a noun. zoom: see `Pool`. elevations: degrees.
        cameras: four views at once, told where each is taken from.
    """

    size: int
    patch: int
    levels: tuple[int, ...]
    groups: int
    text: int
    nouns: tuple[str, ...]
    styles: int
    paints: tuple[str, ...]
    zoom: tuple[float, float]
    elevations: tuple[float, float]
    latent: bool = False
    cameras: bool = False

    @property
    def channels(self) -> int:
        """Of what the UNet sees."""
        return LATENT_CHANNELS if self.latent else 3 * self.patch**2

    @property
    def side(self) -> int:
        """Of what the UNet sees."""
        return self.size // (2 if self.latent else self.patch)


_GPU: dict[str, Any] = {
    "size": 64,
    "levels": (96, 128, 128),
    "groups": 8,
    "text": 192,
    "nouns": (
        "car",
        "chair",
        "dog",
        "tree",
        "horse",
        "house",
        "dragon",
        "cat",
        "airplane",
        "teapot",
        "elephant",
        "lamp",
    ),
    "styles": 2,
    "paints": tuple(COLOURS),
    "zoom": (0.7, 1.6),
    "elevations": (-10.0, 85.0),
}
KINDS = {
    "small": Kind(
        size=32, patch=4, levels=(96, 96), groups=2, text=64, nouns=("car", "chair", "dog", "tree"), styles=1,
        paints=("red", "green", "blue", "yellow", "purple", "white"), zoom=(0.85, 1.45), elevations=(-10.0, 45.0),
    ),
    "pixel": Kind(patch=2, **_GPU),
    "latent": Kind(patch=1, latent=True, **_GPU),
    "views": Kind(patch=2, cameras=True, **_GPU),
}  # fmt: skip


def kind_of(prior: Path) -> Kind:
    """The kind of a prior that was written here; SystemExit for another one."""
    config = json.loads((prior / "unet" / "config.json").read_text())
    for kind in KINDS.values():
        same = kind.channels == config["in_channels"] and list(kind.levels) == config["block_out_channels"]
        if same and kind.cameras == (config.get("class_embed_type") is not None):
            return kind
    raise SystemExit(f"{prior} is none of {', '.join(KINDS)}")


def make_text(vocabulary: int, width: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=TEXT_LENGTH, projection_dim=width,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


def make_unet(kind: Kind) -> UNet2DConditionModel:
    """Untrained, it says that all it sees is noise.

    That is nearly right at high noise, where samples and distillation begin, and takes a small network thousands of
    steps to find. The first convolution copies every channel and its negative, as often as there is room; the last
    block hands them on by its shortcut; silu(x) - silu(-x) = x; and the last convolution takes the mean of the copies.
    Each group that is normalised holds channels with their negatives, so that its mean is zero; few groups, as the size
    of each is lost.
    """
    crossed = len(kind.levels) - 1
    unet = UNet2DConditionModel(
        sample_size=kind.side, in_channels=kind.channels, out_channels=kind.channels,
        block_out_channels=kind.levels, layers_per_block=1,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * crossed,
        up_block_types=("CrossAttnUpBlock2D",) * crossed + ("UpBlock2D",),
        cross_attention_dim=kind.text, attention_head_dim=4, norm_num_groups=kind.groups,
        **(CAMERA_SETTINGS if kind.cameras else {}),
    )  # fmt: skip
    last, width = unet.up_blocks[-1].resnets[-1], kind.levels[0]
    channel = torch.arange(width // 2) % kind.channels
    copies = F.one_hot(channel, kind.channels).float()
    signed = torch.stack([copies, -copies], 1).flatten(0, 1)
    with torch.no_grad():
        for layer in (unet.conv_in, last.conv2, last.conv_shortcut, unet.conv_out):
            layer.weight.zero_()
            layer.bias.zero_()
        unet.conv_in.weight[:, :, 1, 1] = signed
        last.conv_shortcut.weight[:, -width:, 0, 0] = torch.eye(width)
        unet.conv_out.weight[:, :, 1, 1] = signed.T / copies.sum(0)[:, None]
    if kind.cameras:
        attend_across_views(unet, SET)
    return unet


def make_autoencoder(size: int) -> AutoencoderKL:
    """Half of the pixels' side, four channels."""
    return AutoencoderKL(
        block_out_channels=(64, 96), layers_per_block=1, latent_channels=LATENT_CHANNELS, norm_num_groups=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=size, mid_block_add_attention=False, force_upcast=False,
    )  # fmt: skip


def make_schedule(kind: Kind) -> DDPMScheduler:
    """Stable Diffusion's betas for latents, IF's cosine for pixels."""
    if kind.latent:
        return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)


def make_pool(
    kind: Kind,
    sets: int,
    count: int,
    seed: int,
    device: torch.device | str,
    views: tuple[float, float] = (VIEWS_SAID, VIEWS_WRONG),
) -> Pool:
    """`count` pictures of the kind's models, from `sets` sets of views of each.

    `views`: how many captions tell theirs, and how many of those tell one at random.
    """
    shown = taught_models(kind.nouns, kind.styles)
    captions = Captions(shown, seed, *views)
    pictures = draw(load_volume(device), shown, sets, 2 * kind.size, kind.elevations)
    paints = [list(COLOURS).index(name) for name in kind.paints]
    return Pool(pictures, captions, count, kind.size, paints, kind.zoom, seed, SET if kind.cameras else 1)


def by_the_clock(seconds: float, rate: float, optimiser: torch.optim.Optimizer, spent: float = 0.0) -> Iterator[float]:
    """Steps until the time is over: seconds that went by. The rate rises over 100 steps and falls to zero with the
    cosine of the time.

    `spent` seconds of it went by before.
    """
    start, step = time.monotonic() - spent, 0
    while (gone := time.monotonic() - start) < seconds or step < 2:
        for group in optimiser.param_groups:
            turn = math.pi * min(gone / seconds, 1)
            group["lr"] = rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(turn))
        yield gone
        step += 1


class Average:
    """Exponential moving averages of weights."""

    def __init__(self, parts: list[nn.Module], keep: float = 0.999) -> None:
        self.weights = [p for part in parts for p in part.parameters()]
        self.mean, self.keep, self.step = [p.detach().clone() for p in self.weights], keep, 0

    @torch.no_grad()
    def update(self) -> None:
        self.step += 1
        keep = min(self.keep, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.weights], 1 - keep)

    @torch.no_grad()
    def install(self, parts: list[nn.Module]) -> None:
        """Put the means into `parts`, which have the same weights in the same order."""
        for weight, mean in zip((p for part in parts for p in part.parameters()), self.mean, strict=True):
            weight.copy_(mean)


def train_autoencoder(vae: AutoencoderKL, pool: Pool, count: int, seconds: float) -> None:
    """Absolute differences of pixels and of their gradients, and 1e-6 of the divergence from a unit Gaussian."""
    optimiser = torch.optim.AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    average, step = Average([vae]), 0
    vae.train()
    for _ in by_the_clock(seconds, 2e-3, optimiser):
        images, _ = pool.batch(count)
        with torch.autocast(pool.device.type, torch.bfloat16):
            posterior = vae.encode(images.contiguous(memory_format=torch.channels_last)).latent_dist
            seen = vae.decode(posterior.sample()).sample
        seen = seen.float()
        edges = sum(F.l1_loss(seen.diff(dim=axis), images.diff(dim=axis)) for axis in (2, 3))
        loss = F.l1_loss(seen, images) + edges + 1e-6 * posterior.kl().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average.update()
        step += 1
        if step % 100 == 0:
            print(f"autoencoder {step}: {loss.item():.4f}", flush=True)
    average.install([vae])
    vae.requires_grad_(False).eval()
    images, _ = pool.batch(count)
    latents = vae.encode(images).latent_dist.mean
    error = F.mse_loss(vae.decode(latents).sample, images).item() / 4
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    print(f"autoencoder: {step} steps of {count}; PSNR {-10 * math.log10(error):.1f} dB", flush=True)


def noised(
    clean: Float[Tensor, "B C h w"], alphas: Float[Tensor, "T"], together: int = 1
) -> tuple[Float[Tensor, "B C h w"], Tensor, Float[Tensor, "B C h w"], Float[Tensor, "B"]]:
    """Noisy pictures, their timesteps, the noise, and the weight of each one's error.

    Timesteps are high more often than low, and one for `together` consecutive pictures. Divided by the signal's share,
    the noise's error counts as that of v would, where little of the picture is left.
    """
    drawn = torch.rand(len(clean) // together, device=clean.device).pow(HIGH_MORE_OFTEN)
    step = (len(alphas) * drawn).long().clamp(max=len(alphas) - 1).repeat_interleave(together)
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
    words = states.new_zeros(*ids.shape, probe.out_features)
    words = words.scatter_(2, ids[..., None], 1.0).cumsum(1).clamp(max=1)
    return F.binary_cross_entropy_with_logits(probe(states), words, reduction="sum") / ids.numel()


class Training:
    """Networks, their averages and the optimiser, whose rate `by_the_clock` sets; written and read together."""

    def __init__(
        self, kind: Kind, folder: Path, device: torch.device, bfloat16: bool = False, compiled: bool = False
    ) -> None:
        self.kind, self.folder, self.device, self.bfloat16 = kind, folder, device, bfloat16
        self.state, self.tokenizer = folder / "training.pt", make_tokenizer()
        self.scheduler, self.vae = make_schedule(kind), make_autoencoder(kind.size) if kind.latent else None
        self.text = make_text(len(self.tokenizer), kind.text)
        self.unet = make_unet(kind).to(memory_format=torch.channels_last)
        if device.type == "cpu" and not kind.cameras:
            self.unet.set_attn_processor(AttnProcessor())  # a CPU's fused attention is slow backwards
        self.probe = nn.Linear(kind.text, len(self.tokenizer))
        for part in (self.text, self.unet, self.probe, *([self.vae] if self.vae else [])):
            part.to(device)
        self.denoise = torch.compile(self.unet) if compiled else self.unet
        self.weights = [*self.unet.parameters(), *self.text.parameters(), *self.probe.parameters()]
        self.optimiser = torch.optim.AdamW(self.weights, 0.0, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
        self.alphas = self.scheduler.alphas_cumprod.to(device)
        self.average, self.spent = Average([self.unet, self.text]), 0.0

    def tokens(self, captions: list[str]) -> Int[Tensor, "B L"]:
        told = dict(padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
        return self.tokenizer(captions, **told).input_ids.to(self.device)

    def seen(self, images: Float[Tensor, "B 3 s s"]) -> Float[Tensor, "B C h w"]:
        """What the UNet sees of pictures in [-1, 1]."""
        if self.vae is None:
            return F.pixel_unshuffle(images, self.kind.patch)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
            return self.vae.encode(images).latent_dist.mean.float() * self.vae.config.scaling_factor

    def step(self, images: Float[Tensor, "B 3 s s"], captions: list[str], cameras: Tensor | None = None) -> Tensor:
        """The weighted error of a batch, after which the weights have moved."""
        noisy, step, noise, weight = noised(self.seen(images), self.alphas, 1 if cameras is None else SET)
        ids = self.tokens(captions)
        states = self.text(ids).last_hidden_state
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            guess = self.denoise(noisy, step, states, class_labels=cameras, return_dict=False)[0].float()
        loss = (weight * (guess - noise).square().mean((1, 2, 3))).mean()
        self.optimiser.zero_grad(set_to_none=True)
        (loss + SAID * unsaid(self.probe, states, ids)).backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step()
        self.average.update()
        return loss.detach()

    def write(self) -> None:
        """The averaged weights as a prior, and what resuming needs."""
        unet, text = copy.deepcopy(self.unet), copy.deepcopy(self.text)
        self.average.install([unet, text])
        parts = {"unet": unet, "text_encoder": text, "scheduler": self.scheduler}
        save(self.folder, parts | ({"vae": copy.deepcopy(self.vae)} if self.vae else {}), self.tokenizer)
        weights = [weight.detach() for weight in self.weights]
        kept = {"weights": weights, "mean": self.average.mean, "averaged": self.average.step}
        kept |= {"optimiser": self.optimiser.state_dict(), "spent": self.spent}
        torch.save(kept, self.state.with_suffix(".new"))
        self.state.with_suffix(".new").replace(self.state)

    def begin(self, prior: Path) -> None:
        """With the weights of a prior that was written before; one for single views lacks the layers of cameras."""
        for part, folder in ((self.unet, "unet"), (self.text, "text_encoder")):
            known = type(part).from_pretrained(prior / folder).float().state_dict()
            missing = part.load_state_dict(known, strict=False).missing_keys
            if any(not key.startswith("class_embedding.") for key in missing):
                raise SystemExit(f"{prior} is of another kind: it has no {missing[0]}")
        if self.vae:
            self.vae = AutoencoderKL.from_pretrained(prior / "vae").float().to(self.device).requires_grad_(False)
        self.average = Average([self.unet, self.text])

    def read(self) -> None:
        """What `write` kept."""
        kept = torch.load(self.state, weights_only=True, map_location=self.device)
        if self.vae:
            self.vae = AutoencoderKL.from_pretrained(self.folder / "vae").float().to(self.device).requires_grad_(False)
        with torch.no_grad():
            for weight, value in zip(self.weights, kept["weights"], strict=True):
                weight.copy_(value)
        self.average.mean, self.average.step, self.spent = kept["mean"], kept["averaged"], kept["spent"]
        self.optimiser.load_state_dict(kept["optimiser"])


def save(folder: Path, parts: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> None:
    """In diffusers layout, half precision."""
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline" if "vae" in parts else "IFPipeline"}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            part.half()
        part.save_pretrained(folder / name)
        index[name] = ["transformers" if name == "text_encoder" else "diffusers", type(part).__name__]
    tokenizer.save_pretrained(folder / "tokenizer")
    index["tokenizer"] = ["transformers", type(tokenizer).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


def taught_with(training: Training, pool: Pool, batch: int, told: bool) -> tuple[Any, ...]:
    """A batch for `Training.step`."""
    return pool.sets(batch // SET) if training.kind.cameras else pool.batch(batch, told)


def teach(
    training: Training, pool: Pool, minutes: float, batch: int, rate: float, every: float, told: float
) -> Iterator[Tensor]:
    """Train for `minutes` in all, a share `told` of them with every view told, writing to the folder every `every`
    minutes; yields each step's loss.
    """
    saved = training.spent
    for gone in by_the_clock(minutes * 60, rate, training.optimiser, training.spent):
        yield training.step(*taught_with(training, pool, batch, gone < told * minutes * 60))
        training.spent = gone
        if training.spent - saved > every * 60:
            training.write()
            saved = training.spent
    training.write()


def train(args: argparse.Namespace, name: str, folder: Path, start: Path | None, pools: dict[bool, Pool]) -> None:
    """One kind; `pools` keeps what was painted for those before it, by whether it is in sets."""
    device, kind, begun = torch.device(args.device), KINDS[name], time.monotonic()
    batch = args.batch or (8 if device.type == "cpu" else 256)
    training = Training(kind, folder, device, args.bfloat16 or device.type == "cuda", args.compile)
    if start:
        training.begin(start)
    if args.resume:
        training.read()
    if kind.cameras not in pools:
        views = args.said, args.wrong
        pools[kind.cameras] = make_pool(kind, args.sets, args.pool, 1 + training.average.step, device, views)
    pool, minutes = pools[kind.cameras], args.minutes
    if args.compile:  # before the clock runs, at a rate of zero
        training.step(*taught_with(training, pool, batch, True))
    print(f"{name}, {args.pool} pictures of {args.sets * SET} views: {time.monotonic() - begun:.0f} s", flush=True)
    if training.vae and not (start or args.resume):
        train_autoencoder(training.vae, pool, batch, args.autoencoder * minutes * 60)
        minutes *= 1 - args.autoencoder
    mean, begun, first = torch.ones((), device=device), time.monotonic(), training.average.step
    for loss in teach(training, pool, minutes, batch, args.rate, args.every, args.told):
        mean, step = mean * 0.99 + loss * 0.01, training.average.step
        if step % 50 == 0:
            speed = (step - first) * batch / (time.monotonic() - begun)
            print(f"{step}: {float(mean):.4f}, {speed:.0f} pictures/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", choices=list(KINDS), metavar="kind", help=f"of {', '.join(KINDS)}")
    parser.add_argument("folder", type=Path, help="with several kinds, of a folder for each")
    parser.add_argument("--minutes", type=float, default=120, help="for each kind")
    parser.add_argument("--autoencoder", type=float, default=0.25, help="share of them for latent's autoencoder, first")
    parser.add_argument("--batch", type=int, help="pictures a step; 8 on a CPU, 256 on a GPU")
    parser.add_argument("--bfloat16", action="store_true", help="a third faster where a CPU has it; a GPU does always")
    parser.add_argument("--compile", action="store_true", help="the network first")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--every", type=float, default=2, help="minutes between two checkpoints")
    parser.add_argument("--sets", type=int, default=24, help="sets of four views rendered of each model")
    parser.add_argument("--pool", type=int, default=6144, help="pictures painted and lit beforehand")
    parser.add_argument("--told", type=float, default=0.7, help="share of the time in which every view is told")
    parser.add_argument(
        "--said", type=float, default=VIEWS_SAID, help="share of captions that tell the view, after that"
    )
    parser.add_argument("--wrong", type=float, default=VIEWS_WRONG, help="share of those that tell one at random")
    parser.add_argument("--start", type=Path, help="a prior to begin with; views after pixel begins with that")
    parser.add_argument("--resume", action="store_true", help="go on with what FOLDER has")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)  # two that wait for each other on a busy machine are slower than one
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    pools: dict[bool, Pool] = {}
    for number, name in enumerate(args.kinds):
        after_pixel = name == "views" and "pixel" in args.kinds[:number]
        start = args.folder / "pixel" if after_pixel else args.start
        train(args, name, args.folder / name if len(args.kinds) > 1 else args.folder, start, pools)


if __name__ == "__main__":
    main()
