"""Every way in which a run can be disturbed, again and again.

    python examples/reliability/campaign.py -o out [--only kills operations ...]

Each try disturbs a real run (built-in prior, small sizes) and then asks for the same again without a disturbance. A try
survives when nothing crashed or hung and the run ended, at last, in the very bytes of an undisturbed one. Where a file
was damaged that a person has to replace, a message with a next step is right too, and --fresh must then make the bytes.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faults
import torch
import trial
from trial import CRASHED, HUNG, KILLED, OTHER, REFUSED, SAME, STOPPED, End

from magic3d_cli.errors import Magic3DError
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.run import checkpoint


@dataclass(frozen=True)
class Try:
    """One disturbance, how each run after it ended, and what was wrong, if anything."""

    name: str
    ends: list[End]
    fault: str = ""


class Campaign:
    """The undisturbed run, and a folder for each try."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.reference = folder / "reference"
        self.reference.mkdir()
        operations = folder / "operations"
        end = trial.trial(self.reference, "", before=lambda: faults.count_operations(self.reference, operations))
        self.expected = trial.digest(self.reference / "car.glb")
        if not self.expected:
            raise SystemExit(f"The undisturbed run failed: {end.detail}")
        shutil.rmtree(self.reference)  # the first one also compiled
        self.reference.mkdir()
        end = trial.trial(self.reference, self.expected)
        if end.kind != SAME:
            raise SystemExit(f"Two undisturbed runs differ: {end}")
        self.seconds = end.seconds
        self.operations = [line.split(" ", 1)[1] for line in operations.read_text().splitlines()]

    def place(self, finished: bool = False) -> Path:
        """An empty folder, or a copy of the finished one."""
        place = self.folder / "try"
        shutil.rmtree(place, ignore_errors=True)
        if finished:
            shutil.copytree(self.reference, place)
        else:
            place.mkdir()
        return place

    def judged(self, name: str, place: Path, ends: list[End], *, fresh: bool = False) -> Try:
        """What an undisturbed run makes of it now; with `fresh` it may refuse, and then has to start over."""
        place.mkdir(exist_ok=True)
        ends = [*ends, trial.trial(place, self.expected)]
        if fresh and ends[-1].kind == REFUSED:
            ends.append(trial.trial(place, self.expected, fresh=True))
        bad = next((end for end in ends if end.kind in (CRASHED, HUNG, OTHER)), None)
        if bad is None and ends[-1].kind != SAME:
            bad = ends[-1]
        return Try(name, ends, f"{bad.kind}: {bad.detail}" if bad else "")


def kills(campaign: Campaign, tries: int) -> Iterator[Try]:
    """SIGKILL at a random moment of a run and of what goes on from it, until one ends; each kill is a try."""
    done = 0
    while done < tries:
        place, ends = campaign.place(), list[End]()
        while done + len(ends) < tries and (not ends or ends[-1].kind == KILLED):
            ends.append(
                trial.trial(place, campaign.expected, kill_after=campaign.random.uniform(0.0, 0.8 * campaign.seconds))
            )
        killed = [end for end in ends if end.kind == KILLED]
        result = campaign.judged(f"{len(killed)} kills", place, ends)
        if killed or result.fault:
            for number in range(max(len(killed), 1)):
                yield result if number == 0 else Try(result.name, [], result.fault)
        done += max(len(killed), bool(result.fault))


def operations(campaign: Campaign, tries: int) -> Iterator[Try]:
    """Disk full, disk full for a moment, read-only and folder deleted, at writing operations of all files in turn."""
    numbers = list(range(1, len(campaign.operations) + 1))
    campaign.random.shuffle(numbers)
    firsts = {campaign.operations[n - 1]: n for n in reversed(numbers)}  # each file once, before the others
    order = [*firsts.values(), *(n for n in numbers if n not in firsts.values())]
    kinds = ("full", "full once", "read-only", "deleted")
    for index in range(tries):
        number, kind = order[index // len(kinds) % len(order)], kinds[index % len(kinds)]
        place = campaign.place()

        def disturb(place: Path = place, number: int = number, kind: str = kind) -> None:
            if kind == "deleted":
                faults.folder_deleted(place, number)
            else:
                code = errno.EROFS if kind == "read-only" else errno.ENOSPC
                faults.disk_full(place, number, code, lasting=kind != "full once")

        end = trial.trial(place, campaign.expected, before=disturb)
        yield campaign.judged(f"{kind} at {campaign.operations[number - 1]}", place, [end])


def torn_writes(campaign: Campaign, tries: int) -> Iterator[Try]:
    """Files that the system lets grow to a random size only."""
    largest = max(path.stat().st_size for path in campaign.reference.rglob("*"))
    for _ in range(tries):
        limit, place = int(largest ** campaign.random.random()), campaign.place()
        end = trial.trial(place, campaign.expected, before=lambda limit=limit: faults.small_files(limit))
        yield campaign.judged(f"files of at most {limit} bytes", place, [end])


def little_memory(campaign: Campaign, tries: int) -> Iterator[Try]:
    """Between nothing and 1 GB of memory beside what a process has after its imports: allocations fail anywhere."""
    for _ in range(tries):
        more, place = int(2 ** campaign.random.uniform(20, 30)), campaign.place()
        end = trial.trial(place, campaign.expected, before=partial(faults.little_memory, more))
        yield campaign.judged(f"{more / 1e6:.0f} MB more", place, [end])


DAMAGES: dict[str, Callable[[Path, random.Random], object]] = {
    "cut": lambda path, chance: path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size or 1)]),
    "emptied": lambda path, chance: path.write_bytes(b""),
    "removed": lambda path, chance: path.unlink(),
    "a bit flipped": lambda path, chance: path.write_bytes(flipped(path.read_bytes(), chance)),
    "noise": lambda path, chance: path.write_bytes(chance.randbytes(path.stat().st_size)),
    "of next year": lambda path, chance: os.utime(path, (time.time() + 3e7,) * 2),
    "half renamed": lambda path, chance: path.rename(path.with_name(path.name + ".tmp")),
    "a folder": lambda path, chance: (path.unlink(), path.mkdir()),
}


def flipped(data: bytes, chance: random.Random) -> bytes:
    """One bit of it is another; empty stays empty."""
    if not data:
        return data
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def damaged_files(campaign: Campaign, tries: int) -> Iterator[Try]:
    """Each file of a finished run, damaged in each way; as after a power cut, with the clock set back, by hand."""
    names = sorted(str(p.relative_to(campaign.reference)) for p in campaign.reference.rglob("*") if p.is_file())
    pairs = [(name, kind) for name in names for kind in DAMAGES if (name, kind) != ("car.glb", "a folder")]
    campaign.random.shuffle(pairs)
    for index in range(tries):
        name, kind = pairs[index % len(pairs)]
        place = campaign.place(finished=True)
        DAMAGES[kind](place / name, campaign.random)
        yield campaign.judged(f"{name} {kind}", place, [], fresh=True)


def numbers(campaign: Campaign, tries: int) -> Iterator[Try]:
    """NaN and infinities in each tensor of both stages' checkpoints, whose checksum is right: no such asset is made.

    The stage has its last steps before it. An end is right that says so, or an asset of finite numbers.
    """
    cases = []
    for name in ("coarse.ckpt", "fine.ckpt"):
        tensors, _ = checkpoint.load(campaign.reference / "car.run" / name)
        cases += [(name, key, bad) for key, t in tensors.items() if t.is_floating_point() for bad in ("nan", "inf")]
    campaign.random.shuffle(cases)
    for index in range(tries):
        name, key, bad = cases[index % len(cases)]
        place = campaign.place(finished=True)
        path = place / "car.run" / name
        tensors, header = checkpoint.load(path)
        tensor = tensors[key].clone()
        tensor.view(-1)[campaign.random.randrange(max(tensor.numel(), 1)) :][: max(tensor.numel() // 2, 1)] = float(bad)
        header["step"] = header["state"]["step"] = header["total"] - 2
        checkpoint.save(path, {**tensors, key: tensor}, header)
        if name == "coarse.ckpt":
            (place / "car.run" / "fine.ckpt").unlink()
        (place / "car.glb").unlink()
        end = trial.trial(place, campaign.expected)
        fault = "" if end.kind in (SAME, REFUSED) else f"{end.kind}: {end.detail}"
        if end.kind == OTHER:
            fault = "" if finite(place / "car.glb") else "an asset with numbers that are not finite"
        yield Try(f"{bad} in {key} of {name}", [end], fault)


def finite(asset: Path) -> bool:
    """Whether all of an asset's positions, normals and texture coordinates are numbers."""
    import numpy as np

    from magic3d_cli.asset.check import read_mesh

    try:
        mesh = read_mesh(asset)
    except Magic3DError:
        return False
    return all(np.isfinite(part).all() for part in (mesh.positions, mesh.uvs))


def prior_files(campaign: Campaign, tries: int) -> Iterator[Try]:
    """Files of the prior's folder cut, emptied, removed, swapped or changed: it is refused, or makes an asset."""
    kinds = [kind for kind in DAMAGES if kind not in ("of next year",)]
    source = Path(BUILTIN)
    names = sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and p.suffix != ".md")
    for index in range(tries):
        copy = campaign.folder / "prior"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        name, kind = names[index % len(names)], campaign.random.choice([*kinds, "swapped"])
        if kind == "swapped":
            shutil.copyfile(copy / campaign.random.choice(names), copy / name)
        else:
            DAMAGES[kind](copy / name, campaign.random)
        end = trial.trial(campaign.place(), campaign.expected, prior=str(copy))
        fault = f"{end.kind}: {end.detail}" if end.kind in (CRASHED, HUNG, STOPPED) else ""
        yield Try(f"{name} {kind}", [end], fault)


def two_at_once(campaign: Campaign, tries: int) -> Iterator[Try]:
    """Two processes on one run, the second a random moment later: one makes it, the other is refused or finds it."""
    for _ in range(tries):
        place = campaign.place()
        reports = [campaign.folder / f"two-{number}.end" for number in range(2)]
        children = []
        for report in reports:
            report.unlink(missing_ok=True)
            children.append(trial.start(partial(trial.run, place / "car.glb"), report))
            time.sleep(campaign.random.uniform(0.0, campaign.seconds))
        ends = [
            trial.wait(child, report, campaign.expected, place / "car.glb")
            for child, report in zip(children, reports, strict=True)
        ]
        yield campaign.judged("two at once", place, ends)


SCENARIOS: dict[str, tuple[Callable[[Campaign, int], Iterator[Try]], int, int]] = {
    "kills": (kills, 200, 3),
    "operations": (operations, 200, 4),
    "torn-writes": (torn_writes, 40, 1),
    "little-memory": (little_memory, 100, 0),
    "damaged-files": (damaged_files, 64, 3),
    "numbers": (numbers, 200, 1),
    "prior-files": (prior_files, 1000, 1),
    "two-at-once": (two_at_once, 20, 1),
}
"""Function, tries of the whole campaign and of its short form."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("campaign"), help="a folder, emptied first")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--tries", type=int, help="of each; default: the whole campaign's")
    parser.add_argument("--short", action="store_true", help="a few of each, as the tests do")
    parser.add_argument("--minutes", type=float, help="of each, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    campaign = Campaign(options.output.resolve(), options.seed)
    table = ["| disturbance | tries | survived |", "| --- | --- | --- |"]
    failed = []
    for name in options.only:
        scenario, whole, few = SCENARIOS[name]
        begun, results = time.monotonic(), list[Try]()
        for result in scenario(campaign, options.tries or (few if options.short else whole)):
            results.append(result)
            if result.fault:
                print(f"{name}: {result.name}: {result.fault}", file=sys.stderr, flush=True)
            with (campaign.folder / "tries.jsonl").open("a") as file:
                ends = [(end.kind, round(end.seconds, 2), end.detail[:300]) for end in result.ends]
                file.write(json.dumps([name, result.name, ends, result.fault]) + "\n")
            if options.minutes and time.monotonic() - begun > 60 * options.minutes:
                break
        failed += [result for result in results if result.fault]
        table.append(f"| {name} | {len(results)} | {sum(not result.fault for result in results)} |")
        print(table[-1], flush=True)
    (campaign.folder / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
