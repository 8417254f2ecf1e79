"""The built-in prior's volume: the CPU kernel equals plain PyTorch, and the volume stands upright in the world."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from magic3d_cli.guidance.builtin.latents import STEP, Latent, decode, encode
from magic3d_cli.guidance.builtin.paint import COLOURS, MATERIALS
from magic3d_cli.guidance.builtin.unet import VolumeUNet
from magic3d_cli.guidance.builtin.volume import NEAR, CaptionVolume
from magic3d_cli.guidance.builtin.voxels import FULL, mended
from magic3d_cli.kernels.dispatch import composite_volume
from magic3d_cli.kernels.volume import composite_volume_reference
from magic3d_cli.scene.views import CAMERA_EMBEDDING, sample_views, turntable
from magic3d_cli.settings import ViewSampling

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


WORDS = 4 * torch.eye(16)
"""Text states of sixteen words: six name models, two their noun, the next are red and gold."""


def _volume() -> CaptionVolume:
    """Six models, one of them in a box of its own."""
    torch.manual_seed(0)
    volume = CaptionVolume(cross_attention_dim=16, latent_size=8, width=16, voxel_width=8, samples=24, embedding=32)
    latents = [Latent.whole(3 * torch.randn(volume.latent_shape)) for _ in range(5)]
    latents.append(Latent(((1, 7), (2, 8), (0, 5)), (torch.randn(6, 6, 6), torch.randn(6, 6, 5), torch.randn(6, 6, 5))))
    paints = torch.zeros(len(COLOURS) + len(MATERIALS), 16)
    paints[list(COLOURS).index("red")] = WORDS[8]
    paints[len(COLOURS) + list(MATERIALS).index("gold")] = WORDS[9]
    tones = torch.tensor([[0.5, 0.25, 0.0, 0.0, 10.0, 10.0]]).repeat(6, 1)
    volume.remember(latents, tones, WORDS[:8], torch.tensor([0, 1, 2, 3, 4, 5, 0, 0]), paints)
    return volume.eval()


def _text(*words: int) -> torch.Tensor:
    """A caption of these words, [1, 3, 16]."""
    return torch.stack([WORDS[word] for word in (*words, 15, 14, 13)[:3]])[None]


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
    noisy, text = torch.randn(4, 12, 8, 8), _text(1)
    features, time = turntable(4).camera_embedding(), torch.full((4,), 500)

    def denoised(text, time, features) -> torch.Tensor:
        with torch.inference_mode():
            return network(noisy, time, features, volume(text, features, 16)).sample

    base = denoised(text, time, features)
    assert base.shape == noisy.shape and features.shape[1] == CAMERA_EMBEDDING
    other = {
        "caption": denoised(_text(2), time, features),
        "camera": denoised(text, time, features.flip(0)),
        "time": denoised(text, time - 400, features),
    }
    for name, output in other.items():
        assert (output - base).abs().mean() > 1e-2 * base.abs().mean(), name


def test_one_caption_for_all_views_equals_one_for_each() -> None:
    volume, text, features = _volume(), torch.cat([_text(1), _text(4)]), turntable(4).camera_embedding()
    with torch.inference_mode():
        shared, single = (volume(t, features, 16) for t in (text, text.repeat_interleave(2, 0)))
    assert shared.maps[:, 0].max() > 0.5
    for name in ("maps", "rgb", "caption_embedding"):
        torch.testing.assert_close(getattr(shared, name), getattr(single, name), rtol=1e-3, atol=1e-3)


def test_another_caption_is_imagined_anew() -> None:
    volume, features = _volume(), turntable(2).camera_embedding()
    one, two = _text(0), _text(3)
    with torch.inference_mode():
        first, other, again = (volume(text, features, 16).rgb for text in (one, two, one))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_a_caption_that_names_nothing_has_an_empty_volume() -> None:
    volume, text, features = _volume(), torch.cat([_text(1, 8), _text(8)]), turntable(2).camera_embedding()
    with torch.inference_mode():
        opacity = volume(text, features, 16).maps[:, 0].amax((1, 2))
    assert opacity[0] > 0.5 and opacity[1] == 0


def test_a_model_is_found_by_its_own_word_before_its_nouns_and_in_any_place() -> None:
    captions = [_text(6), _text(6, 3), _text(3, 6), _text(8, 9, 5), _text(9)]
    assert _volume().find(torch.cat(captions)).tolist() == [0, 3, 3, 5, -1]


def test_a_caption_with_two_words_of_models_is_their_mixture_and_their_order_counts() -> None:
    volume = _volume()
    both = torch.stack([WORDS[[6, 2, 4]], WORDS[[6, 4, 2]]])
    one, other = volume.imagine(both)
    assert volume.find(both).tolist() == [2, 4]
    assert not torch.equal(one, other)
    alone = volume.imagine(WORDS[[6, 2]][None])[0]
    assert not torch.equal(one, alone)
    painted = volume.imagine(WORDS[[6, 2, 4, 8]][None])[0]  # red: its own colours are needed to paint its body
    torch.testing.assert_close(painted[..., :1], volume.imagine(WORDS[[6, 2, 4]][None])[0][..., :1])
    volume.show_instead(2, alone)
    torch.testing.assert_close(volume.imagine(both)[0], alone)


def test_what_is_remembered_is_there_after_saving_and_loading(tmp_path) -> None:
    volume = _volume()
    volume.save_pretrained(tmp_path)
    again = CaptionVolume.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        for word in (0, 5):
            assert torch.equal(volume.imagine(_text(word)), again.imagine(_text(word)))


def test_the_feature_image_ends_in_the_place_of_what_it_shows() -> None:
    volume = _volume()
    slab = torch.full((1, 16, 16, 16, 7), -20.0)
    slab[:, :, :, 8:] = 12.0  # solid where z > 0: seen from the front, at z = extent
    maps = volume.render(slab, turntable(1, elevation=0), 9)
    centre = maps[0, -3:, 4, 4] / maps[0, 0, 4, 4]
    torch.testing.assert_close(centre[:2], torch.zeros(2), rtol=0, atol=1e-4)
    assert 0.6 * volume.extent < centre[2] < volume.extent


def test_paint_follows_the_caption_and_not_the_neighbours() -> None:
    volume = _volume()
    maps = torch.rand(2, 10, 8, 8)
    maps[:, 0], maps[0, :, 5] = 1, 0
    plain, red, gold = (volume.paint(maps, torch.cat([_text(1), _text(1, word)]))[1] for word in (7, 8, 9))
    torch.testing.assert_close(plain, maps[1, 4:7])
    assert (red[0] > red[1:].amax(0)).all() and (gold[0] > gold[2]).all() and not torch.allclose(red, gold, atol=0.1)
    assert (volume.paint(maps, _text(1, 8))[0, :, 5] == 0).all()


def test_rounded_latents_cut_to_a_box_come_back() -> None:
    planes = (3 * torch.randn(6, 5, 9), 3 * torch.randn(6, 5, 2), 3 * torch.randn(6, 9, 2))
    stored = encode(Latent(((3, 8), (0, 9), (30, 32)), planes))
    again = decode(stored, 6)
    assert again.box == ((3, 8), (0, 9), (30, 32)) and len(stored) < 6 + sum(p.numel() for p in planes)
    for before, after in zip(planes, again.planes, strict=True):
        assert (before - after).abs().max() <= STEP / 2 + 1e-6
    with pytest.raises(ValueError, match="its box wants"):
        decode(stored, 4)
    with pytest.raises(ValueError, match="cannot be unpacked"):
        decode(stored[:-9], 6)


def test_a_box_as_large_as_the_cube_changes_nothing_and_nothing_is_outside_a_smaller_one() -> None:
    volume = _volume()
    latent = torch.randn(1, *volume.latent_shape)
    with torch.inference_mode():
        torch.testing.assert_close(volume.volume_of(Latent.whole(latent[0])), volume.decode(latent)[0])
        box = ((1, 7), (2, 8), (0, 5))
        small = volume.volume_of(volume.latent(5))
    inside = torch.zeros(16, 16, 16, dtype=torch.bool)
    inside[2:14, 4:16, :10] = True
    assert (small[~inside][:, 0] == -FULL).all() and small[inside][:, 0].std() > 0.1
    assert volume.latent(5).box == box


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


def test_crumbs_in_the_air_go_and_broken_parts_are_joined() -> None:
    volume = torch.zeros(32, 32, 32, 7)
    volume[..., 0] = -FULL

    def solid(*sides: tuple[int, int]) -> torch.Tensor:
        mask = torch.zeros(32, 32, 32, dtype=torch.bool)
        mask[tuple(slice(low, high) for low, high in sides)] = True
        return mask

    body, thing = solid((2, 12), (2, 12), (2, 12)), solid((20, 24), (20, 24), (20, 24))
    arm, hand = solid((14, 17), (3, 5), (3, 5)), solid((20, 23), (3, 5), (3, 5))  # gaps of two and three voxels
    grain, crumb = solid((5, 6), (5, 6), (14, 15)), solid((2, 4), (26, 28), (2, 4))
    fog = solid((1, 5), (25, 29), (1, 5)) & ~crumb
    kept = body | thing | arm | hand | grain
    volume[..., 0][kept | crumb] = FULL
    volume[..., 0][fog] = -1.0
    volume[..., 1:][body], volume[..., 1:][arm] = 0.25, 0.75

    whole = mended(volume)
    assert torch.equal(whole[kept], volume[kept]) and (whole[..., 0][crumb | fog] == -FULL).all()
    pieces, count = ndimage.label(whole[..., 0].numpy() > 0)
    assert count == 3 and pieces[5, 5, 5] == pieces[21, 4, 4] != pieces[22, 22, 22] != pieces[5, 5, 14] != 0
    rods = (whole[..., 0] > 0) & ~kept
    assert rods.any() and not (rods & ~solid((11, 21), (2, 6), (2, 6))).any()
    assert set(whole[..., 1:][rods & solid((11, 14), (0, 32), (0, 32))].unique().tolist()) == {0.25, 0.75}

    only = volume.clone()
    only[..., 0] = torch.where(crumb, FULL, -FULL)
    assert torch.equal(mended(only), only)
