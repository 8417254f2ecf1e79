"""The campaign against faults, in short: whatever disturbs a run, nothing crashes and the same bytes come out."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import BallGuide, tiny_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "reliability"))

from fleet import Fleet, simulate

from magic3d_cli.asset.check import read_mesh
from magic3d_cli.batch.tasks import Choices, read_tasks
from magic3d_cli.batch.worker import finished
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import Collapsed, EnvironmentFault, UsageError, out_of_memory
from magic3d_cli.fine.surface import field_to_surface
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.guidance.diffusers.files import read_json
from magic3d_cli.guidance.priors import WeightedPrior, choose_priors
from magic3d_cli.initial_shapes import named_shape
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.scene.views import turntable

FOLDER = Path(__file__).parents[1] / "examples" / "reliability"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="it forks and kills processes")
def test_a_disturbed_run_ends_in_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "campaign.py"), "-o", str(tmp_path / "out"), "--short"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tries = [json.loads(line) for line in (tmp_path / "out" / "tries.jsonl").read_text().splitlines()]
    assert {name for name, *_ in tries} == {
        "kills",
        "operations",
        "torn-writes",
        "damaged-files",
        "numbers",
        "prior-files",
        "two-at-once",
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_spoilt_in_the_last_steps_are_not_handed_on(bad: float) -> None:
    settings = tiny_settings()
    stage = CoarseStage(settings, 0, "cpu")
    stage.step = stage.total - 2  # too late for twenty skipped steps
    parameter = stage.optimiser.parameters()[0]
    with torch.no_grad():
        parameter.view(-1)[0] = bad
    with pytest.raises(Collapsed, match="not finite"):
        stage.run([stage.random_views(*BallGuide().terms("coarse", settings.coarse))])


def test_a_volume_of_no_numbers_has_no_surface() -> None:
    views, images = turntable(2), torch.full((2, 8, 8), 0.5)
    with pytest.raises(Collapsed, match="not finite"):
        field_to_surface(lambda points: torch.full((len(points),), torch.nan), views, images, images, 8)
    with pytest.raises(Collapsed, match="not finite"):
        field_to_surface(lambda points: points[:, 0], views, images * torch.nan, images, 8)


DEEP = "[" * 100_000
"""Valid as far as it goes, and deeper than Python's parser can follow."""


def test_lists_too_deep_are_refused_like_any_other_damage(tmp_path: Path) -> None:
    header = f'{{"a":{DEEP}'.encode()
    (tmp_path / "a.ckpt").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UsageError, match="damaged"):
        checkpoint.load(tmp_path / "a.ckpt")
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(EnvironmentFault):
        read_json(tmp_path / "config.json")
    run = RunDirectory(tmp_path / "a.run")
    run.path.mkdir()
    run.settings.write_text(DEEP)
    assert not run.is_of("a ball", 0, "draft")
    text = DEEP.encode()
    glb = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A) + text
    (tmp_path / "a.glb").write_bytes(glb)
    with pytest.raises(UsageError, match="cannot be read as a mesh"):
        read_mesh(tmp_path / "a.glb")


@pytest.mark.parametrize("text", [DEEP, "[]", '{"seconds": 3}', ""])
def test_a_damaged_result_means_that_a_batch_makes_it_again(tmp_path: Path, text: str) -> None:
    run = RunDirectory(tmp_path / "a.run")
    run.path.mkdir()
    task = {"prompt": "a ball", "seed": 0, "preset": "draft", "distillation": None}
    run.settings.write_text(json.dumps(tiny_settings().to_json() | task))
    run.result.write_text(text)
    run.batch.write_text(json.dumps({"distillation": "sds"}))
    (tmp_path / "a.glb").write_bytes(b"glTF")
    assert finished(tmp_path / "a.glb", task, {}, None) is None
    run.result.write_text("{}")
    assert finished(tmp_path / "a.glb", task, {}, None) is not None
    run.batch.write_text(text)
    assert finished(tmp_path / "a.glb", task, {}, None) is None


def write_glb(path: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    path.write_bytes(struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A) + text)


@pytest.mark.parametrize(("count", "uri"), [(1 << 40, None), (1, "../../../etc/passwd"), (1, "/etc/passwd")])
def test_a_mesh_neither_takes_endless_memory_nor_reads_other_files(tmp_path: Path, count: int, uri: str | None) -> None:
    document = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "buffers": [{"byteLength": 16, **({"uri": uri} if uri else {"uri": "data:;base64,AAAAAAAAAAAAAAAAAAAAAA=="})}],
        "bufferViews": [{"buffer": 0, "byteLength": 16}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3"}],
    }
    write_glb(tmp_path / "a.glb", document)
    with pytest.raises(UsageError, match="cannot be read as a mesh"):
        named_shape(str(tmp_path / "a.glb"), "y", 0, "cpu", lambda text: None)
    with pytest.raises(UsageError, match="cannot be read as a mesh"):
        read_mesh(tmp_path / "a.glb")


def test_a_prior_that_names_code_of_its_own_is_refused(tmp_path: Path) -> None:
    shutil.copytree(BUILTIN, tmp_path / "p", copy_function=os.symlink)
    (tmp_path / "p" / "coarse" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    index = tmp_path / "p" / "coarse" / "model_index.json"
    document = json.loads(index.read_text()) | {"unet": ["evil", "Evil"], "_class_name": ["evil", "Pipeline"]}
    index.unlink()
    index.write_text(json.dumps(document))
    names = {"coarse": [WeightedPrior(str(tmp_path / "p"))], "fine": [WeightedPrior("builtin")]}
    with pytest.raises(EnvironmentFault, match="Evil"):
        choose_priors(names, "a red car", 0, "cpu", lambda text: None)
    assert not (tmp_path / "ran").exists()


def test_too_little_memory_is_told_from_whatever_it_was_raised_as() -> None:
    try:
        try:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        except OSError as error:
            raise RuntimeError("Failed to import a scheduler") from error
    except RuntimeError as error:
        assert out_of_memory(error)
    assert out_of_memory(RuntimeError("could not create a primitive"))  # oneDNN's
    assert not out_of_memory(OSError(errno.ENOSPC, "No space left on device"))


@pytest.mark.parametrize("name", ["../a.glb", "/tmp/a.glb", "b/../../a.glb"])
def test_a_list_cannot_write_outside_the_batchs_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "list.jsonl").write_text(json.dumps({"prompt": "a dog", "output": name}))
    with pytest.raises(UsageError, match="is outside"):
        read_tasks(str(tmp_path / "list.jsonl"), tmp_path / "out", 1, Choices(), "glb")


def test_an_endless_field_of_a_csv_is_told(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('prompt\n"' + "a dog " * 40_000 + '"\n')
    with pytest.raises(UsageError, match="line"):
        read_tasks(str(tmp_path / "list.csv"), tmp_path, 1, Choices(), "glb")


FLEET = Fleet(jobs=400, gpus=10, start=0.0, dispatch=0.0, megabytes=0.0, spread=0.0, hours_between_failures=1e9)


def test_a_fleet_without_losses_takes_the_ideal_time() -> None:
    assert simulate(FLEET).efficiency == pytest.approx(1.0)


def test_what_a_fleet_waits_for_is_counted() -> None:
    slow_disk = simulate(replace(FLEET, megabytes=100.0, disk=10.0))
    assert slow_disk.makespan == pytest.approx(400 * 100 / 10, rel=0.01)  # the disk alone decides
    slow_driver = simulate(replace(FLEET, dispatch=5.0))
    assert slow_driver.makespan == pytest.approx(400 * 5.0, rel=0.02)
    failing = simulate(replace(FLEET, seconds=600.0, hours_between_failures=1.0))
    assert failing.failures > 10 and 0 < failing.lost <= failing.failures * FLEET.checkpoint
    assert failing.makespan > simulate(replace(FLEET, seconds=600.0)).makespan
