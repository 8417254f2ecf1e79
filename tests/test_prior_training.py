"""Training the built-in prior, in small: all stages from one command, exported as a prior, resumed where it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "builtin_prior"))

import batches
import fit
import remember
import render
import tokens
import train
import voxels
from manifest import Noun

from magic3d_cli.guidance.builtin.unet import VolumeUNet
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.builtin.volume import CaptionVolume, Look
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.scene.views import turntable

NOUNS = [Noun("cube", ("block",), (("shape:cube", 0.0),)), Noun("torus", (), (("shape:torus", 0.0),))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two shapes, rendered, carved and learned for a few seconds by a narrow network."""
    pool, run = tmp_path_factory.mktemp("pool"), tmp_path_factory.mktemp("run")
    patch = pytest.MonkeyPatch()
    for module in (batches, remember, tokens):
        patch.setattr(module, "NOUNS", NOUNS)
    patch.setattr(train, "VolumeUNet", lambda **shape: VolumeUNet(**shape, widths=(8, 8, 16)))
    narrow = {"width": 16, "voxel_width": 16}
    patch.setattr(train, "CaptionVolume", lambda **shape: CaptionVolume(**(shape | narrow)))
    for name, stage in train.STAGES.items():
        small = replace(stage, minutes=0.02, captions=2, views=min(stage.views, 2))
        patch.setitem(train.STAGES, name, small)
    patch.setattr(sys, "argv", ["train.py", str(pool), str(run), "--device", "cpu"])
    for noun in NOUNS:
        render.render(pool, pool, *noun.models[0], 24, 0)
        voxels.convert(pool, batches.file_stem(*noun.models[0]))
    train.main()
    yield run
    patch.undo()


@pytest.mark.slow
def test_one_command_makes_a_prior_that_the_program_loads(run: Path) -> None:
    assert Vocabulary.load(run / "vocabulary.json").parse("a red block").text == "red cube <cube-0>"
    for stage, size in (("coarse", 64), ("fine", 256)):
        prior = load_prior(str(run), stage=stage)
        assert prior.image_size == size and prior.prediction == "sample"
        text = prior.encode_prompt(["cube <cube-0>"])
        noisy = torch.randn(1, 3, size, size)
        clean, _ = prior.denoise(noisy, torch.tensor([500]), text, turntable(1).camera_embedding())
        assert clean.shape == noisy.shape and clean.isfinite().all()


@pytest.mark.slow
def test_voxels_then_views_teach_which_caption_has_a_hole(run: Path, tmp_path: Path) -> None:
    pool = Path(sys.argv[1])

    def stage(name: str) -> train.Training:
        return train.Training(name, train.STAGES[name], pool, tmp_path, tmp_path, "cpu")

    volume = stage("volume")
    for _ in range(250):
        _, parts = volume.update(3e-3)
    assert parts["wrong"] < 0.2
    volume.save(0)
    shapes = stage("shapes")
    errors = [float(shapes.update(1e-3)[1]["maps"]) for _ in range(60)]
    assert sum(errors[-10:]) < 0.8 * sum(errors[:10])
    shapes.save(0)
    assert remember.remember(tmp_path, pool, tmp_path) == 2
    assert _cores(tmp_path, ["cube <cube-0>", "torus", ""]) == ["solid", "hole", "nothing"]


def _cores(prior: Path, captions: list[str]) -> list[str]:
    """What is in the middle of each caption's volume."""
    volume = CaptionVolume.from_pretrained(prior / "volume").float()
    tokenizer = tokens.find_tokenizer(prior)
    text = train.make_text(len(tokenizer))
    train.take_over(text, prior / "text_encoder")
    ids = tokenizer(captions, padding="max_length", max_length=tokens.TEXT_LENGTH)["input_ids"]
    with torch.inference_mode():
        density = volume.imagine(text(torch.tensor(ids)).last_hidden_state)[..., 0]
    middle = density[:, 62:66, 62:66, 62:66].mean((1, 2, 3))
    return ["solid" if m > 1 else "hole" if d.max() > 0 else "nothing" for m, d in zip(middle, density, strict=True)]


def test_a_latent_is_found_for_a_model_that_the_decoder_never_saw(run: Path, tmp_path: Path) -> None:
    pool = Path(sys.argv[1])
    volume = train.Training("volume", train.STAGES["volume"], pool, tmp_path, tmp_path, "cpu")
    for _ in range(150):
        volume.update(3e-3)
    volume.save(0)
    decoder: Any = volume.volume.requires_grad_(False)
    style = batches.find_styles(pool)[1]
    found = fit.Fit(decoder, style)
    assert all(high - low < 64 for low, high in found.latent.box)  # cut to the ring
    before, after = (found.run(steps)["wrong"] for steps in (1, 60))
    assert after < 0.6 * before
    fit.write_latent(tmp_path / f"{style.path.name}.npz", found.latent, 61)
    assert fit.read_latent(tmp_path / f"{style.path.name}.npz")[1] == 61
    assert remember.remember(tmp_path, pool, tmp_path, tmp_path) == 1  # the cube has no latent, and so no words
    assert Vocabulary.load(tmp_path / "vocabulary.json").nouns.keys() == {"torus"}
    assert _cores(tmp_path, ["cube <cube-0>", "torus <torus-0>"]) == ["nothing", "hole"]


@pytest.mark.slow
def test_a_finished_stage_is_not_trained_again_and_a_stopped_one_goes_on(run: Path) -> None:
    state = torch.load(run / "fine.pt", weights_only=True)
    stage = replace(train.STAGES["fine"], minutes=state["spent"] / 60 + 0.02)
    pool = Path(sys.argv[1])
    again = train.Training("fine", train.STAGES["fine"], pool, run, run, "cpu")
    assert again.step == state["step"] and again.spent >= 60 * train.STAGES["fine"].minutes
    again.train()
    assert again.step == state["step"]
    further = train.Training("fine", stage, pool, run, run, "cpu")
    further.train()
    assert further.step > state["step"]


def test_a_denoiser_for_finer_pixels_starts_as_the_coarser_one_was() -> None:
    torch.manual_seed(0)
    coarse, fine = (VolumeUNet(8, 3 * patch**2, 3 * patch**2, widths=(8, 8, 16), embedding=16) for patch in (2, 4))
    start = {k: train.repatched(k, v, fine.state_dict()[k].shape) for k, v in coarse.state_dict().items()}
    fine.load_state_dict(start)
    features, time = turntable(2).camera_embedding(), torch.full((2,), 500)
    images = torch.randn(2, 16, 16, 16)

    def denoised(network: VolumeUNet, images: torch.Tensor) -> torch.Tensor:
        look = Look(images[:, 3:13], images[:, 13:], torch.zeros(2, 16))
        noisy = torch.nn.functional.pixel_unshuffle(images[:, :3], network.patch)
        output = network(noisy, time, features, look).sample
        return torch.nn.functional.pixel_shuffle(output, network.patch)

    larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = denoised(coarse, images).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(denoised(fine, larger), wanted, rtol=1e-4, atol=1e-4)


def test_words_keep_the_ids_of_the_prior_that_training_starts_from(run: Path, tmp_path: Path) -> None:
    """Word vectors are taken over by their place: other ids would give a noun another one's."""
    made = tokens.make_tokenizer().get_vocab()
    assert tokens.find_tokenizer(tmp_path).get_vocab() == made  # nothing there
    one, other = sorted(made)[-2:]
    kept = made | {one: made[other], other: made[one]}
    fewer = {word: n for n, word in enumerate(word for word in made if word != one)}
    for known in (kept, fewer):
        tokens.make_tokenizer(known).save_pretrained(tmp_path / "tokenizer")
        assert tokens.find_tokenizer(tmp_path).get_vocab() == {**fewer, one: len(fewer)} if known is fewer else kept


def test_old_words_keep_their_vectors_when_new_ones_are_added(tmp_path: Path) -> None:
    small, large = tokens.make_text(5), tokens.make_text(7)
    own = {name: weight.clone() for name, weight in large.state_dict().items()}
    small.save_pretrained(tmp_path)
    train.take_over(large, tmp_path)
    name = next(name for name in own if "token_embedding" in name)
    taken = large.state_dict()[name]
    assert torch.equal(taken[:5], small.state_dict()[name]) and torch.equal(taken[5:], own[name][5:])
