"""A picture is read safely, cut out and placed; what cannot be used is refused with a next step."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from magic3d_cli import picture_file, reference
from magic3d_cli.errors import UsageError
from magic3d_cli.picture_request import pictures_in, read_pictures
from magic3d_cli.reference import Cutout, plain_border, read_cutout


def disc(side: int = 96, radius: float = 0.3, at: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """A red disc on transparency, RGBA; what is transparent is blue."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side
    inside = np.hypot(x - at[0], y - at[1]) < radius
    return np.where(inside[..., None], [200, 30, 30, 255], [0, 0, 255, 0]).astype(np.uint8)


def saved(folder: Path, pixels: np.ndarray | Image.Image, name: str = "disc.png", **options: Any) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(folder / name, **options)
    return folder / name


def before(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    alpha = pixels[..., 3:] / 255
    return (pixels[..., :3] * alpha + np.array(colour) * (1 - alpha)).round().astype(np.uint8)


def refused(path: Path, words: str, **more: Path) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read_cutout(path, **more)
    assert caught.value.next_step and caught.value.exit_code == 2


def test_the_mask_is_the_transparency_and_hidden_colours_do_not_show(tmp_path: Path) -> None:
    cut = read_cutout(saved(tmp_path, disc()))
    assert cut.mask_from == "transparency" and 56 <= cut.rgba.shape[0] <= 59
    assert (cut.rgba[..., 0] == 200).all() and (cut.rgba[..., 2] == 30).all()  # also where nothing is
    placed, _ = cut.placed(64, 0.5)
    solid = placed[..., 3] > 128
    assert abs(solid.any(1).sum() - 32) <= 1 and (placed[..., 2] < 40).all()


@pytest.mark.parametrize("colour", [(255, 255, 255), (90, 140, 90), (20, 20, 25)])
def test_a_plain_border_is_cut_away_even_where_its_colour_changes(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    pixels = before(disc(), colour).astype(float)
    pixels += np.linspace(0, 20, 96)[:, None, None] * (pixels[:1, :1] < 230) + np.random.default_rng(0).normal(
        0, 1.5, pixels.shape
    )
    cut = read_cutout(saved(tmp_path, pixels.clip(0, 255).astype(np.uint8), "photo.jpg", quality=90))
    assert cut.mask_from == "plain border"
    share = (cut.rgba[..., 3] > 128).mean()
    assert abs(share - np.pi / 4) < 0.05 and abs(cut.aspect - 1) < 0.05


@pytest.mark.parametrize(("colour", "overlap"), [((150, 30, 25), 0.95), ((40, 40, 40), 0.95), ((120, 118, 112), 0.8)])
def test_a_soft_shadow_is_no_part_of_the_thing(colour: tuple[int, int, int], overlap: float) -> None:
    """A thing that is grey as a shadow keeps its own, rather than be lost with it."""
    ground = np.linspace(195, 235, 256)[:, None, None] * np.array([1.0, 0.985, 0.95]) * np.ones((1, 256, 1))
    y, x = np.mgrid[0:256, 0:256]
    shadow = ndimage.gaussian_filter((((x - 118) / 75) ** 2 + ((y - 185) / 16) ** 2 < 1).astype(float), 6)
    ground *= 1 - 0.4 * shadow[..., None]
    thing = (abs(x - 130) < 50) & (abs(y - 128) < 60)
    pixels = np.where(thing[..., None], np.array(colour), ground) + np.random.default_rng(0).normal(0, 3, ground.shape)
    mask = plain_border(pixels.clip(0, 255).astype(np.uint8))
    assert mask is not None
    found = mask > 128
    assert (found & thing).sum() / (found | thing).sum() > overlap


def test_a_plate_of_the_walls_colour_keeps_its_middle() -> None:
    pixels = np.full((64, 64, 3), 250, np.uint8)
    ring = disc(64, 0.4)[..., 3] > 0
    pixels[ring & ~(disc(64, 0.3)[..., 3] > 0)] = (30, 60, 160)
    mask = plain_border(pixels)
    assert mask is not None and mask[32, 32] == 255 and mask[2, 2] == 0


@pytest.mark.parametrize("mode", ["P", "LA", "CMYK", "I;16", "L", "1"])
def test_every_kind_of_pixels_is_read(tmp_path: Path, mode: str) -> None:
    rgba = Image.fromarray(disc())
    white = Image.fromarray(before(disc(), (255, 255, 255)))
    if mode == "I;16":
        grey = np.asarray(white.convert("L")).astype(np.uint16) * 257
        path = saved(tmp_path, Image.fromarray(grey), "sixteen.png")
    elif mode == "CMYK":
        path = saved(tmp_path, white.convert("CMYK"), "print.jpg", quality=95)
    elif mode == "P":
        path = saved(tmp_path, rgba.convert("P"), "palette.gif", transparency=rgba.convert("P").getpixel((0, 0)))
    else:
        path = saved(tmp_path, (rgba if mode == "LA" else white).convert(mode), "grey.png")
    cut = read_cutout(path)
    assert abs((cut.rgba[..., 3] > 128).mean() - np.pi / 4) < 0.06
    shade = cut.rgba[cut.rgba.shape[0] // 2, cut.rgba.shape[1] // 2, :3].astype(int)
    assert abs(shade.mean() - 85) < 45 or mode == "1"


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    pixels = np.full((80, 120, 3), 255, np.uint8)
    pixels[20:40, 30:90] = 0  # wide; upright once turned
    exif = Image.Exif()
    exif[0x0112] = 6
    cut = read_cutout(saved(tmp_path, pixels, "turned.jpg", exif=exif, quality=95))
    assert cut.rgba.shape[0] > 2.5 * cut.rgba.shape[1]


def test_the_first_picture_of_an_animation_is_used_and_said(tmp_path: Path) -> None:
    first, second = (Image.fromarray(before(disc(radius=r), (255, 255, 255))) for r in (0.3, 0.1))
    cut = read_cutout(saved(tmp_path, first, "moving.gif", save_all=True, append_images=[second]))
    assert "first is used" in cut.notes[0] and cut.rgba.shape[0] > 50


def test_what_is_no_picture_is_said_to_be_what_it_is(tmp_path: Path) -> None:
    kinds = {
        b"hello": "text", b"": "empty", b"<svg xmlns='x'/>": "SVG", b"\0\0\0\x18ftypheic\0": "HEIC",
        b"<!DOCTYPE html>": "web page", b"%PDF-1.7": "PDF", b"\0\1\2\3": "no picture",
    }  # fmt: skip
    for data, words in kinds.items():
        (tmp_path / "cup.png").write_bytes(data)
        refused(tmp_path / "cup.png", words)
    whole = saved(tmp_path, disc()).read_bytes()
    (tmp_path / "cup.png").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cup.png", "cannot be decoded")
    refused(tmp_path, "is a folder")
    refused(tmp_path / "none.png", "no file")


def test_pictures_without_one_whole_thing_are_refused(tmp_path: Path) -> None:
    def png(pixels: np.ndarray) -> Path:
        return saved(tmp_path, pixels, "x.png")

    clear = disc()
    clear[..., 3] = 0
    refused(png(clear), "transparent everywhere")
    refused(png(np.full((64, 64, 3), 200, np.uint8)), "No thing was found")
    refused(png(np.zeros((1, 1, 4), np.uint8)), "1 x 1 pixels")
    refused(png(disc(at=(0.95, 0.5))), "touches the right edge")
    refused(png(disc(radius=0.05)), "only")
    two = np.maximum(disc(radius=0.15, at=(0.25, 0.5)), disc(radius=0.15, at=(0.75, 0.5)))
    refused(png(two), "2 separate things")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    if reference.importlib.util.find_spec("rembg") is None:
        refused(png(noise), "cannot be told")


def test_a_picture_cropped_to_its_thing_is_whole(tmp_path: Path) -> None:
    cut = read_cutout(saved(tmp_path, disc(radius=0.3)[19:77, 19:77]))
    assert cut.rgba.shape[:2] == (58, 58)


def test_a_thing_that_an_edge_cuts_off_before_a_plain_ground_is_named(tmp_path: Path) -> None:
    refused(saved(tmp_path, before(disc(at=(0.1, 0.5)), (255, 255, 255)), "cut.png"), "touches the left edge")
    refused(saved(tmp_path, before(disc(at=(0.1, 0.1)), (90, 140, 90)), "cut.png"), "touches the left and the top edge")
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    refused(saved(tmp_path, noise, "noise.png"), "cannot be told")


@pytest.mark.filterwarnings("error")
def test_whatever_is_damaged_in_a_file_it_is_refused_or_read_without_a_warning(tmp_path: Path) -> None:
    """Pillow raises whatever its readers trip over, a TypeError for a TIFF, and warns while it opens a file."""
    whole = saved(tmp_path, before(disc(32), (255, 255, 255)), "cup.tif").read_bytes()
    directory = int.from_bytes(whole[4:8], "little")
    photo = saved(tmp_path, disc(32))
    outcomes = set()
    for at, value in itertools.product(range(directory, directory + 2 + 12 * whole[directory]), (0, 1, 255)):
        path = tmp_path / "cup.tif"
        path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        for read in (lambda path: read_cutout(path), lambda path: read_cutout(photo, depth=path)):
            try:
                read(path)
                outcomes.add("read")
            except UsageError as error:
                assert error.what and error.next_step
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_what_belongs_to_a_picture_is_refused_for_its_own_reason(tmp_path: Path) -> None:
    path = saved(tmp_path, disc())
    refused(path, "is a folder", mask=tmp_path)
    huge = saved(tmp_path, Image.new("1", (20000, 20000)), "huge.png")
    refused(path, "more pixels than can be read safely, and disc.png has 96 x 96", depth=huge)
    refused(huge, "more pixels than can be read safely")


def test_a_decompression_bomb_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_file, "MOST_PIXELS", 4000)
    path = saved(tmp_path, Image.new("1", (100, 50)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    refused(path, "more than can be read")


def test_pillows_own_limit_on_pixels_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, disc())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(path, "more pixels")


def test_a_mask_says_what_the_thing_is_and_has_to_fit(tmp_path: Path) -> None:
    photo = saved(tmp_path, np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8), "photo.png")
    cut = read_cutout(photo, mask=saved(tmp_path, disc()[..., 3], "mask.png"))
    assert cut.mask_from == "mask" and abs((cut.rgba[..., 3] > 128).mean() - np.pi / 4) < 0.05
    refused(photo, "64 x 64", mask=saved(tmp_path, disc(64)[..., 3], "small.png"))
    refused(photo, "black everywhere", mask=saved(tmp_path, np.zeros((96, 96), np.uint8), "black.png"))


def test_a_mask_of_a_large_jpeg_has_the_size_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a JPEG is otherwise decoded at a half or less, and the mask was refused for having twice its size."""
    monkeypatch.setattr(picture_file, "MOST_SIDE", 64)
    monkeypatch.setattr(reference, "MOST_SIDE", 64)
    noise = np.random.default_rng(0).integers(0, 255, (192, 192, 3), np.uint8)
    photo, mask = saved(tmp_path, noise, "photo.jpg"), saved(tmp_path, disc(192)[..., 3], "mask.png")
    assert picture_file.read_picture(photo)[0].size == (96, 96)
    for more in ({"mask": mask}, {"mask": mask, "depth": saved(tmp_path, noise[..., 0], "depth.png")}):
        cut = read_cutout(photo, **more)
        assert cut.mask_from == "mask" and abs((cut.rgba[..., 3] > 128).mean() - np.pi / 4) < 0.05
        assert max(cut.rgba.shape) < 64


def test_a_mask_is_turned_as_its_file_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[picture_file.ORIENTATION] = 6  # a quarter turn to the right
    lying = np.zeros((60, 40, 4), np.uint8)
    lying[5:25, 5:35] = (200, 30, 30, 255)  # at the top, so at the right when upright
    photo = saved(tmp_path, lying[..., :3], "photo.png", exif=exif)
    cut = read_cutout(photo, mask=saved(tmp_path, lying[..., 3], "mask.png", exif=exif))
    assert cut.rgba.shape[:2] == (30, 20) and (cut.rgba[..., 0] > 150).all()
    refused(photo, "mask.png has 40 x 60 pixels", mask=saved(tmp_path, lying[..., 3], "mask.png"))


def test_depth_is_far_where_its_picture_is_dark(tmp_path: Path) -> None:
    near = np.tile(np.linspace(0, 65535, 96).astype(np.uint16), (96, 1))
    cut = read_cutout(saved(tmp_path, disc()), depth=saved(tmp_path, Image.fromarray(near), "depth.png"))
    assert cut.depth is not None and cut.depth[29, 3] > 0.9 and cut.depth[29, -3] < 0.1
    _, placed = cut.placed(64, 0.5)
    assert placed is not None and placed[32, 20] > placed[32, 44] + 0.5
    refused(tmp_path / "disc.png", "same everywhere", depth=saved(tmp_path, np.zeros((96, 96), np.uint8), "zero.png"))


def test_a_thing_is_placed_where_it_is_asked_for() -> None:
    cut = Cutout("", np.full((40, 20, 4), 255, np.uint8), None, "mask")
    placed, _ = cut.placed(100, 0.4, (0.2, -0.1))
    rows, columns = (np.flatnonzero((placed[..., 3] > 128).any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (35, 75, 50, 70)


def test_several_pictures_need_their_azimuths(tmp_path: Path) -> None:
    front, left = saved(tmp_path, disc(), "front.png"), saved(tmp_path, disc(), "left.png")
    asked = read_pictures([str(front), f"{left}@-90"], elevation=5)
    assert asked.azimuths == (0.0, 270.0) and asked.digest != read_pictures([str(front), f"{left}@90"]).digest
    for images, words in (([front, left], "not said from where"), ([f"{left}@x"], "no number")):
        with pytest.raises(UsageError, match=words):
            read_pictures([str(image) for image in images])
    with pytest.raises(UsageError, match="imagine"):
        read_pictures([str(front)], imagine=2)
    for text, words in (
        ("cup@home.png", "There is no file cup@home.png"),  # the name itself has an @
        ("cup.png@90", "There is no file cup.png"),
        (f"{front}@400", "out of range"),
        (f"{front}@nan", "out of range"),
        ("~nobody-of-that-name/cup.png", "home folder"),
    ):
        with pytest.raises(UsageError, match=words):
            read_pictures([text])
    assert [p.name for p in pictures_in(tmp_path)] == ["front.png", "left.png"]


def test_a_picture_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "cup.png").write_text("no picture")
    code = (
        "import sys\nfrom magic3d_cli.cli.app import app\n"
        "try:\n    app(['generate', '--image', 'cup.png'], standalone_mode=False)\n"
        "except BaseException as error:\n    print(getattr(error, 'exit_code', error))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "text, not a picture" in done.stderr
