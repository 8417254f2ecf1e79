"""The built-in prior's volume: the CPU kernel equals plain PyTorch, and the volume stands upright in the world."""

from __future__ import annotations

import pytest
import torch

from magic3d_cli.guidance.builtin.unet import VolumeUNet
from magic3d_cli.guidance.builtin.volume import FULL, NEAR, CaptionVolume, words
from magic3d_cli.kernels.dispatch import composite_volume
from magic3d_cli.kernels.volume import composite_volume_reference
from magic3d_cli.scene.views import FEATURES, ViewSampling, sample_views, turntable

EXTENT = 0.95


def _rays(count: int = 4, size: int = 8):
    views = sample_views(count, ViewSampling(), torch.Generator().manual_seed(0))
    origins, directions = views.rays(size)
    jitter = torch.rand(count, size * size, generator=torch.Generator().manual_seed(1))
    return origins[:, 0, 0], directions.flatten(1, 2), views.distance - EXTENT, jitter, 24, EXTENT


@pytest.mark.parametrize("density", ["thin", "solid", "mixed", "corner"])
def test_kernel_equals_the_reference_in_values_and_gradients(density: str) -> None:
    generator = torch.Generator().manual_seed(2)
    volume = torch.randn(2, 16, 20, 24, 7, generator=generator)  # two captions, two views each
    raw = volume[..., 0]
    volume[..., 0] = {"thin": raw - 3, "solid": raw + 3, "mixed": raw * 5, "corner": raw * 5}[density]
    if density == "corner":  # rays need only look there, and nowhere in the second volume
        volume[0, 5:, ..., 0] = volume[0, :, 9:, :, 0] = volume[0, :, :, 4:, 0] = volume[1, ..., 0] = -20
    volume.requires_grad_()
    fast = composite_volume(volume, *_rays())
    slow = composite_volume_reference(volume, *_rays())
    torch.testing.assert_close(fast, slow, rtol=0, atol=5e-3)  # rays end when 1e-3 of the light is left
    weight = torch.randn(fast.shape, generator=generator)
    ours, theirs = (torch.autograd.grad((image * weight).sum(), volume)[0] for image in (fast, slow))
    for mine, wanted in ((ours[..., 0], theirs[..., 0]), (ours[..., 1:], theirs[..., 1:])):
        torch.testing.assert_close(mine, wanted, rtol=5e-3, atol=5e-3)
        assert wanted.abs().max() > 0.1


def test_each_caption_is_seen_by_its_own_views() -> None:
    volume = torch.full((2, 4, 4, 4, 7), 3.0)
    volume[1] = -20  # the second object is empty
    opacity = composite_volume(volume, *_rays())[:, 0].amax(1)
    assert (opacity[:2] > 0.9).all() and (opacity[2:] == 0).all()


@pytest.mark.parametrize("views", [1, 2, 3, 9])
def test_parts_make_the_image_of_the_whole(views: int, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = torch.randn(2, 8, 8, 8, 7, generator=torch.Generator().manual_seed(4))
    whole = composite_volume_reference(volume, *_rays(6))
    monkeypatch.setattr("magic3d_cli.kernels.volume._SAMPLES", views * 64 * 24)
    torch.testing.assert_close(composite_volume_reference(volume, *_rays(6)), whole)


def _volume() -> CaptionVolume:
    """Two models' latents, and captions that mean something."""
    torch.manual_seed(0)
    volume = CaptionVolume(cross_attention_dim=16, latent_size=8, width=16, voxel_width=8, samples=24, embedding=32)
    volume.factorise(3 * torch.randn(40, len(volume.mean)))
    volume.caption[-1].get_parameter("bias").data[-1] = 9.0  # every caption names something
    return volume.eval()


def _network(embedding: int = 32) -> VolumeUNet:
    torch.manual_seed(0)
    return VolumeUNet(8, widths=(8, 8, 16), embedding=embedding)


@pytest.mark.parametrize("axis, azimuth, row, column", [("y", 0, 0, None), ("x", 0, None, 1), ("z", 90, None, 0)])
def test_the_volume_stands_in_the_world_as_the_cameras_do(axis, azimuth, row, column) -> None:
    volume = torch.full((1, 16, 16, 16, 7), -20.0)
    high = [slice(None)] * 3
    high["yxz".index(axis)] = slice(8, None)
    volume[0, high[0], high[1], high[2]] = 9.0
    image = _volume().render(volume, turntable(1, elevation=0, start=azimuth), 8)[0, 0]
    image = image if column is None else image.T
    halves = torch.stack([image[:4].mean(), image[4:].mean()])
    full = row if column is None else column
    assert halves[full] > 3 * halves[1 - full]


def test_the_caption_the_camera_and_the_noise_level_reach_the_picture() -> None:
    volume, network = _volume(), _network()
    noisy, text = torch.randn(4, 12, 8, 8), torch.randn(1, 3, 16)
    features, time = turntable(4).features(), torch.full((4,), 500)

    def denoised(text, time, features) -> torch.Tensor:
        with torch.inference_mode():
            return network(noisy, time, features, volume(text, features, 16)).sample

    base = denoised(text, time, features)
    assert base.shape == noisy.shape and features.shape[1] == FEATURES
    other = {
        "caption": denoised(text + 1, time, features),
        "camera": denoised(text, time, features.flip(0)),
        "time": denoised(text, time - 400, features),
    }
    for name, output in other.items():
        assert (output - base).abs().mean() > 1e-2 * base.abs().mean(), name


def test_one_caption_for_all_views_equals_one_for_each() -> None:
    volume, text, features = _volume(), torch.randn(2, 3, 16), turntable(4).features()
    with torch.inference_mode():
        shared, single = (volume(t, features, 16) for t in (text, text.repeat_interleave(2, 0)))
    assert shared.maps[:, 0].max() > 0.5
    for name in ("maps", "shown", "wording"):
        torch.testing.assert_close(getattr(shared, name), getattr(single, name), rtol=1e-3, atol=1e-3)


def test_another_caption_is_imagined_anew() -> None:
    volume, features = _volume(), turntable(2).features()
    one, two = torch.randn(1, 3, 16), torch.randn(1, 3, 16)
    with torch.inference_mode():
        first, other, again = (volume(text, features, 16).shown for text in (one, two, one))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_a_caption_that_names_nothing_has_an_empty_volume() -> None:
    volume, text, features = _volume(), torch.randn(2, 3, 16), turntable(2).features()
    with torch.inference_mode():
        said = volume.caption(words(text))[:, -1]
        volume.caption[-1].get_parameter("bias")[-1] -= said.mean()  # between the two
        opacity = volume(text, features, 16).maps[:, 0].amax((1, 2))
    assert (opacity > 0.5).tolist() == (said > said.mean()).tolist() and opacity.min() == 0


def test_the_feature_image_ends_in_the_place_of_what_it_shows() -> None:
    volume = _volume()
    slab = torch.full((1, 16, 16, 16, 7), -20.0)
    slab[:, :, :, 8:] = 12.0  # solid where z > 0: seen from the front, at z = extent
    maps = volume.render(slab, turntable(1, elevation=0), 9)
    centre = maps[0, -3:, 4, 4] / maps[0, 0, 4, 4]
    torch.testing.assert_close(centre[:2], torch.zeros(2), rtol=0, atol=1e-4)
    assert 0.6 * volume.extent < centre[2] < volume.extent


def test_the_painter_follows_the_caption_and_not_the_neighbours() -> None:
    painter = _volume().painter
    maps, wording = torch.rand(2, 10, 8, 8), torch.randn(2, 32)
    maps[:, 0] = 1  # opaque
    painted = painter(maps, wording)
    assert painted.min() > 0 and painted.max() < 1
    assert not torch.allclose(painter(maps, wording.flip(0)), painted, atol=1e-3)
    maps[:, 1:, :4] = torch.rand(2, 9, 4, 8)
    torch.testing.assert_close(painter(maps, wording)[:, :, 4:], painted[:, :, 4:])
    maps[0, :, 5] = 0
    assert (painter(maps, wording)[0, :, 5] == 0).all()


def test_principal_components_of_eight_bits_give_the_latents_back() -> None:
    volume = _volume()
    latents = torch.randn(40, 8) @ torch.randn(8, len(volume.mean)) + torch.randn(len(volume.mean))
    codes = volume.factorise(latents)
    assert 0.1 < codes[:, :8].std() < 10 and codes[:, 8:].abs().max() < 1e-3
    error = (volume.latent(codes).flatten(1) - latents).std() / latents.std()
    assert error < 0.02


def test_the_whole_volume_has_the_voxels_of_near_cells_where_they_belong() -> None:
    volume = _volume()
    latent = torch.randn(2, *volume.latent_shape)
    with torch.inference_mode():
        planes = volume.refine(latent)
        volume.cell[-1].get_parameter("bias")[0] += NEAR - volume.cells(planes)[..., 0].median()  # half of them
        whole, cells = volume.decode(latent), volume.cells(planes)
        assert whole.shape == (2, 16, 16, 16, 7) and cells.shape == (2, 8, 8, 8, 2)
        places = torch.arange(2 * 16**3)
        caption, j, i, k = torch.unravel_index(places, (2, 16, 16, 16))
        near, inside = cells[caption, j // 2, i // 2, k // 2].unbind(-1)
        assert 0.1 < (near > NEAR).float().mean() < 0.9
        read = volume.voxels(planes, places)
        torch.testing.assert_close(whole.flatten(0, 3)[near > NEAR], read[near > NEAR])
        far = whole.flatten(0, 3)[near <= NEAR]
        assert torch.equal(far[:, 0], torch.where(inside > 0, FULL, -FULL)[near <= NEAR]) and (far[:, 1:] == 0).all()
        # A place is read from the pixels of its own row and column in each plane.
        picked = torch.tensor([5 * 64 + 3 * 8 + 6, 512 + 77])
        torch.testing.assert_close(volume.cells(planes, picked), cells.flatten(0, 3)[picked])
    assert read.std(0).min() > 1e-3  # places differ
