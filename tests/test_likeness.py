"""What examples/evaluate measures a mesh by: right where ours is the truth, worse where it is mirrored or flattened."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "builtin_prior"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "evaluate"))

from forms import FORMS, make_form
from likeness import chamfer, chamfer_fitted, likeness, normal_angle, on_triangles, second_face, turned


@pytest.fixture(scope="module")
def letter() -> tuple[np.ndarray, np.ndarray]:
    return on_triangles(make_form("letter_r").positions, 3000)


def spot(column: int) -> np.ndarray:
    """A red square on one side of a grey one."""
    image = np.zeros((32, 32, 4))
    image[8:24, 8:24] = [0.5, 0.5, 0.5, 1]
    image[10:14, column : column + 4, :3] = [1, 0, 0]
    return image


def test_a_picture_is_like_itself_and_less_like_its_mirror_image() -> None:
    same, mirrored = likeness(spot(9), spot(9)), likeness(spot(9), spot(9)[:, ::-1])
    assert same["iou"] == mirrored["iou"] == 1
    assert same["psnr"] > 80 > mirrored["psnr"] > mirrored["psnr_inside"]


def test_a_front_that_is_painted_on_the_back_is_a_second_face() -> None:
    """The camera behind sees what is on the front's left on its right."""
    assert second_face(spot(9), spot(9)[:, ::-1]) == pytest.approx(1)
    plain = spot(9)
    plain[plain[..., 3] > 0, :3] = 0.5
    assert second_face(spot(9), plain) < 0.97


def test_a_mirrored_letter_is_further_off_than_the_letter(letter: tuple[np.ndarray, np.ndarray]) -> None:
    again = on_triangles(make_form("letter_r").positions, 3000, seed=1)
    mirrored = letter[0] * [-1, 1, 1]
    assert chamfer(letter[0], again[0]) < 0.03 < 1.5 * chamfer(letter[0], again[0]) < chamfer(letter[0], mirrored)
    assert normal_angle(letter, again) < 15


def test_a_flattened_thing_is_right_once_its_depth_is_fitted_and_a_narrow_one_is_not(
    letter: tuple[np.ndarray, np.ndarray],
) -> None:
    points, _ = letter
    flat, narrow = points / [1, 1, 1.4] + [0, 0, 0.1], points / [1.4, 1, 1]
    assert chamfer_fitted(flat, points, 0.0) < chamfer(flat, points) / 2
    assert chamfer_fitted(narrow, points, 0.0) > chamfer(narrow, points) / 1.5


def test_what_the_camera_sees_on_its_right_is_in_front_after_a_quarter_turn() -> None:
    assert np.allclose(turned(np.array([[1.0, 0, 0]]), 90.0), [[0, 0, 1]], atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_forms_are_wound_outwards(name: str) -> None:
    triangles = make_form(name).positions
    volume = np.einsum("fi,fi->f", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2])).sum() / 6
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    assert volume > 0.01 and (area > 0).all()
