"""An asset has the size that is asked for, or that such a thing usually has."""

from __future__ import annotations

import json

import numpy as np
import pytest
from asset_shapes import bumpy_torus, colours

from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.size import _sizes, usual_size
from magic3d_cli.checks import check_sizes
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.settings import AssetSettings


@pytest.mark.parametrize(
    ("prompt", "size"),
    [
        ("a mug", ("mug", 0.1)),
        ("a red car", ("car", 4.5)),
        ("A Big Teddy Bear", ("teddy bear", 0.28)),  # no bear
        ("a cat with a hat", ("cat", 0.45)),
        ("a statue of a lion", ("lion", 1.8)),
        ("a house of cards", ("house", 8.0)),
        ("two boxes", ("box", 0.4)),
        ("galoshes", None),
        ("", None),
    ],
)
def test_the_thing_that_the_prompt_names_has_its_usual_size(prompt, size):
    assert usual_size(prompt) == size


def test_every_thing_that_the_built_in_prior_knows_has_a_size():
    nouns = json.loads((BUILTIN / "vocabulary.json").read_text())["nouns"]
    assert not [noun for noun in nouns if usual_size(f"a {noun}") is None]
    assert all(0.01 <= metres <= 1000 for metres in _sizes().values())


def test_things_of_one_scene_suit_each_other():
    order = ["ring", "mug", "cat", "man", "horse", "car", "house", "castle", "pyramid"]
    sizes = [_sizes()[name] for name in order]
    assert sizes == sorted(sizes)


@pytest.fixture(scope="module")
def ring():
    vertices, faces = bumpy_torus(12)

    def build(usual=None, **settings):
        return build_asset(vertices, faces, colours, AssetSettings(faces=600, texture_size=64, **settings), usual=usual)

    return build


def test_the_height_that_is_asked_for_is_the_height_above_the_ground(ring):
    asset = ring(height=1.8, usual=("car", 4.5))
    low, high = asset.positions.min(0), asset.positions.max(0)
    assert low[1] == 0 and high[1] == pytest.approx(1.8, abs=1e-5)
    np.testing.assert_allclose((low + high)[[0, 2]], 0, atol=1e-5)  # the pivot is under the middle
    assert asset.report["size"]["from"] == "height" and asset.report["size"]["metres"][1] == 1.8


def test_the_usual_size_is_that_of_the_longest_side_and_keeps_the_proportions(ring):
    kept, usual = ring(), ring(usual=("car", 4.5))
    assert max(np.ptp(usual.positions, axis=0)) == pytest.approx(4.5, abs=1e-5)
    ratio = np.ptp(usual.positions, axis=0) / np.ptp(kept.positions, axis=0)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert usual.report["size"]["of"] == "car" and kept.report["size"]["from"] == "kept"
    np.testing.assert_array_equal(usual.texture, kept.texture)


@pytest.mark.parametrize("height", [0.0, -1.0, float("nan"), float("inf")])
def test_a_height_that_nothing_has_is_refused(height):
    with pytest.raises(UsageError, match="--height"):
        check_sizes(None, None, height)
