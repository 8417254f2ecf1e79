"""Checkpoints of an older program (commit 8a6f7ef, before settings changed names) open, refine, export and resume.

They were made with the built-in prior by that program's pipeline: "a red car", 40 coarse steps of 32 pixels and 6 fine
steps of 64, 400 faces, a texture of 64 pixels.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from magic3d_cli.cli import main
from magic3d_cli.presets import PRESETS
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.resume import Origins, Saved, make_way
from magic3d_cli.settings import CoarseSettings, Settings, canonical

OLD = Path(__file__).with_name("data") / "version-0.1.0"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "red-car.run"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(tmp_path)
    return folder


def magic3d(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--device", "cpu", "--quiet"])
    return int(ended.value.code or 0)


def test_settings_of_an_old_checkpoint_are_those_it_was_made_with() -> None:
    settings = Saved.load(OLD / "coarse.ckpt").settings
    assert (settings.coarse.steps, settings.coarse.warmup, settings.coarse.predicted_normal) == (40, 0.4, 0.3)
    assert (settings.fine.normal_consistency, settings.fine.freeze_geometry) == (0.1, False)


def test_an_old_coarse_checkpoint_is_refined(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "fine.ckpt").unlink()
    assert magic3d("refine", "red-car.run/coarse.ckpt", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["prompt"] == "a red car" and report["handover"]["iou"] > 0.8 and report["asset"]["faces"] > 100


@pytest.mark.parametrize("name", ["coarse", "fine"])
def test_an_old_checkpoint_is_exported(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert magic3d("export", f"red-car.run/{name}.ckpt", "-o", "car.obj", "--json") == 0
    assert json.loads(capsys.readouterr().out)["asset"]["faces"] > 100
    assert Path("car.obj").read_text().count("\nf ") > 100


def test_an_old_run_goes_on_where_the_same_is_asked_for(run: Path) -> None:
    header = checkpoint.read_header(run / "fine.ckpt")
    settings = Saved.load(run / "fine.ckpt").settings
    same = {"coarse": header["origin"]["coarse"]["prior"], "fine": header["prior"]["sha256"]}
    assert make_way(RunDirectory(run), Origins.of_request("a red car", settings, same), fresh=False) is None
    other = replace(settings, seed=1)
    assert make_way(RunDirectory(run), Origins.of_request("a red car", other, same), fresh=False) is not None


def test_missing_keys_take_defaults_and_unknown_ones_are_refused() -> None:
    data = json.loads(json.dumps(PRESETS["draft"].to_json()))
    del data["fine"]["freeze_geometry"], data["coarse"]["guidance"]["perp_neg"]
    assert Settings.from_json(data) == PRESETS["draft"]
    with pytest.raises(TypeError, match="sharpness"):
        Settings.from_json({**data, "fine": {**data["fine"], "sharpness": 1}})
    with pytest.raises(TypeError, match="laplacian"):  # a value that no old checkpoint can have
        Settings.from_json({**data, "fine": {**data["fine"], "laplacian": 1.0}})
    assert canonical(CoarseSettings, {"warm": 0.4})["warmup"] == 0.4
