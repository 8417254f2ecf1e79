"""What practice priors are taught: pictures of the built-in prior's models, captioned as a web crawl would have them.

A picture is painted and lit once and kept as bytes; backdrop, size, mirror image and caption are new in every batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from renders import SET, Model, Pictures, all_models, backdrops, dress, lit
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from magic3d_cli.guidance.builtin.paint import COLOURS
from magic3d_cli.guidance.conditioning import VIEW_WORDS
from magic3d_cli.scene.views import Views

NOUNS = (
    "chair", "sofa", "car", "house", "dragon", "dog", "horse", "cat", "airplane", "teapot", "acoustic guitar", "tree",
    "castle", "lamp", "teddy bear", "elephant", "boat", "helicopter", "dinosaur", "snowman",
)  # fmt: skip
"""Every noun that a practice prior may be taught; its tokenizer knows them all."""
TEMPLATES = (
    "a {}",
    "{}",
    "a photo of a {}",
    "a 3d model of a {}",
    "a dslr photo of a {}",
    "a render of a {}, 3d asset",
)
VIEWS_SAID, VIEWS_WRONG = 0.6, 0.1
"""How many captions tell the view, and how many of those tell one at random, unless told otherwise."""
FRONT = 55.0
"""Degrees: pictures are taken from azimuth a with a chance of 0.12 + exp(-(a / FRONT)^2)."""
CAPTIONLESS = 0.1
OWN_COLOUR = 0.15
"""Share of the pictures that show the model's own colours, and are said without one."""
TEXT_LENGTH = 16
_AT_ONCE = 128
"""Pictures that are painted together."""


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


def view_of(azimuth: float, elevation: float) -> int:
    """Which of VIEW_WORDS is true of a camera; radians."""
    if math.degrees(elevation) > 50:
        return 3
    turned = abs(math.degrees(math.atan2(math.sin(azimuth), math.cos(azimuth))))
    return 0 if turned < 45 else 1 if turned < 135 else 2


def taught_models(nouns: tuple[str, ...], styles: int) -> list[Model]:
    """The first `styles` models of every noun: with many behind one word, distillation finds their mean."""
    known = all_models()
    return [model for noun in nouns for model in [m for m in known if m.caption.noun == noun][:styles]]


class Captions:
    """What is said of a picture, drawn with a random generator of its own.

    Args:
        views_said, views_wrong: how many tell the view, and how many of those tell one at random.
    """

    def __init__(
        self, shown: list[Model], seed: int, views_said: float = VIEWS_SAID, views_wrong: float = VIEWS_WRONG
    ) -> None:
        self.shown, self.colours, self.said, self.wrong = shown, list(COLOURS), views_said, views_wrong
        self.chance = torch.Generator().manual_seed(seed)

    def __call__(self, model: int, colour: int, azimuth: float, elevation: float, told: bool | None = False) -> str:
        """Of the model of this number in this colour (-1: its own) from this side, in radians.

        The view is told always and rightly if `told`, never if it is None, else as a web crawl would have it.
        """
        if self._random() < CAPTIONLESS:
            return ""
        noun = self.shown[model].caption.noun
        thing = f"{self.colours[colour]} {noun}" if colour >= 0 else noun
        text = TEMPLATES[int(self._random() * len(TEMPLATES))].format(thing)
        if told is None or (not told and self._random() > self.said):
            return text
        words = VIEW_WORDS[view_of(azimuth, elevation)]
        if not told and self._random() < self.wrong:
            words = VIEW_WORDS[int(self._random() * len(VIEW_WORDS))]
        return f"{text}, {words}"

    def _random(self) -> float:
        return float(torch.rand((), generator=self.chance))


class Pool:
    """`count` pictures of `size` pixels that were painted and lit once, and what they show.

    Args:
        captions: of the models that `pictures` shows.
        paints: indices of COLOURS, as frequent as each other.
        zoom: the range by which things are made larger, on top of what their cameras do.
        together: 1, or SET: then `SET` consecutive pictures show one thing from the four sides of a set.

    Attributes:
        rgb, opacity: bytes; colours are straight, not multiplied by the coverage.
        told: the model, its colour (-1: its own), azimuth and elevation of each.
        views: their cameras and lights.
        fronts: how often each is taken where fronts are most frequent.
    """

    def __init__(
        self,
        pictures: Pictures,
        captions: Captions,
        count: int,
        size: int,
        paints: list[int],
        zoom: tuple[float, float],
        seed: int,
        together: int = 1,
    ) -> None:
        self.device = pictures.buffers.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.captions, self.zoom, self.together = captions, zoom, together
        by_view = 0.12 + torch.exp(-((pictures.azimuths() / FRONT) ** 2))
        rgb, opacity, fronts, seen_from = [], [], [], []
        self.told: list[tuple[int, int, float, float]] = []
        for begin in range(0, count, _AT_ONCE):
            n = min(_AT_ONCE, count - begin) // together
            model, view = self._chosen(pictures, n)
            buffers, views = pictures.pick(model, view)
            own = self._uniform(n) < OWN_COLOUR
            named = torch.tensor(paints, device=self.device)[self._whole(len(paints), n)]
            colour = torch.where(own, -1, named).repeat_interleave(together)
            views = self._lit(views)
            tones = pictures.tones[model]
            seen, cover = dress(buffers, views, tones, colour, torch.full_like(colour, -1), size)
            fronts.append(by_view[model, view])
            seen_from.append(views)
            rgb.append((seen.clamp(0, 1) * 255).round().to(torch.uint8))
            opacity.append((cover * 255).round().to(torch.uint8))
            said = (x.tolist() for x in (model, colour, views.azimuth, views.elevation))
            self.told += list(zip(*said, strict=True))
        self.rgb: UInt8[Tensor, "N 3 s s"] = torch.cat(rgb)
        self.opacity: UInt8[Tensor, "N 1 s s"] = torch.cat(opacity)
        self.fronts: Float[Tensor, "N"] = torch.cat(fronts)
        self.views = Views.concatenate(seen_from)

    def batch(self, count: int, told: bool = False) -> tuple[Float[Tensor, "B 3 s s"], list[str]]:
        """Pictures in [-1, 1] before plain or blended backdrops, half of them mirrored; and captions.

        If `told`, all sides are as frequent and each caption tells its own.
        """
        often = torch.ones_like(self.fronts) if told else self.fronts
        chosen = torch.multinomial(often, count, True, generator=self.generator)
        images = self._shown(chosen)
        mirrored = (self._uniform(count) < 0.5).view(-1, 1, 1, 1)
        said = [self.captions(*self.told[number], told) for number in chosen.tolist()]
        return torch.where(mirrored, images.flip(3), images), said

    def sets(self, count: int) -> tuple[Float[Tensor, "B 3 s s"], list[str], Float[Tensor, "B 16"]]:
        """`count` sets of four views of one thing each, their captions without a view, and their cameras."""
        chosen = self._sets_of(len(self.told), count)
        said = [self.captions(*self.told[number], None) for number in chosen[::SET].tolist()]
        told = [text for text in said for _ in range(SET)]
        return self._shown(chosen), told, self.views[chosen].camera_matrix()

    def _chosen(self, pictures: Pictures, count: int) -> tuple[Tensor, Tensor]:
        """Models, nouns as frequent as each other, and views of them; or all views of a set of each."""
        shown = self.captions.shown
        nouns = sorted({model.caption.noun for model in shown})
        noun = torch.tensor([nouns.index(model.caption.noun) for model in shown], device=self.device)
        model = torch.multinomial(1 / torch.bincount(noun)[noun].float(), count, True, generator=self.generator)
        if self.together == 1:
            return model, self._whole(pictures.buffers.shape[1], count)
        return model.repeat_interleave(SET), self._sets_of(pictures.buffers.shape[1], count)

    def _lit(self, views: Views) -> Views:
        """Under new lights; a set's are those of its first view."""
        views = lit(views, (0.45, 0.45, 0.1), self.generator)
        first = torch.arange(len(views), device=self.device) // self.together * self.together
        return views.replace(light=views.light[first], ambient=views.ambient[first], shading=views.shading[first])

    def _shown(self, chosen: Tensor) -> Float[Tensor, "B 3 s s"]:
        """Pictures in [-1, 1]; size and backdrop are one for those of a set."""
        count, cover = len(chosen) // self.together, self.opacity[chosen] / 255
        low, high = self.zoom
        zoom = (low + (high - low) * self._uniform(count)).repeat_interleave(self.together)
        turn = torch.eye(2, 3, device=self.device) / zoom.view(-1, 1, 1)
        grid = F.affine_grid(turn, [len(chosen), 4, *cover.shape[2:]], align_corners=False)
        seen = F.grid_sample(torch.cat([self.rgb[chosen] / 255 * cover, cover], 1), grid, align_corners=False)
        behind = backdrops(count, cover.shape[-1], self.generator, self.device).repeat_interleave(self.together, 0)
        return (seen[:, :3] + (1 - seen[:, 3:]) * behind) * 2 - 1

    def _sets_of(self, views: int, count: int) -> Tensor:
        """The views of `count` sets, drawn from as many sets as so many views make."""
        first = self._whole(views // SET, count) * SET
        return first.repeat_interleave(SET) + torch.arange(SET, device=self.device).repeat(count)

    def _uniform(self, count: int) -> Float[Tensor, "N"]:
        return torch.rand(count, generator=self.generator, device=self.device)

    def _whole(self, below: int, count: int) -> Tensor:
        return torch.randint(below, (count,), generator=self.generator, device=self.device)
