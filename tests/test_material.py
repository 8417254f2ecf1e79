"""The surface is what the prompt says, in every format, and nothing where it says nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pygltflib
import pytest
import torch
from asset_shapes import bumpy_torus

from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.material import _MATERIALS, DEFAULT, Material, of_prompt
from magic3d_cli.asset.write import Asset, write
from magic3d_cli.settings import AssetSettings


@pytest.fixture(scope="module")
def triangle() -> Asset:
    return Asset(
        positions=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32),
        normals=np.tile(np.array([[0, 0, 1]], np.float32), (3, 1)),
        uvs=np.array([[0, 1], [1, 1], [0, 0]], np.float32),
        faces=np.array([[0, 1, 2]]),
        texture=np.full((4, 4, 3), (200, 160, 80), np.uint8),
    )


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a metal dragon", "metal"),
        ("A GOLDEN HORSE", "gold"),
        ("a horse made of gold", "gold"),
        ("a horse in gold", "gold"),
        ("a dragon made out of stainless steel", "steel"),
        ("a wooden chair", "wood"),
        ("a marble statue of a lion", "marble"),
        ("a rusty iron gate", "rust"),
        ("a chair of oak", "wood"),
        ("a silver-plated spoon", "silver"),
    ],
)
def test_a_material_word_is_understood_wherever_it_stands(prompt, name):
    assert of_prompt(prompt).name == name


@pytest.mark.parametrize(
    "prompt",
    [
        "a dragon",
        "a red car",
        "an old house",
        "a golden retriever",
        "an ice cream",
        "an oak tree",
        "a knight in silver armour",
        "a man wearing a gold crown",
        "a cat with a metal hat",
        "a polar bear on ice",
        "eine goldene Gans, größer \N{SNOWMAN} \udcff",
        "",
    ],
)
def test_a_prompt_that_names_no_material_of_the_thing_itself_gets_the_default(prompt):
    assert of_prompt(prompt) == DEFAULT == Material("", 0.0, 0.8)


def test_a_chair_with_metal_legs_is_still_wooden():
    assert of_prompt("a wooden chair with metal legs").name == "wood"


def test_metals_conduct_and_nothing_else_does():
    metals = "aluminium brass bronze chrome copper gold iron metal silver steel titanium"
    assert sorted(name for name, (metallic, _, _) in _MATERIALS.items() if metallic == 1.0) == metals.split()
    assert all(metallic in (0.0, 1.0) and 0 < roughness < 1 for metallic, roughness, _ in _MATERIALS.values())
    # The order that anyone would give them.
    smoothest_first = ["chrome", "gold", "iron", "rust"]
    assert sorted(smoothest_first, key=lambda name: _MATERIALS[name][1]) == smoothest_first


def test_no_word_means_two_materials():
    words = [word for _, _, listed in _MATERIALS.values() for word in listed.split()]
    assert len(words) == len(set(words))


def test_a_finish_moves_the_roughness():
    assert of_prompt("a polished marble lion").roughness < of_prompt("a marble lion").roughness
    assert of_prompt("a worn gold coin").roughness > of_prompt("a gold coin").roughness
    assert of_prompt("a matte plastic car").roughness > of_prompt("a plastic car").roughness
    assert of_prompt("a shiny apple") == replace(DEFAULT, roughness=0.2)


def test_every_material_of_the_built_in_prior_is_one_of_these():
    from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
    from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

    for name, phrases in Vocabulary.load(BUILTIN / "vocabulary.json").materials.items():
        for phrase in phrases:
            assert of_prompt(f"a {phrase} dragon") != DEFAULT, (name, phrase)


def test_the_words_are_read_without_torch_or_numpy():
    code = (
        "import sys; from magic3d_cli.asset.material import of_prompt; of_prompt('a gold horse')\n"
        "heavy = {'torch', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_glb_and_an_mtl_say_the_same_surface(triangle, tmp_path):
    gold = replace(triangle, material=of_prompt("a gold horse"))
    (glb,) = write(gold, tmp_path / "gold.glb", "gold")
    surface = pygltflib.GLTF2().load(str(glb)).materials[0].pbrMetallicRoughness
    lines = dict(line.split(" ", 1) for line in write(gold, tmp_path / "gold.obj", "")[1].read_text().splitlines())
    assert (surface.metallicFactor, surface.roughnessFactor) == (1.0, 0.25) == (float(lines["Pm"]), float(lines["Pr"]))
    # For readers that know Phong only: a sharp highlight of the metal's own colour.
    np.testing.assert_allclose([float(v) for v in lines["Ks"].split()], np.array([200, 160, 80]) / 255, atol=1e-3)
    assert lines["illum"] == "3" and float(lines["Ns"]) > 500


def test_where_no_material_is_named_the_surface_is_slightly_matt(triangle, tmp_path):
    (glb,) = write(triangle, tmp_path / "plain.glb", "plain")
    surface = json.loads(pygltflib.GLTF2().load(str(glb)).to_json())["materials"][0]["pbrMetallicRoughness"]
    assert surface["metallicFactor"] == 0 and surface["roughnessFactor"] == 0.8
    text = write(triangle, tmp_path / "plain.obj", "")[1].read_text()
    assert "Pm 0\n" in text and "Pr 0.8\n" in text
    assert "Ks 0.024 0.024 0.024" in text  # next to nothing


def test_blender_turns_the_phong_exponent_back_into_the_roughness(triangle, tmp_path):
    for roughness in (0.1, 0.3, 0.8):
        rough = replace(triangle, material=Material("x", 0.0, roughness))
        text = write(rough, tmp_path / "thing.obj", "")[1].read_text()
        exponent = next(float(line.split()[1]) for line in text.splitlines() if line.startswith("Ns"))
        assert abs(1 - (exponent / 1000) ** 0.5 - roughness) < 1e-3


def painted_gold(points: torch.Tensor) -> torch.Tensor:
    """What a prior paints for gold: brown, twice as bright above as below, with one red stripe."""
    gold = torch.tensor([162, 122, 51]) / 255 * (1 + 0.3 * points[:, 1:2])
    return torch.where(points[:, :1] > 0.75, torch.tensor([0.6, 0.05, 0.05]), gold)


def built(prompt: str) -> Asset:
    vertices, faces = bumpy_torus(16)
    settings = AssetSettings(faces=1000, texture_size=256)
    return build_asset(vertices, faces, painted_gold, settings, material=of_prompt(prompt))


def test_a_metal_is_as_bright_as_metals_are_measured_and_keeps_its_stripe():
    metal, painted = built("a gold ring"), built("a ring")
    assert metal.report["material"]["name"] == "gold" and metal.report["bake_psnr"] > 35
    usual = np.median(metal.texture.reshape(-1, 3), axis=0)
    np.testing.assert_allclose(usual, [255, 226, 156], atol=4)  # linear 1.000, 0.766, 0.336
    assert (np.median(painted.texture.reshape(-1, 3), axis=0) < 170).all()  # nothing asked, nothing changed
    stripe = metal.texture[(painted.texture[..., 0] > 145) & (painted.texture[..., 1] < 20)].mean(0)
    assert stripe[0] > 1.4 * stripe[1] and stripe[0] > 1.4 * stripe[2]  # still red
    # Baked light and shade are halved in linear light: less of it is mirrored twice.
    shade = [np.percentile(asset.texture[..., 1], 20) / np.median(asset.texture[..., 1]) for asset in (metal, painted)]
    assert shade[0] > shade[1]


def test_a_metal_of_another_colour_keeps_that_colour():
    assert of_prompt("a blue metal car").reflectance is None and of_prompt("a metal car").reflectance is not None
    assert of_prompt("a wooden horse").reflectance is None
    metal, plain = (built(prompt).texture for prompt in ("a brown metal ring", "a ring"))
    np.testing.assert_allclose(np.median(metal, (0, 1)), np.median(plain, (0, 1)), atol=8)  # without its light
