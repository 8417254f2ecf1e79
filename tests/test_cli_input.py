"""Wrong input ends in one clear message, a next step and the right exit code, before any work."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import magic3d

from magic3d_cli import checks
from magic3d_cli.cli import failures
from magic3d_cli.cli.progress import clock, summary
from magic3d_cli.guidance.diffusers.catalogue import NAMES
from magic3d_cli.version import __version__


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message of a command that must be refused as wrong usage, without a traceback."""
    assert magic3d(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: " in err and "next: " in err and "Traceback" not in err
    return err


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_and_version_do_not_import_torch() -> None:
    code = (
        "import sys\nfrom magic3d_cli.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'rich.progress'} & set(sys.modules)\nassert not heavy, heavy"
    )
    for arguments in ([], ["--help"], ["generate", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"magic3d {__version__}"


@pytest.mark.slow
def test_waiting_threads_sleep() -> None:
    """Spinning ones take the cores from whatever else runs; OpenMP looks only once, when torch is loaded."""
    done = subprocess.run(
        [sys.executable, "-c", "import magic3d_cli.pipeline"],
        env={k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not found:
        pytest.skip("another OpenMP than GNU's")
    assert set(found) == {"0"}


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    command = f"{shlex.quote(sys.executable)} -m magic3d_cli priors --words | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") == 1


def test_the_end_waits_for_no_search_for_garbage() -> None:
    script = (
        "import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "from magic3d_cli.cli import main\nmain(['version'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "True"


def test_python_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "magic3d_cli", "generate", ""], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "The prompt is empty" in done.stderr


def test_the_help_names_every_prior_and_says_what_auto_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d("generate", "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "auto is the built-in one; with a GPU" in told
    assert all(name in told.replace("- ", "-") for name in NAMES)  # lines may break after a hyphen


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d() == 0
    assert "generate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "   "], "The prompt is empty"),
        (["generate"], "prompt"),
        (["generate", "a car", "--presett", "draft"], "presett"),
        (["generate", "a car", "--seed", "x"], "seed"),
        (["generate", "a car", "--seed", "-1"], "--seed -1"),
        (["generate", "a car", "--preset", "huge"], "--preset 'huge'"),
        (["generate", "a car", "--device", "tpu"], "--device 'tpu'"),
        (["generate", "a car", "--faces", "3"], "--faces 3"),
        (["generate", "a car", "--texture-size", "100000"], "--texture-size 100000"),
        (["generate", "a car", "-o", "car.fbx"], "car.glb"),
        (["generate", "a car", "-o", "car"], "car.glb"),
        (["generate", "a car", "-o", "absent/car.glb"], "mkdir -p absent"),
        (["generate", "a car", "-o", "~nobody-of-that-name/car.glb"], "home folder"),
        (["refine", "absent.ckpt"], "no checkpoint"),
        (["refine", "absent.ckpt", "-o", "x.gltf"], "suffix"),
        (["refine", "absent.ckpt", "-o", "x.fbx"], "blender"),
        (["generate", "a car", "--init", "bal"], "Did you mean 'ball'?"),
        (["export"], "magic3d generate"),
        (["export", "--format", "fbx"], "glb, obj"),
        (["export", "absent.ckpt", "--format", "obj", "-o", "x.glb"], "x.obj"),
        (["frobnicate"], "frobnicate"),
        (["generate", "a", "red", "car"], "magic3d generate 'a red car'"),
        (["generate", "--seed", "1", "a", "red", "car"], "magic3d generate 'a red car'"),
        (["edit", "my car.run", "a", "blue", "car"], "magic3d edit 'my car.run' 'a blue car'"),
        (["config", "nosuch"], "magic3d config has no use for 'nosuch'"),
        (["refine", "my_mesh.glb", "--prompt", "a golden dragon"], "There is no file my_mesh.glb"),
    ],
)
def test_wrong_usage_is_explained(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in refused(capsys, *arguments)
    assert not list(Path().glob("*.run"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--image", "absent.png"],
        ["generate", "--image", "absent.png@90"],
        ["generate", "--image", "here.png", "--mask", "absent.png"],
        ["generate", "a car", "--style", "absent.png"],
        ["personalise", "absent.glb", "--word", "my box"],
        ["personalise", "absent.png", "--word", "my box", "--prior", "sd15"],
    ],
)
def test_a_file_that_is_not_there_is_told_before_libraries_are_imported(arguments: list[str]) -> None:
    Path("here.png").write_bytes(b"")
    script = (
        "import sys\nfrom magic3d_cli.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(sorted({'numpy', 'PIL', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "There is no file absent." in done.stderr
    assert done.stdout.strip() == "[]"


def test_an_output_that_is_a_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("car.glb").mkdir()
    assert "is a folder" in refused(capsys, "generate", "a car", "-o", "car.glb")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "permission denied" in refused(capsys, "generate", "a car", "-o", "locked/car.glb")


def test_a_foreign_checkpoint_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": 1}, "coarse.ckpt")
    assert "never loaded" in refused(capsys, "refine", "coarse.ckpt")
    assert "never loaded" in refused(capsys, "export", "coarse.ckpt")


def test_an_unknown_prior_is_an_environment_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d("generate", "a car", "--prior", "dall-e") == 3
    assert "There is no prior 'dall-e'" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_environment_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert magic3d("generate", "a car", "--device", "cuda") == 3
    assert "--device cpu" in capsys.readouterr().err


def test_strictly_unknown_words_are_refused_with_a_prompt_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    """The vocabulary is read before the weights: this prior has none."""
    Path("prior").mkdir()
    Path("prior/model_index.json").write_text("{}")
    words = {"nouns": {"dragon": {"words": []}}, "colours": {"red": []}, "materials": {"metal": []}}
    Path("prior/vocabulary.json").write_text(json.dumps(words))
    message = refused(capsys, "generate", "a metal dragoon", "--prior", "prior", "--strict")
    assert '"dragoon"' in message and 'magic3d generate "a metal dragon"' in message
    assert "draw" in refused(capsys, "generate", "a zzyzx", "--prior", "prior")
    assert not list(Path().glob("*.run"))


def test_a_prompt_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "UTF-8" in refused(capsys, "generate", "a red drag\udcf6n")


def test_the_default_output_is_named_after_the_prompt() -> None:
    names = {
        "a metal dragon": "metal-dragon.glb",
        "The Éclair, 3D!": "eclair-3d.glb",
        "../../etc/passwd": "etc-passwd.glb",
        "龍": "object.glb",
        "a": "a.glb",
    }
    assert {prompt: str(checks.default_output(prompt)) for prompt in names} == names
    assert len(checks.default_output("word " * 100).name) < 80


def test_each_kind_of_failure_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    import errno

    full = OSError(errno.ENOSPC, "No space left on device", "dragon.run/coarse.ckpt.tmp")
    cases: dict[int, list[BaseException]] = {
        1: [full, PermissionError(errno.EACCES, "Permission denied", "x.glb"), ValueError("surprise")],
        4: [
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
            RuntimeError("CUDA error: out of memory"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ],
        130: [KeyboardInterrupt()],
    }
    for code, errors in cases.items():
        for error in errors:
            assert failures.explain(error) == code
            assert "Traceback" not in capsys.readouterr().err


def test_times_and_metrics_read_well() -> None:
    assert [clock(s) for s in (5, 750, 3723)] == ["0:05", "12:30", "1:02:03"]
    assert summary({"time": 0.5, "loss": 12.345, "opacity": 0.2}) == "loss 12.3  opacity 0.2"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("magic3d generate --preset d", ["draft"]),
        ("magic3d generate x --prior sd", ["sd15", "sd21"]),
        ("magic3d export --format us", ["usdz"]),
        ("magic3d help ex", ["export"]),
    ],
)
def test_a_shell_completes_the_values_of_options_too(typed: str, offered: list[str]) -> None:
    asked = {"_MAGIC3D_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    command = [sys.executable, "-m", "magic3d_cli"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | asked)
    assert done.stdout.split() == offered
