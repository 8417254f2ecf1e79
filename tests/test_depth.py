"""Depth of a picture by a network of transformers' kind, and normals by a file: read right, and they pull."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

from magic3d_cli.cli import picture_options
from magic3d_cli.errors import EnvironmentFault, Magic3DError, UsageError
from magic3d_cli.guidance import depth
from magic3d_cli.guidance.depth import DEPTH_MODEL, estimated, with_depth
from magic3d_cli.guidance.diffusers.hub import HubPrior
from magic3d_cli.picture_request import read_pictures
from magic3d_cli.pictures import look_at
from magic3d_cli.reference import read_cutout
from magic3d_cli.scene.reference import Camera, Reference
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views
from magic3d_cli.settings import ReferenceSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.reference_losses import reference_groups
from magic3d_cli.training.terms import Step


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of Depth Anything's classes, random, as its authors' files lie."""
    folder = tmp_path_factory.mktemp("depth")
    torch.manual_seed(0)
    eye = Dinov2Config(  # type: ignore[call-arg]
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(backbone_config=eye, patch_size=14, reassemble_hidden_size=16, fusion_hidden_size=8,
                                 reassemble_factors=[2, 1], neck_hidden_sizes=[8, 8], head_hidden_size=8)  # fmt: skip
    made = DepthAnythingForDepthEstimation(config)
    for weight in (*made.neck.parameters(), *made.head.parameters()):
        if weight.dim() > 1:  # as they come they are so small that nothing of a picture is left at the end
            torch.nn.init.kaiming_normal_(weight)
    assert made.head.conv3.bias is not None
    made.head.conv3.bias.data += 5  # before the ReLU at the end
    made.save_pretrained(folder)
    DPTImageProcessorPil(
        size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True
    ).save_pretrained(folder)
    return folder


def picture(folder: Path, name: str = "half.png") -> Path:
    """A disc, dark on the left and bright on the right."""
    y, x = np.mgrid[0:96, 0:120].astype(np.float32)
    inside = np.hypot(x - 60, y - 48) < 40
    rgba = np.dstack([x * 2, x * 2, 255 - x * 2, inside * 255]).astype(np.uint8)
    Image.fromarray(rgba).save(folder / name)
    return folder / name


def test_the_network_sees_the_whole_thing_and_near_is_what_it_calls_large(network: Path, tmp_path: Path) -> None:
    cut = read_cutout(picture(tmp_path))
    told = with_depth(cut, str(network), pytest.fail)
    assert told.depth is not None and told.depth.shape == cut.rgba.shape[:2] and told.digest != cut.digest
    inside = cut.rgba[..., 3] > 250
    assert told.depth[inside].min() == 0 and told.depth[inside].max() == 1
    far = estimated(network, cut)
    # What the network itself says of the same picture: larger is nearer, so that far is its opposite.
    margin = round(0.15 * 80)
    seen = np.full((cut.rgba.shape[0] + 2 * margin, cut.rgba.shape[1] + 2 * margin, 3), 255, np.uint8)
    alpha = cut.rgba[..., 3:] / 255
    seen[margin:-margin, margin:-margin] = (cut.rgba[..., :3] * alpha + 255 * (1 - alpha)).round()
    processor = DPTImageProcessorPil.from_pretrained(network)
    model = DepthAnythingForDepthEstimation.from_pretrained(network)
    with torch.inference_mode():
        near = model(**processor(images=Image.fromarray(seen), return_tensors="pt")).predicted_depth[0].numpy()
    small = Image.fromarray(near).resize(seen.shape[1::-1], Image.Resampling.BICUBIC)
    inner = np.asarray(small)[margin:-margin, margin:-margin]
    assert np.corrcoef(inner[inside], far[inside])[0, 1] < -0.98


def test_a_network_that_tells_distances_is_not_turned_round(network: Path, tmp_path: Path) -> None:
    cut = read_cutout(picture(tmp_path))
    metric = tmp_path / "metric"
    DepthAnythingForDepthEstimation.from_pretrained(network).save_pretrained(metric)
    config = (metric / "config.json").read_text()
    (metric / "config.json").write_text(
        config.replace('"depth_estimation_type": "relative"', '"depth_estimation_type": "metric"')
    )
    (metric / "preprocessor_config.json").write_bytes((network / "preprocessor_config.json").read_bytes())
    assert '"metric"' in (metric / "config.json").read_text()
    assert float(estimated(metric, cut).mean()) * float(estimated(network, cut).mean()) < 0


def test_what_is_no_depth_network_is_refused(network: Path, tmp_path: Path) -> None:
    image = str(picture(tmp_path))
    with pytest.raises(UsageError, match="no network"):
        read_pictures([image], depth=str(tmp_path))  # an empty folder of pictures
    with pytest.raises(UsageError, match="no file"):
        read_pictures([image], depth="atuo")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EnvironmentFault, match="safetensors"):
        with_depth(read_cutout(Path(image)), str(folder), print)
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(EnvironmentFault, match="estimates depth") as caught:
        with_depth(read_cutout(Path(image)), str(folder), print)
    assert "--depth auto" in caught.value.next_step
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EnvironmentFault, match="pickled"):
        with_depth(read_cutout(Path(image)), str(folder), print)


def test_auto_tells_size_and_licence_before_it_downloads(monkeypatch: pytest.MonkeyPatch, network: Path) -> None:
    asked: list[tuple[HubPrior, list[str]]] = []

    def download(source: HubPrior, files: list[str], state: str, otherwise: str, tell: object) -> Path:
        asked.append((source, files))
        return network

    monkeypatch.setattr(depth, "snapshot", download)
    assert depth.depth_model("auto", print) == network
    (source, files) = asked[0]
    assert source is DEPTH_MODEL and source.pinned and source.licence == "Apache-2.0" and "model.safetensors" in files


def test_every_picture_gets_its_depth_and_the_request_stays_the_same(network: Path, tmp_path: Path) -> None:
    front, side = picture(tmp_path), picture(tmp_path, "side.png")
    request = read_pictures([str(front), f"{side}@90"], depth=str(network))
    plain = read_pictures([str(front), f"{side}@90"], depth="none")
    assert request.depth_by == str(network.resolve()) and plain.depth_by is None and request.digest != plain.digest
    found = look_at(request, "something that no prior knows, zxqv", 0, lambda text: None)
    assert found.digest == request.digest
    for reference in found.references:
        assert reference.depth is not None
        assert float(reference.depth[reference.mask > 250].max() - reference.depth[reference.mask > 250].min()) > 0.9


@pytest.mark.parametrize("options", [{"depth": "near.png"}, {"normals": Path("n.png")}, {"mask": Path("m.png")}])
def test_a_folder_of_pictures_takes_no_file_that_belongs_to_one(options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"mask": None, "depth": None, "normals": None} | options
    with pytest.raises(UsageError, match="--images"):
        picture_options.requested(None, Path(), **given, elevation=None, fov=None, imagine=None)


def ball(side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A ball, RGBA, and its normals as a picture; green is upwards."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side * 2 - 1
    x, y = x / 0.7, y / 0.7
    inside = np.hypot(x, y) < 1
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    normals = np.stack([x, -y, z], -1)
    rgba = np.where(inside[..., None], [200, 30, 30, 255], 0).astype(np.uint8)
    return rgba, np.where(inside[..., None], (normals * 0.5 + 0.5) * 255, 128).round().astype(np.uint8)


def test_normals_are_read_either_way_up_and_nonsense_is_refused(tmp_path: Path) -> None:
    rgba, normals = ball()
    Image.fromarray(rgba).save(tmp_path / "ball.png")
    down = normals.copy()
    down[..., 1] = 255 - down[..., 1]
    found = {}
    for name, pixels in {"up": normals, "down": down, "left": 255 - normals, "grey": normals[..., 2]}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        try:
            found[name] = read_cutout(tmp_path / "ball.png", normals=tmp_path / f"{name}.png")
        except Magic3DError as error:
            assert isinstance(error, UsageError) and error.next_step
    assert set(found) == {"up", "down"} and len(found["up"].notes) == 1
    assert "green" in found["down"].notes[0]
    up, turned = (found[name].normals for name in ("up", "down"))
    assert up is not None and turned is not None and np.abs(up - turned)[found["up"].rgba[..., 3] > 0].max() < 0.02
    middle = len(up) // 2
    assert up[middle, middle, 2] > 0.99 and up[5, middle, 1] > 0.8 and up[middle, -5, 0] > 0.8
    placed = found["up"].placed_normals(64, 0.5)
    assert placed is not None and placed[2, 2].tolist() == [0, 0, 0] and placed[18, 32, 1] > 0.6


def test_the_normals_loss_is_nothing_where_they_agree_from_any_side_and_its_gradient_turns_them() -> None:
    _, pixels = ball(64)
    normals = torch.from_numpy(pixels).float() / 127.5 - 1
    inside = normals.norm(dim=-1) > 0.5
    normals = torch.nn.functional.normalize(normals, dim=-1) * inside[..., None]
    mask = (inside * 255).to(torch.uint8)
    camera = Camera(azimuth=75.0, elevation=25.0)
    reference = Reference(camera, torch.zeros(64, 64, 3, dtype=torch.uint8), mask, normals=normals)
    group = reference_groups([reference], replace(ReferenceSettings(), size=64), 100.0)[0]
    term = next(term for term in group.terms if term.name == "reference_normals")
    # The ball in the world: what faces the camera has the normal that points at it.
    view: Views = camera.views()
    right, up, forward = (axis[0] for axis in view.axes())
    world = normals[..., :1] * right + normals[..., 1:2] * up - normals[..., 2:] * forward
    assert float(world[32, 32] @ view.position[0] / view.position[0].norm()) > 0.99
    step = Step(view, 0.0, torch.Generator(), Processes())

    def loss(normal: torch.Tensor) -> torch.Tensor:
        render = Render(torch.zeros(1, 64, 64, 3), mask[None] / 255, torch.ones(1, 64, 64), normal[None], normal[None])
        found = term.loss(render, step)
        return found[0] if isinstance(found, tuple) else found

    assert float(loss(world)) < 0.3 < 20 < float(loss(-world))
    upright = torch.tensor([0.0, 1.0, 0.0]).expand(64, 64, 3).clone().requires_grad_()
    loss(upright).backward()
    assert upright.grad is not None and float((upright.grad * world).sum()) < 0  # going down it turns towards them
    restored = Reference.restored("p", reference.to_tensors("p"), reference.to_json())
    assert restored.normals is not None and torch.equal(restored.normals, normals)
