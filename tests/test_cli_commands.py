"""The commands from prompt to file, with a red ball in place of the prior's weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command import magic3d
from tiny_priors import save_builtin, save_sd
from tiny_run import BallGuide, play_tiny, run_tiny, tiny_draft, tiny_settings

from magic3d_cli import assembly
from magic3d_cli.errors import Collapsed
from magic3d_cli.guidance import priors
from magic3d_cli.guidance.diffusers import hub
from magic3d_cli.run import checkpoint


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_tiny(folder / "red-ball.glb", settings=replace(tiny_settings(), preset="draft"))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a finished run; priors are balls and presets are tiny."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    play_tiny(monkeypatch)
    return tmp_path


def test_generate_goes_on_from_its_own_run_and_prints_only_the_path(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "red-ball.glb").unlink()
    assert magic3d("generate", "a red ball", "-o", "red-ball.glb") == 0
    out, err = capsys.readouterr()
    assert out == "red-ball.glb\n"
    assert "finished already" in err
    assert (folder / "red-ball.glb").read_bytes()[:4] == b"glTF"


def test_quiet_says_nothing_and_json_is_one_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d("generate", "a red ball", "-o", "red-ball.glb", "--json", "--quiet", "--faces", 200) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report["output"] == "red-ball.glb" and report["seed"] == 0 and report["prior"]["id"] == "ball"
    assert report["asset"]["faces"] <= 200
    assert {"coarse", "fine", "asset"} <= report["seconds"].keys()
    assert set(report["seconds_per_step"]["coarse"]) == {"render", "losses", "backward", "optimizer"}
    assert 0.9 < report["handover"]["iou"] <= 1
    assert json.loads((folder / "red-ball.run" / "result.json").read_text()) == report


def test_export_without_a_checkpoint_takes_the_newest_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d("export", "--format", "obj") == 0
    assert capsys.readouterr().out == "red-ball.obj\n"
    assert {p.name for p in folder.glob("red-ball.*")} >= {"red-ball.obj", "red-ball.mtl", "red-ball.png"}


def test_export_turns_a_coarse_checkpoint_into_a_mesh(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d("export", "red-ball.run/coarse.ckpt", "-o", "coarse.glb") == 0
    assert capsys.readouterr().out == "coarse.glb\n"
    assert (folder / "coarse.glb").stat().st_size > 1000


def test_export_adds_levels_and_maps_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d("export", "red-ball.run", "-o", "ball.glb", "--lod", "1", "--ao", "--normal-map", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == ["ball.glb", "ball_LOD1.glb"] and len(report["asset"]["levels"]) == 1
    plain = magic3d("export", "red-ball.run", "-o", "ball.stl", "--ao")
    assert plain == 0 and ".stl has no room for the ambient occlusion" in capsys.readouterr().err
    assert magic3d("export", "red-ball.run", "-o", "ball.glb", "--force", "--lod", "7") == 2


def test_refine_refuses_a_fine_checkpoint_and_names_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d("refine", "red-ball.run/fine.ckpt") == 2
    assert "magic3d export red-ball.run/fine.ckpt" in capsys.readouterr().err


def test_refine_fresh_keeps_the_checkpoint_it_was_given(folder: Path) -> None:
    """However it is spelt: the default output is written relative to the current folder."""
    assert magic3d("refine", folder / "red-ball.run" / "coarse.ckpt", "--fresh") == 0
    assert (folder / "red-ball.run" / "coarse.ckpt").is_file()
    assert (folder / "red-ball.run.1" / "fine.ckpt").is_file()


def test_refine_writes_beside_its_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = (folder / "red-ball.glb").read_bytes()
    (folder / "red-ball.glb").unlink()
    shutil.copy(folder / "red-ball.run" / "coarse.ckpt", folder / "copy.ckpt")
    assert magic3d("refine", "red-ball.run/coarse.ckpt") == 0  # its fine stage is finished: found again
    assert magic3d("refine", "copy.ckpt", "-q") == 0
    assert capsys.readouterr().out == "red-ball.glb\ncopy.glb\n"
    assert (folder / "red-ball.glb").read_bytes() == expected
    assert checkpoint.read_header(folder / "copy.run" / "fine.ckpt")["step"] == tiny_settings().fine.steps


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Collapsed("The volume became empty.", "Try --seed 1."), 5, "Try --seed 1."),
        (MemoryError(), 4, "Out of memory"),
        (RuntimeError("surprise"), 1, "log.jsonl"),
    ],
)
def test_a_failure_in_a_stage_keeps_the_run_and_its_story(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    said: str,
) -> None:
    class Failing(BallGuide):
        def terms(self, stage, settings):
            raise error

    monkeypatch.setattr(assembly, "PriorGuide", lambda *arguments: Failing())
    assert magic3d("generate", "a red ball", "-o", "other.glb") == code
    out, err = capsys.readouterr()
    assert out == "" and said in err and "Traceback" not in err
    last = json.loads((folder / "other.run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["type"] == type(error).__name__
    assert (last["traceback"] is None) == isinstance(error, Collapsed)
    assert (folder / "other.run" / "coarse.ckpt").is_file()


@pytest.mark.slow
def test_a_run_goes_through_on_prior_files_of_the_builtin_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights: they say nothing of the object, only whether loader, prompt and stages fit together."""
    save_builtin(tmp_path / "prior")
    monkeypatch.chdir(tmp_path)
    tiny_draft(monkeypatch)
    assert magic3d("generate", "a red car", "--prior", "prior", "--json", "-o", "car.obj") == 0
    report = json.loads(capsys.readouterr().out)
    assert [Path(file).suffix for file in report["files"]] == [".obj", ".mtl", ".png"]
    header = checkpoint.read_header(tmp_path / "car.run" / "fine.ckpt")
    assert header["prior"] == report["prior"]
    assert header["prior"]["id"] == str(tmp_path / "prior")  # found again from any folder
    assert len(header["prior"]["sha256"]) == 64


@pytest.mark.slow
def test_the_stages_can_have_different_priors_and_refine_remembers_the_fine_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        save_builtin(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    tiny_draft(monkeypatch)
    command = ("generate", "a red car", "--coarse-prior", "one", "--prior", "two", "-o", "car.glb")
    assert magic3d(*command) == 0
    run = tmp_path / "car.run"
    headers = [checkpoint.read_header(run / f"{stage}.ckpt") for stage in ("coarse", "fine")]
    assert [Path(header["prior"]["id"]).name for header in headers] == ["one", "two"]
    assert magic3d("refine", "car.run/coarse.ckpt", "-o", "again.glb") == 0
    again = checkpoint.read_header(tmp_path / "again.run" / "fine.ckpt")
    assert again["prior"] == headers[1]["prior"]


def test_a_fine_prior_without_usable_weights_is_refused_before_the_coarse_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_builtin(tmp_path / "one")
    save_sd(tmp_path / "two")
    (weights,) = (tmp_path / "two" / "unet").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    monkeypatch.chdir(tmp_path)
    assert magic3d("generate", "a red car", "--coarse-prior", "one", "--fine-prior", "two", "-o", "car.glb") == 3
    assert "pickled" in capsys.readouterr().err and not Path("car.run").exists()


def test_a_simple_atlas_is_told(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("magic3d_cli.asset.unwrap._run_xatlas", lambda *arguments: "xatlas took longer than 20 s")
    assert magic3d("export", "red-ball.run/fine.ckpt") == 0
    assert "simple atlas: xatlas took longer than 20 s" in capsys.readouterr().err


def test_each_stage_is_guided_as_its_prior_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prior that takes any words is guided as the paper guides; the built-in one's scale would make fog of it."""
    save_builtin(tmp_path / "one")
    save_sd(tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    tiny_draft(monkeypatch)
    assert magic3d("generate", "a red car", "--coarse-prior", "one", "--fine-prior", "two", "-o", "car.glb") == 0
    header = checkpoint.read_header(tmp_path / "car.run" / "fine.ckpt")
    used = {stage: header["settings"][stage]["guidance"] for stage in ("coarse", "fine")}
    assert used["coarse"]["scale"][0] <= 3 and used["coarse"]["weighting"] == "uniform"
    assert used["fine"]["scale"] == [100, 100] and used["fine"]["weighting"] == "sds"
    assert used["fine"]["times"]["end"] == [0.02, 0.5]


@pytest.mark.parametrize(
    ("device", "cached", "chosen"), [("cpu", True, "builtin"), ("cuda", False, "builtin"), ("cuda", True, "sd15")]
)
def test_auto_takes_stable_diffusion_on_a_gpu_if_it_is_there_already(
    monkeypatch: pytest.MonkeyPatch, device: str, cached: bool, chosen: str
) -> None:
    monkeypatch.setattr(priors, "state_of", lambda source: hub.INSTALLED if cached else hub.ABSENT)
    assert priors.full_name("auto", device) == chosen
