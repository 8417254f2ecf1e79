"""Which of a thing's own colours are its body's: those that a colour in a caption goes onto."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from magic3d_cli.guidance.builtin.paint import LUMA, Tones

SPREAD, REACH = 0.08, 0.4
"""Colours as close as SPREAD are one; the body has none further away than REACH, unless all of it is painted."""
BODY, EDGE = 0.22, 0.09
"""Least share of what is seen that is a body, and largest share that may lie at the edge of its colours."""


def find_tones(colours: Float[np.ndarray, "N 3"], seed: int = 0) -> Tones:
    """The tones of a model from the colours of many points that are seen of it.

    The body is the most common colour, with some preference for vivid and light ones, and all that is closer to it than
    the first gap. Where no gap is found, as in most textures, everything is body.
    """
    chosen = colours[np.random.default_rng(seed).integers(len(colours), size=4000)]
    light = chosen @ np.array(LUMA)
    space = np.stack([light / 2, chosen[:, 0] - light, chosen[:, 2] - light], 1)
    tried = space[:250]
    apart = np.linalg.norm(space - tried[:, None], axis=-1)
    taste = 0.3 + tried[:, 0] + 1.5 * np.linalg.norm(tried[:, 1:], axis=1)
    best = (np.exp(-((apart / SPREAD) ** 2)).mean(1) * taste).argmax()
    body = space[apart[best] < SPREAD].mean(0)
    apart = np.sort(np.linalg.norm(space - body, axis=1))
    near = far = 10.0
    for start in np.arange(SPREAD, REACH, 0.01):
        inside, edge = np.searchsorted(apart, (start, start + 0.1)) / len(apart)
        if inside > BODY and edge - inside < EDGE:
            end = apart[min(int((inside + EDGE) * len(apart)), len(apart) - 1)]
            far = min(max(end, start + 0.1), start + 0.35)
            near = (start + far) / 2  # what is mixed at an edge, by pixels or by blur, is rather painted
            break
    return Tones(
        max(float(light.mean()), 0.04), float(body[0]), float(body[1]), float(body[2]), float(near), float(far)
    )
