"""IP-Adapters: a prior sees a picture as diffusers' own pipeline does, and it is part of what a run is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import magic3d
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_priors import save_builtin, save_if, save_ip_adapter, save_mvdream, save_pixart, save_sd, save_sdxl
from tiny_run import run_tiny, tiny_draft, tiny_settings
from torch import Tensor

from magic3d_cli.api import generate
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.adapters import IMAGE_PROMPT, Adapter, check_shown, edited, kept, read_adapters
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers.adapted import adapt, check_fits
from magic3d_cli.guidance.diffusers.ip_adapter import show
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.presets import preset, resolve
from magic3d_cli.run import checkpoint
from magic3d_cli.run.forecast import ENCODER, view_work
from magic3d_cli.scene.views import turntable
from magic3d_cli.settings import BSD, VSD, BootstrapSettings, GuidanceSettings, StagePrior
from magic3d_cli.style import Style, read_style

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd(tmp_path_factory.mktemp("priors") / "sd")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with everything, as its authors publish it."""
    return save_ip_adapter(tmp_path_factory.mktemp("adapters") / "IP-Adapter").parents[1]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def picture(name: str = "one.png", size: tuple[int, int] = (300, 200), seed: int = 0) -> Path:
    """Coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(name)
    return Path(name)


def load(folder: Path, *adapters: Adapter, style: Style | None = None) -> DiffusersPrior:
    prior = DiffusersPrior(describe(folder, "tiny"), torch.device("cpu"), torch.float32)
    adapt(prior, adapters)
    if style is not None:
        show(prior, next(adapter for adapter in adapters if adapter.kind == IMAGE_PROMPT), style)
    return prior


def shown(folder: Path, published: Path, scale: float = 0.5, seed: int = 0) -> DiffusersPrior:
    """The tiny prior, shown a picture."""
    (adapter,) = read_adapters([str(published)])
    return load(folder, replace(adapter, weight=scale), style=read_style(picture(seed=seed)))


def noisy(count: int = 1) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def noise_of(prior: DiffusersPrior, prompts: list[str], time: int = 500) -> Tensor:
    at = torch.full((len(prompts),), time)
    return prior.denoise(noisy().expand(len(prompts), -1, -1, -1), at, prior.encode_prompt(prompts))[1]


def by_diffusers(
    folder: Path, published: Path, image: Path, scale: float, weight: Tensor | None = None
) -> tuple[Tensor, int, Tensor]:
    """What diffusers' pipeline gives its network in its first step, when, and what that predicts: nothing, prompt."""
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False
    )
    if weight is not None:
        pipe.unet.get_submodule(QUERY).weight.data += weight
    pipe.load_ip_adapter(published, subfolder="models", weight_name="ip-adapter_sd15.safetensors")
    pipe.set_ip_adapter_scale(scale)
    pipe.set_progress_bar_config(disable=True)
    seen: list[Any] = []
    pipe.unet.register_forward_hook(
        lambda module, given, told, found: seen.append((given[0], given[1], found[0])), with_kwargs=True
    )
    pipe(
        "dragon front", ip_adapter_image=Image.open(image).convert("RGB"), num_inference_steps=1, latents=noisy(),
        guidance_scale=7.5, output_type="latent",
    )  # fmt: skip
    given, time, found = seen[0]
    return given, int(time), found


@pytest.mark.parametrize(("scale", "size"), [(0.5, (300, 200)), (1.0, (130, 301)), (0.5, (224, 224))])
def test_a_prior_predicts_what_diffusers_own_pipeline_does(
    folder: Path, published: Path, scale: float, size: tuple[int, int]
) -> None:
    image = picture(size=size)
    given, time, wanted = by_diffusers(folder, published, image, scale)
    (adapter,) = read_adapters([f"{published / 'models' / 'ip-adapter_sd15.safetensors'}={scale}"])
    prior = load(folder, adapter, style=read_style(image))
    told = prior.encode_prompt(["", "dragon front"])
    found = prior.denoise(given, torch.full((2,), time), told)[1]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    plain = load(folder).denoise(given, torch.full((2,), time), load(folder).encode_prompt(["", "dragon front"]))[1]
    assert (found - plain).abs().amax((1, 2, 3)).min() > 0.05  # with and without the prompt


def test_at_scale_0_there_is_no_picture_and_another_picture_is_another_prediction(
    folder: Path, published: Path
) -> None:
    prompts = ["dragon", ""]
    plain, none = noise_of(load(folder), prompts), noise_of(shown(folder, published, scale=0.0), prompts)
    torch.testing.assert_close(none, plain, atol=1e-6, rtol=0)
    one, half, other = (
        noise_of(shown(folder, published, scale, seed), prompts) for scale, seed in ((1.0, 0), (0.5, 0), (1.0, 1))
    )
    for found, against in ((one, plain), (one, half), (one[:1], other[:1])):
        assert (found - against).abs().max() > 0.01
    torch.testing.assert_close(one[1], other[1])  # the empty prompt sees no picture


@pytest.mark.parametrize("first", [0, 1])
def test_a_lora_changes_what_the_words_do_beside_it(folder: Path, published: Path, first: int) -> None:
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(2, 16, generator=generator), torch.randn(8, 2, generator=generator)
    save_file({f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}, "lora.safetensors")
    image = picture()
    given, time, wanted = by_diffusers(folder, published, image, 0.5, up @ down)
    both = read_adapters(["lora.safetensors", str(published)])
    prior = load(folder, both[first], both[1 - first], style=read_style(image))
    found = prior.denoise(given, torch.full((2,), time), prior.encode_prompt(["", "dragon front"]))[1]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert (found - noise_of(shown(folder, published), ["", "dragon front"], time)).abs().max() > 0.01


# Guidance.


def guide_of(folder: Path, published: Path, image: Path, names: tuple[str, ...] = (), loaded: Any = None) -> PriorGuide:
    adapters = read_adapters([str(published), *names])
    some = {stage: [WeightedPrior(str(folder))] for stage in STAGES}
    priors = choose_priors(some, "dragon", 0, "cpu", pytest.fail, adapters=adapters)
    return PriorGuide(priors, "dragon", 0, "cpu", loaded=loaded, adapters=adapters, style=read_style(image))


@pytest.mark.parametrize("perp_neg", [0.0, 0.7])
@torch.no_grad()
def test_the_guidance_is_shared_by_words_and_picture_as_in_magic3d(
    folder: Path, published: Path, perp_neg: float
) -> None:
    """s_text and s_joint: half and half below half of the diffusion time, above it the words alone."""
    loss = guide_of(folder, published, picture()).distillation("fine", GuidanceSettings(perp_neg=perp_neg))
    prior, told, views = loss.prior, loss.conditioning, turntable(4)
    time, rows, scale = torch.tensor([20, 499, 500, 950]), noisy(4), 100.0
    text, nothing = told.text(views), told.without(views)
    alone = torch.cat([text[:, :-4], nothing[:, -4:]], 1)
    assert not torch.equal(alone, text)
    uncond, words, joint = (prior.denoise(rows, time, states, None)[1] for states in (nothing, alone, text))
    joint_scale = torch.tensor([50.0, 50, 0, 0]).view(4, 1, 1, 1)
    wanted = uncond + (scale - joint_scale) * (words - uncond) + joint_scale * (joint - uncond)
    found = loss.guided(rows, time, views, scale)[1]
    if not perp_neg:
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=1e-3)
        asked = loss.predict(rows[2:], time[2:], views[2:], scale, [])  # two evaluations
        torch.testing.assert_close(asked[1][1], words[2:], atol=1e-5, rtol=1e-5)
        return
    assert (found - wanted).abs().max() > 0.1
    assert all(torch.equal(states[:, -4:], nothing[:, -4:]) for states, _ in told.negatives(views))


@torch.no_grad()
def test_a_picture_at_scale_0_leaves_the_guidance_as_it_was(folder: Path, published: Path) -> None:
    unseen, plain, own = shown(folder, published, scale=0.0), load(folder), GuidanceSettings(perp_neg=0.7)
    assert unseen.picture is not None
    told = replace(condition(unseen, "dragon"), unshown=unseen.picture.nothing)
    losses = ScoreDistillation(unseen, told, own), ScoreDistillation(plain, condition(plain, "dragon"), own)
    one, other = (loss.guided(noisy(4), torch.tensor([20, 499, 500, 950]), turntable(4), 100.0)[1] for loss in losses)
    torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


def test_at_scale_1_it_is_told_words_and_picture(folder: Path, published: Path) -> None:
    loss = guide_of(folder, published, picture()).distillation("fine", GuidanceSettings())
    views, time = turntable(2), torch.tensor([100, 900])
    wanted = loss.prior.denoise(noisy(2), time, loss.conditioning.text(views), None)[1]
    torch.testing.assert_close(loss.predict(noisy(2), time, views, 1.0, [])[0][1], wanted)


@torch.no_grad()
def test_jobs_that_are_shown_different_pictures_share_a_prior_and_each_sees_its_own(
    folder: Path, published: Path
) -> None:
    """In a batch of many styles the prior is loaded once, and predicts for each what one of its own would."""
    loaded: Any = {}
    images = [picture(), picture("two.png", seed=1)]
    guides = [guide_of(folder, published, image, loaded=loaded) for image in images]
    losses = [guide.distillation("fine", GuidanceSettings()) for guide in guides]
    assert losses[0].prior is losses[1].prior and len(loaded) == 1
    found = []
    for loss, image in zip(losses, images, strict=True):  # the first one after the second was shown its picture
        own = guide_of(folder, published, image).distillation("fine", GuidanceSettings())
        assert own.prior is not loss.prior
        given = noisy(2), torch.tensor([100, 900]), turntable(2), 100.0
        found.append(loss.guided(*given)[0])
        torch.testing.assert_close(found[-1], own.guided(*given)[0], atol=0, rtol=0)
    assert (found[0] - found[1]).abs().max() > 0.01
    plain = PriorGuide(guides[0].priors, "dragon", 0, "cpu", loaded=loaded).distillation("fine", GuidanceSettings())
    assert getattr(plain.prior, "picture", 0) is None
    assert len({guide.sha256("fine") for guide in guides}) == 2


def test_it_is_counted_as_one_evaluation_more() -> None:
    stage = preset("draft").coarse
    network = view_work(stage, "sd15") - ENCODER
    assert view_work(stage, "sd15", shown=True) == pytest.approx(1.5 * network + ENCODER)
    assert view_work(stage, "builtin", shown=True) == view_work(stage, "builtin")


# What is refused.


def changed(published: Path, change: Any) -> Path:
    """A copy of the published folder with its tensors changed."""
    shutil.copytree(published, "copy")
    file = Path("copy/models/ip-adapter_sd15.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    return file


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        (["image_proj.latents", "image_proj.proj_in.weight"], "Plus"),
        (["image_proj.proj.0.weight", "image_proj.proj.2.weight", "image_proj.proj.3.weight"], "Full"),
        (["image_proj.proj.0.weight", "image_proj.proj.2.weight", "image_proj.norm.weight"], "FaceID"),
        (["image_proj.perceiver_resampler.proj_in.weight", "image_proj.proj.2.weight"], "FaceID Plus"),
        (["image_proj.proj.weight", "ip_adapter.0.to_q_lora.down.weight"], "FaceID"),
    ],
)
def test_other_variants_are_refused_by_name(names: list[str], variant: str) -> None:
    save_file({name: torch.zeros(2, 2) for name in (*names, "ip_adapter.1.to_k_ip.weight")}, "other.safetensors")
    with pytest.raises(UsageError, match=f"an IP-Adapter {variant}, which is not supported: ") as refused:
        read_adapters(["other.safetensors"])
    assert "hf download h94/IP-Adapter" in refused.value.next_step


def test_a_folder_is_searched_and_pickled_files_and_what_is_missing_are_refused(published: Path) -> None:
    for given in (published, published / "models", published / "models" / "ip-adapter_sd15.safetensors"):
        (found,) = read_adapters([str(given)])
        assert (found.kind, found.weight) == (IMAGE_PROMPT, 0.5)
        assert found.path == published / "models" / "ip-adapter_sd15.safetensors"
    assert read_adapters([f"{published}=0.8"])[0].weight == 0.8
    with pytest.raises(UsageError, match="at most 1"):
        read_adapters([f"{published}=1.5"])
    Path("old").mkdir()
    with pytest.raises(UsageError, match="holds no IP-Adapter"):
        read_adapters(["old"])
    Path("old/ip-adapter_sd15.bin").write_bytes(b"PK\x03\x04")
    for pickled in ("old", "old/ip-adapter_sd15.bin"):
        with pytest.raises(UsageError, match="pickled"):
            read_adapters([pickled])
    for name in ("ip-adapter_a.safetensors", "ip-adapter_b.safetensors"):
        (Path("old") / name).touch()
    with pytest.raises(UsageError, match="several IP-Adapters"):
        read_adapters(["old"])


def test_its_image_encoder_has_to_be_there_and_to_fit(folder: Path, published: Path) -> None:
    shutil.copytree(published, "copy")
    encoder, spec = Path("copy/models/image_encoder"), describe(folder, "tiny")
    (adapter,) = read_adapters(["copy"])
    check_fits(adapter, spec)
    shutil.rmtree(encoder)
    save_ip_adapter(Path("narrow"), embedding=10)
    shutil.copytree("narrow/models/image_encoder", encoder)
    with pytest.raises(UsageError, match=r"gives 10 numbers of a picture, and .* takes 12"):
        check_fits(adapter, spec)
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(EnvironmentFault, match="damaged or incomplete"):
        check_fits(adapter, spec)
    weights.rename(encoder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="only pickled weights"):
        read_adapters(["copy"])
    shutil.rmtree(encoder)
    with pytest.raises(UsageError, match="image_encoder is missing") as refused:
        read_adapters(["copy"])
    assert "models/image_encoder/model.safetensors" in refused.value.next_step


def test_one_of_another_base_model_is_refused(folder: Path, published: Path) -> None:
    spec = describe(folder, "tiny")
    for number, (width, message) in enumerate(((24, r"\[8, 24\], not \[8, 16\]"), (16, None))):
        (adapter,) = read_adapters([str(save_ip_adapter(Path(f"wide{number}"), width=width))])
        if message is None:
            check_fits(adapter, spec)
            continue
        with pytest.raises(UsageError, match=message) as refused:
            check_fits(adapter, spec)
        assert "--prior" in refused.value.next_step
    more = changed(published, lambda tensors: tensors.update({"ip_adapter.9.to_k_ip.weight": torch.zeros(8, 16)}))
    with pytest.raises(UsageError, match="1 tensors that no attention"):
        check_fits(read_adapters([str(more)])[0], spec)
    shutil.rmtree("copy")
    fewer = changed(published, lambda tensors: tensors.pop("ip_adapter.7.to_v_ip.weight"))
    with pytest.raises(UsageError, match=r"ip_adapter.7.to_v_ip.weight is missing, not \[16, 16\]"):
        check_fits(read_adapters([str(fewer)])[0], spec)
    shutil.rmtree("copy")
    odd = changed(published, lambda tensors: tensors.pop("image_proj.norm.bias"))
    with pytest.raises(UsageError, match=r"image_proj\.norm\.bias is missing"):
        read_adapters([str(odd)])


@pytest.mark.parametrize("save", [save_if, save_pixart, save_sdxl, save_mvdream])
def test_other_kinds_of_priors_are_refused(save: Any, tmp_path: Path, published: Path) -> None:
    (adapter,) = read_adapters([str(published)])
    with pytest.raises(UsageError, match="cannot be used with other") as refused:
        check_fits(adapter, describe(save(tmp_path / "other"), "other"))
    assert refused.value.next_step


def test_it_goes_with_one_picture_alone(published: Path) -> None:
    (adapter,) = read_adapters([str(published)])
    check_shown([adapter], styled=True)
    check_shown([], styled=False)
    with pytest.raises(UsageError, match="there is none"):
        check_shown([adapter], styled=False)
    with pytest.raises(UsageError, match="Two IP-Adapters"):
        check_shown([adapter, adapter], styled=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "a dragon", "--prior", "sd15", "--adapter", "IP"], "an IP-Adapter, which shows the prior a"),
        (["generate", "a dragon", "--prior", "sd15", "--style", "one.png"], "needs an IP-Adapter to show sd15"),
        (["generate", "a dragon", "--prior", "mvdream", "--style", "one.png", "--adapter", "IP"], "none for mvdream"),
        (["generate", "a dragon", "--prior", "zero123-xl", "--style", "one.png"], "none for zero123-xl"),
        (["generate", "a dragon", "--prior", "pixart", "--style", "one.png", "--adapter", "IP"], "cannot be used with"),
        (["generate", "a car", "--prior", "builtin", "--style", "one.png", "--adapter", "IP"], "has the built-in one"),
        (["generate", "a dragon", "--prior", "sd15", "--style", "no.png", "--adapter", "IP"], "no file no.png"),
        (["batch", "list.txt", "--prior", "sd15", "--adapter", "IP"], "an IP-Adapter, which shows the prior a"),
        (["refine", "a.ckpt", "--style", "one.png"], "belong to a mesh of your own"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(
    arguments: list[str], message: str, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(published, "IP")
    picture()
    save_pixart(Path("pixart"))
    Path("list.txt").write_text("a dragon\n")
    Path("a.ckpt").touch()
    assert magic3d(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "next: " in err and "Traceback" not in err
    assert not list(Path().glob("*.run"))


def test_python_is_told_the_same(published: Path) -> None:
    for style, message in ((None, "there is none"), (Path("no.png"), "no file no.png")):
        with pytest.raises(UsageError, match=message):
            generate("a dragon", prior="sd15", adapters=[published], style=style)


# A run.


def test_an_edit_keeps_its_runs_adapters_and_takes_another_picture_by_the_given_one(published: Path) -> None:
    (mine,) = read_adapters([f"{published}=0.7"])
    (other,) = read_adapters([str(save_ip_adapter(Path("other"), embedding=10))])
    save_file({"<cat-toy>": torch.zeros(16)}, "word.safetensors")
    (word,) = read_adapters(["word.safetensors"])
    saved, path = [mine.to_json(), word.to_json()], Path("fine.ckpt")
    assert [[a.mark for a in some] for some in edited(saved, [], path)] == [[mine.mark, word.mark]] * 2
    before, after = edited(saved, [other], path)
    assert [a.mark for a in before] == [mine.mark, word.mark] and [a.mark for a in after] == [word.mark, other.mark]
    weaker = read_adapters([f"{published}=0.2"])
    before, after = edited(saved, weaker, path)
    assert [a.weight for a in before] == [0.7, 1.0] and [a.weight for a in after] == [1.0, 0.2]
    with pytest.raises(UsageError, match="was not made with the adapter"):
        kept(saved, [other], path)


@pytest.mark.slow
def test_a_run_is_shown_its_picture_to_the_end_and_no_other(
    folder: Path, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_draft(monkeypatch)
    shutil.copytree(published, "IP")
    picture(), picture("two.png", seed=1)
    command = ("generate", "a dragon", "--prior", folder, "-o", "d.glb", "--adapter", "IP", "--style")
    assert magic3d(*command, "one.png", "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["style"] == "one.png" and planned["adapters"][0]["kind"] == IMAGE_PROMPT
    assert magic3d(*command, "one.png", "--json") == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["style"] == "one.png" and report["adapters"][0]["weight"] == 0.5
    assert (
        "one.png is shown to sd by ip-adapter_sd15.safetensors, at a scale of 0.5." in err and "colours of" not in err
    )
    assert magic3d(*command, "one.png") == 0
    assert "finished already" in capsys.readouterr().err
    for arguments in (("two.png",), ("one.png", "--adapter", "lora.safetensors")):
        save_file({f"unet.{QUERY}.lora_{a}.weight": torch.zeros(*s) for a, s in (("A", (2, 16)), ("B", (8, 2)))},
                  "lora.safetensors")  # fmt: skip
        assert magic3d(*command, *arguments) == 2
        assert "was not made by this request" in capsys.readouterr().err
    Path("one.png").unlink()
    header = checkpoint.read_header(Path("d.run/fine.ckpt"))
    assert magic3d("refine", "d.run", "-o", "again.glb") == 0
    assert checkpoint.read_header(Path("again.run/fine.ckpt"))["prior"] == header["prior"]
    assert Path("again.glb").read_bytes() == Path("d.glb").read_bytes()
    other = save_ip_adapter(Path("other"), embedding=10)
    capsys.readouterr()
    assert magic3d("refine", "d.run", "-o", "no.glb", "--adapter", other) == 2
    assert "was not made with the adapter" in capsys.readouterr().err
    assert magic3d("edit", "d.run", "a dragon", "--recolour", "--style", "two.png", "-o", "e.glb") == 0
    assert "Comparing what the prior expects" in capsys.readouterr().err
    child = checkpoint.read_header(Path("e.run/fine.ckpt"))
    assert child["style"]["name"] == "two.png" and child["adapters"][0]["sha256"] == header["adapters"][0]["sha256"]
    assert child["prior"]["sha256"] != header["prior"]["sha256"]
    shutil.rmtree("IP")
    assert magic3d("refine", "d.run", "-o", "gone.glb") == 2
    assert "no longer there" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", [VSD, BSD])
def test_other_methods_of_distillation_are_shown_the_picture_too(folder: Path, published: Path, method: str) -> None:
    tiny = tiny_settings()
    base = replace(tiny, coarse=replace(tiny.coarse, steps=2), fine=replace(tiny.fine, render_size=24))
    chosen = resolve(base, {stage: [StagePrior("sd")] for stage in STAGES}, distillation=method)
    few = BootstrapSettings(rounds=2, pictures=2, steps=2, rate=1e-2)
    own = replace(chosen.fine.guidance, bootstrap=few)
    chosen = replace(chosen, fine=replace(chosen.fine, guidance=own))
    made: list[dict[str, Tensor]] = []
    for seed in (0, 1, 0):
        out = Path(f"{len(made)}.glb")
        run_tiny(out, settings=chosen, guide=guide_of(folder, published, picture(seed=seed)))
        made.append(checkpoint.load(out.with_suffix(".run") / "fine.ckpt")[0])
    assert any(not made[0][key].equal(made[1][key]) for key in made[0])
    assert all(made[0][key].equal(made[2][key]) for key in made[0])
    assert any(key.startswith("learnt/") for key in made[0])


@pytest.mark.slow
def test_the_built_in_prior_paints_its_colours_where_another_is_shown_it(
    folder: Path, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_draft(monkeypatch)
    save_builtin(Path("closed"))
    picture()
    assert magic3d(
        "generate", "a dragon", "--coarse-prior", "closed", "--fine-prior", folder, "--adapter", published,
        "--style", "one.png", "-o", "d.glb",
    ) == 0  # fmt: skip
    err = capsys.readouterr().err
    assert "colours of one.png" in err and "one.png is shown to sd by" in err
    assert magic3d("edit", "d.run", "a dragon", "--recolour", "--box", "top", "--prior", folder, "-o", "e.glb") == 0
    own = ("refine", "d.glb", "--prompt", "a dragon", "--prior", folder, "--adapter", published, "-o", "own.glb", "-q")
    assert magic3d(*own, "--style", "one.png") == 0
    saved = checkpoint.read_header(Path("own.run/fine.ckpt"))
    assert saved["style"]["name"] == "one.png" and saved["adapters"][0]["kind"] == IMAGE_PROMPT
