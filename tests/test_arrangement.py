"""Several things in one prompt: read, placed by their own extents, and shown as one volume."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from magic3d_cli.asset.material import of_prompt, of_things
from magic3d_cli.asset.size import size_of_things
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin.arrangement import ON_TOP, UNLIKE, arranged, place, show_together
from magic3d_cli.guidance.builtin.arrangement import Group as Things
from magic3d_cli.guidance.builtin.shape import VolumeShape
from magic3d_cli.guidance.builtin.understanding import Understood, understand
from magic3d_cli.guidance.builtin.vocabulary import Caption, Placed, Vocabulary
from magic3d_cli.guidance.builtin.voxels import FULL
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.guidance.guide import Loaded, PriorGuide
from magic3d_cli.guidance.priors import WeightedPrior, choose_priors, drawn_things
from magic3d_cli.scene.shape import EXTENT
from magic3d_cli.scene.things import share_of, things_of

SIDE, CUBE = 32, 0.95


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary.load(BUILTIN / "vocabulary.json")


def read(prompt: str, strict: bool = False) -> Understood:
    return understand(vocabulary(), prompt, strict=strict)


def volume_of(*boxes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]], colour: float = 0.5) -> torch.Tensor:
    """A volume with boxes of filled voxels, given by their x, y and z ranges."""
    volume = torch.zeros(SIDE, SIDE, SIDE, 7)
    volume[..., 0] = -FULL
    for x, y, z in boxes:
        volume[slice(*y), slice(*x), slice(*z), 0] = FULL
    volume[..., 4:] = colour
    return volume


CHAIR = volume_of(((8, 24), (12, 14), (8, 24)), ((8, 24), (14, 28), (8, 10)), ((8, 10), (4, 12), (8, 24)),
                  ((22, 24), (4, 12), (8, 24)), colour=0.2)  # fmt: skip
"""Seat, back at its rear, two sides to the ground, open in front."""
BOX = volume_of(((12, 20), (12, 20), (12, 20)), colour=0.9)


def solid(*boxes: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]) -> Things:
    points = [np.stack(np.meshgrid(*(np.arange(a, b, 0.02) for a, b in box)), -1).reshape(-1, 3) for box in boxes]
    return Things(np.concatenate(points), ((0, 1.0, np.zeros(3)),))


def placed(relation: str, first: Things, second: Things) -> tuple[Things, Things]:
    """Each of two after they are placed."""
    both = place(first, relation, second)
    count = len(first.points)
    return Things(both.points[:count], both.parts[:1]), Things(both.points[count:], both.parts[1:])


CUBE_THING = solid(((0, 0.3), (0, 0.3), (0, 0.3)))
SEAT = solid(((-0.5, 0.5), (0.4, 0.5), (-0.5, 0.5)), ((-0.5, 0.5), (0.5, 1.2), (-0.5, -0.4)),
             ((-0.5, -0.4), (0, 0.4), (-0.5, 0.5)), ((0.4, 0.5), (0, 0.4), (-0.5, 0.5)))  # fmt: skip


def test_on_a_chair_is_on_its_seat_and_not_on_its_back():
    box, chair = placed("on", CUBE_THING, SEAT)
    assert box.low[1] == pytest.approx(0.5, abs=0.08)
    assert box.low[2] > -0.4 and abs(box.low[0] + box.high[0]) / 2 < 0.2
    np.testing.assert_array_equal(chair.points, SEAT.points)


def test_what_is_on_another_thing_is_not_much_larger():
    car, table = placed("on", CUBE_THING.scaled(20), SEAT)
    assert car.longest == pytest.approx(ON_TOP * table.longest, rel=0.05)
    assert car.low[1] > 0.4


def test_under_is_below_the_roof_on_the_ground_and_touches_nothing():
    box, _ = placed("under", CUBE_THING, SEAT)
    assert box.low[1] == pytest.approx(0, abs=0.03) and box.high[1] < 0.4
    assert box.low[0] > -0.4 and box.high[0] < 0.4


def test_what_does_not_fit_under_is_made_smaller_and_where_there_is_no_room_the_other_stands_on_it():
    large = CUBE_THING.scaled(1.8)  # 0.54 high, with 0.4 of room
    box, _ = placed("under", large, SEAT)
    assert box.longest < large.longest and box.high[1] < 0.45
    block = solid(((0, 1), (0, 1), (0, 1)))
    both = place(CUBE_THING, "under", block)
    box_after = both.points[len(block.points) :]  # the block was put on it, so it comes first
    assert both.points[: len(block.points), 1].min() > box_after[:, 1].max() - 0.1


@pytest.mark.parametrize(
    ("relation", "axis", "sign"), [("next to", 0, 1), ("and", 0, 1), ("in front of", 2, -1), ("behind", 2, 1)]
)
def test_side_by_side_there_is_a_gap_and_one_ground(relation, axis, sign):
    box, chair = placed(relation, CUBE_THING, SEAT)
    gap = (chair.low[axis] - box.high[axis]) if sign > 0 else (box.low[axis] - chair.high[axis])
    assert 0 < gap < 0.1
    assert box.low[1] == pytest.approx(chair.low[1])


def test_an_unknown_relation_is_refused():
    with pytest.raises(ValueError, match="above"):
        place(CUBE_THING, "above", SEAT)


def extents(volume: torch.Tensor, colour: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x, y, z of the filled voxels of a colour."""
    mine = (volume[..., 0] > 0) & ((volume[..., 4] - colour).abs() < 0.1)
    places = mine.nonzero()[:, [1, 0, 2]].numpy()
    return ((places.min(0) + 0.5) / SIDE * 2 - 1) * CUBE, ((places.max(0) + 0.5) / SIDE * 2 - 1) * CUBE


def test_one_volume_holds_both_in_their_colours_usual_sizes_and_places():
    scene, _ = arranged([BOX, CHAIR], [0.3, 0.9], ["on"], CUBE)
    low, high = extents(scene, 0.9)
    chair_low, chair_high = extents(scene, 0.2)
    ratio = (chair_high - chair_low).max() / (high - low).max()
    assert 2 < ratio < 4.5
    seat = chair_low[1] + 10 / 24 * (chair_high[1] - chair_low[1])
    assert low[1] == pytest.approx(seat, abs=0.12) and high[1] < chair_high[1]
    whole = (scene[..., 0] > 0).nonzero()[:, [1, 0, 2]].numpy()
    assert np.abs((whole + 0.5) / SIDE * 2 - 1).max() * CUBE < EXTENT + 0.06


def test_each_voxel_knows_the_nearest_thing():
    scene, owners = arranged([BOX, CHAIR], [0.3, 0.9], ["on"], CUBE)
    filled = scene[..., 0] > 0
    assert (owners[filled & ((scene[..., 4] - 0.9).abs() < 0.1)] == 0).all()
    assert (owners[filled & ((scene[..., 4] - 0.2).abs() < 0.1)] == 1).all()
    assert set(owners.unique().tolist()) == {0, 1}  # also where nothing is
    things = things_of(owners.permute(2, 0, 1), CUBE)
    y, x, z = (int(index) for index in (filled & (owners == 0)).nonzero()[0])
    at = ((torch.tensor([[x, y, z]]) + 0.5) / SIDE * 2 - 1) * CUBE
    assert share_of(things, 0, at) == 1 and share_of(things, 1, at) == 0


def test_a_small_thing_beside_a_large_one_stays_large_enough_to_be_seen():
    scene, _ = arranged([BOX, CHAIR], [0.001, 10.0], ["next to"], CUBE)
    low, high = extents(scene, 0.9)
    chair_low, chair_high = extents(scene, 0.2)
    assert (chair_high - chair_low).max() / (high - low).max() < UNLIKE * 1.7  # voxels are coarse here


def test_thin_parts_survive_a_smaller_scale():
    lamp = volume_of(((15, 16), (4, 28), (15, 16)), colour=0.9)
    scene, _ = arranged([lamp, CHAIR], [0.3, 0.9], ["next to"], CUBE)
    column = ((scene[..., 0] > 0) & (scene[..., 4] > 0.8)).any(2).any(1).nonzero()[:, 0]
    assert len(column) > 3 and (column.diff() == 1).all()


def test_nothing_cannot_be_placed():
    with pytest.raises(ValueError, match="no voxels"):
        arranged([BOX, volume_of()], [1.0, 1.0], ["on"], CUBE)


class OneVolume:
    """Stands for a caption volume: a box and a chair by their first letters; keeps what is shown instead."""

    extent = CUBE

    def __init__(self) -> None:
        self.shown: dict[int, torch.Tensor] = {}

    def parameters(self):
        return iter([torch.zeros(1)])

    def painted(self, text: torch.Tensor) -> torch.Tensor:
        return BOX if text.item() == ord("r") else CHAIR

    def find(self, text: torch.Tensor) -> torch.Tensor:
        return text.view(-1).long()

    def show_instead(self, model: int, volume: torch.Tensor) -> None:
        self.shown[model] = volume


def test_the_scene_is_shown_where_the_first_thing_is_named_without_its_paint():
    caption = Caption("box", "red", metres=0.3, others=(Placed("on", Caption("chair", metres=0.9)),))
    assert caption.text == "box"
    volume: Any = OneVolume()
    show_together(volume, lambda texts: torch.tensor([float(ord(text[0])) for text in texts]).view(-1, 1, 1), caption)
    (model,) = volume.shown
    assert model == ord("b")
    torch.testing.assert_close(volume.shown[model], arranged([BOX, CHAIR], [0.3, 0.9], ["on"], CUBE)[0])


def test_each_thing_is_shown_as_what_it_is_before_it_is_painted():
    mine = Caption("my box", stands="chair", metres=0.3, others=(Placed("on", Caption("chair", metres=0.9)),))
    volume: Any = OneVolume()
    told: list[str] = []
    painted: list[str] = []

    def paint(text: torch.Tensor) -> torch.Tensor:
        painted.append(told[-1])
        return BOX if told[-1] == "my box" else CHAIR

    volume.painted = paint
    show_together(
        volume, lambda texts: torch.tensor([[float(ord(text[0]))] for text in texts]).view(-1, 1, 1), mine,
        lambda thing: told.append(thing.noun),
    )  # fmt: skip
    assert painted == ["my box", "chair"]
    torch.testing.assert_close(volume.shown[ord("c")], arranged([BOX, CHAIR], [0.3, 0.9], ["on"], CUBE)[0])


@pytest.mark.parametrize(
    ("prompt", "drawn", "left"),
    [
        ("a teddy bear sitting on a chair", "a teddy bear on a chair", ()),
        ("a red car next to a wooden house", "a red car next to a wooden house", ()),
        ("a dog and a cat", "a dog and a cat", ()),
        ("a cat under a table made of wood", "a cat under a wooden table", ()),
        ("a dog behind a house", "a dog behind a house", ()),
        ("a chair in front of a red sofa", "a chair in front of a red sofa", ()),
        ("a knight riding a horse", "a knight on a horse", ()),
        ("a corgi on a skateboard", "a dog on a skateboard", ()),
        ("a lamp on a table next to a chair", "a lamp on a table next to a chair", ()),
        ("a cat, a dog and a horse", "a cat and a dog and a horse", ()),
        ("a cat sleeping on a red sofa", "a cat on a red sofa", ("sleeping",)),
        ("a cat wearing a hat on a table", "a cat on a table", ("wearing a hat",)),
        ("a knight with a sword and a shield", "a knight", ("with a sword", "and a shield")),
        ("a castle, tower, fantasy", "a castle", ("tower", "fantasy")),
        ("a dragon on fire", "a dragon", ("on fire",)),
        ("a man or a woman", "a man", ("or a woman",)),
        ("a teddy bear on a white background", "a teddy bear", ("on a white background",)),
    ],
)
def test_things_are_drawn_together_where_a_place_is_said(prompt, drawn, left):
    understood = read(prompt)
    assert (understood.drawn, understood.left_out) == (drawn, left)
    again = read(understood.drawn)
    assert again.caption == understood.caption  # what it says is what it would read


def test_the_report_names_each_thing_with_its_paint_and_place():
    understood = read("a golden teddy bear on a red chair")
    report = json.loads(json.dumps(understood.to_json()))
    assert [(thing["relation"], thing["noun"]) for thing in report["things"]] == [("", "teddy bear"), ("on", "chair")]
    assert (report["things"][0]["material"], report["things"][1]["colour"]) == ("gold", "red")
    assert understood.notes == ("Drawing a golden teddy bear on a red chair.",)
    bear, chair = understood.caption.metres, understood.caption.others[0].caption.metres
    assert bear is not None and chair is not None and chair > bear


def test_more_than_three_are_refused_with_the_reason_and_a_prompt_that_works():
    with pytest.raises(UsageError) as refused:
        read("a cat, a dog, a horse and a cow")
    assert "4 things" in refused.value.what and "cow" in refused.value.what and "3" in refused.value.what
    assert len(read(refused.value.next_step.split('"')[1]).things) == 3


def test_strictly_several_things_in_known_words_are_accepted():
    assert read("a red dog on a table", strict=True).drawn == "a red dog on a table"
    with pytest.raises(UsageError):
        read("a fluffy dog on a table", strict=True)
    with pytest.raises(UsageError):
        read("a corgi and a cat", strict=True)


def test_one_material_for_an_asset_only_where_all_things_agree():
    assert of_things(["a golden dragon"]) == of_prompt("a golden dragon")
    assert of_things(["a golden dragon", "a golden table"]).name == "gold"
    assert of_things(["a golden dragon", "a table"]) == of_prompt("a table")


def test_the_usual_size_of_a_scene_follows_its_places():
    things = drawn_things("builtin", "a teddy bear on a chair", 0)
    assert things == [("", "a teddy bear"), ("on", "a chair")]
    both, chair, dog, dogs = (
        size_of_things(asked)
        for asked in (things, [("", "a chair")], [("", "a dog")], [("", "a dog"), ("and", "a dog")])
    )
    assert both and chair and both == ("teddy bear on chair", chair[1])
    assert dog and dogs and dogs[1] == pytest.approx(2 * dog[1])
    assert drawn_things("sd15", "a teddy bear on a chair", 0) == [("", "a teddy bear on a chair")]


def test_priors_that_are_kept_between_jobs_show_each_job_its_own_thing() -> None:
    """What a model was shown as in one job, several things together, is not what the next job sees."""
    loaded: Loaded = {}

    def volume(prompt: str, kept: Loaded | None) -> torch.Tensor:
        chosen = choose_priors({"coarse": [WeightedPrior("builtin")]}, prompt, 0, "cpu", lambda text: None)
        shape = PriorGuide(chosen, prompt, 0, "cpu", loaded=kept).volume()
        assert isinstance(shape, VolumeShape)
        return shape._volume

    together, alone = volume("a teddy bear on a chair", loaded), volume("a teddy bear", loaded)
    assert len(loaded) == 1
    assert torch.equal(alone, volume("a teddy bear", None)) and not torch.equal(alone, together)
    assert torch.equal(together, volume("a teddy bear on a chair", loaded))
