"""LoRAs and learnt words: of others, by whatever names, and our own from photos; on a tiny Stable Diffusion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import magic3d
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_priors import save_builtin, save_sd, save_sdxl

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import read_adapters
from magic3d_cli.guidance.diffusers.adapted import adapt, check_fits, fitting
from magic3d_cli.guidance.diffusers.augment import augmented
from magic3d_cli.guidance.diffusers.denoising import denoising_loss, sample
from magic3d_cli.guidance.diffusers.learning import Recipe, learn_lora, learn_word, said
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.settings import FineSettings
from magic3d_cli.tuning import Lesson, learn

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
TEXT = "encoder.layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd(tmp_path_factory.mktemp("priors") / "sd")


def load(folder: Path, *adapters: str) -> DiffusersPrior:
    prior = DiffusersPrior(describe(folder, "tiny"), torch.device("cpu"), torch.float32)
    adapt(prior, read_adapters(adapters))
    return prior


def weight(prior: DiffusersPrior, name: str) -> torch.Tensor:
    return prior.network.get_submodule(name).weight.detach().clone()


def halves(rank: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, 8, generator=generator), torch.randn(8, rank, generator=generator)


@pytest.mark.parametrize(
    "names",
    [
        (f"unet.{QUERY}.lora_A.weight", f"unet.{QUERY}.lora_B.weight"),
        (f"unet.{QUERY}.lora.down.weight", f"unet.{QUERY}.lora.up.weight"),
        (f"unet.{QUERY.replace('.to_q', '.processor.to_q_lora')}.down.weight",
         f"unet.{QUERY.replace('.to_q', '.processor.to_q_lora')}.up.weight"),
        (f"{QUERY.replace('.to_q', '.processor.to_q_lora')}.down.weight",
         f"{QUERY.replace('.to_q', '.processor.to_q_lora')}.up.weight"),
        (f"base_model.model.unet.{QUERY}.lora_A.weight", f"base_model.model.unet.{QUERY}.lora_B.weight"),
        (f"lora_unet_{QUERY.replace('.', '_')}.lora_down.weight",
         f"lora_unet_{QUERY.replace('.', '_')}.lora_up.weight"),
    ],
)  # fmt: skip
def test_a_lora_by_any_naming_adds_the_product_of_its_halves(folder: Path, names: tuple[str, str]) -> None:
    down, up = halves()
    save_file(dict(zip(names, (down, up), strict=True)), "lora.safetensors")
    before, after = load(folder), load(folder, "lora.safetensors=0.5")
    torch.testing.assert_close(weight(after, QUERY), weight(before, QUERY) + 0.5 * up @ down)
    torch.testing.assert_close(weight(after, OUT), weight(before, OUT))


def test_alpha_of_kohya_and_of_peft_counts_as_a_share_of_the_rank(folder: Path) -> None:
    down, up = halves()
    name = f"lora_unet_{OUT.replace('.', '_')}"
    halved = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    save_file(halved, "kohya.safetensors")
    peft = {f"unet.{OUT}.lora_A.weight": down, f"unet.{OUT}.lora_B.weight": up}
    save_file(peft, "peft.safetensors", {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 1, "unet.r": 2})})
    before = weight(load(folder), OUT)
    for file in ("kohya.safetensors", "peft.safetensors"):
        torch.testing.assert_close(weight(load(folder, file), OUT), before + 0.5 * up @ down)


@pytest.mark.parametrize("name", [f"text_encoder.text_model.{TEXT}", f"lora_te_text_model_{TEXT.replace('.', '_')}"])
def test_a_lora_of_the_text_encoder_changes_what_prompts_mean(folder: Path, name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(2, 16, generator=generator), torch.randn(16, 2, generator=generator)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, "lora.safetensors")
    plain, changed = load(folder), load(folder, "lora.safetensors")
    assert not torch.allclose(plain.encode_prompt(["dragon"]), changed.encode_prompt(["dragon"]), atol=1e-3)
    encoder = changed.text_encoder()[0]
    delta = encoder.get_submodule(TEXT).weight - plain.text_encoder()[0].get_submodule(TEXT).weight
    torch.testing.assert_close(delta.detach(), up @ down, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"unet.{QUERY}.lora_A.weight": (2, 320), f"unet.{QUERY}.lora_B.weight": (320, 2)}, "for 320 inputs"),
        ({f"unet.{QUERY}.lora_A.weight": (2, 8), f"unet.{QUERY}.lora_B.weight": (8, 3)}, "ranks of"),
        ({f"unet.{QUERY}.lora_A.weight": (2, 8)}, "half of"),
        ({"unet.mid.to_q.lora_A.weight": (2, 8), "unet.mid.to_q.lora_B.weight": (8, 2)}, "does not have"),
        ({"lora_te2_x.lora_down.weight": (2, 8), "lora_te2_x.lora_up.weight": (8, 2)}, "does not have"),
        ({f"unet.{QUERY}.lora_A.weight": (2, 8), f"unet.{QUERY}.diff": (8, 8)}, "is not a LoRA's"),
        ({"<toy>": (1, 768)}, "768 numbers a token"),
    ],
)
def test_an_adapter_for_another_base_model_is_refused_before_anything_is_loaded(
    folder: Path, tensors: dict[str, tuple[int, ...]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, "other.safetensors")
    adapters = read_adapters(["other.safetensors"])
    monkeypatch.setattr(DiffusersPrior, "__init__", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(UsageError, match=message):
        choose_priors(
            {stage: [WeightedPrior(str(folder))] for stage in STAGES}, "a dragon", 0, "cpu", print, adapters=adapters
        )
    assert fitting(adapters, describe(folder, "tiny")) == []


def test_a_lora_that_fits_one_of_two_priors_is_used_there_alone(folder: Path, tmp_path: Path) -> None:
    down, up = halves()
    save_file({f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}, "lora.safetensors")
    builtin, adapters = save_builtin(tmp_path / "builtin"), read_adapters(["lora.safetensors"])
    names = {"coarse": [WeightedPrior(str(builtin))], "fine": [WeightedPrior(str(folder))]}
    priors = choose_priors(names, "a dragon", 0, "cpu", print, adapters=adapters)
    guide = PriorGuide(priors, "a dragon", 0, "cpu", adapters=adapters)
    assert guide.terms("fine", FineSettings())
    (prior,) = guide._loaded.values()
    wanted = weight(load(folder), QUERY) + up @ down
    torch.testing.assert_close(weight(prior, QUERY).float(), wanted, atol=0.02, rtol=0.01)  # bf16 on some CPUs
    assert guide.sha256("fine").endswith(adapters[0].mark)


def test_a_learnt_word_is_read_as_its_own_embeddings(folder: Path) -> None:
    new = torch.randn(2, 16, generator=torch.Generator().manual_seed(2))
    save_file({"<cat-toy>": new}, "toy.safetensors")
    prior = load(folder, "toy.safetensors")
    states = prior.encode_prompt(["dragon <cat-toy> view", "dragon view"])
    encoder, tokenizer = prior.text_encoder()
    ids = tokenizer(prior.spellings[0]("a <cat-toy>, front"), add_special_tokens=False).input_ids
    table = encoder.get_input_embeddings().weight.detach()
    torch.testing.assert_close(table[ids[1:3]], new)
    plain = load(folder).encode_prompt(["dragon <cat-toy> view", "dragon view"])
    assert not torch.allclose(states[0], plain[0], atol=1e-3)
    torch.testing.assert_close(states[1], plain[1])


def picture(seed: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4, generator=generator), size=(size, size))[0]


def loss_of(prior: DiffusersPrior, photos: list[torch.Tensor], text: str) -> float:
    """Mean over fixed times and noise."""
    generator, states = torch.Generator().manual_seed(5), prior.encode_prompt([text])
    clean = torch.cat([prior.encode_image(photo[None]) for photo in photos])
    with torch.no_grad():
        losses = [denoising_loss(prior, one[None], states, generator) for one in clean for _ in range(20)]
    return float(torch.stack(losses).mean())


@pytest.mark.slow
def test_a_lora_learns_the_photos_and_leaves_the_prior_as_it_was(folder: Path) -> None:
    prior, photos = load(folder), [picture(n, 16) for n in range(3)]
    before = {name: tensor.clone() for name, tensor in prior.network.state_dict().items()}
    losses: list[float] = []
    recipe = Recipe(steps=60, rate=2e-2, rank=4, kept=1)
    words = [said("sks dragon", azimuth) for azimuth in (0.0, 90.0, None)]
    tensors = learn_lora(prior, photos, words, "dragon", recipe, 0, lambda step, loss: losses.append(loss))
    assert len(losses) == 60
    for name, tensor in prior.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(name.startswith("unet.") for name in tensors) and any(name.endswith("lora_B.weight") for name in tensors)
    save_file(tensors, "own.safetensors")
    text = "a photo of a sks dragon"
    assert loss_of(load(folder, "own.safetensors"), photos, text) < 0.97 * loss_of(load(folder), photos, text)


def test_the_same_seed_learns_the_same(folder: Path) -> None:
    recipe, photos = Recipe(steps=2, rate=2e-2, rank=2), [picture(n, 16) for n in range(3)]
    one, two = (
        learn_lora(load(folder), photos, ["a wug"] * 3, "dragon", recipe, 0, lambda step, loss: None) for _ in range(2)
    )
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_a_word_is_learnt_and_the_prior_is_as_it_was(folder: Path) -> None:
    prior, photos = load(folder), [picture(n, 16) for n in range(3)]
    before = prior.encode_prompt(["dragon front"])
    text = "a photo of a wug"
    tensors = learn_word(prior, photos, [text] * 3, "wug", "dragon", Recipe(80, 5e-2), 0, lambda step, loss: None)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"wug": (1, 16)}
    torch.testing.assert_close(prior.encode_prompt(["dragon front"]), before)
    save_file(tensors, "wug.safetensors")
    assert loss_of(load(folder, "wug.safetensors"), photos, text) < loss_of(load(folder), photos, "a photo of a dragon")


def test_one_picture_is_turned_and_scaled_and_stays_before_white() -> None:
    dot = torch.ones(3, 33, 33)
    dot[:, 4:9, 14:19] = torch.tensor([0.8, 0.2, 0.2])[:, None, None]  # above the middle
    generator = torch.Generator().manual_seed(0)
    seen = torch.stack([augmented(dot, generator) for _ in range(200)])
    assert seen.min() >= 0 and seen.max() <= 1 and seen[..., 0].min() > 0.9  # white comes in at the edges
    dark = (1 - seen[:, 1]).clamp(min=0.1) - 0.1
    row, column = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    high, right = (((dark * at).sum((1, 2)) / dark.sum((1, 2))) for at in (-row, column))
    apart = torch.hypot(high, right)
    assert apart.min() > 9.5 * 0.85 and apart.max() < 10.5 * 1.15 and apart.std() > 0.3  # ten pixels from the middle
    angle = torch.rad2deg(torch.atan2(right, high))
    assert angle.abs().max() < 11 and 2 < angle.std() < 6
    assert (seen.std(1).amax((1, 2)) < 0.01).sum().item() in range(8, 36)  # a tenth is grey


def test_a_word_learnt_from_one_picture_is_said_of_it_from_nearer_and_farther_too(folder: Path) -> None:
    prior, photo = load(folder), picture(0, 16)
    tensors = learn_word(
        prior, [photo], ["a photo of a wug"], "wug", "dragon", Recipe(80, 5e-2), 0, lambda step, loss: None
    )
    save_file(tensors, "wug.safetensors")
    generator = torch.Generator().manual_seed(9)
    others = [augmented(photo, generator) for _ in range(3)]
    text = "a good photo of a {}"
    learnt, plain = load(folder, "wug.safetensors"), load(folder)
    assert loss_of(learnt, others, text.format("wug")) < loss_of(plain, others, text.format("dragon"))


def test_pictures_of_the_priors_own_are_drawn_by_ddim(folder: Path) -> None:
    prior = load(folder)
    states = prior.encode_prompt(["dragon", ""])
    one, two = (sample(prior, states[:1], states[1:], (4, 8, 8), torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.shape == (1, 4, 8, 8) and torch.equal(one, two) and bool(one.isfinite().all())


@pytest.mark.parametrize(
    ("azimuth", "told"),
    [(None, ""), (0.0, ", front view"), (-30.0, ", front view"), (270.0, ", side view"), (170.0, ", back view")],
)
def test_photos_are_told_with_their_side(azimuth: float | None, told: str) -> None:
    assert said("sks cat", azimuth) == f"a photo of a sks cat{told}"


def write_photos(count: int) -> None:
    Path("photos").mkdir()
    for n in range(count):
        pixels = (picture(n).movedim(0, -1).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(f"photos/{n}@{90 * n}.png")


@pytest.mark.parametrize("method", ["lora", "word"])
def test_the_command_learns_from_a_folder_and_generate_takes_what_it_wrote(
    folder: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(3)
    command = ("personalise", "photos", "--word", "sks dragon", "--prior", folder, "--method", method, "--steps", 2)
    assert magic3d(*command, *(["--kept", 1] if method == "lora" else []), "--json") == 0
    output = capsys.readouterr()
    report: dict[str, Any] = json.loads(output.out)
    assert report["output"] == "sks-dragon.safetensors" and report["of"] == "dragon" and "3 photos" in output.err
    assert len(load_file("sks-dragon.safetensors")) == (1 if method == "word" else 64)
    (adapter,) = read_adapters(["sks-dragon.safetensors"])
    assert adapter.word == "sks dragon"
    check_fits(adapter, describe(folder, "tiny"))
    assert magic3d(*command) == 2  # it is there already
    assert magic3d("generate", "a red car", "--adapter", "sks-dragon.safetensors", "--prior", "builtin") == 2
    assert "open-vocabulary prior" in capsys.readouterr().err


def test_realfusion_takes_a_word_learnt_from_its_one_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(1)
    command = ("personalise", "photos/0@0.png", "--word", "wug", "--kind", "dragon", "--prior", folder, "--steps", 2)
    assert magic3d(*command, "--method", "word", "--json") == 0
    assert "1 photo" in capsys.readouterr().err
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = (200, 40, 40, 255)
    Image.fromarray(pixels).save("wug.png")
    asked = ("generate", "a wug", "--image", "wug.png", "--recipe", "realfusion", "--prior", folder)
    assert magic3d(*asked, "--adapter", "wug.safetensors", "--device", "cpu", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["priors"]["coarse"] == str(folder)


@pytest.mark.parametrize(
    ("count", "arguments", "message"),
    [
        (0, [], "holds no pictures"), (1, [], "There is 1 photo"), (2, [], "There are 2 photos"),
        (21, [], "There are 21 pictures"), (3, ["--steps", 0], "--steps 0"), (3, ["--method", "magic"], "'magic'"),
        (3, ["--rank", 1000], "--rank 1000"), (3, ["--word", " "], "empty"),
    ],
)  # fmt: skip
def test_photos_and_numbers_that_will_not_do_are_refused(
    folder: Path, count: int, arguments: list[Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(count)
    assert magic3d("personalise", "photos", "--word", "sks dragon", "--prior", folder, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "next: " in err


def test_a_file_that_is_no_photo_and_a_prior_that_learns_nothing_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(3)
    Path("photos/0@0.png").write_text("once upon a time")
    assert magic3d("personalise", "photos", "--word", "sks dragon", "--prior", folder) == 2
    assert "0@0.png is" in capsys.readouterr().err
    write = save_builtin(tmp_path / "builtin")
    Path("photos/0@0.png").unlink()
    Image.new("RGB", (8, 8)).save("photos/a.png")
    assert magic3d("personalise", "photos", "--word", "sks dragon", "--prior", write) == 2
    assert "not told in words" in capsys.readouterr().err
    assert magic3d("personalise", "photos", "--word", "wug", "--steps", "5") == 2
    assert "--steps is for an open-vocabulary prior" in capsys.readouterr().err


def test_priors_with_two_text_encoders_are_neither_tuned_nor_adapted(tmp_path: Path) -> None:
    folder, file = save_sdxl(tmp_path / "xl"), tmp_path / "word.safetensors"
    save_file({"<cat-toy>": torch.zeros(16)}, file)
    with pytest.raises(UsageError, match="two text encoders") as refused:
        check_fits(read_adapters([str(file)])[0], describe(folder, "xl"))
    assert refused.value.next_step
    lesson = Lesson((), "sks cat", "cat", tmp_path / "cat.safetensors", str(folder))
    with pytest.raises(UsageError, match="two text encoders"):
        learn(lesson, Interrupts(), lambda text: None)
