"""Several materials on one surface: each is where its thing or its edit is, in the colours and in the files."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from test_asset_maps import image_of
from tiny_run import BallGuide, Recorder, run_tiny
from torch import Tensor

from magic3d_cli import job
from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.check import read_mesh, sample
from magic3d_cli.asset.covers import Cover, everywhere, parts_of
from magic3d_cli.asset.material import DEFAULT, of_prompt
from magic3d_cli.asset.write import write
from magic3d_cli.delivery import _materials, _materials_of
from magic3d_cli.fine.edit import RunLook
from magic3d_cli.request import Request
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.region import Region, RegionField
from magic3d_cli.scene.things import things_of
from magic3d_cli.settings import AssetSettings, FieldSettings

GOLD, WOOD, STONE = (of_prompt(f"a {word} ball") for word in ("golden", "wooden", "stone"))


def upper(points: Tensor) -> Tensor:
    return (points[:, 1] > 0).float()


def brown(points: Tensor) -> Tensor:
    """What a prior paints gold and wood alike."""
    return torch.tensor([0.4, 0.3, 0.15]).expand(len(points), 3)


@pytest.fixture(scope="module")
def asset() -> Asset:
    ball = trimesh.creation.icosphere(3, 0.5)
    settings = AssetSettings(faces=400, texture_size=128, padding=2)
    return build_asset(ball.vertices, ball.faces, brown, settings, material=WOOD, covers=[Cover(GOLD, upper)])


def test_only_the_gilded_half_is_metal_and_bright(asset: Asset, tmp_path: Path) -> None:
    path = tmp_path / "ball.glb"
    write(asset, path, "ball")
    mesh, document = read_mesh(path), pygltflib.GLTF2().load(str(path))
    pbr = document.materials[0].pbrMetallicRoughness
    assert pbr.metallicFactor == pbr.roughnessFactor == 1 and document.materials[0].occlusionTexture is None
    packed = image_of(document, pbr.metallicRoughnessTexture.index)
    height = mesh.positions[:, 1] - mesh.positions[:, 1].mean()
    top, bottom = (mesh.uvs[side * height > 0.15] for side in (1, -1))
    np.testing.assert_allclose(sample(packed, top)[:, 1:] * 255, [[64, 255]] * len(top), atol=2)
    np.testing.assert_allclose(sample(packed, bottom)[:, 1:] * 255, [[153, 0]] * len(bottom), atol=2)
    # Wood keeps the colour that was painted; bare gold reflects more than a photograph of it shows.
    assert np.abs(sample(mesh.texture, bottom) - brown(torch.zeros(1, 3)).numpy()).max() < 0.03
    assert sample(mesh.texture, top)[:, 0].min() > 0.95
    assert [part["name"] for part in asset.report["materials"]] in (["gold", "wood"], ["wood", "gold"])


def test_a_trace_of_a_material_with_hardly_a_point_of_its_own_is_baked_too() -> None:
    ball = trimesh.creation.icosphere(3, 0.5)
    settings = AssetSettings(faces=400, texture_size=64, padding=2)
    traced = Cover(GOLD, lambda points: 0.4 * (points[:, 1] > 0.35).float())  # nowhere most of what is there
    built = build_asset(ball.vertices, ball.faces, brown, settings, material=WOOD, covers=[traced])
    assert {part["name"] for part in built.report["materials"]} == {"gold", "wood"}


def test_obj_and_usdz_say_it_too_and_the_validator_finds_nothing(asset: Asset, tmp_path: Path) -> None:
    files = [file.name for file in write(asset, tmp_path / "ball.obj", "ball")]
    library = (tmp_path / "ball.mtl").read_text()
    assert {"ball_roughness.png", "ball_metallic.png"} <= set(files)
    assert "map_Pr ball_roughness.png" in library and "map_Pm ball_metallic.png" in library
    write(asset, tmp_path / "ball.usdz", "ball")
    pxr: Any = pytest.importorskip("pxr.Usd")
    stage = pxr.Stage.Open(str(tmp_path / "ball.usdz"))
    surface = stage.GetPrimAtPath("/ball/material/surface")
    assert all(surface.GetAttribute(f"inputs:{name}").HasAuthoredConnections() for name in ("metallic", "roughness"))
    write(asset, tmp_path / "ball.glb", "ball")
    node = shutil.which("node")
    assert node, "Node.js is needed to run the Khronos glTF validator"
    command = [node, str(Path(__file__).with_name("validate_gltf.mjs")), str(tmp_path / "ball.glb")]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[0]["issues"]
    assert report["numErrors"] == report["numWarnings"] == 0, report


def test_a_material_that_is_hardly_seen_is_left_out_and_one_kind_makes_no_texture() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    crumb = Cover(GOLD, lambda places: (places[:, 1] > 0.995).float())
    assert [part.material for part in parts_of(STONE, [crumb], points)] == [STONE]
    under = parts_of(STONE, [Cover(GOLD, upper), Cover(WOOD, upper)], points)  # what lies under it is not seen
    assert {part.material for part in under} == {STONE, WOOD}
    assert sum(part.weight(torch.zeros(1, 3)) for part in under) == 1


def test_the_materials_of_an_edit_of_an_edit_lie_where_each_could_change_colours() -> None:
    settings = FieldSettings(levels=2, log2_size=8, base_resolution=4, finest_resolution=8, hidden=8)
    own = HashField(settings, torch.Generator())
    box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    top, left = (Region.within(corners, box) for corners in ((0, 0.5, 0, 1, 1, 1), (0.5, 0, 0, 1, 1, 1)))
    edited = RegionField(own, RegionField(own, own, top), left)
    found = _materials(edited, [[Cover(material, everywhere)] for material in (GOLD, WOOD, STONE)])
    places = torch.tensor([[0.5, 0.5, 0.0], [-0.5, 0.5, 0.0], [-0.5, -0.5, 0.0]])
    parts = parts_of(found["material"], found["covers"], np.random.default_rng(0).uniform(-1, 1, (4000, 3)))
    weights = {part.material.name: part.weight(places).tolist() for part in parts}
    assert weights == {"gold": [1, 0, 0], "wood": [0, 1, 0], "stone": [0, 0, 1]}
    assert _materials(own, [[Cover(DEFAULT, everywhere)]]) == {"material": DEFAULT, "covers": []}


def test_each_of_several_things_has_its_own_material_also_under_an_edit() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    on_the_right = torch.zeros(32, 32, 32, dtype=torch.long)
    on_the_right[:, :, 16:] = 1  # z, y, x
    run = RunLook("a golden ball on a wooden table", 0, "builtin", things_of(on_the_right, extent=1.0))
    settings = FieldSettings(levels=2, log2_size=8, base_resolution=4, finest_resolution=8, hidden=8)
    own = HashField(settings, torch.Generator())
    places = torch.tensor([[-0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [-0.5, -0.5, 0.0], [0.5, -0.5, 0.0]])

    def names(field: HashField, *runs: RunLook) -> list[str]:
        found = _materials(field, [_materials_of(one) for one in runs])
        parts = parts_of(found["material"], found["covers"], points)
        weights = torch.stack([part.weight(places) for part in parts])
        assert torch.equal(weights.sum(0), torch.ones(4))
        return [parts[int(number)].material.name for number in weights.argmax(0)]

    assert names(own, run) == ["gold", "wood", "gold", "wood"]
    top = RegionField(own, own, Region.within((0, 0.5, 0, 1, 1, 1), torch.tensor([[-1.0, -1, -1], [1, 1, 1]])))
    assert names(top, RunLook("a stone ball", 0, "builtin"), run) == ["stone", "stone", "gold", "wood"]
    assert names(top, run, RunLook("a stone ball", 0, "builtin")) == ["gold", "wood", "stone", "stone"]
    # Where it is not known what is where, neither is all of it metal nor is a thing left out.
    assert names(own, replace(run, things=None)) == [""] * 4
    assert names(own, replace(run, prompt="a golden ball")) == ["gold"] * 4


class Both(BallGuide):
    """Shows a golden ball above a wooden table, by its words the same ball as ever."""

    def __init__(self, knows: bool) -> None:
        super().__init__()
        self.knows = knows

    def name(self, stage: str) -> str:
        return "builtin"

    def things(self) -> Any:
        halves = torch.ones(32, 32, 32, dtype=torch.long)
        halves[:, 16:] = 0
        return things_of(halves, 1.0) if self.knows else None


def test_a_checkpoint_keeps_where_each_thing_is(tmp_path: Path) -> None:
    output, prompt = tmp_path / "both.glb", "a golden ball on a wooden table"

    def metals(path: Path) -> set[int]:
        document = pygltflib.GLTF2().load(str(path))
        texture = document.materials[0].pbrMetallicRoughness.metallicRoughnessTexture
        return set() if texture is None else set(image_of(document, texture.index)[..., 2].ravel().tolist())

    run_tiny(output, prompt=prompt, guide=Both(knows=True))
    assert {0, 255} <= metals(output)
    (tmp_path / "both.run" / "fine.ckpt").unlink()
    run_tiny(output, prompt=prompt, guide=Both(knows=False))  # goes on from the coarse stage
    assert {0, 255} <= metals(output)
    job.export(tmp_path / "both.run" / "fine.ckpt", Request(tmp_path / "again.glb"), Recorder())
    assert {0, 255} <= metals(tmp_path / "again.glb")
    run_tiny(tmp_path / "one.glb", prompt=prompt, guide=Both(knows=False))
    assert metals(tmp_path / "one.glb") == set()
