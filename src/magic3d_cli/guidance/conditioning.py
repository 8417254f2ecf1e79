"""What a prior is told for each view: a caption, or a prompt with the view said in words.

A prior trained with cameras gets `Views.camera_embedding` and one caption. Any other prior is told the view by its
prompt (DreamFusion section 3.2), the text states of neighbouring views interpolated by angle, so that the
target does not jump where "front view" becomes "side view". Where the words alone do not keep a second face off the
back, Perp-Neg (arXiv 2304.04968) also tells it which views it is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.builtin.vocabulary import Caption, Vocabulary
from magic3d_cli.guidance.diffusion import Prior
from magic3d_cli.scene.reference import Camera
from magic3d_cli.scene.views import Views

VIEW_WORDS = ("front view", "side view", "back view", "overhead view")
SHUNNED = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear, cropped, "
    "lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed, dehydrated, "
    "bad proportions"
)
"""In place of the empty prompt for priors that are shown sets of views [MVDream, mvdream-sd21-shading.yaml]."""
OVERHEAD = 60.0
"""Degrees of elevation above which a view counts as seen from overhead [threestudio]."""
OVERHEAD_BLEND = 10.0  # degrees on either side over which it fades in


@dataclass(frozen=True)
class Conditioning:
    """Encoded text of one prompt; one row of `states` for every entry of `VIEW_WORDS`, or a single row."""

    states: Float[Tensor, "K L D"]
    unconditional: Float[Tensor, "1 L D"]
    plain: Float[Tensor, "1 L D"] | None = None  # the prompt without words for the view, where that is asked for
    unshown: Float[Tensor, "1 n D"] | None = None  # of no picture, where the states end in as many tokens of one

    def text(self, views: Views) -> Float[Tensor, "B L D"]:
        """The states for each view."""
        if len(self.states) == 1:
            return self.states.expand(len(views), -1, -1)
        weights = view_weights(views).to(self.states)
        return torch.einsum("bk,kld->bld", weights, self.states)

    def without(self, views: Views) -> Float[Tensor, "B L D"]:
        """The unconditional states, one for each view."""
        return self.unconditional.expand(len(views), -1, -1)

    def words_alone(self, views: Views) -> Float[Tensor, "B L D"] | None:
        """The states for each view without the picture; None where there is none."""
        return None if self.unshown is None else self._without_picture(self.text(views))

    def _without_picture(self, states: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        if self.unshown is None:
            return states
        nothing = self.unshown.to(states).expand(len(states), -1, -1)
        return torch.cat([states[:, : -nothing.shape[1]], nothing], 1)

    def negatives(self, views: Views) -> list[tuple[Float[Tensor, "B L D"], Float[Tensor, "B"]]]:
        """States and weights of the views that each is not, the front and the side; none with a single caption.

        In words alone: with the picture they would be told apart from the prompt by it too.
        """
        if len(self.states) == 1:
            return []
        states = (self._without_picture(state[None]).expand(len(views), -1, -1) for state in self.states[:2])
        return list(zip(states, negative_weights(views).unbind(-1), strict=True))


@dataclass(frozen=True)
class PictureConditioning:
    """What a prior of Zero-1-to-3's kind is told: a picture, and how the camera is turned from where that was taken.

    Attributes:
        embedding: of the picture, by CLIP's image encoder.
        camera: of the picture.
        projection: from the embedding and four numbers of the camera to the width of the text states.
        absolute: the fourth number is the picture's own angle from straight above (Stable Zero123), not a change of
            distance, which there is none of here.
    """

    embedding: Float[Tensor, "1 E"]
    camera: Camera
    projection: nn.Linear
    absolute: bool = False

    @torch.no_grad()
    def text(self, views: Views) -> Float[Tensor, "B 1 D"]:
        """One token for each view."""
        camera = relative_camera(views, self.camera, self.absolute).to(self.embedding)
        return self.projection(torch.cat([self.embedding.expand(len(views), -1), camera], 1))[:, None]

    def without(self, views: Views) -> Float[Tensor, "B 1 D"]:
        """A token of zeros, after the projection: as all of the authors' inference does, though not their training."""
        return self.embedding.new_zeros(len(views), 1, self.projection.out_features)

    def words_alone(self, views: Views) -> None:
        """None: there are no words."""

    def negatives(self, views: Views) -> list[tuple[Float[Tensor, "B L D"], Float[Tensor, "B"]]]:
        """None: it is told the camera."""
        return []


def relative_camera(views: Views, picture: Camera, absolute: bool = False) -> Float[Tensor, "B 4"]:
    """How views are turned from a picture, as Zero-1-to-3 is told (2303.11328, section 3.1; its code's get_T).

    The change of the angle from straight above, sine and cosine of the change of azimuth (positive: the camera goes to
    its own right), and the change of distance, 0; or if `absolute` the picture's own angle from straight above.
    """
    drop = math.radians(picture.elevation) - views.elevation
    turn = views.azimuth - math.radians(picture.azimuth)
    last = math.radians(90 - picture.elevation) if absolute else 0.0
    return torch.stack([drop, torch.sin(turn), torch.cos(turn), torch.full_like(turn, last)], 1)


def read_prompt(prior: Prior, prompt: str, seed: int = 0, vocabulary: Vocabulary | None = None) -> Caption | str:
    """What the prior will be asked for: a caption in its own words, or the prompt itself if it takes any.

    `vocabulary` is the prior's with what adapters add to it, where there are some.
    Raises UsageError for an empty prompt, or one in which the prior can draw nothing.
    """
    if prior.vocabulary is not None:
        return understand(vocabulary or prior.vocabulary, prompt, seed).caption
    if not prompt.strip():
        raise UsageError("The prompt is empty.", 'Say what to make: magic3d generate "a metal dragon".')
    return prompt.strip()


def condition(prior: Prior, prompt: Caption | str, plain: bool = False) -> Conditioning:
    """Encode a prompt, then free the prior's text encoder; `plain` asks for it without words for the view too."""
    text = prompt.text if isinstance(prompt, Caption) else prompt
    prompts = [text] if prior.camera_conditioned else [f"{text}, {words}" for words in VIEW_WORDS]
    states = prior.encode_prompt([*prompts, SHUNNED if prior.set_size > 1 else ""])
    alone = prior.encode_prompt([text]) if plain else None
    prior.release_text_encoder()
    return Conditioning(states[:-1], states[-1:], alone)


def view_weights(views: Views) -> Float[Tensor, "B 4"]:
    """Share of each of `VIEW_WORDS` in every view; rows sum to 1.

    Linear in azimuth between front (0 degrees), side (90) and back (180), so that front leads within 45
    degrees and back beyond 135; overhead fades in about 60 degrees of elevation.
    """
    turned, overhead = _turned(views), _overhead(views)
    front, back = (1 - turned).clamp(min=0), (turned - 1).clamp(min=0)
    level = torch.stack([front, 1 - front - back, back], -1) * (1 - overhead)[:, None]
    return torch.cat([level, overhead[:, None]], -1)


def negative_weights(views: Views) -> Float[Tensor, "B 2"]:
    """How much each view is told that it is not the front, and not the side.

    Decays a exp(-r / 2) + c in the angle r [Perp-Neg, arXiv 2304.04968; numbers of threestudio], continuous: the front,
    which priors have seen most, weighs 0 in front, 1.57 at the side and 1.97 at the back; the side 1.57, 0 and 0.39.
    Seen from overhead neither has a say.
    """
    turned = _turned(views)
    near = torch.exp(turned / 2 - 0.5), torch.exp(-turned / 2)  # the front half: distances 1 - turned, turned
    far = torch.exp(turned / 2 - 1)  # the back half: distance 2 - turned
    front = torch.where(turned < 1, 4 * near[0] - 2.4261, far + 0.9673)
    side = torch.where(turned < 1, 4 * near[1] - 2.4261, far - 0.6065)
    return torch.stack([front, side], -1) * (1 - _overhead(views))[:, None]


def _turned(views: Views) -> Float[Tensor, "B"]:
    """Azimuth from the front in right angles, either way round: 0 front, 1 side, 2 back."""
    return torch.rad2deg(torch.atan2(torch.sin(views.azimuth), torch.cos(views.azimuth)).abs()) / 90


def _overhead(views: Views) -> Float[Tensor, "B"]:
    """Share of "overhead view"."""
    elevation = views.elevation * (180 / math.pi)
    return ((elevation - OVERHEAD) / (2 * OVERHEAD_BLEND) + 0.5).clamp(0, 1)
