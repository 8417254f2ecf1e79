"""Priors that are shown four views together: MVDream in its authors' formulas."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command import magic3d
from safetensors.torch import load_file, save_file
from tiny_priors import save_mvdream
from tiny_run import tiny_draft
from torch import Tensor

from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.conditioning import SHUNNED, condition
from magic3d_cli.guidance.diffusers.catalogue import HUB
from magic3d_cli.guidance.diffusers.mvdream import renamed
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import check, describe
from magic3d_cli.guidance.distillation import ScoreDistillation, rescaled
from magic3d_cli.guidance.priors import STAGES
from magic3d_cli.presets import preset, resolve
from magic3d_cli.run import checkpoint
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import sample_views, turntable
from magic3d_cli.settings import GuidanceSettings, StagePrior, TimestepSchedule, ViewSampling
from magic3d_cli.training.distributed import Processes, joined
from magic3d_cli.training.microbatch import MicroBatches
from magic3d_cli.training.terms import Step


def loaded(folder: Path) -> DiffusersPrior:
    spec = describe(folder, "prior")
    check(spec)
    return DiffusersPrior(spec, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusersPrior:
    return loaded(save_mvdream(tmp_path_factory.mktemp("priors") / "mvdream"))


def noisy(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def predicted(prior: DiffusersPrior, x: Tensor, cameras: Tensor) -> Tensor:
    text = prior.encode_prompt(["dragon"]).expand(len(x), -1, -1)
    return prior.denoise(x, torch.full((len(x),), 500), text, cameras)[1]


def as_the_authors(elevation: float, azimuth: float) -> np.ndarray:
    """create_camera_to_world_matrix and convert_opengl_to_blender of the authors' camera_utils.py; degrees."""
    e, a = math.radians(elevation), math.radians(azimuth)
    place = np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    forward = -place / np.linalg.norm(place)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(right, forward), -forward], 1)
    matrix[:3, 3] = place
    return np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) @ matrix


@pytest.mark.parametrize("elevation", [0.0, 15.0, 40.0])
def test_the_camera_is_told_as_the_authors_tell_it_with_the_front_at_their_azimuth_90(elevation: float) -> None:
    told = turntable(8, elevation, start=10.0).camera_matrix()
    expected = np.stack([as_the_authors(elevation, 10 + 45 * k + 90).flatten() for k in range(8)])
    torch.testing.assert_close(told, torch.from_numpy(expected).float(), atol=1e-6, rtol=0)


def test_views_are_drawn_in_sets_that_lie_one_after_the_other() -> None:
    views = sample_views(12, ViewSampling(together=4), torch.Generator().manual_seed(0))
    turns = torch.rad2deg(views.azimuth.view(3, 4).diff(dim=1)) % 360
    torch.testing.assert_close(turns, torch.full((3, 3), 90.0), atol=1e-3, rtol=0)
    for kept in (views.elevation, views.fov, views.half_height, views.ambient, views.shading, views.backdrop[:, 0]):
        sets = kept.view(3, 4)
        assert (sets == sets[:, :1]).all() and (kept is views.shading or len(sets[:, 0].unique()) > 1)
    right, up, forward = views.axes()
    lit = torch.stack([(views.light * axis).sum(1) for axis in (right, up, forward)], 1).view(3, 4, 3)
    torch.testing.assert_close(lit, lit[:, :1].expand(-1, 4, -1), atol=1e-5, rtol=0)  # as each camera sees it
    with pytest.raises(ValueError, match="6 views are not whole sets of 4"):
        sample_views(6, ViewSampling(together=4), torch.Generator())


def test_every_layout_is_the_same_network(prior: DiffusersPrior, tmp_path: Path) -> None:
    assert (prior.set_size, prior.camera_conditioned, prior.image_size) == (4, True, 16)
    cameras = turntable(4).camera_matrix()
    expected = predicted(prior, noisy(), cameras)
    for layout in ("beside", "authors"):
        other = loaded(save_mvdream(tmp_path / layout, layout))
        torch.testing.assert_close(predicted(other, noisy(), cameras), expected, atol=1e-5, rtol=1e-5)


def test_names_of_a_full_network_are_as_diffusers_own_converter_has_them() -> None:
    assert renamed("input_blocks.8.1.transformer_blocks.0.attn1.to_q.weight", 2) == (
        "down_blocks.2.attentions.1.transformer_blocks.0.attn1.to_q.weight"
    )
    assert renamed("input_blocks.9.0.op.bias", 2) == "down_blocks.2.downsamplers.0.conv.bias"
    assert renamed("output_blocks.2.1.conv.weight", 2) == "up_blocks.0.upsamplers.0.conv.weight"  # without attention
    assert renamed("output_blocks.5.2.conv.weight", 2) == "up_blocks.1.upsamplers.0.conv.weight"
    assert renamed("output_blocks.11.0.skip_connection.bias", 2) == "up_blocks.3.resnets.2.conv_shortcut.bias"


def test_self_attention_goes_over_all_views_of_a_set_and_over_no_other(prior: DiffusersPrior) -> None:
    """Against the formula: softmax(q k^T / sqrt(d)) v over four views' tokens in one row."""
    layer = prior.network.mid_block.attentions[0].transformer_blocks[0].attn1
    tokens = torch.randn(8, 5, 64, generator=torch.Generator().manual_seed(1))
    rows = tokens.reshape(2, 20, 64)
    heads = [getattr(layer, f"to_{part}")(rows).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in "qkv"]
    weights = (heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(heads[0].shape[-1])).softmax(-1)
    expected = layer.to_out[0]((weights @ heads[2]).transpose(1, 2).flatten(2)).reshape(8, 5, 64)
    torch.testing.assert_close(layer(tokens), expected, atol=1e-5, rtol=1e-4)
    crossed = prior.network.mid_block.attentions[0].transformer_blocks[0].attn2
    text = torch.randn(8, 3, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(crossed(tokens, text)[:1], crossed(tokens[:1], text[:1]))


def test_views_see_each_other_in_any_order_and_sets_do_not(prior: DiffusersPrior) -> None:
    x, cameras = noisy(8), turntable(8).camera_matrix()
    both = predicted(prior, x, cameras)
    torch.testing.assert_close(predicted(prior, x[:4], cameras[:4]), both[:4], atol=1e-5, rtol=1e-4)
    order = torch.tensor([2, 0, 3, 1])
    turned = predicted(prior, x[:4][order], cameras[:4][order])
    torch.testing.assert_close(turned, both[:4][order], atol=1e-5, rtol=1e-4)
    changed = x[:4].clone()
    changed[3] = 0
    assert (predicted(prior, changed, cameras[:4])[0] - both[0]).abs().max() > 1e-4  # another view's tokens count
    assert (predicted(prior, x[:4], cameras[4:])[0] - both[0]).abs().max() > 1e-4  # and so does the camera
    with pytest.raises(ValueError, match="6 views are not whole sets of 4"):
        predicted(prior, x[:6], cameras[:6])


def test_contrast_is_rescaled_over_the_set_as_the_authors_do() -> None:
    guided, cond = 5 * noisy(8, 3) * torch.linspace(0.2, 2, 8).view(-1, 1, 1, 1), noisy(8, 4)
    sets, told = guided.view(-1, 4, 4, 8, 8), cond.view(-1, 4, 4, 8, 8)
    factor = (told.std([1, 2, 3, 4], keepdim=True) + 1e-8) / (sets.std([1, 2, 3, 4], keepdim=True) + 1e-8)
    adjusted = guided * factor.squeeze(1).repeat_interleave(4, dim=0)
    torch.testing.assert_close(rescaled(guided, cond, 0.5, 4), 0.5 * adjusted + 0.5 * guided)
    assert not torch.allclose(rescaled(guided, cond, 0.5, 1), rescaled(guided, cond, 0.5, 4))


def test_the_loss_is_the_authors_distance_to_the_clean_image(prior: DiffusersPrior) -> None:
    told = condition(prior, "dragon")
    torch.testing.assert_close(told.unconditional, prior.encode_prompt([SHUNNED]))
    settings = GuidanceSettings(
        scale=(50.0, 50.0), weighting="uniform", rescale=0.5, times=TimestepSchedule((0.5, 0.5), (0.5, 0.5))
    )
    views = turntable(4, 15.0)
    images = torch.rand(4, 16, 16, 3, generator=torch.Generator().manual_seed(3), requires_grad=True)
    step = Step(views, 0.0, torch.Generator().manual_seed(4), Processes())
    value, _ = ScoreDistillation(prior, told, settings)(Render(images, *[torch.zeros(0)] * 4), step)

    generator = torch.Generator().manual_seed(4)
    torch.rand(1, generator=generator, dtype=torch.float64)  # one time for the set
    latents = prior.encode_image(images.permute(0, 3, 1, 2))
    noise, t = torch.randn(latents.shape, generator=generator), torch.full((4,), 500)
    alpha, sigma = prior.alphas_cumprod[500].sqrt(), (1 - prior.alphas_cumprod[500]).sqrt()
    x = alpha * latents.detach() + sigma * noise
    cameras = views.camera_matrix()
    states = [told.unconditional.expand(4, -1, -1), told.states.expand(4, -1, -1)]
    uncond, text = (prior.denoise(x, t, state, cameras)[1] for state in states)
    recon, plain = ((x - sigma * eps) / alpha for eps in (uncond + 50 * (text - uncond), text))
    recon = 0.5 * recon * plain.std() / recon.std() + 0.5 * recon
    expected = 0.5 * F.mse_loss(latents, recon, reduction="sum") / 4
    torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3)
    (pull,) = torch.autograd.grad(value, images)
    assert pull.isfinite().all() and pull.abs().sum() > 0


def test_all_views_of_a_set_are_as_noisy_as_each_other(prior: DiffusersPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[Tensor] = []
    network = prior._network

    def spy(x: Tensor, timestep: Tensor, *rest: Tensor) -> Tensor:
        times.append(timestep)
        return network(x, timestep, *rest)

    monkeypatch.setattr(prior, "_network", spy)
    loss = ScoreDistillation(prior, condition(prior, "dragon"), GuidanceSettings())
    images = torch.rand(8, 16, 16, 3)
    loss(Render(images, *[torch.zeros(0)] * 4), Step(turntable(8), 0.0, torch.Generator(), Processes()))
    sets = times[0].view(2, 2, 4)  # without and with the prompt
    assert (sets == sets[..., :1]).all() and sets[0, 0, 0] != sets[0, 1, 0] and torch.equal(sets[0], sets[1])


def test_no_set_is_split_when_memory_runs_out_nor_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(batch: int, rows: slice, fraction: float) -> int:
        if rows.stop - rows.start > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows.stop - rows.start

    most = 5
    parts = MicroBatches().run([12, 3], [4, 1], torch.Generator(), compute, lambda: None, Processes())
    assert parts == [(0, 4), (0, 4), (0, 4), (1, 3)]
    most = 3
    with pytest.raises(torch.OutOfMemoryError):
        MicroBatches().run([12], [4], torch.Generator(), compute, lambda: None, Processes())
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="2 sets of views a step cannot be shared"), joined("cpu", {"a": 8}, {"a": 4}):
        pass


def test_settings_are_the_authors_and_views_are_whole_sets() -> None:
    sets, words = StagePrior("mvdream", set_size=4), StagePrior("sd15")
    chosen = resolve(preset("draft"), {stage: [sets] for stage in STAGES})
    assert (chosen.coarse.views, chosen.fine.views, chosen.coarse.sampling.together) == (4, 4, 4)
    guidance = chosen.coarse.guidance
    assert (guidance.scale, guidance.rescale, guidance.weighting) == ((50.0, 50.0), 0.5, "uniform")
    assert chosen.coarse.sampling.elevation == (0.0, 30.0) and guidance.times.end == (0.02, 0.5)
    both = resolve(preset("draft"), {stage: [words, sets] for stage in STAGES})
    assert both.fine.sampling.together == 4 and both.fine.added_guidance[0].guidance.rescale == 0.5
    alone = resolve(chosen, {stage: [words] for stage in STAGES})
    assert alone.fine.sampling.together == 1 and alone.fine.guidance.rescale == 0


def test_what_is_not_mvdream_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = save_mvdream(tmp_path / "prior", "authors")
    weights, file = folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "unet" / "config.json"
    tensors = load_file(weights)
    save_file({key: tensor for key, tensor in tensors.items() if not key.startswith("camera_embed")}, weights)
    with pytest.raises(EnvironmentFault, match=r"4 tensors are missing .*class_embedding"):
        loaded(folder)
    authors = json.loads(file.read_text())
    file.write_text(json.dumps(authors | {"ip_dim": 16}))
    with pytest.raises(EnvironmentFault, match="16 tokens of a picture") as fault:
        describe(folder, "prior")
    assert "ImageDream" in fault.value.next_step
    file.write_text(json.dumps({key: value for key, value in authors.items() if key != "channel_mult"}))
    with pytest.raises(EnvironmentFault, match="channel_mult"):
        describe(folder, "prior")
    file.write_text(json.dumps(authors))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(EnvironmentFault, match="only pickled weights"):
        loaded(folder)
    assert HUB["mvdream"].licence


@pytest.mark.slow
def test_a_prompt_becomes_an_asset_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_draft(monkeypatch)
    monkeypatch.chdir(tmp_path)
    save_mvdream(tmp_path / "prior", "authors")
    assert magic3d("generate", "a dragon", "--prior", "prior", "-o", "dragon.glb") == 0, capsys.readouterr().err
    for stage in STAGES:
        settings = checkpoint.read_header(Path("dragon.run") / f"{stage}.ckpt")["settings"][stage]
        assert settings["sampling"]["together"] == settings["views"] == 4 and settings["guidance"]["rescale"] == 0.5
    assert magic3d("refine", "dragon.run/coarse.ckpt", "-o", "again.glb") == 0, capsys.readouterr().err
    assert Path("again.glb").read_bytes() == Path("dragon.glb").read_bytes()
