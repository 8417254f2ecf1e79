"""`magic3d edit`: a finished run changed where two prompts disagree or in a box, and nowhere else."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command import magic3d
from scipy.spatial import cKDTree
from tiny_run import play_tiny, tiny_draft, tiny_settings
from torch import Tensor

from magic3d_cli import checks, editing
from magic3d_cli.coarse import initial
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import UsageError
from magic3d_cli.fine.edit import changed_inside, unchanged
from magic3d_cli.fine.geometry import Geometry
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.fine.tetrahedra import Lattice
from magic3d_cli.guidance import disagreement
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene import region
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.region import COLOUR, SHAPE, EditedShape, Region, RegionField
from magic3d_cli.scene.render import Render

TOP = checks.check_box("top")


class Ball:
    """Solid and of one colour; `red` of it from that height on."""

    def __init__(self, radius: float, red: float = 9.0, at: tuple[float, float, float] = (0, 0, 0)) -> None:
        self.radius, self.red, self.at = radius, red, torch.tensor(at, dtype=torch.float32)

    def density(self, points: Tensor) -> Tensor:
        return 100 * ((points - self.at).norm(dim=-1) < self.radius).float()

    def albedo(self, points: Tensor) -> Tensor:
        red, white = torch.tensor([0.9, 0.1, 0.1]), torch.ones(3)
        return torch.where(points[:, 1:2] > self.red, red, white)

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        points = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
        return self.at + self.radius * points


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (region, disagreement):
        monkeypatch.setattr(module, "SIZE", 48)


# What a region is.


def test_a_box_is_in_shares_of_the_thing_and_its_outer_sides_are_open() -> None:
    points = torch.tensor([[-0.2, -0.5, -0.1], [0.2, 0.5, 0.1]])
    top = Region.within(TOP, points)
    inside = torch.tensor([[0.0, 0.2, 0.0], [0.9, 0.9, -0.9], [0.0, -0.2, 0.0], [0.9, -0.9, 0.0]])
    assert (top.share(inside, SHAPE) > 0.5).tolist() == [True, True, False, False]
    assert torch.equal(top.share(inside, COLOUR), top.share(inside, SHAPE))
    recoloured = top.colours_only()
    assert not recoloured.shape_changes and torch.equal(recoloured.share(inside, COLOUR), top.share(inside, COLOUR))
    assert top.both(Region.within(checks.check_box("bottom"), points)).grid.mean() < 0.05
    assert Region.everywhere().is_everything and not top.is_everything and not top.is_empty


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("left", (0.5, 0, 0, 1, 1, 1)),
        ("top + front", (0, 0.5, 0.5, 1, 1, 1)),
        ("0,0.25,0,1,1,0.5", (0, 0.25, 0, 1, 1, 0.5)),
    ],
)
def test_boxes_as_they_are_typed(text: str, box: tuple[float, ...]) -> None:
    assert checks.check_box(text) == box


@pytest.mark.parametrize(
    "text", ["", "up", "top+bottom", "1,2,3", "0,0,0,1,1,2", "0.5,0,0,0.5,1,1", "a,b,c,d,e,f", "nan,0,0,1,1,1"]
)
def test_boxes_that_are_none_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        checks.check_box(text)
    assert "Use" in refused.value.next_step or "0,0.5,0,1,1,1" in refused.value.next_step


# Where two prompts disagree.


def test_two_shapes_disagree_where_one_has_more_and_where_colours_differ() -> None:
    colours = disagreement.of_shapes(Ball(0.5), Ball(0.5, red=0.2))
    surface = Ball(0.5).surface(4000, torch.Generator().manual_seed(0))
    marked = colours.share(surface, COLOUR) > 0.5
    assert not colours.shape_changes
    assert marked[surface[:, 1] > 0.25].all() and not marked[surface[:, 1] < 0.05].any()

    grown = disagreement.of_shapes(Ball(0.4), Ball(0.6))
    assert (grown.share(Ball(0.5).surface(1000, torch.Generator()), SHAPE) > 0.5).all()
    assert (grown.share(Ball(0.1).surface(1000, torch.Generator()), SHAPE) < 0.5).all()
    assert (grown.share(Ball(0.85).surface(1000, torch.Generator()), SHAPE) < 0.5).all()
    assert disagreement.of_shapes(Ball(0.5), Ball(0.5)).is_empty


class Predictor:
    """Expects another colour where the picture is red, and the same everywhere else."""

    def __init__(self, offset: float) -> None:
        self.offset = offset
        self.prior = SimpleNamespace(
            alphas_cumprod=torch.linspace(0.99, 0.01, 100), encode_image=lambda image: image * 2 - 1
        )

    def predict(self, noisy: Tensor, *rest: Any) -> list[tuple[Tensor, Tensor]]:
        alpha, sigma = self.prior.alphas_cumprod[50].sqrt(), (1 - self.prior.alphas_cumprod[50]).sqrt()
        red = ((noisy[:, :1] - noisy[:, 1:2]) / (alpha + sigma)).clamp(0, 1)
        return [(noisy + self.offset * red, noisy)]


def test_predictions_that_differ_on_the_red_top_make_it_the_region() -> None:
    views = disagreement.views_to_compare()
    origins, directions = views.rays(64)
    nearest = -(origins * directions).sum(-1)
    off = (origins.square().sum(-1) - nearest**2 - 0.25).neg()
    depth = torch.where(off > 0, nearest - off.clamp(min=0).sqrt(), 0)
    points = (origins + depth[..., None] * directions).reshape(-1, 3)
    rgb = torch.where((off > 0)[..., None], Ball(0.5, red=0.1).albedo(points).view(*off.shape, 3), 1)
    render = Render(rgb, (off > 0).float(), depth, torch.zeros_like(rgb), rgb)
    generator = torch.Generator().manual_seed(0)
    found = disagreement.of_predictions(Predictor(0), Predictor(1), render, views, generator)  # type: ignore[arg-type]
    surface = Ball(0.5).surface(4000, torch.Generator().manual_seed(0))
    marked = found.share(surface, COLOUR) > 0.5
    assert marked[surface[:, 1] > 0.2].float().mean() > 0.95
    assert marked[surface[:, 1] < 0.0].float().mean() < 0.05


# What stays.


def _field(seed: int) -> HashField:
    field = HashField(tiny_settings().coarse.field, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        field.table.mul_(1e4)
    return field


def test_outside_its_region_a_field_is_the_kept_one_and_does_not_learn() -> None:
    own, kept = _field(0), _field(1)
    top = Region.within(TOP, torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))
    field = RegionField(own, kept, top)
    points = torch.rand(2000, 3) * 2 - 1
    above, below = points[points[:, 1] > 0.05], points[points[:, 1] < -0.05]
    for ask in ("density", "albedo"):
        torch.testing.assert_close(getattr(field, ask)(above), getattr(own, ask)(above), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(getattr(field, ask)(below), getattr(kept, ask)(below), atol=1e-5, rtol=1e-4)
    (field.albedo(below).sum() + field.density(below).sum()).backward()
    assert own.table.grad is None or not own.table.grad.any()
    field.albedo(above).sum().backward()
    assert own.table.grad is not None and own.table.grad.any()
    assert all(parameter.grad is None for parameter in field.kept.parameters())


def test_outside_its_region_geometry_does_not_learn_also_on_a_grown_grid() -> None:
    lattice = Lattice.around(torch.full((3,), -0.5), torch.full((3,), 0.5), 12)
    geometry = Geometry(lattice, lattice.vertices().norm(dim=1) - 0.4)
    geometry.hold_outside(Region.within(TOP, torch.tensor([[-0.4, -0.4, -0.4], [0.4, 0.4, 0.4]])))
    optimiser = torch.optim.Adam(geometry.parameters())
    for _ in range(2):
        vertices, _ = geometry.surface()
        optimiser.zero_grad()
        vertices.square().sum().backward()
        assert geometry.sdf.grad is not None
        moved = geometry.grid[geometry.sdf.grad != 0]
        assert len(moved) and moved[:, 1].min() > -0.05
        assert geometry.grow_around(torch.tensor([[0.62, 0.62, 0.62]]), optimiser) or len(geometry.grid)


@pytest.mark.slow
def test_a_stage_with_a_region_is_saved_and_taken_up_the_same_also_after_a_second_edit() -> None:
    settings = tiny_settings()
    stage = CoarseStage(settings, 0)
    initial.fit(stage, Ball(0.5), steps=30)
    top = Region.within(TOP, torch.tensor([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]))
    stage.hold_outside(top)
    again = CoarseStage.from_state(settings, *stage.state())
    points = torch.rand(500, 3) - 0.5
    assert torch.equal(again.field.density(points), stage.field.density(points))

    fine = FineStage.from_coarse(settings, stage)
    assert isinstance(fine.field, RegionField)
    fine.hold_outside(top, RegionField(_field(1), _field(2), top))
    once_more = FineStage.from_state(settings, *fine.state())
    assert torch.equal(once_more.albedo(points), fine.albedo(points))
    below = points[points[:, 1] < -0.05]
    torch.testing.assert_close(fine.albedo(below), _field(2).albedo(below).detach())


def test_the_shape_to_begin_with_is_the_other_one_inside_the_region() -> None:
    top = Region.within(TOP, torch.tensor([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]))
    shape = EditedShape(Ball(0.3), Ball(0.6, red=-1), top)
    points = torch.tensor([[0.0, 0.45, 0.0], [0.0, -0.45, 0.0], [0.0, 0.1, 0.0], [0.0, -0.1, 0.0]])
    assert (shape.density(points) > 50).tolist() == [True, False, True, True]
    assert (shape.albedo(points)[:, 1] < 0.5).tolist() == [True, False, True, False]
    surface = shape.surface(1000, torch.Generator().manual_seed(0))
    radius = torch.where(surface[:, 1] > 0, 0.6, 0.3)
    clear = surface[:, 1].abs() > 0.05
    torch.testing.assert_close(surface.norm(dim=1)[clear], radius[clear])


def test_the_parents_surface_is_where_it_was() -> None:
    lattice = Lattice.around(torch.full((3,), -0.5), torch.full((3,), 0.5), 24)
    geometry = Geometry(lattice, lattice.vertices().norm(dim=1) - 0.4)
    vertices, faces = (part.detach() for part in geometry.surface())
    stage: Any = SimpleNamespace(mesh=lambda: (vertices, faces), albedo=lambda points: points)
    shape = editing.ParentShape(stage)
    points = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.7
    distance = points.norm(dim=1) - 0.4
    clear = distance.abs() > 0.012  # the mesh's own faces are flat
    assert torch.equal(shape.density(points)[clear] > 30, distance[clear] < 0)
    assert shape.surface(500, torch.Generator()).norm(dim=1).sub(0.4).abs().max() < 0.012


def test_outside_its_region_a_changed_shape_is_the_parents_own_triangles() -> None:
    lattice = Lattice.around(torch.full((3,), -0.3), torch.full((3,), 0.3), 16)
    parent = Geometry(lattice, lattice.vertices().norm(dim=1) - 0.3)
    with torch.no_grad():
        parent.displacement.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    top = Region.within(TOP, torch.tensor([[-0.3, -0.3, -0.3], [0.3, 0.3, 0.3]]))
    size = torch.tensor([0.6, 0.6, 0.6])
    changed = changed_inside(top, parent, lambda points: points.norm(dim=1) - 0.6, -size, size)
    before, after = (geometry.surface()[0].detach() for geometry in (unchanged(parent), changed))
    assert torch.equal(before, parent.surface()[0])
    below = before[before[:, 1] < -0.1]
    assert len(below) > 50 and are_among(below, after)
    assert after[after[:, 1] > 0.1].norm(dim=1).sub(0.6).abs().max() < 0.02
    assert after[after[:, 1] < -0.1].norm(dim=1).max() < 0.35  # nothing new there
    assert len(changed.grid) > len(parent.grid)


def are_among(these: Tensor, those: Tensor) -> bool:
    """Whether all of these points are among those; a grid that grew is laid anew, with the last bit rounded."""
    return cKDTree(those.numpy()).query(these.numpy())[0].max() < 1e-6


# The command.


def _few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "POOL", 1 << 14)
    monkeypatch.setattr(initial, "POINTS", 2048)
    monkeypatch.setattr(editing, "SAMPLES", 20_000)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished tiny run."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        play_tiny(patch)
        patch.chdir(folder)
        assert magic3d("generate", "a red ball", "-o", "ball.glb", "-q") == 0
    return folder


@pytest.fixture
def ball(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run in the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    play_tiny(monkeypatch)
    _few_points(monkeypatch)
    return Path("ball.run")


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.ckpt")}


@pytest.mark.slow
def test_an_edit_leaves_its_parent_alone_keeps_the_rest_and_goes_on_as_itself(
    ball: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _hashes(ball)
    command = ["edit", "ball.glb", "a blue ball", "--box", "top", "--recolour", "-o", "blue.glb", "--json"]
    command += ["--prior", "auto"]  # a ball stands for it
    assert magic3d(*command) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert _hashes(ball) == before
    assert report["edited"]["parent"].endswith("ball.run/fine.ckpt") and 0.3 < report["edited"]["share"] < 0.7
    assert "the shape stays as it is" in err
    parent, child = (Saved.load(Path(name) / "fine.ckpt") for name in ("ball.run", "blue.run"))
    old, new = (saved.stage(saved.settings, "cpu") for saved in (parent, child))
    assert isinstance(old, FineStage) and isinstance(new, FineStage)
    points = old.mesh()[0]
    assert torch.equal(points, new.mesh()[0])  # vertex by vertex: nothing is meshed anew
    middle = (points[:, 1].amin() + points[:, 1].amax()) / 2
    changed = (old.albedo(points) - new.albedo(points)).abs().amax(1)
    assert changed[points[:, 1] < middle - 0.06].max() < 1e-6 < changed[points[:, 1] > middle + 0.06].max()

    assert magic3d(*command) == 0
    assert "finished already" in capsys.readouterr().err
    assert magic3d("edit", "blue.run", "a green ball", "--box", "bottom", "--prior", "auto", "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out)["edited"]["parent"].endswith("blue.run/fine.ckpt")
    assert magic3d("export", "green-ball.run", "-o", "green.obj", "-q") == 0


@pytest.mark.slow
def test_an_edit_of_the_shape_holds_what_lies_outside_the_box(ball: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["edit", "ball.run/coarse.ckpt", "a red ball", "--box", "0,0,0,1,1,0.4", "--prior", "auto"]
    assert magic3d(*command, "-o", "part.glb", "-q") == 0
    coarse = Saved.load(Path("part.run/coarse.ckpt"))
    stage = coarse.stage(coarse.settings, "cpu")
    assert stage.step == coarse.settings.coarse.steps > 0 and isinstance(stage.field, RegionField)
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    outside = points[stage.field.region.share(points, SHAPE) == 0]
    assert len(outside) > 200
    torch.testing.assert_close(stage.field.density(outside), stage.field.kept.density(outside))
    assert not torch.equal(stage.field.table, stage.field.kept.table)

    parent = Saved.load(Path("ball.run/coarse.ckpt"))
    whole = parent.stage(parent.settings, "cpu")
    assert isinstance(whole, CoarseStage)
    before = FineStage.from_coarse(parent.settings, whole).mesh()[0]
    child = Saved.load(Path("part.run/fine.ckpt"))
    after = child.stage(child.settings, "cpu").mesh()[0]  # type: ignore[union-attr]
    kept = before[before[:, 2] > 0.1]  # the box ends at -0.1, and a cell is 0.1 long
    assert len(kept) > 50 and are_among(kept, after)
    assert magic3d("refine", "part.run/coarse.ckpt", "-o", "again.glb", "--yes") == 2
    assert "is of an edit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.run", "a blue ball"], "no checkpoint of none.run"),
        (["ball.run", " "], "prompt is empty"),
        (["ball.run", "a blue ball", "--box", "middle"], "--box"),
        (["ball.run", "a blue ball", "-o", "ball.glb"], "exists already"),
        (["ball.run", "a blue ball", "--preset", "dratf"], "Did you mean 'draft'"),
        (["text.glb", "a blue ball"], "no checkpoint of text.glb"),
    ],
)
def test_what_cannot_be_edited_is_refused(
    ball: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.glb").write_text("no mesh")
    assert magic3d("edit", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "next: " in err and "Traceback" not in err


@pytest.mark.slow
def test_with_the_builtin_prior_a_red_car_becomes_blue_but_for_what_both_prompts_agree_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_draft(monkeypatch)
    _few_points(monkeypatch)
    monkeypatch.setattr(region, "SIZE", 96)
    monkeypatch.setattr(disagreement, "SIZE", 96)
    assert magic3d("generate", "a red car", "--init", "auto", "-o", "car.glb", "-q") == 0
    assert magic3d("edit", "car.run", "a blue car", "--json", "-q") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0.05 < report["edited"]["share"] < 0.95  # the tyres and windows are not of the body's colour
    parent, child = (Saved.load(Path(name) / "fine.ckpt") for name in ("car.run", "blue-car.run"))
    old, new = (saved.stage(saved.settings, "cpu") for saved in (parent, child))
    assert isinstance(old, FineStage) and isinstance(new, FineStage) and isinstance(new.field, RegionField)
    vertices = old.mesh()[0]
    colours = new.albedo(vertices)
    inside = new.field.region.share(vertices, COLOUR)
    body = colours[inside == 1].mean(0)
    assert body[2] > body[0] + 0.1
    assert np.abs((colours - old.albedo(vertices))[inside == 0].numpy()).max() < 1e-5
    assert magic3d("edit", "car.run", "a crimson car", "-q") == 2
    assert "asks for nothing" in capsys.readouterr().err


def test_views_of_the_comparison_see_all_sides() -> None:
    views = disagreement.views_to_compare()
    assert len(views) == disagreement.VIEWS
    sides = torch.sort(torch.rad2deg(views.azimuth) % 360).values
    assert (sides[1:] - sides[:-1]).max() < 60
