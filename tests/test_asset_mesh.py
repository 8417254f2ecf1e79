"""The surface that gets written is closed, manifold, wound outward, without floaters, of the asked size."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from asset_shapes import bumpy_torus, joined

from magic3d_cli.asset.clean import _windings, clean
from magic3d_cli.asset.mesh import face_vectors, is_manifold, is_watertight, signed_volume, vertex_normals
from magic3d_cli.asset.simplify import flipped_faces, simplify, unfold
from magic3d_cli.errors import Collapsed


def sound(vertices: np.ndarray, faces: np.ndarray) -> bool:
    welded = trimesh.Trimesh(vertices, faces, process=True)  # a reader that merges equal positions
    return is_watertight(faces) and is_manifold(faces) and welded.is_watertight


def boxes(*offsets: tuple[float, float, float]) -> trimesh.Trimesh:
    return joined([trimesh.creation.box((1, 1, 1)).apply_translation(o) for o in offsets])


def test_a_sound_mesh_is_left_alone():
    ball = trimesh.creation.icosphere(3)
    vertices, faces, counts = clean(ball.vertices, ball.faces)
    assert len(faces) == len(ball.faces) and sum(counts.values()) == 0
    assert signed_volume(vertices, faces) == pytest.approx(ball.volume)


def test_scrambled_winding_becomes_outward():
    ball = trimesh.creation.icosphere(3)
    scrambled = np.where(np.random.default_rng(0).random((len(ball.faces), 1)) < 0.6, ball.faces[:, ::-1], ball.faces)
    vertices, faces, _ = clean(ball.vertices, scrambled)
    assert sound(vertices, faces)
    assert signed_volume(vertices, faces) == pytest.approx(ball.volume)


def test_duplicate_vertices_and_degenerate_faces_go():
    ball = trimesh.creation.icosphere(2)
    soup = ball.vertices[ball.faces].reshape(-1, 3)  # every face has its own vertices
    faces = np.concatenate([np.arange(len(soup)).reshape(-1, 3), [[0, 0, 1], [3, 4, 3]]])
    vertices, faces, counts = clean(soup, faces)
    assert len(vertices) == len(ball.vertices) and len(faces) == len(ball.faces)
    assert counts["degenerate"] == 2 and sound(vertices, faces)


@pytest.mark.parametrize(
    "offsets",
    [
        pytest.param([(0, 0, 0), (1, 1, 0)], id="two solids sharing an edge"),
        pytest.param([(0, 0, 0), (1, 1, 1)], id="two solids sharing a vertex"),
        pytest.param([(0, 0, 0), (1, 1, 0), (2, 0, 0), (1, -1, 0)], id="a pinched ring"),
    ],
)
def test_non_manifold_edges_and_vertices_come_apart(offsets):
    mesh = boxes(*offsets)
    vertices, faces, _ = clean(mesh.vertices, mesh.faces)
    assert sound(vertices, faces)
    assert signed_volume(vertices, faces) == pytest.approx(len(offsets), rel=0.05)


def test_any_soup_becomes_closed_and_manifold():
    rng = np.random.default_rng(0)
    for _ in range(20):
        _, faces, _ = clean(rng.random((30, 3)), rng.integers(0, 30, (60, 3)), smallest=0.0)
        assert is_watertight(faces) and is_manifold(faces)


def test_holes_are_closed():
    ball = trimesh.creation.icosphere(3)
    vertices, faces, counts = clean(ball.vertices, ball.faces[ball.triangles_center[:, 1] < 0.7])
    assert counts["holes"] == 1 and sound(vertices, faces)


def test_floaters_and_hidden_cavities_are_dropped_and_separate_parts_kept():
    body = trimesh.creation.icosphere(3)
    part = trimesh.creation.icosphere(3, radius=0.4).apply_translation((2, 0, 0))
    floater = trimesh.creation.icosphere(1, radius=0.05).apply_translation((0, 2, 0))
    cavity = trimesh.creation.icosphere(2, radius=0.5)
    cavity.invert()
    mesh = joined([body, part, floater, cavity])
    vertices, faces, counts = clean(mesh.vertices, mesh.faces)
    assert counts["components_dropped"] == 2
    assert signed_volume(vertices, faces) == pytest.approx(body.volume + part.volume)


def test_a_part_that_pokes_out_with_a_single_vertex_stays():
    """Whichever vertex it is: a spike is often one of thousands."""
    body, part = trimesh.creation.icosphere(3), trimesh.creation.icosphere(2, radius=0.5)
    hidden = joined([body, part])
    assert clean(hidden.vertices, hidden.faces)[2]["components_dropped"] == 1
    for vertex in (0, 1, 77, 161):
        spiked = part.copy()
        spiked.vertices[vertex] *= 2.4  # a fifth above the body, whose radius is 1
        mesh = joined([body, spiked])
        vertices, _, counts = clean(mesh.vertices, mesh.faces)
        assert counts["components_dropped"] == 0 and np.linalg.norm(vertices, axis=1).max() == pytest.approx(1.2)


def test_points_are_told_from_those_around_by_how_a_surface_winds():
    mesh = joined([trimesh.creation.torus(0.7, 0.2), trimesh.creation.box((0.2, 0.2, 0.2))])
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    ring = np.hypot(np.linalg.norm(points[:, :2], axis=1) - 0.7, points[:, 2])
    box = np.abs(points).max(1)
    clear = np.abs(ring - 0.2) > 0.01  # the torus has flat sides
    expected = (ring < 0.2).astype(int) + (box < 0.1)
    assert (_windings(points, mesh.vertices, mesh.faces) == expected)[clear].all()
    assert (_windings(points, mesh.vertices, mesh.faces[:, ::-1]) == -expected)[clear].all()


def test_the_pieces_of_a_broken_arm_stay_and_dust_beside_it_goes():
    body = trimesh.creation.icosphere(3)
    arm = [trimesh.creation.icosphere(1, radius=0.06).apply_translation((1.09 + 0.15 * k, 0, 0)) for k in range(3)]
    dust = trimesh.creation.icosphere(0, radius=0.01).apply_translation((0, 1.02, 0))
    mesh = joined([body, *arm, dust])
    vertices, faces, counts = clean(mesh.vertices, mesh.faces)
    assert counts["components_dropped"] == 1
    assert vertices[:, 0].max() == pytest.approx(1.09 + 0.3 + 0.06, abs=0.01) and sound(vertices, faces)


def test_nothing_to_write_is_a_collapse():
    with pytest.raises(Collapsed):
        clean(np.zeros((3, 3)), np.array([[0, 1, 2]]))


def test_vertices_that_are_not_finite_take_their_faces_with_them():
    ball = trimesh.creation.icosphere(2)
    points = np.array(ball.vertices)
    points[5] = np.nan
    vertices, faces, _ = clean(points, ball.faces)
    assert np.isfinite(vertices).all() and sound(vertices, faces)


def test_smooth_normals_of_a_sphere_point_away_from_its_centre():
    ball = trimesh.creation.icosphere(3)
    normals = vertex_normals(ball.vertices, ball.faces)
    assert (normals * ball.vertices).sum(1).min() > 0.999


def test_a_noisy_surface_simplifies_to_the_asked_number_without_folds():
    vertices, faces, _ = clean(*bumpy_torus(32, noise=0.3))
    small, triangles = simplify(vertices, faces, 4000)
    assert 3800 <= len(triangles) <= 4000 and sound(small, triangles)
    assert not flipped_faces(small, triangles, vertices, faces).any()
    assert signed_volume(small, triangles) == pytest.approx(signed_volume(vertices, faces), rel=0.02)


def test_a_small_mesh_is_not_simplified():
    ball = trimesh.creation.icosphere(2)
    assert simplify(ball.vertices, ball.faces, 1000)[1] is ball.faces


def test_folded_faces_are_found_and_unfolded():
    ball = trimesh.creation.icosphere(3)
    folded = np.array(ball.vertices)
    ring = ball.vertex_neighbors[0]
    # Push one vertex over its neighbours, which turns faces inside out.
    folded[0] += 2.5 * (folded[ring[0]] - folded[0])
    assert flipped_faces(folded, ball.faces, ball.vertices, ball.faces).any()
    healed = unfold(folded, ball.faces, ball.vertices, ball.faces)
    assert ((face_vectors(healed, ball.faces) * ball.face_normals).sum(1) > 0).all()
