"""On a real terminal of any width the progress line says stage, percent and time left, and never wraps."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

if sys.platform == "win32":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)
import fcntl
import pty
import termios

SCRIPT = """
import sys, time
from types import SimpleNamespace as Fake  # the real ones import torch
from magic3d_cli.cli.session import display

coarse = Fake(init="ball", steps=300, warmup=0.4, views=4, added_guidance=())
asset = Fake(faces=8000, texture_size=1024, lod=0, occlusion=False, normal_map=False)
settings = Fake(preset="draft", coarse=coarse, fine=Fake(steps=80, views=2, added_guidance=()), asset=asset)

def report(stage, step, total):
    losses = {"loss": 123456.789, "gradient": 0.0123, "sparsity": 1.5, "orientation": 77.0}
    return Fake(stage=stage, step=step, total=total, metrics=losses)

with display(quiet=False) as bar:
    bar.phase("load libraries")
    bar.expect(settings, {"coarse": "builtin", "fine": "builtin"})
    bar.phase("load the /home/somebody/with/a/very/long/path/to/a/prior prior")
    time.sleep(0.3)
    bar.begin("coarse", 0, 300)
    bar.compiling()
    time.sleep(0.5)
    for step in range(1, 301):
        time.sleep(0.005)
        bar.step(report("coarse", step, 300))
    bar.phase("mesh")
    bar.begin("fine", 0, 80)
    for step in range(1, 41):
        time.sleep(0.01)
        bar.step(report("fine", step, 80))
    bar.note("a note")
    time.sleep(0.3)
"""


def frames(columns: int, **environment: str) -> list[str]:
    """What the terminal was sent, one string a line that was drawn, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = {"NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE"}
    variables = {k: v for k, v in os.environ.items() if k not in unset} | {"TERM": "xterm-256color"} | environment
    source = str(Path(__file__).parents[1] / "src")
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (source, variables.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=variables
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            block = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not block:
            break
        sent += block
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0, sent.decode(errors="replace")
    assert out == b""  # results only
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent.decode())
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.fixture(scope="module", params=[40, 80, 120, 200])
def drawn(request) -> tuple[int, list[str]]:
    return request.param, frames(request.param)


def test_percent_time_left_and_stage_are_always_there(drawn):
    _, lines = drawn
    running = [line for line in lines if re.search(r"\b\d+%", line)]
    assert len(running) > 5
    for line in running:
        assert re.search(r"\d+%  (estimating|\d+:\d\d left)", line), line
        assert re.search(r"^\S (prepare|load|coarse|mesh|fine)", line), line
    assert any("left" in line and " coarse" in line for line in running)
    assert any("left" in line and " fine" in line for line in running)


def test_no_line_is_as_long_as_the_terminal_is_wide(drawn):
    columns, lines = drawn
    assert max(cell_len(line) for line in lines if "a note" not in line) < columns


def test_nothing_is_foretold_while_kernels_compile(drawn):
    columns, lines = drawn
    compiling = [line for line in lines if "coarse: compiling" in line]
    assert compiling and all("estimating" in line for line in compiling)
    assert columns < 80 or any("compiling kernels (first run only)" in line for line in compiling)


def test_losses_are_shown_only_where_there_is_much_room(drawn):
    columns, lines = drawn
    assert any("gradient" in line for line in lines) == (columns >= 160)
    # From 80 columns on there is a bar, the step and the time so far too.
    detail = [line for line in lines if "fine" in line and "left" in line]
    assert columns < 80 or all(re.search(r"fine \d+/80  [━─]+ ", line) and "so far" in line for line in detail)


def test_a_terminal_without_unicode_gets_plain_characters():
    lines = frames(60, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert all(line.isascii() for line in lines) and any("#" in line and "left" in line for line in lines)
