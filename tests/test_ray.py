"""The same tasks on a Ray cluster of several nodes on this machine, one of which is lost in the middle."""

from __future__ import annotations

import os
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


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")

    def refused(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(EnvironmentFault, match="no Ray cluster at auto: Could not find"):
        run_tasks([Task(str(tmp_path / "a.glb"), "a dog")], OPTIONS, "auto", Interrupts(), lambda progress: None)
