"""Practice priors: small open-vocabulary diffusion models of Stable Diffusion's and DeepFloyd IF's own kind.

    python practice.py latent FOLDER      AutoencoderKL, UNet over its latents, CLIP text: Stable Diffusion's kind
    python practice.py pixel FOLDER       a UNet over 64 pixels: DeepFloyd IF's kind
    python practice.py views FOLDER --start LATENT   four views at once, told their cameras: MVDream's kind

They know twenty nouns and sixteen colours, from pictures of the built-in prior's models. Like their big brothers they
are told the view by words alone, sometimes and unreliably, and have seen fronts most often: second faces are to be
expected. Written in diffusers layout, so `magic3d generate "a red car" --prior FOLDER` runs the same code as with
`--prior sd15`. Training ends after `--minutes`; the rate falls to zero by the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float
from renders import SET, Model, Pictures, all_models, backdrops, draw, dress, lit, load_volume
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from magic3d_cli.guidance.builtin.paint import COLOURS
from magic3d_cli.guidance.conditioning import VIEW_WORDS
from magic3d_cli.scene.views import Views

NOUNS = (
    "chair", "sofa", "car", "house", "dragon", "dog", "horse", "cat", "airplane", "teapot", "acoustic guitar", "tree",
    "castle", "lamp", "teddy bear", "elephant", "boat", "helicopter", "dinosaur", "snowman",
)  # fmt: skip
STYLES = 3
"""Models of a noun, at most: with many behind one word, distillation finds their mean."""
TEMPLATES = (
    "a {}",
    "{}",
    "a photo of a {}",
    "a 3d model of a {}",
    "a dslr photo of a {}",
    "a render of a {}, 3d asset",
)
VIEWS_SAID, VIEWS_WRONG = 0.6, 0.1
"""How many captions tell the view, and how many of those tell a wrong one."""
FRONT = 55.0
"""Degrees: pictures are taken from azimuth a with a chance of 0.12 + exp(-(a / FRONT)^2)."""
CAPTIONLESS = 0.1
PIXELS, PICTURE, BUFFER = 64, 128, 128
"""Sides: of the pixel prior's pictures, of the latent prior's, and of the geometry buffers."""
TEXT_WIDTH, TEXT_LENGTH = 192, 16


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, small letters; commas are words."""
    said = " ".join((*TEMPLATES, *NOUNS, *COLOURS, *VIEW_WORDS)).replace("{}", " ").replace(",", " ")
    words = ["<pad>", "<s>", "</s>", "<unk>", ",", *sorted(set(said.split()))]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|,"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )  # fmt: skip


def make_text(vocabulary: int, width: int = TEXT_WIDTH) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=TEXT_LENGTH, projection_dim=width,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


def make_unet(kind: str) -> UNet2DConditionModel:
    """Eight million weights; attention at the two coarsest levels, 8 and 16 places a side."""
    plain = 2 if kind == "pixel" else 1  # levels without attention, the finest
    cameras = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}
    return UNet2DConditionModel(
        sample_size=PIXELS if kind == "pixel" else PICTURE // 4,
        in_channels=3 if kind == "pixel" else 4, out_channels=3 if kind == "pixel" else 4,
        block_out_channels=(64, 96, 128, 128) if kind == "pixel" else (80, 128, 144), layers_per_block=1,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * plain,
        cross_attention_dim=TEXT_WIDTH, attention_head_dim=4, norm_num_groups=16,
        **(cameras if kind == "views" else {}),
    )  # fmt: skip


def make_autoencoder() -> AutoencoderKL:
    """A quarter of the pixels' side, four channels."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 96), layers_per_block=1, latent_channels=4, norm_num_groups=16,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        sample_size=PICTURE, mid_block_add_attention=False, force_upcast=False,
    )  # fmt: skip


def make_schedule(kind: str) -> DDPMScheduler:
    """Stable Diffusion's betas for latents, IF's cosine for pixels."""
    if kind == "pixel":
        return DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def view_of(azimuth: float, elevation: float) -> int:
    """Which of VIEW_WORDS is true of a camera; radians."""
    if math.degrees(elevation) > 50:
        return 3
    turned = abs(math.degrees(math.atan2(math.sin(azimuth), math.cos(azimuth))))
    return 0 if turned < 45 else 1 if turned < 135 else 2


class Captioned:
    """Endless pictures with captions, as a web crawl would have them."""

    def __init__(
        self, pictures: Pictures, shown: list[Model], generator: torch.Generator, device: torch.device
    ) -> None:
        self.pictures, self.shown, self.generator, self.device = pictures, shown, generator, device
        self.nouns = sorted({model.caption.noun for model in shown})
        noun = torch.tensor([self.nouns.index(model.caption.noun) for model in shown])
        self.by_noun = 1 / torch.bincount(noun)[noun].float().to(device)
        turned = pictures.azimuths()
        self.by_view = 0.12 + torch.exp(-((turned / FRONT) ** 2))
        self.colours = list(COLOURS)
        self.chance = torch.Generator().manual_seed(generator.initial_seed())

    def batch(self, count: int, size: int) -> tuple[Float[Tensor, "B 3 s s"], list[str]]:
        """Single views, fronts most often, in [-1, 1]."""
        model = torch.multinomial(self.by_noun, count, True, generator=self.generator)
        view = torch.multinomial(self.by_view[model], 1, generator=self.generator)[:, 0]
        images, colour, views = self._dressed(model, view, size)
        told = (x.tolist() for x in (model, colour, views.azimuth, views.elevation))
        said = [self.caption(*row) for row in zip(*told, strict=True)]
        return images, said

    def sets(self, count: int, size: int) -> tuple[Float[Tensor, "B 3 s s"], list[str], Float[Tensor, "B 16"]]:
        """`count` sets of four views of one thing each, their captions without a view, and their cameras."""
        model = torch.multinomial(self.by_noun, count, True, generator=self.generator).repeat_interleave(SET)
        of_model = self.pictures.buffers.shape[1] // SET
        first = torch.randint(of_model, (count,), generator=self.generator, device=self.device) * SET
        view = first.repeat_interleave(SET) + torch.arange(SET, device=self.device).repeat(count)
        images, colour, views = self._dressed(model, view, size, together=SET)
        said = [self._words(m, c) for m, c in zip(model[::SET].tolist(), colour[::SET].tolist(), strict=True)]
        said = ["" if self._chance() < CAPTIONLESS else text for text in said]
        return images, [text for text in said for _ in range(SET)], cameras(views)

    def _dressed(self, model: Tensor, view: Tensor, size: int, together: int = 1) -> tuple[Tensor, Tensor, Views]:
        """Pictures whose colour, light and backdrop are the same for `together` consecutive ones."""
        buffers, views = self.pictures.pick(model, view)
        count = len(model) // together
        colour = torch.randint(-6, len(self.colours), (count,), generator=self.generator, device=self.device)
        colour = colour.clamp(min=-1).repeat_interleave(together)
        views = lit(views, (0.3, 0.6, 0.1), self.generator)
        if together > 1:  # as seen from the first of each set
            first = torch.arange(count, device=self.device).repeat_interleave(together) * together
            views = views.replace(light=views.light[first], ambient=views.ambient[first], shading=views.shading[first])
        rgb, opacity = dress(buffers, views, self.pictures.tones[model], colour, torch.full_like(colour, -1), size)
        behind = backdrops(count, size, self.generator, self.device).repeat_interleave(together, 0)
        return (opacity * rgb + (1 - opacity) * behind) * 2 - 1, colour, views

    def _chance(self) -> float:
        return float(torch.rand((), generator=self.chance))

    def _words(self, model: int, colour: int) -> str:
        noun = self.shown[model].caption.noun
        thing = f"{self.colours[colour]} {noun}" if colour >= 0 else noun
        return TEMPLATES[int(self._chance() * len(TEMPLATES))].format(thing)

    def caption(self, model: int, colour: int, azimuth: float, elevation: float, told: bool = False) -> str:
        """What is said of a picture; the view always and rightly if `told`, else as a web crawl would have it."""
        if self._chance() < CAPTIONLESS:
            return ""
        text = self._words(model, colour)
        if not told and self._chance() > VIEWS_SAID:
            return text
        words = VIEW_WORDS[view_of(azimuth, elevation)]
        if not told and self._chance() < VIEWS_WRONG:
            words = VIEW_WORDS[int(self._chance() * len(VIEW_WORDS))]
        return f"{text}, {words}"


def cameras(views: Views) -> Float[Tensor, "B 16"]:
    """Camera-to-world matrices as MVDream is told them (2308.16512): OpenGL cameras at a distance of 1.

    Columns are right, up, backward and position. Its world is Blender's, z up: our x, y, z are its x, z, -y.
    """
    right, up, forward = views.axes()
    columns = torch.stack([right, up, -forward, -forward], 2)
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], device=columns.device).expand(len(views), 4)
    return torch.cat([columns[:, 0], -columns[:, 2], columns[:, 1], last], 1)


class JointAttention(nn.Module):
    """Self-attention over the four views of a set together (MVDream, 2308.16512 section 3.1)."""

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **_: Any) -> Tensor:
        joined = hidden_states.unflatten(0, (-1, SET)).flatten(1, 2)
        heads = [
            layer(joined).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for layer in (attn.to_q, attn.to_k, attn.to_v)
        ]
        seen = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return attn.to_out[0](seen).unflatten(1, (SET, -1)).flatten(0, 1)


def join_views(unet: UNet2DConditionModel) -> None:
    """Have every self-attention see all four views of a set."""
    own = unet.attn_processors
    unet.set_attn_processor({n: JointAttention() if n.endswith("attn1.processor") else p for n, p in own.items()})


def by_the_clock(seconds: float, rate: float, optimiser: torch.optim.Optimizer, spent: float = 0.0) -> Iterator[int]:
    """Steps until the time is over; the rate rises over 100 steps and falls to zero with the cosine of the time.

    `spent` seconds of it went by before.
    """
    start, step = time.monotonic() - spent, 0
    while (share := (time.monotonic() - start) / seconds) < 1 or step < 2:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * min(share, 1)))
        yield step
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
    def install(self) -> None:
        for weight, mean in zip(self.weights, self.mean, strict=True):
            weight.copy_(mean)


def train_autoencoder(
    vae: AutoencoderKL, captioned: Captioned, count: int, seconds: float, device: torch.device
) -> None:
    """Absolute differences of pixels and of their gradients, and 1e-6 of the divergence from a unit Gaussian."""
    optimiser = torch.optim.AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    average = Average([vae])
    vae.train()
    for step in by_the_clock(seconds, 2e-3, optimiser):
        images, _ = captioned.batch(count, PICTURE)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(images.contiguous(memory_format=torch.channels_last)).latent_dist
            seen = vae.decode(posterior.sample()).sample
        seen = seen.float()
        edges = sum(F.l1_loss(seen.diff(dim=axis), images.diff(dim=axis)) for axis in (2, 3))
        loss = F.l1_loss(seen, images) + edges + 1e-6 * posterior.kl().mean()
        _descend(loss, optimiser, vae.parameters(), average)
        if step % 100 == 0:
            print(f"autoencoder {step}: {loss.item():.4f}", flush=True)
    average.install()
    vae.eval()
    with torch.no_grad():
        images, _ = captioned.batch(count, PICTURE)
        latents = vae.encode(images).latent_dist.mean
        error = F.mse_loss(vae.decode(latents).sample, images).item() / 4
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    print(f"autoencoder: {step + 1} steps of {count}; PSNR {-10 * math.log10(error):.1f} dB", flush=True)


def _descend(loss: Tensor, optimiser: Any, weights: Any, average: Average) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimiser.step()
    average.update()


def train_denoiser(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: PreTrainedTokenizerFast,
    batch: Callable[[], tuple[Tensor, list[str], Tensor | None]],
    schedule: DDPMScheduler,
    seconds: float,
    rate: float,
    device: torch.device,
) -> None:
    """Noise predicted from noisy x (DDPM, 2006.11239), together with the text encoder.

    `batch` returns x [B, C, h, w], captions and cameras [B, 16]; views of a set get one timestep.
    """
    weights = [*unet.parameters(), *text.parameters()]
    optimiser = torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=1e-2)
    average = Average([unet, text])
    alphas = schedule.alphas_cumprod.to(device)
    total = 0.0
    for step in by_the_clock(seconds, rate, optimiser):
        clean, captions, camera = batch()
        tokens = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
        together = SET if camera is not None else 1
        time_step = torch.randint(len(alphas), (len(clean) // together,), device=device).repeat_interleave(together)
        noise, level = torch.randn_like(clean), alphas[time_step][:, None, None, None]
        noisy = (level.sqrt() * clean + (1 - level).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            states = text(tokens.input_ids.to(device)).last_hidden_state
            guess = unet(noisy, time_step, states, class_labels=camera, return_dict=False)[0]
        loss = F.mse_loss(guess.float(), noise)
        _descend(loss, optimiser, weights, average)
        total = total * 0.99 + loss.detach() * 0.01
        if step % 200 == 0:
            print(f"denoiser {step}: {float(total) / (1 - 0.99 ** (step + 1)):.4f}", flush=True)
    average.install()
    print(
        f"denoiser: {step + 1} steps of {len(clean)}; error {float(total) / (1 - 0.99 ** (step + 1)):.4f}", flush=True
    )


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["latent", "pixel", "views"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=Path, help="a latent practice prior that views goes on from")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=32, help="pictures a step")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--sets", type=int, default=64, help="sets of four views rendered of each model")
    parser.add_argument("--nouns", type=int, default=len(NOUNS), help="only the first few")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    shown = [model for noun in NOUNS[: args.nouns] for model in all_models() if model.caption.noun == noun]
    shown = [m for m in shown if sum(o.caption.noun == m.caption.noun and o.number < m.number for o in shown) < STYLES]
    begun = time.monotonic()
    pictures = draw(load_volume(device), shown, args.sets, BUFFER)
    captioned = Captioned(pictures, shown, torch.Generator(device).manual_seed(1), device)
    print(f"{len(shown)} models, {args.sets * SET} views each: {time.monotonic() - begun:.0f} s", flush=True)
    train(args, captioned, device)


def train(args: argparse.Namespace, captioned: Captioned, device: torch.device) -> None:
    tokenizer, schedule, seconds = make_tokenizer(), make_schedule(args.kind), args.minutes * 60
    text = make_text(len(tokenizer)).to(device)
    unet = make_unet(args.kind).to(device, memory_format=torch.channels_last)
    parts: dict[str, Any] = {"unet": unet, "text_encoder": text, "scheduler": schedule}
    if args.kind != "pixel":
        vae = make_autoencoder().to(device, memory_format=torch.channels_last)
        if args.start:
            vae = AutoencoderKL.from_pretrained(args.start / "vae").to(device, torch.float32)
            text.load_state_dict(CLIPTextModel.from_pretrained(args.start / "text_encoder").float().state_dict())
            known = UNet2DConditionModel.from_pretrained(args.start / "unet").float().state_dict()
            unet.load_state_dict(known, strict=False)
        else:
            train_autoencoder(vae, captioned, max(args.batch // 3, 1), seconds / 4, device)
            seconds *= 3 / 4
        vae.requires_grad_(False)
        parts["vae"] = vae

    def latents(images: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            return vae.encode(images).latent_dist.mean.float() * vae.config.scaling_factor

    def batch() -> tuple[Tensor, list[str], Tensor | None]:
        if args.kind == "views":
            images, captions, camera = captioned.sets(max(args.batch // SET, 1), PICTURE)
            return latents(images), captions, camera
        images, captions = captioned.batch(args.batch, PIXELS if args.kind == "pixel" else PICTURE)
        return (images if args.kind == "pixel" else latents(images)), captions, None

    if args.kind == "views":
        join_views(unet)
    train_denoiser(unet, text, tokenizer, batch, schedule, seconds, args.rate, device)
    save(args.folder, parts, tokenizer)


if __name__ == "__main__":
    main()
