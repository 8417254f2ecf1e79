"""Thousands of command lines that nobody would type on purpose: an exit code and a short answer, never a traceback."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from magic3d_cli.cli import main
from magic3d_cli.cli.app import app

CASES = int(os.environ.get("MAGIC3D_FUZZ", 2_000))
_WORDS = (
    "a",
    "red",
    "dog",
    "car",
    "with",
    "and",
    "of",
    "wooden",
    "on",
    "two",
    "'",
    '"',
    "\\",
    "%s",
    "{0}",
    "\x1b[31m",
    "🐉",
    "дракон",
    "竜",
    "\u202e",
    "\udcff",
    "\n",
    "",
    " ",
    "-",
    "--",
    "=",
    "/",
    "..",
    "~",
    "NaN",
    "a" * 300,
)
_VALUES = (
    "",
    "-1",
    "0",
    "1",
    "1e9",
    "nan",
    "inf",
    "-inf",
    "0x10",
    "99999999999999999999",
    "1.5",
    "auto",
    "draft",
    "cpu",
    "z",
    "paper",
    "glb",
    "obj",
    "builtin",
    "sd15",
    "sd",
    "a/b",
    "..",
    "/",
    "~",
    "~nobody/x.glb",
    "x.glb",
    "x.obj",
    "dir.glb",
    "dir/x.glb",
    "absent/x.glb",
    "x." + "g" * 300,
    "é.glb",
    "\udcff.glb",
    "builtin=0.5",
    "builtin=",
    "=1",
    "text.glb",
    "builtin:a dog",
    "x.run",
    "broken.ckpt",
)
_COMMANDS = (
    "edit",
    "generate",
    "refine",
    "export",
    "preview",
    "priors",
    "config",
    "runs",
    "help",
    "version",
    "gnerate",
    "",
    "-",
)


class _Reached(Exception):
    """Everything was checked and the work would begin."""


@contextmanager
def _no_work(*_: Any, **__: Any) -> Iterator[None]:
    raise _Reached
    yield


def _line(draw: random.Random, options: dict[str, list[str]]) -> list[str]:
    """A command, some words, some of its options or of another's, with and without values."""
    command = draw.choice(_COMMANDS) if draw.random() < 0.5 else "generate"
    own = options.get(command) or options["generate"]
    if draw.random() < 0.3:  # mostly sensible
        sensible = [["--preset", "draft"], ["-o", "y.glb"], ["--seed", "7"], ["--device", "cpu"], ["--json"], ["-q"]]
        thing = draw.choice(
            ("a red dog", "A Dog!!", "dog, red", "два a car", "a wooden car with wheels", "a dog's chair")
        )
        return ["generate", thing, *(word for given in draw.sample(sensible, k=3) for word in given)]
    words = [" ".join(draw.choices(_WORDS, k=draw.randint(0, 6)))] if draw.random() < 0.8 else draw.choices(_WORDS, k=3)
    if draw.random() < 0.02:
        words = [draw.choice(_WORDS[2:]) * 5_000]
    if command in ("refine", "export", "preview", "runs"):
        words = [draw.choice(_VALUES)]
    given: list[str] = []
    for _ in range(draw.randint(0, 4)):
        option, value = draw.choice(own), draw.choice(_VALUES)
        given += draw.choice(([option, value], [f"{option}={value}"], [option], [option[:-1]]))
    return [command, *words, *given] if draw.random() < 0.9 else [*given, command, *words]


@pytest.mark.slow
def test_no_command_line_ends_in_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the first step of the work: what comes after has tests of its own."""
    import typer

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("dir", "dir.glb", "x.run"):
        Path(name).mkdir()
    Path("text.glb").write_text("text")
    Path("broken.ckpt").write_bytes(b"PK")
    for module in ("edit", "generate", "refine", "export", "preview"):
        monkeypatch.setattr(sys.modules[f"magic3d_cli.cli.{module}"], "session", _no_work)
    commands = getattr(typer.main.get_command(app), "commands", {})
    # What completion writes into shells' settings is not tried here.
    options = {
        name: [o for p in command.params for o in p.opts if o.startswith("-")] for name, command in commands.items()
    }
    params = [p for command in commands.values() for p in command.params]
    valued = {o for p in params if not getattr(p, "is_flag", False) for o in p.opts}  # these eat a "--json"
    draw = random.Random(0)
    codes: dict[int, int] = {}
    for number in range(CASES):
        line = _line(draw, options)
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        begun = time.perf_counter()
        reached = False
        try:
            main(line)
        except SystemExit as stop:
            code = int(stop.code or 0)
            reached = "_Reached" in err.getvalue()
        seconds = time.perf_counter() - begun
        told = err.getvalue()
        case = f"case {number}: {line!r}\n{code}\n{told[:2000]}"
        assert seconds < 5, case
        if reached:  # told as unexpected, with --verbose by its traceback, because that is how this test stops it
            codes[0] = codes.get(0, 0) + 1
            continue
        assert "Traceback" not in told, case
        assert code in (0, 2, 3), case
        assert (code == 0) == ("error: " not in told), case
        assert len(told) < 4_000, case  # also for a prompt of thousands of characters
        assert "\x1b" not in told, case
        asked = any(word == "--json" and before not in valued for before, word in itertools.pairwise(line))
        if code and asked and "--" not in line:
            assert json.loads(out.getvalue())["error"]["exit_code"] == code, case
        codes[code] = codes.get(code, 0) + 1
    assert codes[0] > 100 and codes[2] > 500, codes  # neither refuses everything nor nothing
