"""The same tasks on a Ray cluster on this machine, of which a node, the driver or all is lost in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_worker

from magic3d_cli.batch.pool import MEMORY, Progress
from magic3d_cli.batch.ray_pool import run_tasks
from magic3d_cli.batch.tasks import Task
from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.run.interrupts import Interrupts

OPTIONS: dict[str, Any] = {"device": "cpu", "coarse_prior": "builtin", "fine_prior": "builtin", "more_priors": []}
TESTS = Path(__file__).parent


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores and two nodes with one each, whose processes know the tests' modules."""
    utils = pytest.importorskip("ray.cluster_utils")
    known = [str(TESTS), str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(known))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else 15: on a busy machine they would never come to it
    small = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
    made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(2):
        made.add_node(num_cpus=1, memory=int(1.1 * MEMORY), **small)
    yield made
    made.shutdown()


@pytest.mark.slow
def test_a_lost_node_loses_no_task(cluster: Any, tmp_path: Path) -> None:
    tasks = [Task(str(tmp_path / f"{name}.glb"), f"a {name} ball") for name in ("red", "wait", "impossible", "blue")]
    seen: list[int] = []

    def lose() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.1)
        node = (tmp_path / "began").read_text()
        lost = next(one for one in cluster.worker_nodes if one.node_id == node)
        cluster.remove_node(lost, allow_graceful=False)

    threading.Thread(target=lose, daemon=True).start()

    def changed(progress: Progress) -> None:
        seen.append(len(progress.records))

    records = run_tasks(tasks, OPTIONS, cluster.address, Interrupts(), changed, tiny_worker.make)
    assert [record["status"] for record in records] == ["made", "made", "failed", "made"]
    assert "no such thing" in records[2]["error"]["what"] and seen == [1, 2, 3, 4]
    for record in records:
        assert Path(record["output"]).is_file() == (record["status"] == "made")
    # Again: what is made is kept.
    again = run_tasks(tasks[:1], OPTIONS, cluster.address, Interrupts(), changed, tiny_worker.make)
    assert again[0]["status"] == "kept"


DRIVER = """
import functools, sys, tiny_worker
from magic3d_cli.batch import ray_pool
from magic3d_cli.cli import main
ray_pool.PULSE, ray_pool.MISSED = 0.5, 4
ray_pool.run_tasks = functools.partial(ray_pool.run_tasks, make=tiny_worker.make)
main()
"""
"""`magic3d` whose tasks are tiny."""


class Driver:
    """`magic3d batch --ray` in a process of its own: one task is made while another waits."""

    def __init__(self, address: str, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        (folder / "list.txt").write_text("a red ball\na wait ball\na blue ball\n")
        line = ["batch", "list.txt", "-o", "out", "--ray", address, "--prior", "builtin", "--device", "cpu", "--json"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *line],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def half_way(self) -> dict[str, int]:
        """Waits until something is made and something begun; what is made, and when."""
        deadline = time.monotonic() + 300
        while not ((self.out / "began").exists() and list(self.out.glob("*.run/result.json"))):
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        return {path.parent.name: path.stat().st_mtime_ns for path in self.out.glob("*.run/result.json")}

    def ended(self) -> tuple[int, dict[str, Any], str]:
        """Exit code, summary and messages."""
        out, told = self.process.communicate(timeout=300)
        return self.process.returncode, json.loads(out), told


@pytest.mark.slow
def test_a_lost_driver_loses_no_task(cluster: Any, tmp_path: Path) -> None:
    """The same command at once, when tasks of the lost driver may not have ended yet: what is made stays as it is."""
    driver = Driver(cluster.address, tmp_path)
    made = driver.half_way()
    driver.process.kill()
    driver.process.communicate()
    code, summary, _ = Driver(cluster.address, tmp_path).ended()
    assert code == 0 and summary["failed"] == 0
    assert summary["kept"] >= len(made) and summary["made"] == 3 - summary["kept"] >= 1  # the waiting one at least
    for name, when in made.items():
        assert (tmp_path / "out" / name / "result.json").stat().st_mtime_ns == when
    assert len(list((tmp_path / "out").glob("*.glb"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["all of it", "its head"])
def test_a_lost_cluster_ends_a_batch_in_words(cluster: Any, tmp_path: Path, lost: str) -> None:
    driver = Driver(cluster.address, tmp_path)
    driver.half_way()
    if lost == "its head":
        cluster.head_node.kill_gcs_server()
    else:
        cluster.shutdown()
    code, summary, told = driver.ended()
    assert code == 1 and summary["failed"] >= 1 and summary["made"] + summary["failed"] == 3
    assert "The same command begins it again" in told and (tmp_path / "out" / "index.html").is_file()
    waiting = next(record for record in summary["tasks"] if record["prompt"] == "a wait ball")
    words = "does not answer any more" if lost == "its head" else "Ray failed"
    assert waiting["status"] == "failed" and words in waiting["error"]["what"]


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")

    def refused(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(EnvironmentFault, match="no Ray cluster at auto: Could not find"):
        run_tasks([Task(str(tmp_path / "a.glb"), "a dog")], OPTIONS, "auto", Interrupts(), lambda progress: None)
