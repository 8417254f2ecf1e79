"""Files and words that nobody made on purpose: read, or refused in words. In short; examples/reliability/fuzz.py has
thousands of whole commands.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_run import tiny_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "reliability"))

import spoiling
from spoiling import Choices

from magic3d_cli.asset.read import read_coloured
from magic3d_cli.batch.tasks import Choices as Columns
from magic3d_cli.batch.tasks import read_tasks
from magic3d_cli.checks import check_prompt
from magic3d_cli.cli.runs import _table, find
from magic3d_cli.cli.session import put
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.files import vocabulary_of
from magic3d_cli.picture_file import read_picture
from magic3d_cli.precheck import find_finished
from magic3d_cli.run import checkpoint
from magic3d_cli.run.resume import Saved
from magic3d_cli.settings import Settings


def cases(count: int) -> Iterator[Choices]:
    """As many inputs, the same ones every time."""
    chance = random.Random(0)
    for _ in range(count):
        yield Choices(chance.randbytes(chance.randrange(200)))


def outcomes(count: int, attempt: Callable[[Choices], object]) -> tuple[int, int]:
    """How many were taken and how many refused; anything else is raised."""
    taken = refused = 0
    for choices in cases(count):
        try:
            attempt(choices)
            taken += 1
        except (UsageError, EnvironmentFault) as error:
            assert error.what and error.next_step
            refused += 1
    return taken, refused


def test_spoilt_pictures_are_read_or_refused(tmp_path: Path) -> None:
    seeds = spoiling.pictures()

    def attempt(choices: Choices) -> None:
        suffix, data = choices.pick(seeds)
        path = tmp_path / f"given.{suffix}"
        path.write_bytes(spoiling.sealed_png(spoiling.spoilt(data, choices, [other for _, other in seeds])))
        read_picture(path)

    taken, refused = outcomes(200, attempt)
    assert min(taken, refused) > 20


def test_a_tiff_whose_second_page_has_no_width_is_refused(tmp_path: Path) -> None:
    """Pillow raises a TypeError."""
    data = dict(spoiling.pictures())["tiff"]
    place = max(data.rfind(struct.pack("<HH", 256, kind)) for kind in (3, 4))
    (tmp_path / "a.tiff").write_bytes(data[:place] + struct.pack("<H", 999) + data[place + 2 :])
    with pytest.raises(UsageError, match="cannot be decoded"):
        read_picture(tmp_path / "a.tiff")


def test_spoilt_meshes_are_read_or_refused(tmp_path: Path) -> None:
    seeds = spoiling.meshes()

    def attempt(choices: Choices) -> None:
        suffix, data = choices.pick(seeds)
        path = tmp_path / f"given.{suffix}"
        path.write_bytes(spoiling.spoilt_mesh(suffix, data, choices, [other for _, other in seeds]))
        read_coloured(path).samples(50)

    taken, refused = outcomes(150, attempt)
    assert min(taken, refused) > 15


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a coarse stage before its first step."""
    path = tmp_path_factory.mktemp("saved") / "a.run" / "coarse.ckpt"
    path.parent.mkdir()
    settings = tiny_settings()
    tensors, state = CoarseStage(settings, 0).state()
    header = {"version": "0", "stage": "coarse", "step": 0, "total": 10, "prompt": "a ball", "seed": 0}
    header |= {"settings": settings.to_json(), "prior": {"id": "ball", "sha256": "0"}, "fine_prior": "ball"}
    ledger = {"seconds": {"prior": 1.0}, "steps": {}, "step_seconds": {}}
    checkpoint.save(path, tensors, header | {"origin": {}, "state": state, "ledger": ledger})
    return path


def test_spoilt_checkpoints_are_read_or_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.run" / "coarse.ckpt"
    path.parent.mkdir()

    def attempt(choices: Choices) -> None:
        path.write_bytes(saved.read_bytes())
        spoiling.spoilt_checkpoint(path, choices)
        (listed,) = find(tmp_path)
        assert listed.state in ("coarse 0/10", "damaged") or listed.state.startswith("coarse ")
        found = Saved.load(path)
        assert found.pictured is None
        assert found.adapters(()) == () and found.earlier == () and found.unfinished in (True, False)
        found.stage(tiny_settings(), "cpu")

    taken, refused = outcomes(150, attempt)
    assert min(taken, refused) > 5


@pytest.mark.parametrize(
    "change",
    [
        {"seed": None},
        {"seed": "0"},
        {"prompt": 3},
        {"stage": "wooden"},
        {"settings": []},
        {"prior": {"sha256": "0"}},
        {"adapters": 3},
        {"adapters": [3]},
        {"ledger": {"seconds": 3, "steps": {}, "step_seconds": {}}},
        {"state": {"step": 0}},
        {"earlier": [{"x": 1}]},
    ],
)
def test_a_header_that_says_nonsense_with_the_right_checksum_is_refused(
    change: dict[str, object], saved: Path, tmp_path: Path
) -> None:
    tensors, header = checkpoint.load(saved)
    path = tmp_path / "a.run" / "coarse.ckpt"
    path.parent.mkdir()
    checkpoint.save(path, tensors, {k: v for k, v in (header | change).items() if v is not None})
    with pytest.raises(UsageError, match=r"damaged|does not fit|adapters"):
        find_finished(path.parent)
        found = Saved.load(path)
        found.adapters(())
        print(found.earlier, found.stage(tiny_settings(), "cpu"))


@pytest.mark.parametrize("key", ["prompt", "seed", "preset"])
def test_a_request_of_other_types_is_listed_as_damaged(key: str, saved: Path, tmp_path: Path) -> None:
    tensors, header = checkpoint.load(saved)
    for number, name in enumerate(("a.run", "b.run")):
        (tmp_path / name).mkdir()
        asked = {"prompt": "a ball", "seed": 0, "preset": "draft"} | {key: [True]}
        if number == 0:
            (tmp_path / name / "settings.json").write_text(json.dumps(asked))
        elif key == "preset":
            checkpoint.save(tmp_path / name / "fine.ckpt", tensors, header | {"settings": asked})
    found = find(tmp_path)
    assert {run.state for run in found} == {"damaged"}
    assert "damaged" in _table(found)


@pytest.mark.parametrize("offsets", [True, [0], [0, "x"], "ab", None, [0, 1 << 70]])
def test_offsets_that_are_none_are_damage(offsets: object, tmp_path: Path) -> None:
    """`magic3d runs` reads them of all that lies there."""
    header = {"__metadata__": {"magic3d": "{}"}, "a": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}
    text = json.dumps(header).encode()
    (tmp_path / "a.ckpt").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(UsageError, match=r"damaged|cut short"):
        checkpoint.read_header(tmp_path / "a.ckpt")


@pytest.mark.parametrize("wrong", [("coarse", "views", "x"), ("fine", "steps", 1.5), ("coarse", "lr", [1])])
def test_settings_of_other_types_are_refused(wrong: tuple[str, str, object]) -> None:
    stage, key, value = wrong
    data = json.loads(json.dumps(tiny_settings().to_json()))
    data[stage][key] = value
    with pytest.raises(TypeError):
        Settings.from_json(data)


def test_words_of_all_of_unicode_are_understood_or_refused() -> None:
    path = vocabulary_of(of_stage(BUILTIN, "coarse"))
    assert path is not None
    known = Vocabulary.load(path)
    words = ("dog", "red", "wooden", "traffic light", "on", "wheels")
    taken, refused = outcomes(150, lambda choices: understand(known, check_prompt(spoiling.prompt(choices, words)), 0))
    assert min(taken, refused) > 15


def test_spoilt_lists_are_read_or_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "a red dog", "seed": 3, "output": "x.glb"}, {"image": "a.png", "style": "b.png"}]

    def attempt(choices: Choices) -> None:
        path = tmp_path / choices.pick(("list.jsonl", "list.csv", "list.txt"))
        lines = "".join(json.dumps(row) + "\n" for row in rows) if path.suffix == ".jsonl" else "prompt,seed\na dog,1\n"
        path.write_bytes(spoiling.spoilt(lines.encode(), choices))
        read_tasks(str(path), tmp_path, 1, Columns(), "glb")

    taken, refused = outcomes(150, attempt)
    assert min(taken, refused) > 15


def test_a_null_byte_in_a_list_is_told(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"prompt": "a dog", "output": "a\\u0000.glb"}\n')
    with pytest.raises(UsageError, match="null byte"):
        read_tasks(str(tmp_path / "list.jsonl"), tmp_path, 1, Columns(), "glb")


@pytest.mark.parametrize(
    ("text", "encoding", "written"),
    [
        ("\udcff.glb", "utf-8", b"\xff.glb\n"),  # a file's name in another encoding, to be used again
        ("\ud800.glb", "utf-8", b"\\ud800.glb\n"),
        ("дом.glb", "ascii", b"\\u0434\\u043e\\u043c.glb\n"),
        ("a.glb", "ascii", b"a.glb\n"),
    ],
)
def test_an_answer_that_the_stream_cannot_say_is_written_all_the_same(
    text: str, encoding: str, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, newline="\n"))
    put(text)
    assert raw.getvalue() == written
