"""`magic3d priors`: what can be asked, what of it is here, and which words the built-in prior knows."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from magic3d_cli.cli import main
from magic3d_cli.guidance.diffusers.catalogue import HUB


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["priors", *arguments])
    assert not stop.value.code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def snapshot(cache: Path, repository: str, revision: str) -> Path:
    """The folder of a repository's snapshot, with a model index of two components."""
    root = cache / f"models--{repository.replace('/', '--')}"
    folder = root / "snapshots" / revision
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "X"], "vae": ["diffusers", "Y"]}))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(revision)
    return folder


def test_every_prior_is_listed_with_its_size_licence_and_whether_it_is_here(capsys) -> None:
    lines = printed(capsys).splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["builtin", *HUB]
    assert "CC-BY-SA 4.0" in lines[0] and " installed " in lines[0] and "--words" in lines[0]
    assert all("not downloaded" in line and " GB " in line for line in lines[1:-1])
    assert "to be accepted first" in next(line for line in lines if line.startswith("deepfloyd-if-m"))


def test_a_download_that_stopped_halfway_is_told_from_a_whole_one(capsys, cache: Path) -> None:
    source = HUB["sd15"]
    folder = snapshot(cache, source.repository, source.revision or "main")
    weights = "diffusion_pytorch_model.safetensors"
    (folder / "unet" / weights).write_bytes(b"")
    states = {row["name"]: row["state"] for row in json.loads(printed(capsys, "--json"))}
    assert states["sd15"] == "downloaded in part" and states["sd21"] == "not downloaded"
    (folder / "vae" / weights).write_bytes(b"")
    states = {row["name"]: row["state"] for row in json.loads(printed(capsys, "--json"))}
    assert states["sd15"] == "installed"
    shards = [
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
    ]
    index = folder / "unet" / f"{weights}.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    (folder / "unet" / weights).rename(folder / "unet" / shards[0])
    states = {row["name"]: row["state"] for row in json.loads(printed(capsys, "--json"))}
    assert states["sd15"] == "downloaded in part"  # one of two files
    (folder / "unet" / shards[1]).write_bytes(b"")
    states = {row["name"]: row["state"] for row in json.loads(printed(capsys, "--json"))}
    assert states["sd15"] == "installed"
    (folder / "vae" / weights).rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    states = {row["name"]: row["state"] for row in json.loads(printed(capsys, "--json"))}
    assert states["sd15"] == "downloaded in part"  # other programs' half precision is not what is fetched here


def test_the_vocabulary_is_told_in_full(capsys) -> None:
    known = json.loads(printed(capsys, "--words", "--json"))
    assert len(known["objects"]) >= 300 and len(known["colours"]) >= 16 and len(known["materials"]) >= 10
    assert "couch" in known["objects"]["sofa"] and "couch" not in known["objects"]
    text = printed(capsys, "--words")
    assert f"{len(known['objects'])} objects:\n" in text and "\n  sofa (couch, settee)\n" in text
