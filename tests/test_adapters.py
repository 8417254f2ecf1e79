"""Adapter files are known by their headers, refused with a reason, and part of what a run is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command import magic3d
from safetensors.torch import save_file
from tiny_run import play_tiny, tiny_draft, tiny_settings

from magic3d_cli import editing, job
from magic3d_cli.batch.tasks import FAILED, KEPT, MADE, Task, check_makeable
from magic3d_cli.batch.worker import run_task
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import LORA, SUBJECT, TOKENS, header_of, kept, marks, read_adapters, vocabulary_with
from magic3d_cli.guidance.builtin.own_words import own_word
from magic3d_cli.guidance.builtin.subject import Subject, load_subject, save_subject
from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.request import Request
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupts

WORDS = BUILTIN / "vocabulary.json"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def cube(side: int = 16, red: float = 1.0) -> torch.Tensor:
    """A red cube in a volume."""
    volume = torch.zeros(side, side, side, 7)
    volume[..., 0] = -10
    low, high = side // 4, side - side // 4
    inner = volume[low:high, low:high, low:high]
    inner[..., 0], inner[..., 2], inner[..., 4] = 10, 1, red
    return volume


def write_thing(
    path: str, word: str = "my box", red: float = 1.0, noun: str = "chair", style: str | None = None, side: int = 16
) -> Path:
    tones = torch.tensor([0.5, 0.25, 0.0, 0.0, 10.0, 10.0])
    save_subject(Path(path), Subject(word, noun, style, cube(side, red), tones, 0.95), {"version": "test"})
    return Path(path)


def test_a_things_file_gives_back_its_volume() -> None:
    write_thing("box.safetensors", red=0.6)
    (adapter,) = read_adapters(["box.safetensors"])
    assert (adapter.kind, adapter.word) == (SUBJECT, "my box")
    subject = load_subject(adapter)
    wanted = cube(red=0.6)
    torch.testing.assert_close(subject.volume[..., 0], wanted[..., 0])
    shell = (wanted[..., 0] > 0) & (subject.volume[..., 4] > 0)
    assert int(shell.sum()) == 8**3 - 4**3  # two voxels deep; what lies deeper is never seen
    torch.testing.assert_close(subject.volume[shell], wanted[shell], atol=0.005, rtol=0)


def test_a_damaged_volume_is_refused() -> None:
    path = write_thing("box.safetensors")
    (adapter,) = read_adapters(["box.safetensors"])
    data = bytearray(path.read_bytes())
    data[-200:-100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(UsageError, match="damaged"):
        load_subject(adapter)


def test_a_lora_and_a_word_of_others_are_known_by_their_tensors() -> None:
    names = [f"unet.down.attn1.to_q.lora_{letter}.weight" for letter in "AB"]
    save_file({name: torch.zeros(4, 8) for name in names}, "peft.safetensors")
    save_file({"lora_unet_q.lora_down.weight": torch.zeros(4, 8), "lora_unet_q.alpha": torch.ones(())}, "k.safetensors")
    save_file({"<cat-toy>": torch.zeros(8)}, "word.safetensors")
    save_file({"emb_params": torch.zeros(2, 8)}, "easy.safetensors")
    found = read_adapters(["peft.safetensors=0.5", "k.safetensors", "word.safetensors", "easy.safetensors"])
    assert [a.kind for a in found] == [LORA, LORA, TOKENS, TOKENS]
    assert [a.word for a in found] == [None, None, "<cat-toy>", "easy"]
    assert found[0].weight == 0.5 and found[0].mark != found[1].mark
    assert marks(found) == " ".join(a.mark for a in found) and marks([]) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.safetensors", None, "There is no adapter"),
        ("folder", "", "is a folder"),
        ("empty.safetensors", b"", "it is empty"),
        ("text.safetensors", b"once upon a time there was", "not in safetensors format"),
        ("lora.pt", b"PK\x03\x04 and so on", "pickled"),
        ("old.bin", b"\x80\x02 and so on", "pickled"),
        ("cut.safetensors", (500).to_bytes(8, "little") + b'{"a": ', "header is damaged"),
    ],
)
def test_what_is_no_adapter_is_refused(
    name: str, content: bytes | str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    elif content is not None:
        Path(name).mkdir()
    assert magic3d("generate", "a red car", "--adapter", name, "-o", "car.glb") == 2
    err = capsys.readouterr().err
    assert message in err and "next: " in err
    assert not Path("car.run").exists()


def test_files_of_another_kind_are_refused() -> None:
    save_file({"conv.weight": torch.zeros(2, 2, 3, 3), "conv.bias": torch.zeros(2)}, "model.safetensors")
    save_file({"a": torch.zeros(2)}, "run.safetensors", {"magic3d": json.dumps({"stage": "fine", "schema": 1})})
    save_file({"a": torch.zeros(2)}, "new.safetensors", {"magic3d": json.dumps({"kind": SUBJECT, "format": 99})})
    save_file({"a": torch.zeros(2)}, "odd.safetensors", header_of({"kind": "melody"}))
    save_file({"clip_l": torch.zeros(1, 8), "clip_g": torch.zeros(1, 9)}, "xl.safetensors")
    messages = {"model": "neither a LoRA's", "run": "a run's checkpoint", "new": "newer magic3d", "xl": "SDXL"}
    for name, message in {**messages, "odd": "'melody'"}.items():
        with pytest.raises(UsageError, match=message):
            read_adapters([f"{name}.safetensors"])
    cut = write_thing("box.safetensors").read_bytes()[:-5]
    Path("box.safetensors").write_bytes(cut)
    with pytest.raises(UsageError, match="part of it is missing"):
        read_adapters(["box.safetensors"])


def test_weights_and_words_that_do_not_fit_are_refused() -> None:
    write_thing("box.safetensors")
    write_thing("other.safetensors", red=0.2)
    for texts, message in (
        (["box.safetensors=0.5"], "Only a LoRA and an IP-Adapter have a weight"),
        (["box.safetensors=much"], "no number after its ="),
        (["box.safetensors=0"], "out of range"),
        (["box.safetensors", "other.safetensors"], "Two adapters have the word 'my box'"),
    ):
        with pytest.raises(UsageError, match=message):
            read_adapters(texts)


def test_a_prompt_with_the_word_takes_the_place_of_the_known_thing() -> None:
    write_thing("box.safetensors", style="<chair-0>")
    vocabulary = vocabulary_with(WORDS, read_adapters(["box.safetensors"]))
    caption = understand(vocabulary, "a golden my box on a wooden table", 3).caption
    assert (caption.noun, caption.stands, caption.material, caption.style) == ("my box", "chair", "gold", "<chair-0>")
    assert caption.others[0].caption.noun == "table" and caption.others[0].caption.stands is None
    assert understand(vocabulary, "a golden my box").caption.text == "gold chair <chair-0>"
    assert understand(vocabulary, "a chair").caption == understand(Vocabulary.load(WORDS), "a chair").caption


@pytest.mark.parametrize(("noun", "style"), [("zzyzx", None), ("chair", "<chair-999>")])
def test_a_thing_of_another_prior_is_refused(noun: str, style: str | None) -> None:
    write_thing("box.safetensors", noun=noun, style=style)
    with pytest.raises(UsageError, match="made for another prior"):
        vocabulary_with(WORDS, read_adapters(["box.safetensors"]))


@pytest.mark.parametrize(
    ("typed", "word"),
    [("my chair", "my chair"), ("The Zorp", "zorp"), ("Anna's mug", "anna's mug"), ("wug-2", "wug 2")],
)
def test_words_are_found_again_in_prompts(typed: str, word: str) -> None:
    assert own_word(Vocabulary.load(WORDS), typed) == word


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "holds no letters"), ("12", "holds no letters"), ("chair", "something to the built-in prior already"),
        ("red", "already"), ("my", "cannot be told"), ("next to", "cannot be told"), ("x" * 50, "too long"),
        ("one two three four five", "too long"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_told_apart_are_refused(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        own_word(Vocabulary.load(WORDS), typed)


def test_a_checkpoint_goes_on_with_its_own_adapters_alone() -> None:
    path = write_thing("box.safetensors")
    (mine,) = read_adapters(["box.safetensors"])
    (other,) = read_adapters([str(write_thing("other.safetensors", "my crate"))])
    saved, checkpoint = [mine.to_json()], Path("coarse.ckpt")
    assert (
        kept(saved, [], checkpoint) == (mine_at := kept(saved, [mine], checkpoint)) or mine_at[0].sha256 == mine.sha256
    )
    assert kept([], [], checkpoint) == ()
    for have, given, message in (
        (saved, [other], "was not made with the adapter other"),
        ([], [mine], "was made without the adapter box"),
    ):
        with pytest.raises(UsageError, match=message):
            kept(have, given, checkpoint)
    write_thing("box.safetensors", red=0.1)
    with pytest.raises(UsageError, match="has changed since"):
        kept(saved, [], checkpoint)
    path.unlink()
    with pytest.raises(UsageError, match="no longer there"):
        kept(saved, [], checkpoint)
    write_thing("moved.safetensors")
    assert kept(saved, read_adapters(["moved.safetensors"]), checkpoint)[0].path == Path("moved.safetensors")


def test_a_run_is_not_taken_up_with_another_adapter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play_tiny(monkeypatch)
    write_thing("box.safetensors")
    write_thing("changed.safetensors", red=0.3)
    command = ("generate", "a red my box", "-o", "box.glb", "--prior", "builtin", "-q", "--adapter")
    assert magic3d(*command, "box.safetensors") == 0
    assert magic3d(*command, "changed.safetensors") == 2
    assert "was not made by this request" in capsys.readouterr().err
    Path("box.safetensors").unlink()
    assert magic3d("refine", "box.run/coarse.ckpt", "-o", "fine.glb", "--prior", "builtin") == 2
    assert "no longer there" in capsys.readouterr().err


@pytest.mark.slow
def test_an_edit_draws_with_its_runs_things(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_draft(monkeypatch)
    monkeypatch.setattr(editing, "SAMPLES", 20_000)
    write_thing("box.safetensors", side=128)
    own = ("--prior", "builtin", "--init", "auto", "--adapter", "box.safetensors")
    assert magic3d("generate", "a red my box", "-o", "box.glb", "-q", *own) == 0
    assert magic3d("edit", "box.run", "a blue my box", "-o", "blue.glb", "-q") == 0
    child = checkpoint.read_header(Path("blue.run/fine.ckpt"))
    assert child["adapters"] == checkpoint.read_header(Path("box.run/fine.ckpt"))["adapters"]
    assert "box.safetensors" in child["adapters"][0]["file"]
    Path("box.safetensors").unlink()
    capsys.readouterr()
    assert magic3d("edit", "box.run", "a green my box", "-q") == 2
    assert "no longer there" in capsys.readouterr().err


def test_what_does_not_go_together_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    write_thing("box.safetensors")
    save_file({"<cat-toy>": torch.zeros(8)}, "word.safetensors")
    for arguments, message in (
        (("--variations", "2", "--adapter", "box.safetensors"), "--variations does not take adapters"),
        (("--adapter", "word.safetensors", "--prior", "builtin", "--device", "cpu"), "a learnt word for an open"),
    ):
        assert magic3d("generate", "a red car", *arguments) == 2
        assert message in capsys.readouterr().err


def test_a_batch_draws_with_adapters_and_keeps_only_what_was_made_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    write_thing("zorb.safetensors", "my zorb")
    task = Task("zorb.glb", "a red my zorb")
    with pytest.raises(UsageError):
        check_makeable([task], "builtin", (), "cpu", strict=True)
    check_makeable([task], "builtin", (), "cpu", strict=True, adapters=read_adapters(["zorb.safetensors"]))
    asked: list[tuple[str, ...]] = []

    def make(prompt: str, seed: int, request: Request, *_: object, **__: object) -> tuple[None, dict[str, str]]:
        asked.append(request.adapters)
        mark = marks(read_adapters(request.adapters))
        run = RunDirectory.for_output(request.output)
        run.path.mkdir()
        run.settings.write_text(
            json.dumps(tiny_settings(seed).to_json() | {"prompt": prompt, "preset": "draft", "adapters": mark})
        )
        run.result.write_text("{}")
        request.output.touch()
        return None, {}

    monkeypatch.setattr(job, "generate", make)
    with_it = {"adapters": ["zorb.safetensors"]}  # as JSON hands it on
    for options, status in ((with_it, MADE), (with_it, KEPT), ({}, FAILED)):
        record = run_task(task.to_json(), dict(options), lambda event: None, Interrupts(), {})
        assert record["status"] == status, record
    assert asked == [("zorb.safetensors",)]
