"""Nothing is overwritten in silence, and a request finds its own file and run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_checkpoint import HEADER

from magic3d_cli.asset.names import belonging
from magic3d_cli.atomic import SUFFIX
from magic3d_cli.checks import LOD, NAME
from magic3d_cli.errors import UsageError
from magic3d_cli.precheck import check_source, choose_output, refuse_to_overwrite
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, prompt: str, seed: int, preset: str = "draft", *, finished: bool = True) -> None:
    """What a run of this request leaves."""
    with RunDirectory.for_output(Path(name)) as run:
        run.write_json(run.settings, {"prompt": prompt, "seed": seed, "preset": preset})
    if finished:
        Path(name).write_bytes(b"glTF")


def chosen(
    prompt: str, seed: int, preset: str = "draft", given: str | None = None, force: bool = False, lod: int = 0
) -> str:
    return str(choose_output(Path(given) if given else None, prompt, seed, preset, force, lod=lod))


def test_another_seed_gets_a_name_and_a_run_of_its_own() -> None:
    assert chosen("a red car", 0) == "red-car.glb"
    made("red-car.glb", "a red car", 0)
    assert chosen("a red car", 0) == "red-car.glb"  # the same command again: the same file
    assert chosen("a red car", 1) == "red-car-1.glb"
    made("red-car-1.glb", "a red car", 1, finished=False)
    assert chosen("a red car", 1) == "red-car-1.glb"  # interrupted: it goes on there
    assert chosen("a red car", 0) == "red-car.glb"  # and going back finds the first one
    assert chosen("a red car", 0, "standard") == "red-car-2.glb"


def test_a_file_of_somebody_else_is_left_alone() -> None:
    Path("red-car.glb").write_bytes(b"mine")
    assert chosen("a red car", 0) == "red-car-1.glb"
    with pytest.raises(UsageError, match="exists already") as refused:
        chosen("a red car", 0, given="red-car.glb")
    assert "--force" in refused.value.next_step
    assert chosen("a red car", 0, given="red-car.glb", force=True) == "red-car.glb"
    with pytest.raises(UsageError):
        refuse_to_overwrite(Path("red-car.glb"))
    refuse_to_overwrite(Path("blue-car.glb"))


@pytest.mark.parametrize(
    ("given", "lod", "mine"),
    [
        ("car.obj", 0, "car.png"),  # for instance the picture that it is made of
        ("car.obj", 0, "car.mtl"),
        ("my car.obj", 0, "my_car_normal.png"),
        ("car.glb", 2, "car_LOD2.glb"),
        ("car.obj", 1, "car_LOD1.png"),
    ],
)
def test_textures_and_levels_overwrite_nothing_either(given: str, lod: int, mine: str) -> None:
    assert chosen("a red car", 0, given=given, lod=lod) == given
    Path(mine).write_bytes(b"mine")
    with pytest.raises(UsageError, match=f"{mine} exists already"):
        chosen("a red car", 0, given=given, lod=lod)
    assert chosen("a red car", 0, given=given, lod=lod, force=True) == given
    made(given, "a red car", 0, finished=False)  # also where the run is this request's
    with pytest.raises(UsageError, match=f"{mine} exists already"):
        chosen("a red car", 0, given=given, lod=lod)
    RunDirectory.for_output(Path(given)).log("done", files=[given, mine])
    assert chosen("a red car", 0, given=given, lod=lod) == given


def test_a_name_leaves_room_for_all_that_is_written_beside_it() -> None:
    """A name of 255 bytes is one that the system takes, and the file that is half written under a longer one is not."""
    longest = "é" * ((NAME - len(".obj")) // 2) + ".obj"
    output = choose_output(Path(longest), "a red car", 0, "draft", False)
    for path in belonging(output, LOD[1]):
        path.with_name(path.name + SUFFIX).write_bytes(b"")
    with pytest.raises(UsageError, match="too long: 255 bytes"):
        choose_output(Path("x" * 251 + ".glb"), "a red car", 0, "draft", True)


def test_a_name_of_ones_own_choice_leaves_room_for_the_levels() -> None:
    Path("red-car_LOD1.glb").write_bytes(b"mine")
    assert chosen("a red car", 0) == "red-car.glb"
    assert chosen("a red car", 0, lod=1) == "red-car-1.glb"


def test_a_name_that_was_given_is_kept_for_its_own_request_alone() -> None:
    made("best.glb", "a red car", 3)
    assert chosen("a red car", 3, given="best.glb") == "best.glb"
    for prompt, seed, preset in (("a blue car", 3, "draft"), ("a red car", 4, "draft"), ("a red car", 3, "standard")):
        with pytest.raises(UsageError):
            chosen(prompt, seed, preset, given="best.glb")
    made("half.glb", "a red car", 3, finished=False)
    assert chosen("a blue car", 0, given="half.glb") == "half.glb"  # no file yet: the old run is set aside


def test_a_damaged_note_in_the_run_belongs_to_nobody() -> None:
    made("red-car.glb", "a red car", 0)
    for text in ("{", "[]", json.dumps({"prompt": "a red car"})):
        Path("red-car.run/settings.json").write_text(text)
        assert chosen("a red car", 0) == "red-car-1.glb"


def test_an_export_overwrites_only_what_its_run_has_written() -> None:
    """Beside car.run lie car.png, from which it was made, and a mesh of somebody else."""
    made("car.glb", "a red car", 0, finished=False)
    run = RunDirectory(Path("car.run"))
    checkpoint.save(run.coarse, {}, HEADER)
    check_source(run.coarse, Path("car.glb"), force=False)
    Path("car.png").write_bytes(b"a photo")
    with pytest.raises(UsageError, match=r"car\.png exists already"):
        check_source(run.coarse, Path("car.obj"), force=False)
    Path("car.ply").write_text("a mesh")
    with pytest.raises(UsageError, match=r"car\.ply exists already"):
        check_source(run.coarse, Path("car.ply"), force=False)
    for output in ("car.obj", "car.ply"):
        check_source(run.coarse, Path(output), force=True)
    run.log("exported", files=["car.obj", "car.mtl", "car.png"])
    with run.log_path.open("a") as file:
        file.write('{"event": "done", "files": [')  # a line that was cut off
    check_source(run.coarse, Path("car.obj"), force=False)
    check_source(run.coarse, Path("car.stl"), force=False)
