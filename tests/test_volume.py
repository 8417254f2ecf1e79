"""The built-in prior's volume: the CPU kernel equals plain PyTorch, and the volume stands upright in the world."""

from __future__ import annotations

import pytest
import torch

from magic3d_cli.guidance.volume_unet import VolumeUNet
from magic3d_cli.kernels.volume import composite_volume, composite_volume_reference
from magic3d_cli.views import FEATURES, ViewSampling, sample_views, turntable

EXTENT = 0.95


def _rays(count: int = 4, size: int = 8):
    views = sample_views(count, ViewSampling(), torch.Generator().manual_seed(0))
    origins, directions = views.rays(size)
    jitter = torch.rand(count, size * size, generator=torch.Generator().manual_seed(1))
    return origins[:, 0, 0], directions.flatten(1, 2), views.distance - EXTENT, jitter, 24, EXTENT


@pytest.mark.parametrize("density", ["thin", "solid", "mixed"])
def test_kernel_equals_the_reference_in_values_and_gradients(density: str) -> None:
    generator = torch.Generator().manual_seed(2)
    volume = torch.randn(2, 16, 20, 24, 7, generator=generator)  # two captions, two views each
    raw = volume[..., 0]
    volume[..., 0] = {"thin": raw - 3, "solid": raw + 4, "mixed": raw * 5}[density]
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


def _network() -> VolumeUNet:
    torch.manual_seed(0)
    narrow = {"latent_size": 8, "plane_widths": (16, 8), "voxel_width": 8}
    return VolumeUNet(8, cross_attention_dim=16, widths=(8, 8, 16), **narrow)


@pytest.mark.parametrize("axis, azimuth, row, column", [("y", 0, 0, None), ("x", 0, None, 1), ("z", 90, None, 0)])
def test_the_volume_stands_in_the_world_as_the_cameras_do(axis, azimuth, row, column) -> None:
    volume = torch.full((1, 16, 16, 16, 7), -20.0)
    high = [slice(None)] * 3
    high["yxz".index(axis)] = slice(8, None)
    volume[0, high[0], high[1], high[2]] = 9.0
    image = _network().render(volume, turntable(1, elevation=0, start=azimuth), 8)[0, 0]
    image = image if column is None else image.T
    halves = torch.stack([image[:4].mean(), image[4:].mean()])
    full = row if column is None else column
    assert halves[full] > 3 * halves[1 - full]


def test_the_caption_the_camera_and_the_noise_level_reach_the_picture() -> None:
    network = _network()
    noisy, text = torch.randn(4, 12, 8, 8), torch.randn(1, 3, 16)
    features, time = turntable(4).features(), torch.full((4,), 500)
    base = network(noisy, time, text, features).sample
    assert base.shape == noisy.shape and features.shape[1] == FEATURES
    other = {
        "caption": network(noisy, time, text + 1, features),
        "camera": network(noisy, time, text, features.flip(0)),
        "time": network(noisy, time - 400, text, features),
    }
    for name, output in other.items():
        assert (output.sample - base).abs().mean() > 1e-2 * base.abs().mean(), name


def test_one_caption_for_all_views_equals_one_for_each() -> None:
    network = _network()
    noisy, text = torch.randn(4, 12, 8, 8), torch.randn(2, 3, 16)
    inputs = noisy, torch.full((4,), 500)
    features = turntable(4).features()
    shared = network(*inputs, text, features).sample
    single = network(*inputs, text.repeat_interleave(2, 0), features).sample
    torch.testing.assert_close(shared, single, rtol=1e-4, atol=1e-4)


def test_another_caption_is_imagined_anew() -> None:
    network = _network().eval()
    noisy, time, features = torch.randn(2, 12, 8, 8), torch.full((2,), 500), turntable(2).features()
    one, two = torch.randn(1, 3, 16), torch.randn(1, 3, 16)
    with torch.inference_mode():
        first, other, again = (network(noisy, time, text, features).sample for text in (one, two, one))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_the_feature_image_ends_in_the_place_of_what_it_shows() -> None:
    network = _network()
    slab = torch.full((1, 16, 16, 16, 7), -20.0)
    slab[:, :, :, 8:] = 12.0  # solid where z > 0: seen from the front, at z = extent
    maps = network.render(slab, turntable(1, elevation=0), 9)
    centre = maps[0, -3:, 4, 4] / maps[0, 0, 4, 4]
    torch.testing.assert_close(centre[:2], torch.zeros(2), rtol=0, atol=1e-4)
    assert 0.6 * network.extent < centre[2] < network.extent


def test_the_painter_follows_the_caption_and_not_the_neighbours() -> None:
    network = _network()
    maps, wording = torch.rand(2, 10, 8, 8), torch.randn(2, 256)
    maps[:, 0] = 1  # opaque
    painted = network.painter(maps, wording)
    assert painted.min() > 0 and painted.max() < 1
    assert not torch.allclose(network.painter(maps, wording.flip(0)), painted, atol=1e-3)
    maps[:, 1:, :4] = torch.rand(2, 9, 4, 8)
    torch.testing.assert_close(network.painter(maps, wording)[:, :, 4:], painted[:, :, 4:])


def test_a_place_of_the_volume_is_what_the_whole_volume_has_there() -> None:
    network = _network()
    latent = torch.randn(2, *network.latent_shape)
    whole = network.decode(latent)
    assert whole.shape == (2, 16, 16, 16, 7)
    places = torch.randint(2 * 16**3, (100,), generator=torch.Generator().manual_seed(0))
    some = network.decode(latent, places)
    torch.testing.assert_close(some, whole.flatten(0, 3)[places])
    assert some.std(0).min() > 1e-3  # places differ
