"""A run folder has one writer, loses nothing, and signals stop a run between steps."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from magic3d_cli.errors import UsageError
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupted, Interrupts


def test_a_run_lies_beside_its_output() -> None:
    assert RunDirectory.for_output(Path("a/dragon.glb")).path == Path("a/dragon.run")


def test_a_second_process_is_refused_while_the_first_works(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from magic3d_cli.run.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])): print('in')"
    )
    with RunDirectory(tmp_path / "x.run"):
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x.run")], capture_output=True, text=True, check=False
        )
        assert other.returncode != 0
        assert f"in use by another magic3d (process {os.getpid()})" in other.stderr
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.run")], check=True, capture_output=True)


def test_a_lock_file_left_by_a_killed_process_does_not_block(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "x.run")
    run.path.mkdir()
    (run.path / "lock").write_text("1\n")  # process 1 lives, but does not hold the lock
    with run:
        assert (run.path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_file_system_without_locks_is_not_taken_for_another_process(tmp_path: Path, monkeypatch) -> None:
    def none(file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("magic3d_cli.run.lock._lock", none)
    with pytest.raises(UsageError, match="cannot be written: No locks"), RunDirectory(tmp_path / "x.run"):
        pass


def test_half_written_files_are_removed_on_opening(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "x.run")
    run.path.mkdir()
    run.film.mkdir()
    leftovers = [run.path / "coarse.ckpt.tmp", run.film / "coarse-000012.webp.tmp"]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    with run:
        assert not any(leftover.exists() for leftover in leftovers)


def test_a_run_that_cannot_be_entered_is_not_kept_locked(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "x.run")
    (run.path / "a folder.tmp").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be written"):
        run.__enter__()
    RunDirectory(run.path).check_free()  # whoever holds `run` still does not block the others


def test_looking_whether_a_run_is_free_changes_nothing(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "x.run")
    run.check_free()
    assert not run.path.exists()
    run.path.mkdir()
    (run.path / "lock").write_text("1\n")
    run.check_free()
    assert (run.path / "lock").read_text() == "1\n"
    with run, pytest.raises(UsageError, match="in use"):
        RunDirectory(run.path).check_free()


def test_setting_aside_moves_everything_and_numbers_the_folders(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "x.run") as run:
        for content in ("old", "newer"):
            run.coarse.write_text(content)
            run.preview.write_text(content)
            run.set_aside()
        assert not run.coarse.exists()
    assert (tmp_path / "x.run.1" / "coarse.ckpt").read_text() == "old"
    assert (tmp_path / "x.run.2" / "preview.png").read_text() == "newer"


def test_a_run_without_checkpoints_is_not_worth_keeping(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "x.run") as run:
        run.preview.write_text("picture")
        assert run.set_aside() is None


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "x.run").write_text("")
    with pytest.raises(UsageError, match=r"x\.run"), RunDirectory(tmp_path / "x.run"):
        pass


def test_the_newest_run_is_the_one_saved_last(tmp_path: Path) -> None:
    assert RunDirectory.newest(tmp_path) is None
    for age, name in ((300, "a.run/fine.ckpt"), (100, "b.run/coarse.ckpt"), (200, "c.run/coarse.ckpt")):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("")
        os.utime(path, (1e9 - age, 1e9 - age))
    newest = RunDirectory.newest(tmp_path)
    assert newest is not None
    assert newest.furthest == tmp_path / "b.run" / "coarse.ckpt"


def test_a_log_on_a_full_disk_does_not_stop_the_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "x.run")  # not made: the log cannot be opened
    run.log("step", step=1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_the_step(number: int, code: int) -> None:
    finished = False
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped, Interrupts().installed() as interrupts, interrupts.held():
        os.kill(os.getpid(), number)
        finished = True
        interrupts.check()
    assert finished
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(Interrupted), Interrupts().installed() as interrupts, interrupts.held():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal was ignored")


def test_a_handler_of_another_language_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python tells None of it, and cannot put it back: inside Blender the end of a job was a TypeError."""
    told = signal.getsignal
    before = told(signal.SIGTERM)
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else told(number))
    with Interrupts().installed():
        assert told(signal.SIGTERM) is before and told(signal.SIGINT) is not signal.default_int_handler


def test_outside_a_stage_a_signal_stops_at_once() -> None:
    with pytest.raises(Interrupted), Interrupts().installed():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was ignored")
