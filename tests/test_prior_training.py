"""Training the built-in prior, in small: six stages from one command, exported as a prior, resumed where it was."""

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

from magic3d_cli.guidance.builtin.unet import VolumeUNet
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.builtin.volume import CaptionVolume, Look, words
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.scene.views import turntable

NOUNS = [Noun("cube", ("block",), (("shape:cube", 0.0),)), Noun("torus", (), (("shape:torus", 0.0),))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shapes, rendered, carved and learned for a few seconds by a narrow network."""
    pool, run = tmp_path_factory.mktemp("pool"), tmp_path_factory.mktemp("run")
    patch = pytest.MonkeyPatch()
    for module in (batches, train):
        patch.setattr(module, "NOUNS", NOUNS)
    patch.setattr(train, "VolumeUNet", lambda **shape: VolumeUNet(**shape, widths=(8, 8, 16)))
    narrow = {"width": 16, "voxel_width": 16, "shape_embedding": 32}
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


def test_one_command_makes_a_prior_that_the_program_loads(run: Path) -> None:
    assert Vocabulary.load(run / "vocabulary.json").parse("a red block").text == "red cube <cube-0>"
    for stage, size in (("coarse", 64), ("fine", 256)):
        prior = load_prior(str(run), stage=stage)
        assert prior.image_size == size and prior.prediction == "sample"
        text = prior.encode_prompt(["cube <cube-0>"])
        noisy = torch.randn(1, 3, size, size)
        clean, _ = prior.denoise(noisy, torch.tensor([500]), text, turntable(1).features())
        assert clean.shape == noisy.shape and clean.isfinite().all()


def test_voxels_then_views_then_captions_teach_which_caption_has_a_hole(run: Path, tmp_path: Path) -> None:
    pool, text = Path(sys.argv[1]), ["cube <cube-0>", "torus <torus-0>"]

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
    captions = stage("captions")
    for _ in range(250):
        captions.update(3e-3)
    ids = captions.tokenizer([*text, ""], padding="max_length", max_length=train.TEXT_LENGTH)
    with torch.inference_mode():
        states = captions.text(torch.tensor(ids["input_ids"])).last_hidden_state
        volumes = captions.volume.imagine(states)[..., 0]
        cube, torus, _ = volumes[:, 62:66, 62:66, 62:66].mean((1, 2, 3))
    assert cube > 1 and torus < -1
    assert volumes[2].max() < 0 < volumes[1].max()  # no caption, nothing to see


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


def test_paint_learns_what_red_means_and_leaves_the_rest_alone(run: Path, tmp_path: Path) -> None:
    paint = train.Training(
        "paint", replace(train.STAGES["paint"], captions=32), Path(sys.argv[1]), tmp_path, tmp_path, "cpu"
    )
    for _ in range(300):
        paint.update(3e-3)
    own = torch.tensor([0.3, 0.5, 0.4])
    maps = torch.tensor([1.0, 0, 1, 0, *own, 0, 0.5, 0]).view(1, 10, 1, 1).expand(2, -1, -1, -1)
    ids = paint.tokenizer(["red cube <cube-0>", "cube <cube-0>"], padding="max_length", max_length=train.TEXT_LENGTH)
    with torch.inference_mode():
        states = paint.text(torch.tensor(ids["input_ids"])).last_hidden_state
        red, plain = paint.volume.painter(maps, paint.volume.wording(words(states)))[:, :, 0, 0]
    assert red[0] > 2 * red[1:].max()
    assert (plain - own).abs().max() < 0.15


def test_a_denoiser_for_finer_pixels_starts_as_the_coarser_one_was() -> None:
    torch.manual_seed(0)
    coarse, fine = (VolumeUNet(8, 3 * patch**2, 3 * patch**2, widths=(8, 8, 16), embedding=16) for patch in (2, 4))
    start = {k: train.repatched(k, v, fine.state_dict()[k].shape) for k, v in coarse.state_dict().items()}
    fine.load_state_dict(start)
    features, time = turntable(2).features(), torch.full((2,), 500)
    images = torch.randn(2, 16, 16, 16)

    def denoised(network: VolumeUNet, images: torch.Tensor) -> torch.Tensor:
        look = Look(images[:, 3:13], images[:, 13:], torch.zeros(2, 16))
        noisy = torch.nn.functional.pixel_unshuffle(images[:, :3], network.patch)
        output = network(noisy, time, features, look).sample
        return torch.nn.functional.pixel_shuffle(output, network.patch)

    larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = denoised(coarse, images).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(denoised(fine, larger), wanted, rtol=1e-4, atol=1e-4)


def test_tokenizerkeep_the_ids_of_the_prior_that_training_starts_from(tmp_path) -> None:
    """Word vectors are taken over by their place: other ids would give a noun another one's."""
    made = train.make_tokenizer()
    ids = made.get_vocab()
    assert train.find_tokenizer(tmp_path).get_vocab() == ids  # nothing there
    one, other = sorted(ids)[-2:]
    kept = ids | {one: ids[other], other: ids[one]}
    for known, expected in ((kept, kept), ({"<unk>": 0}, ids)):  # the same words in another order; other words
        words_known = train.Tokenizer(train.models.WordLevel(known, unk_token="<unk>"))
        tokenizer = train.PreTrainedTokenizerFast(tokenizer_object=words_known, unk_token="<unk>")
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        assert train.find_tokenizer(tmp_path).get_vocab() == expected
