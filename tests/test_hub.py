"""The Hugging Face hub: what is told of a download, how its failures are explained, and when it is left alone."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from tiny_priors import save_sd

from magic3d_cli.cli import main
from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.guidance.diffusers import catalogue, hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSAL: dict[str, Any] = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted."}


class Hub(http.server.ThreadingHTTPServer):
    """As much of the hub as a download needs, for any repository. `mode`: "", "gated401", "gated403", "drop"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.mode, self.asked = "", 0
        self.pause = 0.0


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked += 1
        path, files = self.path.partition("?")[0], self.server.files
        if "/api/models/" in path and "/tree/" in path:
            entries = [{"type": "file", "path": k, "size": len(v), "oid": tag(v)} for k, v in files.items()]
            return self.send(200, json.dumps(entries).encode())
        if "/api/models/" in path:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            told = {"id": "a/b", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}, "tags": []}
            return self.send(200, json.dumps(told).encode())
        if self.server.mode.startswith("gated"):
            return self.send(int(self.server.mode[5:]), b"Access restricted", **REFUSAL)
        data = files[path.split("/resolve/")[1].partition("/")[2]]
        short = self.server.mode == "drop" and len(data) > 5000
        return self.send(200, data, len(data) // 2 if short else None, ETag=f'"{tag(data)}"')

    def send(self, code: int, body: bytes, sent: int | None = None, **headers: str) -> None:
        """A reply; only `sent` bytes of its body, and then the connection is closed."""
        self.send_response(code)
        told = {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if sent is None:
                time.sleep(self.server.pause if len(body) > 5000 else 0)
                self.wfile.write(body[len(body) // 2 :])
            self.close_connection = sent is not None


def tag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine with a tiny Stable Diffusion, and an empty cache."""
    folder = save_sd(tmp_path / "sd")
    with Hub() as server:
        files = [path for path in folder.rglob("*") if path.is_file()]
        server.files = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        server.files["unet/diffusion_pytorch_model.bin"] = b"pickled" * 10**6
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_hub_id_tells_its_size_and_licence_before_it_is_fetched(server: Hub) -> None:
    told: list[str] = []
    folder = catalogue.locate("someone/model", "coarse", told.append)
    assert folder.name == COMMIT and (folder / "unet/config.json").is_file()
    assert not list(folder.rglob("*.bin"))
    wanted = sum(len(data) for name, data in server.files.items() if not name.endswith(".bin"))
    (size,) = re.findall(r"about ([\d.]+) MB", told[0])
    assert float(size) == pytest.approx(wanted / 1e6, rel=0.1) and "licence mit" in told[0]


@pytest.mark.parametrize("mode", ["gated401", "gated403"])
def test_a_licence_that_is_not_accepted_is_explained(server: Hub, monkeypatch, tmp_path, capsys, mode: str) -> None:
    monkeypatch.chdir(tmp_path)
    server.mode = mode
    with pytest.raises(SystemExit) as stop:
        main(["generate", "a dragon", "--prior", "deepfloyd-if-m", "-o", "dragon.glb", "--yes"])
    told = capsys.readouterr().err
    assert stop.value.code == 3 and "licence of DeepFloyd/IF-I-M-v1.0 has to be accepted" in told
    assert "https://huggingface.co/DeepFloyd/IF-I-M-v1.0" in told and "hf auth login" in told


@pytest.mark.slow
def test_a_connection_that_drops_is_explained_and_the_same_command_goes_on(server: Hub, monkeypatch) -> None:
    server.mode = "drop"
    with pytest.raises(EnvironmentFault, match="cannot be downloaded") as caught:
        catalogue.find(f"someone/model@{COMMIT}")
    assert caught.value.exit_code == 3 and "same command again: it goes on where it stopped" in caught.value.next_step
    source = hub.HubPrior("someone/model", COMMIT)
    assert hub.state_of(source) != hub.INSTALLED
    server.mode = ""
    catalogue.find(f"someone/model@{COMMIT}")
    assert hub.state_of(source) == hub.INSTALLED


def test_a_pinned_prior_that_is_all_there_asks_nothing_of_the_network(server: Hub) -> None:
    first = catalogue.find(f"someone/model@{COMMIT}")
    asked = server.asked
    assert catalogue.find(f"someone/model@{COMMIT}") == first and server.asked == asked
    (first / "text_encoder/model.safetensors").resolve().unlink()  # as the message about a damaged file says
    catalogue.find(f"someone/model@{COMMIT}")
    assert server.asked > asked and (first / "text_encoder/model.safetensors").is_file()


def test_without_a_terminal_a_download_tells_how_much_has_arrived(server: Hub, monkeypatch) -> None:
    monkeypatch.setattr(hub, "INTERVAL", 0.1)
    server.pause = 0.5
    told: list[str] = []
    disable_progress_bars()
    try:
        catalogue.find("someone/model", told.append)
    finally:
        enable_progress_bars()
    assert len(told) >= 3 and all(re.fullmatch(r"someone/model: [\d.]+ [MG]B of about .*are here", t) for t in told[1:])


def test_a_full_disk_is_not_taken_for_the_network(server: Hub, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(OSError, match="No space left"):
        catalogue.find(f"someone/model@{COMMIT}")


@pytest.mark.slow
def test_hf_home_and_hf_hub_offline_are_honoured(tmp_path: Path) -> None:
    source = catalogue.HUB["sd15"]
    repository = tmp_path / "hub" / f"models--{source.repository.replace('/', '--')}"
    shutil.copytree(save_sd(tmp_path / "sd"), repository / "snapshots" / str(source.revision))
    settings = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    cache = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}
    environment = {k: v for k, v in os.environ.items() if k not in cache} | settings

    def magic3d(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "magic3d_cli", *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    states = {row["name"]: row["state"] for row in json.loads(magic3d("priors", "--json").stdout)}
    assert states["sd15"] == "installed" and states["sd21"] == "not downloaded"
    begun = time.monotonic()
    failed = magic3d("generate", "a dragon", "--prior", "sd21", "-o", "dragon.glb", "--yes")
    assert failed.returncode == 3 and "unset HF_HUB_OFFLINE" in failed.stderr
    assert time.monotonic() - begun < 60 and not (tmp_path / "dragon.run").exists()
