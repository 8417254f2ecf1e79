"""The built-in prior's training data: names without contradictions, upright shapes, honest voxels, true colours."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "builtin_prior"))

from gbuffer import draw, pack
from manifest import NOUNS, file_stem, read_manifest
from paint import COLOURS, MATERIALS, dress, find_tones, paint_points, tones_seen
from render import normalise
from shapes import make_shape
from voxels import EXTENT, carve, surface

from magic3d_cli.guidance.builtin.paint import paint
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.scene.views import Views, sample_views, turntable
from magic3d_cli.settings import ViewSampling

DATA = Path(__file__).parents[1] / "examples" / "builtin_prior"
SHAPES = [source.split(":")[1] for noun in NOUNS for source, _ in noun.models if source.startswith("shape:")]


def test_every_phrase_means_one_thing() -> None:
    phrases = [phrase for noun in NOUNS for phrase in (noun.name, *noun.words)]
    assert len(NOUNS) >= 300
    assert sorted(phrases) == sorted(set(phrases))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9' -]*", phrase) for phrase in phrases)


def test_no_object_is_called_a_colour_or_begins_with_a_material() -> None:
    modifiers = {word for words, _ in COLOURS.values() for word in words}
    modifiers |= {word for words in MATERIALS.values() for word in words}
    first = {phrase.split()[0]: phrase for noun in NOUNS for phrase in (noun.name, *noun.words)}
    known = {"rock", "stone lantern", "ice cream", "ice cream cone", "orange", "orange fruit", "crystal ball"}
    assert {first[word] for word in modifiers & first.keys()} <= known


def test_every_model_is_credited_and_has_its_own_file() -> None:
    with (DATA / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    free = {"CC0-1.0", "public-domain", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"}
    assert all(row["author"] and row["licence"] in free for row in rows)
    stems = [file_stem(*model) for noun in NOUNS for model in noun.models]
    assert len(stems) == len(set(stems)) == len(rows)


def test_the_shipped_vocabulary_says_what_the_manifest_says() -> None:
    """The prior may know fewer models than the manifest: those that it was given latents of."""
    known, nouns = Vocabulary.load(BUILTIN / "vocabulary.json"), {noun.name: noun for noun in NOUNS}
    assert len(known.nouns) > 435
    for name, phrases in known.nouns.items():
        assert phrases == (name, *nouns[name].words)
        assert known.styles[name] and set(known.styles[name]) <= set(nouns[name].styles)
    assert known.colours.keys() == COLOURS.keys() and known.materials.keys() == MATERIALS.keys()


def test_every_style_is_a_model_of_its_own_and_a_noun_alone_is_its_first_style() -> None:
    prior = load_prior("builtin", stage="coarse")
    assert prior.vocabulary is not None and prior.volume is not None
    styles = prior.vocabulary.styles
    tokens = [style for noun in styles.values() for style in noun]
    found = dict(zip(tokens, prior.volume.find(prior.encode_prompt(tokens)).tolist(), strict=True))
    assert sorted(found.values()) == list(range(len(tokens)))
    alone = prior.volume.find(prior.encode_prompt([noun.replace(" ", "_") for noun in styles])).tolist()
    assert alone == [found[noun[0]] for noun in styles.values()]


def test_everyday_words_lead_to_nouns_that_there_are() -> None:
    known = Vocabulary.load(BUILTIN / "vocabulary.json")
    lexicon = known.lexicon
    assert {*lexicon.same.values(), *lexicon.kinds.values(), *lexicon.near.values()} <= known.nouns.keys()
    assert set(lexicon.looks.values()) <= known.colours.keys() | known.materials.keys()
    words = {"rock", "stone", "glass"}  # of what things are made, and things
    assert not (lexicon.kinds.keys() | lexicon.near.keys() | lexicon.things) & known.phrases.keys() - words
    assert not lexicon.kinds.keys() & (lexicon.near.keys() | lexicon.things | lexicon.nouns | lexicon.others)
    assert len(lexicon.kinds) > 5000


def test_models_that_are_held_out_for_the_evaluation_are_not_learned() -> None:
    held_out = read_manifest(DATA.parent / "evaluate" / "held_out.tsv")
    learned = {source for noun in NOUNS for source, _ in noun.models}
    assert held_out and not learned & {source for noun in held_out for source, _ in noun.models}


@pytest.mark.slow
def test_paint_of_the_prior_is_the_paint_of_its_training_pictures() -> None:
    random = np.random.default_rng(0)
    own, place = random.uniform(0, 1, (2, 300, 3)).astype(np.float32)
    normal = random.normal(size=(300, 3)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    tones, painted = find_tones(own), np.empty_like(own)
    for colour in (-1, 0, 7, 14):
        for material in range(-1, len(MATERIALS)):
            tint = list(COLOURS.values())[colour][1] if colour >= 0 else (-1, -1, -1)
            paint_points(own, normal, place, tones, np.array(tint, np.float32), material, painted)
            points, normals, places = (torch.from_numpy(array) for array in (own, normal, place))
            tint_index, material_index = (torch.full((300,), n) for n in (colour, material))
            tone = torch.tensor(tones).repeat(300, 1)
            found = paint(points, normals, places, tone, tint_index, material_index)
            np.testing.assert_allclose(found, painted, atol=2e-4)


def _drawn(shape: str, views: Views, size: int = 64) -> np.ndarray:
    arrays = pack(normalise(make_shape(shape), 0.0))
    compiled: Any = draw  # by numba, which mypy does not see through
    return np.stack([compiled(*arrays, matrix, size, 2) for matrix in views.world_to_clip().numpy()])


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_closed_to_the_eye(shape: str) -> None:
    buffers = _drawn(shape, turntable(6, elevation=20))
    assert (buffers[..., 9] > 0).mean((1, 2)).min() > 0.01  # an arrow is thin
    normals = (buffers[..., 3:6].astype(np.float32) - 128) / 127
    inside = buffers[..., 9] == 255
    assert abs(np.linalg.norm(normals[inside], axis=-1) - 1).max() < 0.05


def test_shapes_stand_upright_and_face_the_camera() -> None:
    front = turntable(1, elevation=0)
    mushroom, dice, cone = (_drawn(name, front)[0].astype(int) for name in ("mushroom", "dice", "ice_cream"))
    red = (mushroom[..., 0] > 150) & (mushroom[..., 1] < 80)
    assert red[:32].sum() > 100 and red[40:].sum() == 0
    assert ((dice[..., 9] == 255) & (dice[..., :3].sum(-1) < 100)).sum() > 10  # the one, and nothing else, in front
    assert cone[..., 9].sum(1)[:32].sum() > cone[..., 9].sum(1)[32:].sum()


def _pool(shape: str, count: int = 96) -> tuple[np.ndarray, Views]:
    views = sample_views(count, ViewSampling(), torch.Generator().manual_seed(0), stratified=False)
    return _drawn(shape, views, 128), views


def test_voxels_fill_a_ball_and_leave_the_hole_of_a_ring() -> None:
    buffers, views = _pool("sphere")
    solid = carve(buffers, views.world_to_clip().numpy(), views.position.numpy(), 32)
    centres = (np.arange(32) + 0.5) / 32 * 2 * EXTENT - EXTENT
    y, x, z = np.meshgrid(centres, centres, centres, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2)
    radius = 0.92 / np.sqrt(3)  # half-diagonal of its box
    assert solid[distance < radius - 0.03].all() and not solid[distance > radius + 0.08].any()
    ring, views = _pool("torus")
    solid = carve(ring, views.world_to_clip().numpy(), views.position.numpy(), 32)
    assert not solid[:, 15:17, 15:17].any() and solid.sum() > 200


def test_surface_voxels_carry_outward_normals_and_colour() -> None:
    buffers, _ = _pool("sphere")
    voxels = surface(buffers, 16)
    at = np.argwhere(voxels[..., 6] > 0)
    normal = (voxels[tuple(at.T)][:, :3].astype(float) - 128) / 127
    outward = ((at + 0.5) / 16 * 2 - 1)[:, [1, 0, 2]]  # indices are y, x, z
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    assert len(at) > 100 and (normal * outward).sum(1).min() > 0.7
    assert abs(voxels[tuple(at.T)][:, 3:6].astype(int) - [191, 191, 196]).max() <= 2


def _dressed(colour: str | None = None, material: str | None = None) -> np.ndarray:
    """Mean colour of a pale ball in flat light, [3] in [0, 1]."""
    buffer = _drawn("sphere", turntable(1))[0]
    out = np.empty((3, 64, 64), np.float32)
    tint = np.array(COLOURS[colour][1] if colour else (-1, -1, -1), np.float32)
    index = list(MATERIALS).index(material) if material else -1
    white = np.ones((4, 3), np.float32)
    dress(buffer, 64, tones_seen(buffer[None]), tint, index, np.array([0, 1, 0], np.float32), 0.5, 0, white, 1.0, out)
    return (out[:, buffer[..., 9] == 255].mean(1) + 1) / 2


@pytest.mark.parametrize("colour", COLOURS)
def test_a_painted_ball_has_the_colour_it_was_painted(colour: str) -> None:
    shown = _dressed(colour)
    nearest = min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name][1]) - shown).sum())
    assert nearest == colour


def _painted(colours: np.ndarray, colour: str) -> np.ndarray:
    """Points of these colours after a colour was asked for, [N, 3]."""
    painted, up = np.empty_like(colours), np.zeros_like(colours)
    up[:, 1] = 1
    paint_points(colours, up, up, find_tones(colours), np.array(COLOURS[colour][1], np.float32), -1, painted)
    return painted


def test_a_colour_goes_onto_the_body_and_leaves_the_rest() -> None:
    body, glass, tyre = (0.8, 0.1, 0.1), (0.6, 0.6, 0.7), (0.05, 0.05, 0.05)
    own = np.repeat(np.array([body, glass, tyre], np.float32), [500, 300, 200], 0)
    painted = _painted(own, "blue")
    np.testing.assert_allclose(painted[:500], np.tile(COLOURS["blue"][1], (500, 1)), atol=0.02)
    np.testing.assert_array_equal(painted[500:], own[500:])


def test_all_of_a_texture_without_distinct_colours_is_painted() -> None:
    random = np.random.default_rng(0)
    own = random.uniform(0.1, 0.9, (1000, 1)).astype(np.float32) * np.array([0.9, 0.6, 0.3], np.float32)
    painted = _painted(own, "blue")
    assert (painted[:, 2] > painted[:, :2].max(1)).all()


@pytest.mark.parametrize("colour", ["red", "blue", "white"])
def test_black_things_are_painted_as_bright_as_others(colour: str) -> None:
    painted = _painted(np.zeros((100, 3), np.float32), colour)
    np.testing.assert_allclose(painted, np.tile(COLOURS[colour][1], (100, 1)), atol=0.02)


def test_materials_look_different_from_each_other() -> None:
    shown = [_dressed(material=name) for name in (None, *MATERIALS)]
    apart = [np.abs(a - b).max() for i, a in enumerate(shown) for b in shown[:i]]
    assert min(apart) > 0.02
