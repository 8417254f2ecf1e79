"""Training the built-in prior, in small: four stages from one command, exported as a prior, resumed where it was."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "builtin_prior"))

import batches
import render
import train
import voxels
from manifest import Noun

from magic3d_cli.guidance.prior import load_prior
from magic3d_cli.guidance.prompts import Vocabulary
from magic3d_cli.guidance.volume_unet import VolumeUNet
from magic3d_cli.views import turntable

NOUNS = [Noun("cube", ("block",), (("shape:cube", 0.0),)), Noun("torus", (), (("shape:torus", 0.0),))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shapes, rendered, carved and learned for a few seconds by a narrow network."""
    pool, run = tmp_path_factory.mktemp("pool"), tmp_path_factory.mktemp("run")
    patch = pytest.MonkeyPatch()
    for module in (batches, train):
        patch.setattr(module, "NOUNS", NOUNS)
    narrow = {"widths": (8, 8, 16), "volume_widths": (32, 32, 16, 16, 8), "embedding": 32}
    patch.setattr(train, "VolumeUNet", lambda **shape: VolumeUNet(**shape, **narrow))
    for name, minutes in (("volume", 0.03), ("shapes", 0.03), ("coarse", 0.02), ("fine", 0.02)):
        stage = replace(train.STAGES[name], minutes=minutes, captions=2, views=2 if name != "volume" else 0)
        patch.setitem(train.STAGES, name, stage)
    patch.setattr(sys, "argv", ["train.py", str(pool), str(run), "--device", "cpu"])
    for noun in NOUNS:
        render.render(pool, pool, *noun.models[0], 24, 0)
        voxels.convert(pool, batches.file_stem(*noun.models[0]))
    train.main()
    yield run
    patch.undo()


def test_one_command_makes_a_prior_that_the_program_loads(run: Path) -> None:
    assert Vocabulary.load(run / "vocabulary.json").parse("a red block").text == "red cube <cube-0>"
    for stage, size in (("coarse", 64), ("fine", 128)):
        prior = load_prior(str(run), stage=stage)
        assert prior.image_size == size and prior.prediction == "sample"
        text = prior.encode_prompt(["cube <cube-0>"])
        noisy = torch.randn(1, 3, size, size)
        clean, _ = prior.denoise(noisy, torch.tensor([500]), text, turntable(1).features())
        assert clean.shape == noisy.shape and clean.isfinite().all()


def test_the_volume_learns_which_caption_has_a_hole(run: Path) -> None:
    training = train.Training("volume", train.STAGES["volume"], Path(sys.argv[1]), run / "more", None, "cpu")
    for _ in range(120):
        training.update(3e-3)
    ids = training.tokenizer(["cube <cube-0>", "torus <torus-0>"], padding="max_length", max_length=train.TEXT_LENGTH)
    with torch.inference_mode():
        states = training.text(torch.tensor(ids["input_ids"])).last_hidden_state
        centre = training.unet.imagine(states).density[:, 31:33, 31:33, 31:33].mean((1, 2, 3))
    assert centre[0] > centre[1] + 0.5


def test_a_finished_stage_is_not_trained_again_and_a_stopped_one_goes_on(run: Path) -> None:
    state = torch.load(run / "fine.pt", weights_only=True)
    stage = replace(train.STAGES["fine"], minutes=state["spent"] / 60 + 0.02)
    pool = Path(sys.argv[1])
    again = train.Training("fine", train.STAGES["fine"], pool, run, None, "cpu")
    assert again.step == state["step"] and again.spent >= 60 * train.STAGES["fine"].minutes
    again.train()
    assert again.step == state["step"]
    further = train.Training("fine", stage, pool, run, None, "cpu")
    further.train()
    assert further.step > state["step"]
