"""The image encoder names the built-in prior's own models at a glance, and saves comparing all of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.guidance.builtin import looks as looking
from magic3d_cli.guidance.builtin.encoder import GLANCE, glanced, likely_models
from magic3d_cli.guidance.builtin.looks import Looks
from magic3d_cli.guidance.builtin.vocabulary import Caption, Vocabulary
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.scene.views import turntable

NOUNS = ("giraffe", "motorcycle", "piano", "palm tree", "snowman", "airplane")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(BUILTIN / "vocabulary.json")


@pytest.fixture(scope="module")
def pictures(vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """What the first model of some nouns looks like from the right of its front, by its own word."""
    prior = DiffusersPrior(describe(of_stage(BUILTIN, "coarse"), "builtin"), torch.device("cpu"), torch.float32)
    volume, seen = prior.volume, {}
    assert volume is not None
    known = likely_models(BUILTIN, np.full((8, 8, 4), 255, np.uint8))
    for noun in NOUNS:
        style = next(style for style in vocabulary.styles[noun] if style in known)
        text = condition(prior, Caption(noun, style=style)).states
        with torch.no_grad():
            maps = volume.render(volume.imagine(text), turntable(1, 15.0, 30.0), 128)[0]
        layers = torch.cat([maps[4:7] / maps[:1].clamp(min=0.05), maps[:1]]).clamp(0, 1)
        seen[style] = (layers.movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    return seen


def test_the_priors_own_models_are_among_the_likeliest(pictures: dict[str, np.ndarray]) -> None:
    ranks = []
    for style, picture in pictures.items():
        likely = likely_models(BUILTIN, picture)
        ranks.append(sum(chance > likely[style] for chance in likely.values()))
        assert np.exp(list(likely.values())).sum() == pytest.approx(1, abs=1e-3)
    assert max(ranks) < 30 and sum(rank < 5 for rank in ranks) >= 4, ranks  # of more than nine hundred


def test_the_encoder_knows_models_of_the_prior_and_most_of_them(vocabulary: Vocabulary) -> None:
    known = set(likely_models(BUILTIN, np.full((8, 8, 4), 255, np.uint8)))
    named = {style for styles in vocabulary.styles.values() for style in styles}
    assert known <= named and len(known) > 0.7 * len(named)  # others, learned since, are compared by their looks


def test_where_a_thing_stands_in_a_picture_and_how_large_it_is_does_not_matter() -> None:
    thing = torch.rand(1, 3, 40, 20, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 2)
    small = torch.zeros(1, 4, 200, 160)
    small[:, :3, 30:110, 100:120], small[:, 3, 30:110, 100:120] = thing, 1
    alone = torch.cat([thing, torch.ones(1, 1, 80, 20)], 1)
    large = torch.nn.functional.interpolate(alone, scale_factor=4, mode="nearest")
    seen = [glanced(picture[:, :3], picture[:, 3:]) for picture in (small, alone, large)]
    assert all(picture.shape == (1, 4, GLANCE, GLANCE) for picture in seen)
    for picture in seen[1:]:
        assert (picture - seen[0]).abs().mean() < 0.05
    assert seen[0][0, 3, :, 32].min() > 0.9  # as high as the square
    assert (seen[0][0, 3, 32] > 0).sum() == pytest.approx(GLANCE / 4, abs=1)


def test_the_least_likely_models_are_not_compared(
    vocabulary: Vocabulary, pictures: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, (style, picture) = Looks.load(BUILTIN, vocabulary), next(iter(pictures.items()))
    monkeypatch.setattr(looking, "_LIKELY", 3)
    words = [caption.style or "" for caption in looks.captions]
    others = [word for word in words if word != style][:3]
    found = looks.like(picture, 10, likely={word: -1.0 if word in others else -30.0 for word in words})
    assert {one.caption.style for one in found} == set(others)
    # A model that the encoder was never shown is as likely as any.
    found = looks.like(picture, 10, likely={word: -30.0 for word in words if word != style})
    assert found[0].caption.style == style


def test_an_encoder_that_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    picture = np.full((8, 8, 4), 255, np.uint8)
    with pytest.raises(EnvironmentFault, match=r"image encoder .* cannot be read"):
        likely_models(tmp_path, picture)
    shutil.copytree(BUILTIN / "encoder", tmp_path / "cut" / "encoder")
    weights = next((tmp_path / "cut" / "encoder").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EnvironmentFault, match=r"image encoder .* cannot be read"):
        likely_models(tmp_path / "cut", picture)
