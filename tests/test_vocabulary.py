"""In the vocabulary's own words a prompt is understood completely or refused; what priors are told for each view."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_priors import VOCABULARY

from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.conditioning import Conditioning, condition, negative_weights, read_prompt, view_weights
from magic3d_cli.scene.views import turntable


@pytest.fixture
def vocabulary(tmp_path: Path) -> Vocabulary:
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(VOCABULARY))
    return Vocabulary.load(path)


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("a metal dragon", "metal dragon <dragon-0>"),
        ("DRAGON!", "dragon <dragon-0>"),
        ("Crimson automobile, 3d model", "red car <car-0>"),
        ("a photo of the dragon made of iron", "metal dragon <dragon-0>"),
        ("a car made of wood", "wood car <car-0>"),
        ("golden palm tree", "gold palm_tree <palm_tree-0>"),
        ("a teddy bear", "teddy_bear <teddy_bear-0>"),
        ("a bear", "bear <bear-0>"),
        ("teddy-bear", "teddy_bear <teddy_bear-0>"),
        ("grey wooden armchair", "gray wood armchair <armchair-0>"),
        ("an orange", "orange"),
        ("an orange orange", "orange orange"),
        ("an orange car", "orange car <car-0>"),
        ("dragons", "dragon <dragon-0>"),
    ],
)
def test_a_prompt_becomes_the_canonical_caption(vocabulary, prompt, caption):
    assert vocabulary.parse(prompt).text == caption


def test_the_seed_picks_the_style(vocabulary):
    styles = [vocabulary.parse("a dragon", seed).style for seed in range(5)]
    known = ["<dragon-0>", "<dragon-1>"]
    assert styles == [*known, " ".join(known), " ".join(reversed(known)), known[0]]


def test_unknown_words_are_refused_shortly(vocabulary):
    with pytest.raises(UsageError) as caught:
        vocabulary.parse("a metl dragon " + " ".join(f"word{i}" for i in range(2000)))
    assert '"metl"' in caught.value.what and "--prior" in caught.value.next_step and caught.value.exit_code == 2
    assert len(caught.value.what + caught.value.next_step) < 300


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("", "empty"),
        ("  !? ", "empty"),
        ("a red", "names no object"),
        ("a dragon and a car", "and"),
        ("dragon with a car", "more than one object"),
        ("a red blue car", "more than one colour"),
        ("gold metal car", "more than one material"),
        ("a huge car", "huge"),
        ("a café car", '"café"'),
        ("a red car 龙", '"龙"'),
        ("дракон", '"дракон"'),
    ],
)
def test_what_cannot_be_meant_is_refused(vocabulary, prompt, complaint):
    with pytest.raises(UsageError, match=complaint) as caught:
        vocabulary.parse(prompt)
    assert caught.value.next_step


def test_every_phrase_of_the_vocabulary_is_understood(vocabulary):
    for role, group in (("noun", vocabulary.nouns), ("colour", vocabulary.colours)):
        for name, phrases in group.items():
            for phrase in phrases:
                prompt = phrase if role == "noun" else f"{phrase} car"
                assert getattr(vocabulary.parse(prompt), role) == name
    for name, phrases in vocabulary.materials.items():
        assert {vocabulary.parse(f"car {phrase}").material for phrase in phrases} == {name}


def test_a_broken_word_list_is_a_clear_fault(tmp_path):
    (tmp_path / "vocabulary.json").write_text('{"nouns": 3}')
    with pytest.raises(EnvironmentFault):
        Vocabulary.load(tmp_path / "vocabulary.json")


def test_prompts_are_checked_without_loading_torch():
    code = "import sys, magic3d_cli.guidance.builtin.vocabulary; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_view_words_lead_where_they_should():
    degrees = [0, 44, 46, 134, 136, 180, 224, 226, 314, 316]
    names = ["front", "front", "side", "side", "back", "back", "back", "side", "side", "front"]
    views = turntable(len(degrees)).replace(azimuth=torch.deg2rad(torch.tensor(degrees, dtype=torch.float32)))
    weights = view_weights(views)
    assert [("front", "side", "back", "overhead")[i] for i in weights.argmax(1)] == names
    torch.testing.assert_close(weights.sum(1), torch.ones(len(degrees)))
    high = views.replace(elevation=torch.full((len(degrees),), math.radians(61)))
    assert (view_weights(high)[:, 3] > 0.5).all()
    low = views.replace(elevation=torch.full((len(degrees),), math.radians(49)))
    assert (view_weights(low)[:, 3] == 0).all()


def test_text_states_change_smoothly_round_the_object():
    states = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    text = Conditioning(states, torch.zeros(1, 2, 3)).text(turntable(360))
    assert (text - text.roll(1, 0)).abs().max() < 0.05 * states.abs().max()
    torch.testing.assert_close(text[[0, 90, 180, 270]], states[[0, 1, 2, 1]], atol=1e-4, rtol=1e-4)


def test_the_front_is_held_against_the_back_most_and_never_against_itself():
    weights = negative_weights(turntable(360))
    expected = torch.tensor([[0, 1.574], [1.574, 0], [1.967, 0.393], [1.574, 0]])
    torch.testing.assert_close(weights[[0, 90, 180, 270]], expected, atol=1e-3, rtol=0)
    assert (weights - weights.roll(1, 0)).abs().max() < 0.025 and (weights > -1e-3).all()
    high = turntable(8).replace(elevation=torch.full((8,), math.radians(75)))
    assert (negative_weights(high) == 0).all()


class Recorder:
    """A prior that only notes what it is asked to encode."""

    def __init__(self, vocabulary: Vocabulary | None, camera_conditioned: bool) -> None:
        self.vocabulary, self.camera_conditioned, self.set_size = vocabulary, camera_conditioned, 1
        self.prompts: list[str] = []
        self.released = False

    def encode_prompt(self, prompts):
        self.prompts = prompts
        return torch.arange(len(prompts)).float()[:, None, None].expand(-1, 2, 3)

    def release_text_encoder(self):
        self.released = True


def test_a_prior_with_a_camera_is_told_the_caption_once(vocabulary):
    prior: Any = Recorder(vocabulary, camera_conditioned=True)
    told = condition(prior, read_prompt(prior, "a metal dragon", seed=1))
    assert prior.prompts == ["metal dragon <dragon-1>", ""] and prior.released
    assert told.text(turntable(3)).shape == (3, 2, 3) and (told.without(turntable(3)) == 1).all()


def test_a_prior_without_a_camera_is_told_the_view_in_words():
    prior: Any = Recorder(None, camera_conditioned=False)
    condition(prior, read_prompt(prior, " a corgi on a skateboard "))
    assert prior.prompts[0] == "a corgi on a skateboard, front view" and prior.prompts[-1] == ""
    with pytest.raises(UsageError, match="empty"):
        read_prompt(prior, "  ")
