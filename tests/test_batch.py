"""`magic3d batch`: lists are read, tasks are made side by side, and whatever happens to one leaves the others alone."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import magic3d
from PIL import Image
from tiny_run import play_tiny

from magic3d_cli import assembly, job, presets
from magic3d_cli.batch import pool, variations, worker
from magic3d_cli.batch.gallery import _script, write_gallery
from magic3d_cli.batch.pool import MEMORY, size
from magic3d_cli.batch.tasks import Choices, Task, check_makeable, read_tasks
from magic3d_cli.coarse.initial import fit
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import UsageError
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.adapters import marks
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.presets import resolve
from magic3d_cli.request import Request, prior_names
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.settings import BSD, SDS, VSD

TESTS = Path(__file__).parent


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose batches are made by tiny workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, str(TESTS / "tiny_worker.py")))
    return tmp_path


def listed(text: str, name: str = "list.txt", **more: object) -> list[Task]:
    Path(name).write_text(text, encoding="utf-8")
    options = {"folder": Path("out"), "seeds": 1, "choices": Choices(), "suffix": "glb"} | more
    Path("out").mkdir(exist_ok=True)
    return read_tasks(name, **options)  # type: ignore[arg-type]


def test_a_line_is_a_prompt_and_seeds_multiply_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = listed("\ufeffa red car\n\n# not this\n  a dog \na red car\n", seeds=2)
    assert [(task.prompt, task.seed) for task in tasks] == [
        ("a red car", 0),
        ("a red car", 1),
        ("a dog", 0),
        ("a dog", 1),
    ]
    assert [Path(task.output).name for task in tasks] == ["red-car-0.glb", "red-car-1.glb", "dog-0.glb", "dog-1.glb"]


def test_rows_say_more_in_csv_and_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = listed('prompt,seed,preset,output\n"a car, red",3,standard,mine.obj\na dog,,,\n', "list.csv", seeds=2)
    assert rows[0] == Task(str(Path("out/mine.obj")), "a car, red", 3, preset="standard")
    assert [(task.seed, task.preset) for task in rows[1:]] == [(0, "draft"), (1, "draft")]
    lines = '{"prompt": "a dog", "seed": 7}\n{"image": "cat.png"}\n'
    tasks = listed(lines, "list.jsonl")
    (empty,) = listed('{"prompt": "a dog", "seed": 1, "image": "", "style": "", "output": ""}\n', "list.jsonl")
    assert empty.image is empty.style is None and Path(empty.output).name == "dog-1.glb"
    assert tasks[0].seed == 7 and tasks[1] == Task(str(Path("out/cat-0.glb")), "", 0, "cat.png")
    lines = "prompt,style,distillation\na dog,sea.png,\na cat,,bsd\n"
    tasks = listed(lines, "list.csv", choices=Choices(style="sand.png", distillation="vsd"))
    assert [(task.style, task.distillation) for task in tasks] == [("sea.png", "vsd"), ("sand.png", "bsd")]


def test_different_things_of_one_name_get_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = listed("a dog\nthe dog\nDog\n")
    assert [Path(task.output).name for task in tasks] == ["dog-0.glb", "dog-0-2.glb", "dog-0-3.glb"]
    assert tasks == listed("a dog\nthe dog\nDog\n")  # the same list again means the same files
    rows = "prompt,output\na dog,one.glb\na dog,one.obj\na cat,One.stl\n"
    tasks = listed(rows, "list.csv")  # each has a run folder of its own: they are made side by side
    assert [Path(task.output).name for task in tasks] == ["one.glb", "one-2.obj", "One-3.stl"]


def test_a_quoted_cell_may_go_over_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (task, other) = listed('prompt,seed\n"a red\ncar",1\na dog,2\n', "list.csv")
    assert task.prompt.split() == ["a", "red", "car"] and (other.prompt, other.seed) == ("a dog", 2)


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("", "list.txt", "asks for nothing"),
        ("# nothing\n\n", "list.txt", "asks for nothing"),
        ("a dog\n\x00\ud800", "list.txt", "not UTF-8"),
        ("prompt,colour\na dog,red\n", "list.csv", "names colour"),
        ("prompt" * 40_000 + "\na dog\n", "list.csv", "field larger than field limit"),
        ("prompt,seed\na dog,many\n", "list.csv", "line 2: The seed 'many' is no whole number"),
        ("prompt,seed\na dog,-1\n", "list.csv", "line 2: --seed -1 is out of range"),
        ('{"prompt": 3\n', "list.jsonl", "line 1 is no JSON object"),
        ('["a dog"]\n', "list.jsonl", "line 1 is no JSON object"),
        ('{"prompt": "a dog", "size": 3}\n', "list.jsonl", "'size' is no column"),
        ('{"prompt": "a dog", "preset": "drafd"}\n', "list.jsonl", "Did you mean 'draft'"),
        ('{"prompt": "a dog", "distillation": "vds"}\n', "list.jsonl", "line 1: --distillation 'vds' is unknown. Did"),
        ('{"prompt": "a dog", "output": "dog.gif"}\n', "list.jsonl", "no known suffix"),
        ('{"seed": 3}\n', "list.jsonl", "line 1: The prompt is empty"),
    ],
)
def test_what_a_list_says_wrong_is_told_by_its_line(
    text: str, name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(text.encode("utf-8", "surrogatepass"))
    Path("out").mkdir()
    with pytest.raises(UsageError) as refused:
        read_tasks(name, Path("out"), 1, Choices(), "glb")
    assert words in refused.value.what + refused.value.next_step


def test_a_pool_is_as_large_as_the_machine_allows() -> None:
    assert size(10, cores=4, gpus=0, memory=100 * MEMORY) == 4
    assert size(10, cores=4, gpus=0, memory=2.5 * MEMORY) == 2
    assert size(10, cores=4, gpus=0, memory=0.0) == 1
    assert size(3, cores=16, gpus=0, memory=None) == 3
    assert size(10, cores=64, gpus=2, memory=1e12) == 2


@pytest.mark.slow
def test_a_batch_is_made_shown_and_kept_and_what_fails_or_dies_leaves_the_rest_alone(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("list.txt").write_text("a red ball\nan impossible ball\na ball to die\na blue ball\nalways die ball\n")
    assert magic3d("batch", "list.txt", "-o", "out", "--workers", "2", "--json", "--prior", "builtin") == 1
    told = capfd.readouterr()
    summary = json.loads(told.out)
    assert (summary["made"], summary["kept"], summary["failed"]) == (3, 0, 2)
    states = {record["prompt"]: record for record in summary["tasks"]}
    assert [record["prompt"] for record in summary["tasks"]][:2] == ["a red ball", "an impossible ball"]
    assert states["a ball to die"]["status"] == "made"  # begun again by another process
    assert "no such thing" in states["an impossible ball"]["error"]["what"]
    assert "ended 2 times (signal 9)" in states["always die ball"]["error"]["what"]
    assert "2 of 5 failed" in told.err and "[5/5]" in told.err
    rows = list(csv.DictReader(io.StringIO(Path("out/results.csv").read_text())))
    assert [row["status"] for row in rows] == [record["status"] for record in summary["tasks"]]
    page = Path("out/index.html").read_text()
    cards = json.loads(page.split("const cards = ")[1].split(";\n")[0])
    assert sum(card["picture"] is not None for card in cards) == 3
    for card in cards:
        if card["status"] == "made":
            assert (Path("out") / card["file"]).is_file() and (Path("out") / card["page"]).is_file()
    with Image.open("out/sheet.png") as sheet:
        assert sheet.size == (512, 512)
    # The same command: what was made stays, byte for byte.
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.glb")}
    assert magic3d("batch", "list.txt", "-o", "out", "--workers", "1", "--json", "--prior", "builtin") == 1
    again = json.loads(capfd.readouterr().out)
    assert (again["made"], again["kept"], again["failed"]) == (0, 3, 2)
    assert before == {path: path.stat().st_mtime_ns for path in Path("out").glob("*.glb")}
    # A file of another request is not overwritten.
    Path("out/red-ball-0.run/settings.json").unlink()
    Path("one.txt").write_text("a red ball\n")
    assert magic3d("batch", "one.txt", "-o", "out", "--prior", "builtin") == 2
    assert "exists already" in capfd.readouterr().err


@pytest.mark.slow
def test_a_stopped_batch_goes_on(tiny: Path) -> None:
    """SIGTERM to the command alone: its workers save and end, and the same command makes the rest."""
    Path("list.txt").write_text("a red ball\na blue ball\na green ball\n")
    starter = "import sys; from magic3d_cli.batch import pool; pool.COMMAND = (sys.executable, sys.argv.pop(1)); "
    starter += "from magic3d_cli.cli import main; main()"
    command = [sys.executable, "-c", starter, str(TESTS / "tiny_worker.py")]
    command += ["batch", "list.txt", "-o", "out", "--workers", "1", "--prior", "builtin", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(Path("out").glob("*.run/batch.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143 and "what was begun is kept" in told
    made = len(list(Path("out").glob("*.run/batch.json")))  # written last
    assert 1 <= made < 3
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    summary = json.loads(done.stdout)
    assert done.returncode == 0 and summary["failed"] == 0
    assert summary["kept"] == made and summary["made"] == 3 - made
    if os.path.exists("/proc"):
        assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tiny).encode() in p.read_bytes()]


def test_a_batch_in_which_nothing_can_be_drawn_is_refused_at_once(tiny: Path) -> None:
    Path("list.txt").write_text("a quantum flux capacitor\n")
    assert magic3d("batch", "list.txt", "-o", "out", "--device", "cpu", "--prior", "builtin") == 2
    assert magic3d("batch", "list.txt", "-o", "out", "--seeds", "0") == 2
    assert magic3d("batch", "nowhere.txt") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--style", "none.png"], "no file none.png"),
        (["--style", "sea.png", "--prior", "sd15"], "IP-Adapter"),
        (["--distillation", "vsd"], "builtin has no attention"),
        (["--distillation", "bsd", "--also-prior", "mvdream"], "mvdream is shown views in sets"),
        (["--distillation", "vds"], "Did you mean 'vsd'?"),
    ],
)
def test_a_batch_of_which_nothing_can_be_made_in_this_way_is_refused_at_once(
    tiny: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "run_tasks", lambda *_: pytest.fail("it was begun"))
    Image.new("RGB", (8, 8), "teal").save("sea.png")
    Path("list.txt").write_text("a dog\na cat\n")
    assert magic3d("batch", "list.txt", "-o", "out", "--device", "cpu", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "next: " in err


def test_a_row_that_cannot_be_styled_or_distilled_fails_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused as `generate` refuses it, in the record; the others are made as they say."""
    made: list[Request] = []

    def make(prompt: str, seed: int, request: Request, *rest: object, **more: object) -> tuple[None, dict[str, str]]:
        assembly.choose(prior_names(request), request, prompt, seed, "cpu", Observer(), None, style=request.style)
        made.append(request)
        return None, {}

    monkeypatch.setattr(job, "generate", make)
    Image.new("RGB", (8, 8), "teal").save("sea.png")
    thing = Image.new("RGBA", (64, 64))
    thing.paste("red", (16, 16, 48, 48))
    thing.save("red.png")
    rows = [
        {"prompt": "a dog", "style": "sea.png", "distillation": "sds"},
        {"prompt": "a dog", "style": "none.png"},
        {"image": "red.png", "style": "sea.png"},
        {"prompt": "a dog", "distillation": "bsd"},
        {"prompt": "a dog"},
    ]
    tasks = listed("\n".join(map(json.dumps, rows)), "list.jsonl")
    check_makeable(tasks, "builtin", (), "cpu", strict=False)
    options = {"coarse_prior": "builtin", "fine_prior": "builtin", "device": "cpu"}
    records = [worker.run_task(task.to_json(), options, lambda event: None, Interrupts(), {}) for task in tasks]
    assert [record["status"] for record in records] == ["made", "failed", "failed", "failed", "made"]
    for record, reason in zip(records[1:4], ("no file none.png", "both say what colours", "no attention"), strict=True):
        assert reason in record["error"]["what"] and record["error"]["next"] and record["error"]["exit_code"] == 2
    styled, plain = made
    assert styled.style is not None and styled.style.name == "sea.png" and styled.distillation == "sds"
    assert plain.style is None and plain.distillation is None
    write_gallery(Path("out"), records)
    table = list(csv.DictReader(io.StringIO(Path("out/results.csv").read_text())))
    assert [(row["style"], row["distillation"]) for row in table[:2]] == [("sea.png", "sds"), ("none.png", "")]


def test_only_what_was_made_with_the_same_options_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another size, prior, method or style than the last time makes the asset anew; where it is made matters not."""

    def make(prompt: str, seed: int, request: Request, *_: object, **__: object) -> tuple[None, dict[str, str]]:
        style = request.style.digest if request.style else None
        with RunDirectory.for_output(request.output) as run:
            kept = {"prompt": prompt, "seed": seed, "preset": request.preset, "adapters": marks((), style)}
            run.write_json(run.settings, kept)
            run.write_json(run.result, {})
        request.output.touch()
        return None, {}

    def status(options: dict[str, object], **own: str) -> str:
        task = Task(str(tmp_path / "a.glb"), "a ball").to_json() | own
        made = worker.run_task(task, base | options, lambda event: None, Interrupts(), {})
        return str(made["status"])

    monkeypatch.setattr(job, "generate", make)
    base: dict[str, object] = {
        "coarse_prior": "builtin",
        "fine_prior": "builtin",
        "device": "cpu",
        "more_priors": [],
        "faces": None,
    }
    assert [status({}) for _ in range(2)] == ["made", "kept"]
    changes: list[dict[str, object]] = [{"faces": 500}, {"fine_prior": "sd15"}, {"more_priors": [("sd15", 0.5)]}]
    for options in changes:
        assert [status(options), status(options), status({})] == ["made", "kept", "made"], options
    assert status({"device": "auto", "strict": True}) == "kept"
    for method in (VSD, BSD):
        assert [status({}, distillation=method) for _ in range(2)] == ["made", "kept"]
    assert [status({}), status({}, distillation=SDS)] == ["made", "kept"]
    Image.new("RGB", (8, 8), "teal").save(tmp_path / "sea.png")
    assert status({}, style=str(tmp_path / "sea.png")) == "failed"  # the file there is of another request
    (tmp_path / "a.glb").unlink()
    assert [status({}, style=str(tmp_path / "sea.png")) for _ in range(2)] == ["made", "kept"]


def test_a_worker_that_died_is_replaced_on_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import json, os, sys, time
gpu = os.environ["CUDA_VISIBLE_DEVICES"]
with open("gpus", "a") as file:
    file.write(gpu)
for line in sys.stdin:
    if gpu == "0":
        sys.exit(1)
    time.sleep(0.3)
    print(json.dumps({"event": "done", "record": json.loads(line)["task"] | {"status": "made"}}), flush=True)
"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", script))
    tasks = [Task(f"{number}.glb", "a ball") for number in range(4)]
    records = pool.run_tasks(tasks, {}, 2, 2, Interrupts(), lambda progress: None)
    assert {record["status"] for record in records} == {"made", "failed"}
    begun = Path("gpus").read_text()
    assert begun.count("1") == 1 and begun.count("0") >= 2


def test_a_gallery_overwrites_no_page_of_somebody_else(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "run_tasks", lambda *_: [])
    Path("list.txt").write_text("a dog\n")
    Path("index.html").write_text("<title>My site</title>")
    command = ("batch", "list.txt", "--device", "cpu", "--prior", "builtin")
    assert magic3d(*command, "-o", ".") == 2
    assert "index.html exists already, and was not written by a batch" in capsys.readouterr().err
    assert "My site" in Path("index.html").read_text()
    assert magic3d(*command, "-o", "out") == 0
    assert magic3d(*command, "-o", "out") == 0  # its own, written anew


def test_nothing_in_a_prompt_can_end_the_pages_script() -> None:
    assert "</script" not in _script(json.dumps(["</script><script>alert(1)</script>"]))
    assert json.loads(_script(json.dumps(["</script>"]))) == ["</script>"]


@pytest.mark.slow
def test_of_several_variations_the_best_is_finished_and_all_are_kept(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    play_tiny(monkeypatch)
    scores = {"0.run": 20.0, "1.run": 30.0, "2.run": 25.0}
    monkeypatch.setattr(variations, "agreement", lambda run, device, loaded: scores[run.name])
    command = ("generate", "a red ball", "--variations", "3", "--json", "-o", "ball.glb")
    assert magic3d(*command) == 0
    told = capfd.readouterr()
    report = json.loads(told.out)
    assert report["seed"] == 1 and [one["seed"] for one in report["variations"]] == [1, 2, 0]
    assert report["variations"][0]["agreement"] == 30.0
    assert Path("ball.glb").read_bytes() == Path("ball.variations/1.glb").read_bytes()
    assert {path.name for path in Path("ball.variations").glob("*.glb")} == {"0.glb", "1.glb", "2.glb"}
    assert Path("ball.variations/sheet.png").is_file() and "seed 1 30 dB" in told.err
    # Again: it is the same request, and nothing is made anew.
    before = {path: path.stat().st_mtime_ns for path in Path("ball.variations").glob("*.glb")}
    assert magic3d(*command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in Path("ball.variations").glob("*.glb")}


def test_variations_are_of_words_and_of_a_sensible_number(tiny: Path) -> None:
    Image.new("RGBA", (8, 8), "red").save("red.png")
    assert magic3d("generate", "a dog", "--variations", "1") == 2
    assert magic3d("generate", "--image", "red.png", "--variations", "4") == 2


@pytest.mark.slow
def test_a_prior_agrees_more_with_what_was_asked_of_it_than_with_something_else() -> None:
    def guide(prompt: str) -> PriorGuide:
        priors = choose_priors({"coarse": [WeightedPrior("builtin")]}, prompt, 0, "cpu", lambda text: None)
        return PriorGuide(priors, prompt, 0, "cpu")

    asked = guide("a red car")
    chosen = resolve(presets.preset("draft"), {stage: asked.priors["coarse"] for stage in STAGES})
    coarse, shape = CoarseStage(chosen, 0), asked.volume()
    assert shape is not None
    fit(coarse, shape)
    stage = FineStage.from_coarse(chosen, coarse, shape)
    scores = {
        prompt: variations.agreement_of(stage, guide(prompt).distillation("coarse", chosen.fine.guidance))
        for prompt in ("a red car", "a blue car", "a green tree")
    }
    assert scores["a red car"] > max(scores["a blue car"], scores["a green tree"]) + 3, scores
