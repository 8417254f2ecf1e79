"""Each format is opened by a reader that did not write it, and is the same there: size, axes, colours, closed."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest
import trimesh
from asset_shapes import bumpy_torus, colours
from PIL import Image

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.check import read_mesh
from magic3d_cli.asset.material import of_prompt
from magic3d_cli.asset.write import WRITERS, write
from magic3d_cli.checks import FORMATS
from magic3d_cli.settings import AssetSettings

NAME = 'a "metal" <dragon> & co, größer \N{SNOWMAN}'
ABOUT = {"prompt": NAME, "seed": 7, "prior": "builtin", "version": "1.2.3", "prior_licence": "CC-BY-SA 4.0"}


@pytest.fixture(scope="module")
def asset() -> Asset:
    """A ring with one nose: longer in x than in z, and different above and below."""
    vertices, faces = bumpy_torus(16)
    vertices = vertices * [1.0, 1.3, 0.7]
    settings = AssetSettings(faces=1500, texture_size=256)
    return build_asset(vertices, faces, colours, settings, material=of_prompt("a gold ring"), about=ABOUT)


@pytest.fixture(scope="module")
def folder(asset, tmp_path_factory) -> Path:
    """One file of each format, and what belongs to it."""
    place = tmp_path_factory.mktemp("formats")
    for suffix in FORMATS:
        write(asset, place / f"thing.{suffix}", NAME)
    return place


def upright(points: np.ndarray) -> np.ndarray:
    """From +Z up, facing -Y, back to glTF's axes."""
    return np.stack([points[:, 0], points[:, 2], -points[:, 1]], 1)


def same_points(found: np.ndarray, asset: Asset, tolerance: float = 1e-5) -> bool:
    """The same set of positions, in any order."""
    first, _ = asset.shared()
    wanted = np.sort(np.round(asset.positions[first].astype(float), 4).view("f8,f8,f8"), axis=0)
    got = np.sort(np.round(np.unique(found, axis=0), 4).view("f8,f8,f8"), axis=0)
    return wanted.shape == got.shape and np.abs(wanted.view("f8") - got.view("f8")).max() <= 1e-4 + tolerance


def test_every_format_that_is_offered_has_a_writer():
    assert set(WRITERS) == set(FORMATS)


def test_an_obj_is_closed_and_textured_though_its_texture_has_seams(asset, folder):
    lines = (folder / "thing.obj").read_text().splitlines()
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    faces = np.array([[c.split("/") for c in line.split()[1:]] for line in lines if line.startswith("f ")], int) - 1
    assert len(points) < len(asset.positions)  # there are seams
    mesh = trimesh.Trimesh(points, faces[:, :, 0], process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    np.testing.assert_allclose(points[faces[:, :, 0]], asset.positions[asset.faces], atol=1e-6)
    read = read_mesh(folder / "thing.obj")  # trimesh
    assert len(read.faces) == len(asset.faces)
    np.testing.assert_allclose(read.uvs[read.faces], asset.uvs[asset.faces], atol=1e-5)


def test_an_stl_is_closed_upright_and_in_millimetres(asset, folder):
    mesh = trimesh.load_mesh(folder / "thing.stl")
    assert mesh.is_watertight and mesh.volume > 0 and len(mesh.faces) == len(asset.faces)
    assert same_points(upright(np.asarray(mesh.vertices)) / 1000, asset)
    assert not (folder / "thing.stl").read_bytes().startswith(b"solid")


def test_a_ply_is_closed_upright_and_has_the_colours_of_the_texture(asset, folder):
    mesh: Any = trimesh.load_mesh(folder / "thing.ply", process=False)
    assert mesh.is_watertight and len(mesh.faces) == len(asset.faces)
    assert same_points(upright(np.asarray(mesh.vertices)), asset)
    first, _ = asset.shared()
    texture = asset.texture[
        (asset.uvs[first, 1] * 256).astype(int).clip(0, 255), (asset.uvs[first, 0] * 256).astype(int).clip(0, 255)
    ]
    difference = np.abs(mesh.visual.vertex_colors[:, :3].astype(int) - texture)
    assert np.median(difference) < 6 and len(np.unique(mesh.visual.vertex_colors, axis=0)) > 50


def test_a_3mf_is_valid_closed_and_textured(asset, folder):
    import lib3mf

    model = lib3mf.get_wrapper().CreateModel()
    reader = model.QueryReader("3mf")
    reader.SetStrictModeActive(True)
    reader.ReadFromFile(str(folder / "thing.3mf"))
    assert reader.GetWarningCount() == 0
    objects = model.GetMeshObjects()
    assert objects.MoveNext()
    mesh = objects.GetCurrentMeshObject()
    assert mesh.IsManifoldAndOriented() and mesh.GetTriangleCount() == len(asset.faces)
    points = np.array([vertex.Coordinates[:] for vertex in mesh.GetVertices()])
    assert same_points(upright(points) / 1000, asset)
    assert model.GetUnit() == lib3mf.ModelUnit.MilliMeter
    groups = model.GetTexture2DGroups()
    assert groups.MoveNext()
    group = groups.GetCurrentTexture2DGroup()
    assert group.GetCount() == len(asset.uvs)
    coordinate = group.GetTex2Coord(1)
    np.testing.assert_allclose([coordinate.U, 1 - coordinate.V], asset.uvs[0], atol=1e-5)
    png = bytes(group.GetTexture2D().GetAttachment().WriteToBuffer())
    assert png == (folder / "thing.png").read_bytes()


def test_a_usdz_passes_the_validators_of_usd_and_is_the_same_mesh(asset, folder):
    from pxr import Usd, UsdGeom, UsdShade, UsdValidation

    stage = Usd.Stage.Open(str(folder / "thing.usdz"))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [error.GetErrorAsString() for error in errors] == []
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    (mesh,) = [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    points = np.array(mesh.GetPointsAttr().Get())
    faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    np.testing.assert_allclose(points[faces], asset.positions[asset.faces], atol=1e-6)
    assert trimesh.Trimesh(points, faces, process=False).is_watertight
    st = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").ComputeFlattened()
    np.testing.assert_allclose(np.array(st) * [1, -1] + [0, 1], asset.uvs[asset.faces.reshape(-1)], atol=1e-6)
    material, _ = UsdShade.MaterialBindingAPI(mesh.GetPrim()).ComputeBoundMaterial()
    surface, _, _ = material.ComputeSurfaceSource()
    assert surface.GetInput("metallic").Get() == 1.0 and abs(surface.GetInput("roughness").Get() - 0.25) < 1e-6
    assert stage.GetRootLayer().customLayerData["prompt"] == NAME


def test_the_data_of_a_usdz_lies_where_it_can_be_mapped(folder):
    with zipfile.ZipFile(folder / "thing.usdz") as archive, open(folder / "thing.usdz", "rb") as file:
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            file.seek(entry.header_offset + 26)
            name, extra = np.frombuffer(file.read(4), "<u2")
            assert (entry.header_offset + 30 + int(name) + int(extra)) % 64 == 0


def test_a_glb_says_where_it_comes_from(folder):
    document = pygltflib.GLTF2().load(str(folder / "thing.glb"))
    assert document.asset.extras == ABOUT
    assert "CC-BY-SA 4.0" in document.asset.copyright
    # Two assets in one scene must not share names: Blender would number them.
    assert NAME in document.images[0].name and document.materials[0].name == NAME


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_asset_gives_the_same_bytes(asset, folder, suffix, tmp_path):
    for path in write(asset, tmp_path / f"thing.{suffix}", NAME):
        assert path.read_bytes() == (folder / path.name).read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["", "\n\t", "\udcff broken", "7 dwarfs", "]]>", "龍" * 100])
def test_no_name_breaks_a_file(asset, suffix, name, tmp_path):
    files = write(replace(asset, about={"prompt": name}), tmp_path / f"x.{suffix}", name)
    if suffix == "usdz":
        return  # above; the library is not a reader of trimesh's
    mesh: Any = trimesh.load(files[0], force="mesh") if suffix != "3mf" else None
    assert mesh is None or len(mesh.faces) == len(asset.faces)


def test_the_texture_of_an_obj_is_the_asset_s(asset, folder):
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "thing.png")), asset.texture)
