"""How long 10,000 prompts take on 100 GPUs, what is lost to failures, and where it bends: a simulation.

    python examples/reliability/fleet.py [--jobs 10000] [--gpus 100] [--seconds 12] ...

Each worker takes the next job when it is free, as `magic3d batch --ray` does. A worker that fails loses what it did
since its last checkpoint, comes back after a while, and its job goes on elsewhere. The disk that all share writes the
bytes of finished jobs one after the other. Defaults marked [m] were measured, others are assumptions to replace by your
own.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from dataclasses import asdict, dataclass, replace

COMPUTED, FREE, FAILED = range(3)
"""Events: a job is computed; a worker is free; a failed worker's job waits for another."""


@dataclass(frozen=True)
class Fleet:
    """What is asked for, and of which machines."""

    jobs: int = 10_000
    gpus: int = 100
    seconds: float = 12.0  # a draft with the built-in prior on one NVIDIA H200 [m]
    spread: float = 0.1  # standard deviation of the logarithm of a job's seconds
    start: float = 30.0  # seconds until a worker's first job: processes, libraries, prior, kernels
    hours_between_failures: float = 200.0  # of one worker, on average
    restart: float = 300.0  # seconds until a failed worker's place is taken
    checkpoint: float = 60.0  # seconds of work that a failure loses at most: `Intervals.checkpoint`
    megabytes: float = 58.0  # a draft's run folder and asset [m]; `--preset draft`, built-in prior
    disk: float = 1000.0  # megabytes a second that the shared disk writes
    dispatch: float = 0.005  # seconds that the driver needs for each job, one after the other
    price: float = 3.0  # of a GPU for an hour


@dataclass(frozen=True)
class Outcome:
    """Of a simulated batch; times in seconds."""

    makespan: float
    ideal: float  # all GPUs busy from the first moment on, nothing fails
    tail: float  # from the moment when the first worker finds nothing to do
    failures: int
    lost: float  # seconds of work that failures cost, on all workers together
    disk_busy: float  # part of the time that the disk writes
    terabytes: float
    cost: float

    @property
    def efficiency(self) -> float:
        return self.ideal / self.makespan


def simulate(fleet: Fleet, seed: int = 0) -> Outcome:
    """Run all jobs; the same seed gives the same outcome."""
    chance = random.Random(seed)
    # The logarithm's mean is such that jobs take `seconds` on average.
    work = [
        chance.lognormvariate(math.log(fleet.seconds) - fleet.spread**2 / 2, fleet.spread) for _ in range(fleet.jobs)
    ]
    waiting = work[::-1]  # what is left of each, the next one last
    events = [(fleet.start, FREE, number) for number in range(fleet.gpus)]  # in the order of their times
    fails = [fleet.start + chance.expovariate(1 / (3600 * fleet.hours_between_failures)) for _ in events]
    idle: list[int] = []
    driver = disk = written = lost = 0.0
    failures, finished, first_idle = 0, 0, math.inf

    def give(now: float, number: int) -> None:
        """The next job for a worker, or none."""
        nonlocal driver, first_idle, failures, lost
        if not waiting:
            idle.append(number)
            first_idle = min(first_idle, now)
            return
        rest = waiting.pop()
        driver = begun = max(now, driver) + fleet.dispatch
        if begun + rest <= fails[number]:
            heapq.heappush(events, (begun + rest, COMPUTED, number))
            return
        failed = max(begun, fails[number])
        kept = (failed - begun) // fleet.checkpoint * fleet.checkpoint
        failures, lost = failures + 1, lost + failed - begun - kept
        left.append(rest - kept)
        heapq.heappush(events, (failed, FAILED, len(left) - 1))
        back = failed + fleet.restart + fleet.start
        fails[number] = back + chance.expovariate(1 / (3600 * fleet.hours_between_failures))
        heapq.heappush(events, (back, FREE, number))

    left: list[float] = []
    while finished < fleet.jobs:
        now, kind, number = heapq.heappop(events)
        if kind == COMPUTED:  # it ends when its files are on the disk
            disk = max(disk, now) + fleet.megabytes / fleet.disk
            written, finished = written + fleet.megabytes, finished + 1
            heapq.heappush(events, (disk, FREE, number))
        elif kind == FREE:
            give(now, number)
        else:
            waiting.append(left[number])
            if idle:
                give(now, idle.pop())
    end = disk
    ideal = sum(work) / fleet.gpus
    busy = written / fleet.disk / end
    cost = end / 3600 * fleet.gpus * fleet.price
    return Outcome(end, ideal, max(end - first_idle, 0.0), failures, lost, busy, written / 1e6, cost)


def row(name: str, outcome: Outcome) -> str:
    """A line of the table."""
    return (
        f"| {name} | {outcome.makespan / 60:.1f} | {outcome.efficiency:.0%} | {outcome.tail:.0f} | {outcome.failures} "
        f"| {outcome.lost / 60:.0f} | {outcome.disk_busy:.0%} | {outcome.terabytes:.2f} | {outcome.cost:.0f} |"
    )


VARIATIONS: dict[str, dict[str, float]] = {
    "as asked": {},
    "10 GPUs": {"gpus": 10},
    "1,000 GPUs": {"gpus": 1000},
    "5,000 GPUs": {"gpus": 5000},
    "jobs of very different length": {"spread": 1.0},
    "a failure in 10 hours": {"hours_between_failures": 10},
    "a failure an hour": {"hours_between_failures": 1},
    "a disk of 100 MB/s": {"disk": 100},
    "jobs of 73 minutes (paper)": {"seconds": 73 * 60},
    "jobs of 73 minutes, a failure in 10 hours": {"seconds": 73 * 60, "hours_between_failures": 10},
}
"""What is changed of what is asked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Fleet()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    fleet = Fleet(**vars(parser.parse_args()))
    print("| | minutes | efficiency | tail, s | failures | work lost, min | disk busy | TB | cost |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, changes in VARIATIONS.items():
        print(row(name, simulate(replace(fleet, **changes))))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
