"""Mixtures of two known things: proportions, surfaces and colours between them, named by both their words."""

from __future__ import annotations

import pytest
import torch

from magic3d_cli.guidance.builtin.mixture import mixture
from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.builtin.voxels import FULL
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

SIDE = 32
RED, BLUE = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.8])
LUMA = torch.tensor([0.299, 0.587, 0.114])


def block(y: tuple[int, int], x: tuple[int, int], z: tuple[int, int], colour: torch.Tensor = RED) -> torch.Tensor:
    """A filled block; its uppermost layer is white, as a label that is not of the body."""
    volume = torch.zeros(SIDE, SIDE, SIDE, 7)
    volume[..., 0] = -FULL
    volume[slice(*y), slice(*x), slice(*z), 0] = FULL
    volume[..., 4:] = colour
    volume[y[1] - 1 :, ..., 4:] = 1.0
    return volume


def tones(colour: torch.Tensor) -> torch.Tensor:
    """Of a body of one colour: what is near it is painted, white is not."""
    luma = float(colour @ LUMA)
    return torch.tensor([luma, luma / 2, float(colour[0]) - luma, float(colour[2]) - luma, 0.1, 0.2])


def sides(volume: torch.Tensor) -> list[int]:
    places = (volume[..., 0] > 0).nonzero()
    return (places.max(0).values - places.min(0).values + 1).tolist()


def test_proportions_are_half_way_and_nothing_grows_beyond_the_first():
    mixed = mixture(block((4, 28), (12, 20), (12, 20)), block((12, 20), (12, 20), (12, 20)))
    high, wide, deep = sides(mixed)
    assert 13 <= high <= 18 and wide == deep and 8 <= wide <= 9  # (24, 8, 8) towards (8, 8, 8)
    large = mixture(block((12, 20), (12, 20), (12, 20)), block((2, 30), (2, 30), (2, 30)))
    assert max(sides(large)) <= 9


def test_where_two_fill_the_same_space_the_surface_is_between_them():
    ball, cube = block((8, 24), (8, 24), (8, 24)), block((8, 24), (8, 24), (8, 24))
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIDE) - 15.5] * 3, indexing="ij"))
    ball[..., 0] = torch.where(grid.norm(dim=0) < 9.5, ball[..., 0], -FULL)
    counts = [int((volume[..., 0] > 0).sum()) for volume in (ball, mixture(ball, cube), cube)]
    assert counts[0] * 1.05 < counts[1] < counts[2] * 0.95


def test_where_they_do_not_the_first_keeps_its_parts():
    legs, plate = block((4, 28), (4, 6), (4, 28)), block((4, 28), (4, 28), (26, 28))
    legs[4:28, 26:28, 4:28, 0] = FULL
    plate[4:28, 4:6, 26:28, 0] = plate[4:6, 4:28, 4:28, 0] = FULL
    mixed = mixture(legs, plate)
    assert int((mixed[..., 0] > 0).sum()) == pytest.approx(int((legs[..., 0] > 0).sum()), rel=0.1)


def test_the_body_takes_the_other_s_colour_and_the_rest_keeps_its_own():
    first, second = block((8, 24), (8, 24), (8, 24)), block((8, 24), (8, 24), (8, 24), BLUE)
    mixed = mixture(first, second, (tones(RED), tones(BLUE)))
    torch.testing.assert_close(mixed[12, 16, 16, 4:], BLUE, atol=0.05, rtol=0)
    torch.testing.assert_close(mixed[23, 16, 16, 4:], torch.ones(3), atol=0.05, rtol=0)
    torch.testing.assert_close(mixture(first, second)[12, 16, 16, 4:], RED, atol=0.02, rtol=0)


def test_seeds_go_through_what_is_known_first_and_then_through_mixtures():
    known = Vocabulary.load(BUILTIN / "vocabulary.json")
    styles = known.styles["car"]
    count = len(styles)
    captions = [known.caption("car", seed=seed).style or "" for seed in range(count * count)]
    assert tuple(captions[:count]) == styles
    mixtures = {tuple(caption.split()) for caption in captions[count:]}
    assert len(mixtures) == count * (count - 1) and all(a != b and {a, b} <= set(styles) for a, b in mixtures)
    assert known.caption("car", seed=count * count).style == styles[0]
    assert "mixture of two" in understand(known, "a car", count).notes[0]
    assert "mixture" not in understand(known, "a car", count - 1).notes[0]
    single = next(noun for noun, names in known.styles.items() if len(names) == 1)
    assert {known.caption(single, seed=seed).style for seed in range(5)} == {known.styles[single][0]}
