"""Wrong command lines, prompts, pictures, meshes, checkpoints and lists, thousands of each, up to the first step.

    python examples/reliability/fuzz.py -o fuzz                       # 10,000 in all
    python examples/reliability/fuzz.py -o fuzz --guided              # by coverage: pip install atheris
    python examples/reliability/fuzz.py --replay fuzz/faults/meshes-12.bin

Each case is a whole command in this process, whose work is stopped where it would begin. It is a fault when the command
ends in a traceback or dies, takes more than five seconds of the processor or two minutes in all, has a wrong exit code,
says nothing of what is wrong, prints what no terminal can show, or changes or loses a file that was there. Linux or
macOS.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import spoiling
from spoiling import Choices, spoilt, spoilt_json

SLOW = 5.0
"""Seconds of the processor that a command may take until its first step: the machine may be busy with other work."""
DEAD = 120.0
"""Seconds without a new case after which a process counts as hung."""
LENGTH = 240
"""Bytes of a case's decisions, at most."""
COMPILED = (
    *("kernels.hash_encode", "kernels.march", "kernels.rasterize", "kernels.volume"),
    *("asset.occlusion", "asset.packing", "asset.uv_raster"),
)
"""Modules whose functions numba compiles: their bytecode must stay as it is."""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        case: puts the files of a case into the current folder; returns the command line.
        codes: exit codes that are right: done, wrong usage, environment; and by kind memory or a collapse.
        share: of all cases, in hundredths.
        instrumented: packages whose coverage guides the search.
    """

    case: Callable[[Choices], list[str]]
    codes: tuple[int, ...]
    share: int
    instrumented: tuple[str, ...] = ("magic3d_cli",)


def command_lines(choices: Choices) -> list[str]:
    return spoiling.command_line(choices, _options())


def prompts(choices: Choices) -> list[str]:
    text = spoiling.prompt(choices, _words())
    kind = choices.below(8)
    if kind == 7:
        return ["edit", "car.run", text, "-o", "new.glb", "--device", "cpu", "--dry-run"]
    if kind == 6:
        return ["generate", "a red car", "--init", f"builtin:{text}", "-o", "new.glb", "--device", "cpu"]
    if kind == 5:
        Path("list.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
        return ["batch", "list.txt", "-o", "many", "--device", "cpu", "--json"]
    more = choices.pick(([], ["--strict"], ["--json"], ["--preset", "standard"], ["--prior", "sd15", "--dry-run"]))
    where = ["-o", "new.glb"] if choices.chance(50) else []
    return ["generate", *where, "--device", "cpu", *more, "--", text]


def pictures(choices: Choices) -> list[str]:
    seeds = _pictures()
    suffix, data = choices.pick(seeds)
    if not choices.chance(3):
        data = spoilt(data, choices, [other for _, other in seeds])
    if choices.chance(70):
        data = spoiling.sealed_png(data)
    name = f"given.{choices.pick((suffix, suffix, suffix, 'png', 'jpg'))}"
    Path(name).write_bytes(data)
    line = ["generate", "-o", "new.glb", "--device", "cpu", "--dry-run", "--json"]
    role = choices.below(8)
    if role < 4:
        return [*line, "--image", name, *choices.pick(([], ["--", "a red car"], ["--image", "thing.png@90"]))]
    if role < 7:
        return [*line, "--image", "thing.png", ("--mask", "--depth", "--normals")[role - 4], name]
    return [*line, "--style", name, "--", "a red car"]


def meshes(choices: Choices) -> list[str]:
    seeds = _meshes()
    suffix, data = choices.pick(seeds)
    if not choices.chance(3):
        data = spoiling.spoilt_mesh(suffix, data, choices, [other for _, other in seeds])
    name = f"given.{choices.pick((suffix, suffix, suffix, 'obj', 'zip'))}"
    Path(name).write_bytes(data)
    up = ["--up", choices.pick(("y", "z", "-x"))]
    if choices.chance(30):
        return ["generate", "a red car", "--init", name, "-o", "new.glb", "--device", "cpu"]
    reshape = ["--reshape"] if choices.chance(50) else []
    return ["refine", name, "--prompt", "a red car", "-o", "new.glb", "--device", "cpu", "--json", *up, *reshape]


def checkpoints(choices: Choices) -> list[str]:
    target = Path("car.run") / choices.pick(("coarse.ckpt", "fine.ckpt", "fine.ckpt", "settings.json", "result.json"))
    if target.suffix == ".json":
        document = json.loads(target.read_text())
        changed = json.dumps(spoilt_json(document, choices)).encode()
        target.write_bytes(spoilt(target.read_bytes(), choices) if choices.chance(50) else changed)
    else:
        spoiling.spoilt_checkpoint(target, choices)
        if target.name == "coarse.ckpt" and choices.chance(50):
            Path("car.run/fine.ckpt").unlink()
    new = ["-o", "new.glb", "--device", "cpu"]
    lines = [
        ["runs", "--json"],
        ["runs"],
        ["refine", str(target) if target.suffix == ".ckpt" else "car.run", *new, "--json"],
        ["export", str(target) if target.suffix == ".ckpt" else "car.run", *new],
        ["generate", "a red car", "--seed", "3", "-o", "car.glb", "--device", "cpu", "--prior", "builtin"],  # goes on
        ["edit", "car.run", "a blue car", *new, "--dry-run"],
        ["generate", "a red car", "--init", "car.run", *new],
    ]
    return choices.pick(lines)


def lists(choices: Choices) -> list[str]:
    if choices.chance(30):
        data = b'preset = "standard"\nfaces = 4000\nprior = "builtin"\nstrict = true\n'
        Path("config.toml").write_bytes(spoilt(data, choices))
        return choices.pick((["config", "--json"], ["generate", "a dog", "-o", "new.glb", "--dry-run"]))
    rows = [
        {"prompt": "a red dog", "seed": 3},
        {"prompt": "a car", "output": "car2.glb", "preset": "draft", "image": ""},
        {"image": "thing.png", "style": ""},
        {"prompt": "a cat", "style": "thing.png", "distillation": "sds"},
    ]
    kind = choices.below(3)
    if kind == 0:
        data = "".join(
            json.dumps(spoilt_json(row, choices) if choices.chance(50) else row) + "\n" for row in rows
        ).encode()
    elif kind == 1:
        data = b'prompt,seed,output\n"a car, red",3,x.glb\na dog,,\n"a ""big"" cat",1,y.obj\n'
    else:
        data = "\ufeffa red car\n# no\n\na dog\na red car\r\n".encode()
    name = ("list.jsonl", "list.csv", "list.txt")[kind]
    Path(name).write_bytes(data if choices.chance(10) else spoilt(data, choices))
    return ["batch", name, "-o", "many", "--device", "cpu", "--json", "--seeds", choices.pick(("1", "2"))]


KINDS = {
    "command-lines": Kind(command_lines, (0, 2, 3), 30),
    "prompts": Kind(prompts, (0, 2, 3), 25),
    "pictures": Kind(pictures, (0, 2), 15, ("magic3d_cli", "PIL")),
    "meshes": Kind(meshes, (0, 2), 12, ("magic3d_cli", "trimesh")),
    "checkpoints": Kind(checkpoints, (0, 2, 3, 4, 5), 12),
    "lists": Kind(lists, (0, 2, 3), 6),
}


@cache
def _options() -> dict[str, list[str]]:
    """Each command's options. What completion writes into shells' settings is not tried here."""
    import typer

    from magic3d_cli.cli.app import app

    commands = getattr(typer.main.get_command(app), "commands", {})
    return {name: [o for p in c.params for o in p.opts if o.startswith("-")] or ["-h"] for name, c in commands.items()}


@cache
def _valued() -> set[str]:
    """Options that take what follows them for their value."""
    import typer

    from magic3d_cli.cli.app import app

    commands = getattr(typer.main.get_command(app), "commands", {})
    params = [p for command in commands.values() for p in command.params]
    return {o for p in params if not getattr(p, "is_flag", False) for o in p.opts}


@cache
def _words() -> list[str]:
    """Of the built-in prior."""
    from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
    from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
    from magic3d_cli.guidance.diffusers.files import vocabulary_of

    path = vocabulary_of(of_stage(BUILTIN, "coarse"))
    assert path is not None
    return sorted(Vocabulary.load(path).phrases)


@cache
def _pictures() -> list[tuple[str, bytes]]:
    return spoiling.pictures()


@cache
def _meshes() -> list[tuple[str, bytes]]:
    return spoiling.meshes()


class Bench:
    """A folder with a finished run and files of every kind, in which commands are tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.files = self.folder / "files"
        self.place = self.folder / "place"
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        os.environ |= {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder), "HF_HUB_OFFLINE": "1"}
        os.environ |= {"MAGIC3D_CONFIG": "config.toml", "TMPDIR": str(self.folder)}
        os.chdir(self.place)

    @staticmethod
    def furnish(folder: Path) -> None:
        """Files that cases name, beside a real run that was made there."""
        files = folder / "files"
        files.mkdir(parents=True)
        import trial

        from magic3d_cli.run.directory import RunDirectory

        end = trial.trial(files, "")
        if end.kind != trial.OTHER:
            raise SystemExit(f"The run to try commands on failed: {end.detail}")
        shutil.rmtree(RunDirectory(files / "car.run").film, ignore_errors=True)
        for report in files.parent.glob("files.*"):
            report.unlink()
        for name in ("dir", "dir.glb", "x.run"):
            (files / name).mkdir()
        (files / "text.glb").write_text("text")
        (files / "broken.ckpt").write_bytes(b"PK")
        (files / "config.toml").write_text("")
        (files / "thing.png").write_bytes(spoiling.pictures()[0][1])
        (files / "list.txt").write_text("a dog\n")
        (files / "list.csv").write_text("prompt\na dog\n")
        (files / "list.jsonl").write_text('{"prompt": "a dog"}\n')

    def laid(self) -> None:
        """The files as they were."""
        for path in self.place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.files, self.place, dirs_exist_ok=True)

    def contents(self) -> dict[str, str]:
        """Digests of all files, by name. Looking touches locks."""
        return {
            str(path.relative_to(self.place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.place.rglob("*") if path.is_file() and path.name != "lock"
        }  # fmt: skip

    def lost(self, line: list[str], before: dict[str, str]) -> list[str]:
        """Files whose contents are nowhere any more, and assets that nobody made."""
        after = self.contents()
        kept = set(after.values())
        # What was asked for, and what a run that goes on writes anew.
        cleaned = "--clean" in line
        gone = [n for n, digest in before.items() if digest not in kept and not (cleaned and ".run" in n)
                and Path(n).name not in ("settings.json", "log.jsonl", "preview.png")]  # fmt: skip
        made = [n for n in after if n not in before and Path(n).suffix in (".glb", ".obj", ".usdz", ".ply", ".stl")]
        return [*(f"{name} is lost" for name in gone), *(f"{name} was made" for name in made)]

    def tried(self, name: str, data: bytes) -> tuple[list[str], int, float, str]:
        """The command line of a case, its exit code, seconds, and what is wrong with it."""
        self.laid()
        line = KINDS[name].case(Choices(data))
        before = self.contents()
        code, seconds, out, err, fault = ran(line)
        fault = fault or wrong(name, line, code, seconds, out, err) or "; ".join(self.lost(line, before))
        return line, code, seconds, fault


def ran(line: list[str]) -> tuple[int, float, str, str, str]:
    """Exit code, seconds, standard output and error of a command, and the traceback that it ended in, if any."""
    from magic3d_cli.cli import main

    old = sys.argv, sys.stdin, sys.stdout, sys.stderr
    line = [word.replace("\0", "") for word in line]  # no system passes it on
    sys.argv = ["magic3d", *line]
    out, err = io.BytesIO(), io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(b"a dog\n"), "utf-8")
    sys.stdout, sys.stderr = io.TextIOWrapper(out, "utf-8"), io.TextIOWrapper(err, "utf-8", errors="backslashreplace")
    begun, code, fault = time.process_time(), 0, ""
    try:
        main(line)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        code, fault = 70, traceback.format_exc()
    finally:
        seconds = time.process_time() - begun
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        said = out.getvalue().decode(errors="replace"), err.getvalue().decode()  # the streams close these
        sys.argv, sys.stdin, sys.stdout, sys.stderr = old
    return code, seconds, *said, fault


def wrong(name: str, line: list[str], code: int, seconds: float, out: str, err: str) -> str:
    """What is wrong with a command's end; empty where nothing is."""
    asked_for = bool({"--verbose", "-v"} & set(line))  # a traceback beside the message
    if ("Traceback" in err and not asked_for) or "Something unexpected" in err:
        return err[-4000:]
    if code not in KINDS[name].codes:
        return f"exit code {code}: {err[:1000]}"
    if seconds > SLOW:
        return f"{seconds:.1f} s"
    if (code == 0) == ("error: " in err):
        return f"exit code {code} and said: {err[:1000]!r}"
    if code and "next: " not in err:
        return f"no next step: {err[:1000]}"
    if len(err) > 8000 or "\x1b" in err:
        return f"{len(err)} letters of messages, or control characters: {err[:500]!r}"
    asked = any(word == "--json" and before not in _valued() for before, word in itertools.pairwise(line))
    if code and asked and "--" not in line and json.loads(out)["error"]["exit_code"] != code:
        return f"--json was answered by {out[:500]!r}"
    return ""


def stop_before_work(name: str) -> None:
    """Commands of this process end, with 0, where their work would begin: one that looks and tells is as it is."""
    import torch
    import typer

    from magic3d_cli import cli, initial_shapes, job, pipeline
    from magic3d_cli.batch import pool, ray_pool
    from magic3d_cli.cli.session import session
    from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
    from magic3d_cli.guidance.diffusers import spec
    from magic3d_cli.run import estimate

    def stop(*_: Any, **__: Any) -> Any:
        raise typer.Exit(0)

    @contextmanager
    def opened(*_: Any, shape: Any = None, **__: Any) -> Iterator[Any]:
        if shape is not None and name == "meshes":
            shape()
        stop()
        yield

    @contextmanager
    def stopped(*arguments: Any, **more: Any) -> Iterator[Any]:
        if "--dry-run" not in sys.argv:
            stop()
        with session(*arguments, **more) as work:
            yield work

    torch.set_num_threads(1)
    # What is the same for every case is looked at once or not at all: the built-in prior's words, and its networks.
    Vocabulary.load = staticmethod(cache(Vocabulary.load))  # type: ignore[method-assign]
    spec.check_part = lambda part: None
    estimate.matrix_speed = lambda device: estimate.REFERENCE
    initial_shapes.SAMPLES = 2_000
    pool.run_tasks = ray_pool.run_tasks = stop
    if name == "checkpoints":
        import trial

        trial.make_small()
        pipeline.optimise = pipeline.fit = pipeline._hand_over = pipeline.build_files = stop
    else:
        job.opened = opened
    if name == "command-lines":
        for command in _options():
            module = sys.modules.get(f"{cli.__name__}.{command}")
            if hasattr(module, "session"):
                module.session = stopped  # type: ignore[union-attr]


def child(folder: Path, name: str, count: int, seed: int, guided: bool) -> None:
    """Try so many cases of a kind, each noted in a file before and after."""
    if guided:
        import atheris

        for compiled in COMPILED:
            importlib.import_module(f"magic3d_cli.{compiled}")
        with atheris.instrument_imports(include=list(KINDS[name].instrumented)):
            import PIL.Image  # noqa: F401
            import trimesh  # noqa: F401

            from magic3d_cli import pipeline, plan  # noqa: F401
            from magic3d_cli.batch import pool, ray_pool  # noqa: F401
            from magic3d_cli.cli import app  # noqa: F401
    stop_before_work(name)
    bench, cases = Bench(folder), (folder / f"{name}.jsonl").open("a")
    chance, done = random.Random(f"{name} {seed}"), sum(1 for _ in (folder / f"{name}.jsonl").open())

    def one(data: bytes) -> None:
        nonlocal done
        (folder / "last.bin").write_bytes(name.encode() + b"\n" + data)
        line, code, seconds, fault = bench.tried(name, data)
        if fault:
            (folder / "faults").mkdir(exist_ok=True)
            (folder / "faults" / f"{name}-{done}.bin").write_bytes(name.encode() + b"\n" + data)
        cases.write(json.dumps([done, code, round(seconds, 2), fault, line if fault else []]) + "\n")
        cases.flush()
        done += 1
        if done >= count:
            os._exit(0)

    if not guided:
        while True:
            one(chance.randbytes(chance.randrange(LENGTH)))
    corpus = folder / f"corpus-{name}"
    corpus.mkdir(exist_ok=True)
    for number in range(100 if done == 0 else 0):
        (corpus / f"{number}").write_bytes(chance.randbytes(chance.randrange(LENGTH)))
    options = [f"-seed={seed + done + 1}", f"-max_len={LENGTH}", "-len_control=0", "-timeout=100000", "-rss_limit_mb=0"]
    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()


def watched(folder: Path, name: str, count: int, seed: int, guided: bool, until: float) -> list[list[Any]]:
    """Cases of a kind, of processes that are begun again when one dies or hangs, which is a case too."""
    noted = folder / f"{name}.jsonl"
    noted.touch()
    command = [sys.executable, __file__, "-o", str(folder), "--child", name, "--count", str(count), "--seed"]
    while len(noted.read_text().splitlines()) < count and time.monotonic() < until:
        begun = time.time()
        environment = os.environ | {"PYTHONFAULTHANDLER": "1"}
        with (folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, str(seed), *(["--guided"] if guided else [])], stdout=log, stderr=log, env=environment
            )
            while process.poll() is None and time.time() - max(noted.stat().st_mtime, begun) < DEAD:
                if time.monotonic() > until:
                    break
                time.sleep(0.2)
        if process.poll() is None:
            process.kill()
        if (code := process.wait()) == 0 or time.monotonic() > until:
            break
        seed += 1
        with noted.open("a") as file:
            number, end = len(noted.read_text().splitlines()), "hung" if code == -signal.SIGKILL else f"died: {code}"
            file.write(json.dumps([number, 70, DEAD, f"the process {end}", []]) + "\n")
        (folder / "faults").mkdir(exist_ok=True)
        if (folder / "last.bin").is_file():
            shutil.copyfile(folder / "last.bin", folder / "faults" / f"{name}-{number}.bin")
    return [json.loads(line) for line in noted.read_text().splitlines()]


def replay(path: Path, folder: Path) -> int:
    """One case again, with all that it says."""
    name, _, data = path.read_bytes().partition(b"\n")
    stop_before_work(name.decode())
    line, code, seconds, fault = Bench(folder).tried(name.decode(), data)
    print(f"{line}\nexit code {code}, {seconds:.2f} s\n{fault or 'nothing wrong'}")
    return 1 if fault else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("fuzz"), help="a folder, emptied first")
    parser.add_argument("--count", type=int, default=10_000, help="cases in all")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--minutes", type=float, default=1e9, help="in all, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a case in --output's folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.output.resolve()
    if options.child:
        child(folder, options.child, options.count, options.seed, options.guided)
    if options.replay:
        return replay(options.replay.resolve(), folder)
    shutil.rmtree(folder, ignore_errors=True)
    Bench.furnish(folder)
    table = ["| input | cases | done | refused | slowest, s | faults |", "| --- | --- | --- | --- | --- | --- |"]
    whole, until, total = sum(KINDS[name].share for name in options.only), time.monotonic() + 60 * options.minutes, 0
    left = options.count
    for number, name in enumerate(options.only):
        count = round(options.count * KINDS[name].share / whole) if number < len(options.only) - 1 else left
        left -= count
        share = (until - time.monotonic()) * KINDS[name].share / sum(KINDS[n].share for n in options.only[number:])
        cases = watched(folder, name, count, options.seed, options.guided, time.monotonic() + share)
        codes, faults = Counter(case[1] for case in cases), [case for case in cases if case[3]]
        for case in faults:
            print(f"{name}-{case[0]}: {case[4]}\n{case[3]}", file=sys.stderr, flush=True)
        slowest = max((case[2] for case in cases), default=0.0)
        table.append(
            f"| {name} | {len(cases)} | {codes[0]} | {len(cases) - codes[0]} | {slowest:.1f} | {len(faults)} |"
        )
        print(table[-1], flush=True)
        total += len(faults)
    (folder / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
