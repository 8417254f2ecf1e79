"""What README and the pages beside the examples tell people to type is a command, with options that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from magic3d_cli.checks import check_output, fbx_command
from magic3d_cli.cli.app import app
from magic3d_cli.errors import UsageError

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md")))


def told(page: Path) -> list[str]:
    """Commands in blocks of code and in the text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|bash)?\n(.*?)```", text, re.DOTALL)
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = [part for line in lines for part in re.split(r" && | \| ", line)]
    return [c.strip() for c in commands if re.match(r"(python -m )?magic3d(_cli)? [a-z]+\b", c.strip())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_parses(page: Path) -> None:
    known: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    for line in told(page):
        command, *arguments = shlex.split(line.replace("python -m magic3d_cli", "magic3d"))[1:]
        assert command in known, f"{page.name}: {line}"
        if "PROMPT" not in line and "..." not in line and arguments:
            known[command].make_context(command, [a.rstrip(",.") for a in arguments])


def test_the_readme_tells_enough_commands_to_be_tested() -> None:
    assert len(told(PAGES[0])) >= 10


def test_the_readme_tells_the_command_for_fbx_that_the_program_tells() -> None:
    assert fbx_command(Path("dragon.glb")) in PAGES[0].read_text(encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        check_output(Path("a dragon.fbx"))
    assert "-o 'a dragon.glb'" in refused.value.next_step and "filepath='a dragon.fbx'" in refused.value.next_step
    shell = f'for word in {fbx_command(Path("$x`.glb"))}; do last=$word; done; printf %s "$last"'
    assert subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.count("$x`") == 2


def test_what_the_pages_commands_make_here_is_no_untracked_file() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no clone")
    outputs = {
        found.rstrip("/") for page in PAGES for line in told(page) for found in re.findall(r"-o (\w[\w./-]*)", line)
    }
    made = {"dragon.glb", "red-car.glb", "red-car-1.glb", "car_LOD1.glb", "car.html", "car-turntable.webp"} | outputs
    done = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", *(name if Path(name).suffix else f"{name}/" for name in made)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert {name.rstrip("/") for name in done.stdout.split()} == made and len(outputs) > 4


def test_pages_link_to_files_that_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_messages_of_the_troubleshooting_page_are_the_programs_own() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    rows = [
        line for line in (ROOT / "examples" / "troubleshooting.md").read_text().splitlines() if line.startswith("| ")
    ]
    messages = [message for row in rows[2:] for message in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(messages) > 10
    assert [message for message in messages if message not in source] == []
