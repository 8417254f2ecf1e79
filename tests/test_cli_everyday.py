"""What a person meets every day: help, slips, defaults of their own, estimates, closed pipes, old runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from command import magic3d
from tiny_run import play_tiny, run_tiny, tiny_settings

from magic3d_cli import config, job
from magic3d_cli.cli import plan, progress, runs
from magic3d_cli.cli.app import app
from magic3d_cli.cli.examples import EXAMPLES
from magic3d_cli.cli.progress import Lines
from magic3d_cli.presets import _SHAPED, PRESETS
from magic3d_cli.request import Request
from magic3d_cli.run import checkpoint, estimate
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.forecast import FITTED
from magic3d_cli.run.interrupts import Interrupted, Interrupts

COMMANDS: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})


@pytest.fixture(autouse=True)
def _nobody_set_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MAGIC3D_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_tiny(folder / "red-ball.glb", settings=replace(tiny_settings(), preset="draft"))
    return folder


def test_every_command_has_a_short_summary_and_examples_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(EXAMPLES) == {"", *COMMANDS}
    assert magic3d() == 0
    assert "..." not in capsys.readouterr().out.replace("[ARGS]...", "")
    for name, examples in EXAMPLES.items():
        assert magic3d(*([name] if name else []), "--help") == 0
        told = capsys.readouterr().out
        for line in examples:
            assert f"    {line}\n" in told  # not filled into paragraphs
            program, command, *arguments = shlex.split(line.partition(" | ")[0])
            assert program == "magic3d"
            COMMANDS[command].make_context(command, arguments, resilient_parsing=False)


def test_the_words_help_and_version_do_what_the_options_do(capsys: pytest.CaptureFixture[str]) -> None:
    for words, option in ((["help"], ["--help"]), (["help", "export"], ["export", "--help"])):
        assert magic3d(*words) == magic3d(*option) == 0
        first, second = capsys.readouterr().out.split("Usage: ")[1:]
        assert first.strip() == second.strip()
    assert magic3d("version") == magic3d("--version") == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        (["genrate", "a dog"], 2, "'generate'"),
        (["generate", "a dog", "--presett", "draft"], 2, "'--preset'"),
        (["generate", "a dog", "--preset", "drft"], 2, "'draft'"),
        (["generate", "a dog", "--device", "cpuu"], 2, "'cpu'"),
        (["generate", "a dog", "--prior", "sd115"], 3, "'sd15'"),
        (["export", "--format", "usd"], 2, "'usdz'"),
        (["generate", "a", "red", "dog"], 2, "magic3d generate 'a red dog'"),
        (["a", "red", "dog"], 2, "magic3d generate 'a red dog'"),
        (["generate", "a dog", "--seed", "abc"], 2, "--seed 'abc' is not a whole number"),
        (["generate", "a dog", "--height=tall"], 2, "--height 'tall' is not a number"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(
    arguments: list[str], code: int, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert magic3d(*arguments, "--json") == code
    out, err = capsys.readouterr()
    assert answer in err
    error = json.loads(out)["error"]  # --json keeps its promise of one object
    assert error["exit_code"] == code and answer in error["what"] + error["next"]


def test_the_command_line_beats_a_variable_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config" / "magic3d" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('preset = "standard"\ntexture-size = 512\nfaces = 3000\n')
    monkeypatch.setenv("MAGIC3D_FACES", "4000")
    seen: dict[str, Any] = {}

    def fake(prompt: str, seed: int, request: Request, *_: Any) -> tuple[None, dict[str, Any]]:
        seen["request"] = request
        return None, {"output": "x"}

    monkeypatch.setattr(job, "generate", fake)
    monkeypatch.setattr(estimate, "matrix_speed", lambda device: 1.0)
    assert magic3d("generate", "a dog", "--texture-size", 256) == 0
    request = seen["request"]
    assert (request.preset, request.faces, request.texture_size) == ("standard", 4000, 256)
    capsys.readouterr()
    assert magic3d("config", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == str(file)
    assert told["settings"]["preset"] == {"value": "standard", "from": str(file)}
    assert told["settings"]["faces"] == {"value": 4000, "from": "MAGIC3D_FACES"}
    assert told["settings"]["device"] == {"value": "auto", "from": "default"}


@pytest.mark.parametrize("text", ['preset = "huge"', "faces = true", "colour = 1", "preset = ", 'faces = "many"'])
def test_a_wrong_file_is_named_but_help_is_still_given(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.toml").write_text(text)
    monkeypatch.setenv(config.FILE_VARIABLE, str(tmp_path / "my.toml"))
    assert magic3d("priors") == 2
    assert "my.toml" in capsys.readouterr().err
    assert magic3d("generate", "--help") == 0
    assert magic3d("config") == 2


def test_without_a_home_folder_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert config.config_file() is None and config.settings()["preset"].origin == "default"


def test_a_dry_run_tells_steps_time_and_download_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    assert magic3d("generate", "a dog", "--dry-run", "--json", "--device", "cpu", "-q") == 0
    draft = json.loads(capsys.readouterr().out)
    assert draft["steps"]["coarse"] < PRESETS["draft"].coarse.steps  # from the prior's own volume
    assert 30 < draft["estimated_seconds"] < 50  # the README's 36 s
    assert magic3d("generate", "a dog", "--dry-run", "--device", "cpu", "--prior", "sd15", "-q") == 0
    told = capsys.readouterr().out
    assert "dog.glb: a dog" in told and "download: 4.3 GB" in told and "nothing was made" in told
    assert list(tmp_path.iterdir()) == []


def test_hours_are_begun_only_on_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(job, "generate", lambda *_: begun.append(True) or (None, {"output": "x"}))  # type: ignore[func-returns-value]
    assert magic3d("generate", "a dog", "--preset", "paper", "--device", "cpu") == 2
    assert "--yes" in capsys.readouterr().err and not begun
    assert magic3d("generate", "a dog", "--preset", "paper", "--device", "cpu", "--yes") == 0
    assert magic3d("generate", "a dog", "--device", "cpu") == 0
    assert begun == [True, True]
    (tmp_path / "dog.run").mkdir()
    (tmp_path / "dog.run" / "coarse.ckpt").touch()
    assert plan.goes_on(Path("dog.glb"))  # what was begun is wanted


def test_refining_and_editing_say_what_they_take_too(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []
    for name in ("refine", "edit", "generate"):
        monkeypatch.setattr(job, name, lambda *_, name=name: begun.append(name) or (None, {"output": "x"}))  # type: ignore[func-returns-value]
    coarse, hours = finished / "red-ball.run/coarse.ckpt", ("--device", "cpu", "--prior", "sd15", "--preset", "draft")
    shutil.copytree(finished, "here")
    for command in (
        ("refine", coarse, "-o", "again.glb"),
        ("refine", "here/red-ball.run"),  # what is finished there is of another prior
        ("generate", "a red ball", "-o", "here/red-ball.glb", "--fresh"),
        ("refine", finished / "red-ball.glb", "--prompt", "a blue ball", "-o", "blue.glb"),
        ("edit", finished / "red-ball.run", "a blue ball"),
    ):
        assert magic3d(*command, *hours, "--dry-run", "--json", "-q") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["priors"]["fine"] == "sd15" and told["estimated_seconds"] > 3600 and told["prompt"]
        assert told["steps"]["coarse"] == 0 or command[0] != "refine"
        assert magic3d(*command, *hours) == 2
        assert "--yes" in capsys.readouterr().err and not begun
        assert magic3d(*command, *hours, "--yes") == 0 and begun.pop()
        capsys.readouterr()


def test_the_fit_to_a_shape_counts_where_there_is_one(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate, "matrix_speed", lambda device: estimate.REFERENCE)
    edit, mesh = (
        ("edit", finished / "red-ball.run", "a blue ball"),
        ("refine", finished / "red-ball.glb", "--prompt", "x"),
    )
    refine = ("refine", finished / "red-ball.run/coarse.ckpt")

    def seconds(command: tuple[object, ...], prior: str) -> float:
        asked = (
            *command,
            "--prior",
            prior,
            "--preset",
            "draft",
            "--device",
            "cpu",
            "-o",
            "x.glb",
            "--dry-run",
            "--json",
        )
        assert magic3d(*asked, "-q") == 0
        return json.loads(capsys.readouterr().out)["estimated_seconds"]

    whole, kept = (seconds(some, "builtin") for some in (edit, (*edit, "--recolour")))
    steps = _SHAPED["draft"][0]["steps"]
    assert whole - kept == pytest.approx(estimate.SHAPED_SECONDS["draft"] * (steps + FITTED), abs=0.2)
    commands = (edit, mesh, (*edit, "--recolour"), refine)
    before = [seconds(command, "sd15") for command in commands]
    monkeypatch.setitem(estimate.FITTING, "cpu", estimate.FITTING["cpu"] + 1000)
    more = [seconds(command, "sd15") - earlier for command, earlier in zip(commands, before, strict=True)]
    assert more == pytest.approx([1000, 1000, 0, 0], abs=0.2)


def test_the_end_says_what_was_made_and_what_to_do_next(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play_tiny(monkeypatch)
    assert magic3d("export", finished / "red-ball.run", "-o", "ball.glb") == 0
    out, err = capsys.readouterr()
    assert out == "ball.glb\n"
    made, following = err.splitlines()[-2:]
    assert re.match(r"ball\.glb: [\d,]+ triangles, texture \d+ px, .* m, [\d.]+ MB, made in \d+:\d\d$", made)
    assert following.startswith("next: magic3d preview ball.glb")


def test_a_hang_up_stops_as_sigterm_does_but_not_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup themselves
    try:
        with Interrupts().installed(), pytest.raises(Interrupted) as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stopped.value.exit_code == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Interrupts().installed():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_of_the_progress_that_leaves_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=write, flush=lambda: None))
    Lines().note("half done")


def test_a_closed_stderr_does_not_put_progress_on_stdout(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom magic3d_cli.cli.app import _open_standard_streams\n_open_standard_streams()\n"
        "from magic3d_cli.cli.progress import Lines\nLines().note('half done')\nprint(open('f', 'w').fileno() > 2)"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} 2>&-"
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "True\n"


def test_verbose_lines_have_losses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    report: Any = SimpleNamespace(stage="coarse", step=1, total=9, metrics={"distillation": 0.5})
    for verbose in (False, True):
        Lines(verbose).step(report)
    plain, full = capsys.readouterr().err.splitlines()
    assert "distillation 0.5" in full and "distillation" not in plain


def test_runs_are_listed_and_deleted_while_others_work_on_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(tmp_path / "a.run")
    run.path.mkdir()
    checkpoint.save(run.coarse, {}, {})
    passing = run.path / "preview.png.tmp"
    passing.touch()

    def renamed_meanwhile(path: Path) -> None:
        passing.unlink(missing_ok=True)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "read_header", renamed_meanwhile)
        assert magic3d("runs", "--json") == 0
    capsys.readouterr()
    listed = runs.find(Path())
    monkeypatch.setattr(runs, "find", lambda folder: listed)
    with run:  # begun after the question was asked
        assert magic3d("runs", "--clean", "--older-than", 0, "--yes", "--json") == 0
        assert json.loads(capsys.readouterr().out)["deleted"] == [] and run.path.is_dir()
    assert magic3d("runs", "--clean", "--older-than", 0, "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == ["a.run"] and not run.path.exists()


def test_runs_are_listed_and_only_what_was_set_aside_is_deleted(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("red-ball.run", "red-ball.run.1"):
        shutil.copytree(finished / "red-ball.run", tmp_path / name)
    (tmp_path / "mine.run").mkdir()
    (tmp_path / "mine.run" / "notes.txt").write_text("not magic3d's")
    assert magic3d("runs", "--json") == 0
    listed = {run["path"]: run for run in json.loads(capsys.readouterr().out)}
    assert {path: run["state"] for path, run in listed.items()} == {
        "red-ball.run": "finished",
        "red-ball.run.1": "set aside",
    }
    assert all(run["prompt"] == "a red ball" and run["bytes"] > 1000 for run in listed.values())
    assert magic3d("runs") == 0
    assert "magic3d runs --clean" in capsys.readouterr().out
    assert magic3d("runs", "--clean") == 2  # nobody can answer
    assert (tmp_path / "red-ball.run.1").is_dir()
    assert magic3d("runs", "--clean", "--yes") == 0
    assert not (tmp_path / "red-ball.run.1").exists() and (tmp_path / "red-ball.run").is_dir()
    assert magic3d("runs", "--clean", "--older-than", 5, "--yes") == 0
    assert (tmp_path / "red-ball.run").is_dir()
    old = 1_000_000_000
    for file in (tmp_path / "red-ball.run").rglob("*"):
        os.utime(file, (old, old))
    assert magic3d("runs", "--clean", "--older-than", 5, "--yes") == 0
    assert not (tmp_path / "red-ball.run").exists() and (tmp_path / "mine.run").is_dir()
