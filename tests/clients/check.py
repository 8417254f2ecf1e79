"""Holds one written asset against the programs that people open it with.

    python tests/clients/check.py car.run OUT

Blender (headless) imports every format that it knows: triangles, upright, size, texture. three.js, model-viewer and our
own page show the GLB in headless Chromium, and each screenshot is compared with our own render from the same camera by
structural similarity. Needs `blender` and `chromium` (Debian packages) and `npm ci --prefix tests/clients`. Exits with
1 where something is missing or differs; writes report.json and the pictures to OUT.
"""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

from magic3d_cli.asset.check import read_mesh
from magic3d_cli.asset.preview import render_mesh
from magic3d_cli.asset.show import lit
from magic3d_cli.scene.views import turntable

HERE = Path(__file__).parent
SIZE, AZIMUTH, ELEVATION = 384, 30.0, 15.0  # pixels, degrees
DISTANCE = float(turntable(1).distance[0])
FORMATS = ("glb", "obj", "stl", "ply", "usdz")
OPTIONAL = (".usdz",)
"""Debian's Blender is built without that importer."""
LEAST = {"own page": 0.95, "three.js": 0.85, "model-viewer": 0.85}
"""Structural similarity: the light of other programs is not ours, the shape and the texture are."""
BROWSER = ("--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars")

THREE = """<!doctype html><style>body { margin: 0 }</style>
<script type="importmap">{"imports": {"three": "/node_modules/three/build/three.module.js",
"three/addons/": "/node_modules/three/examples/jsm/"}}</script>
<script type="module">
import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { RoomEnvironment } from "three/addons/environments/RoomEnvironment.js";
const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
renderer.setSize(@SIZE@, @SIZE@);  // the window may still be growing
document.body.append(renderer.domElement);
const scene = new THREE.Scene();
renderer.toneMapping = THREE.NeutralToneMapping;  // or a white bumper is as white as what is behind it
scene.background = new THREE.Color(1, 1, 1);
scene.environment = new THREE.PMREMGenerator(renderer).fromScene(new RoomEnvironment()).texture;
const camera = new THREE.PerspectiveCamera(40, 1, 0.1, 20), a = @A@, e = @E@;
camera.position.setFromSphericalCoords(@DISTANCE@, Math.PI / 2 - e, a);
camera.lookAt(0, 0, 0);
const { scene: thing } = await new GLTFLoader().loadAsync("/asset.glb");
thing.scale.setScalar(1 / @RADIUS@);
thing.position.set(@CENTRE@).multiplyScalar(-1 / @RADIUS@);
scene.add(thing);
renderer.render(scene, camera);
</script>"""

MODEL_VIEWER = """<!doctype html>
<style>body { margin: 0 } model-viewer { width: @SIZE@px; height: @SIZE@px; background: #fff }</style>
<script type="module" src="/node_modules/@google/model-viewer/dist/model-viewer.min.js"></script>
<model-viewer src="/asset.glb" camera-orbit="@DEGREES@ @FAR@m" camera-target="@TARGET@" field-of-view="40deg"
 max-field-of-view="60deg" min-camera-orbit="auto auto 0m" max-camera-orbit="auto auto @FARTHEST@m"
 interaction-prompt="none"
 environment-image="neutral" shadow-intensity="0"></model-viewer>"""


def similarity(one: np.ndarray, other: np.ndarray, window: int = 7) -> float:
    """Mean structural similarity of the luminance (Wang et al. 2004) where either picture shows something."""
    x, y = (image[..., :3].astype(float) @ [0.299, 0.587, 0.114] for image in (one, other))
    mx, my = uniform_filter(x, window), uniform_filter(y, window)
    vx, vy = uniform_filter(x * x, window) - mx**2, uniform_filter(y * y, window) - my**2
    cov = uniform_filter(x * y, window) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float((((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of the silhouettes on white."""
    a, b = (image[..., :3].min(-1) < 250 for image in (one, other))
    return float((a & b).sum() / max((a | b).sum(), 1))


def in_blender(files: list[Path], out: Path) -> dict[str, dict[str, Any]]:
    command = ["blender", "-b", "-noaudio", "-P", str(HERE / "blender_import.py"), "--", str(out), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return json.loads((out / "blender.json").read_text())


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def screenshot(url: str, out: Path, profile: Path, tries: int = 4, seconds: int = 15) -> np.ndarray:
    """Of a page, SIZE x SIZE, when it has been still for some virtual seconds; later while its middle is blank.

    On a busy machine the virtual seconds may be over before a page has loaded, or while it shows how far it is.
    """
    command = ["chromium", *BROWSER, f"--user-data-dir={profile}", f"--window-size={SIZE},{SIZE}"]
    command += [f"--screenshot={out}", f"--virtual-time-budget={1000 * seconds}", url]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    seen = np.asarray(Image.open(out).convert("RGB"))
    middle = seen[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    return screenshot(url, out, profile, tries - 1, 2 * seconds) if tries > 1 and np.ptp(middle) == 0 else seen


def main(run: Path, out: Path) -> int:
    missing = [name for name in ("blender", "chromium") if shutil.which(name) is None]
    missing += [] if (HERE / "node_modules" / "three").is_dir() else ["node_modules: npm ci --prefix tests/clients"]
    if missing:
        print(f"missing: {', '.join(missing)}", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    faults, files = [], []
    for suffix in FORMATS:
        files.append(out / f"asset.{suffix}")
        command = [sys.executable, "-m", "magic3d_cli", "export", str(run), "-o", str(files[-1]), "--force", "-q"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    mesh = read_mesh(files[0])
    low, high = mesh.positions.min(0), mesh.positions.max(0)
    blender = in_blender(files, out)
    for suffix, found in blender.items():
        if "error" in found:  # also in the report
            faults += [f"blender {suffix}: {found['error']}"] if suffix not in OPTIONAL else []
            continue
        scale = 1000.0 if suffix == ".stl" else 1.0  # millimetres
        # +Y of glTF is +Z of Blender, its +Z is -Y.
        expected = np.array([low[0], -high[2], low[1], high[0], -low[2], high[1]]) * scale
        if np.abs(np.array([*found["low"], *found["high"]]) - expected).max() > 1e-3 * np.abs(expected).max():
            faults.append(f"blender {suffix}: bounds {found['low']} {found['high']}, expected {expected.tolist()}")
        if found["triangles"] != len(mesh.faces):
            faults.append(f"blender {suffix}: {found['triangles']} triangles of {len(mesh.faces)}")
        if suffix in (".glb", ".obj") and found["images"] != [list(mesh.texture.shape[1::-1])]:
            faults.append(f"blender {suffix}: textures {found['images']}")
    centre, angles = (low + high) / 2, np.deg2rad([AZIMUTH, ELEVATION])
    radius = float(np.linalg.norm(mesh.positions - centre, axis=1).max())
    ours = render_mesh(mesh, lit(turntable(1, ELEVATION, AZIMUTH)), SIZE)[0]
    Image.fromarray(ours).save(out / "ours.png")
    values = {
        "SIZE": SIZE,
        "A": angles[0],
        "E": angles[1],
        "DISTANCE": DISTANCE,
        "RADIUS": radius,
        "FAR": DISTANCE * radius,
    }
    values |= {"FARTHEST": 2 * DISTANCE * radius, "CENTRE": ", ".join(map(str, centre))}
    values |= {"DEGREES": f"{AZIMUTH}deg {90 - ELEVATION}deg", "TARGET": " ".join(f"{c}m" for c in centre)}
    for name, page in (("three", THREE), ("model-viewer", MODEL_VIEWER)):
        for key, value in values.items():
            page = page.replace(f"@{key}@", str(value))
        (out / f"{name}.html").write_text(page)
    if not (out / "node_modules").exists():
        (out / "node_modules").symlink_to((HERE / "node_modules").resolve())
    preview = ["preview", str(files[0]), "-o", str(out / "own"), "--frames", "4", "--size", "128", "-q"]
    subprocess.run([sys.executable, "-m", "magic3d_cli", *preview], check=True, stdout=subprocess.DEVNULL)
    handler = functools.partial(_Quiet, directory=str(out))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base, at = f"http://127.0.0.1:{server.server_port}", f"azimuth={AZIMUTH}&elevation={ELEVATION}&still"
    pages = {"own page": f"{(out / 'own.html').resolve().as_uri()}#{at}", "three.js": f"{base}/three.html"}
    pages["model-viewer"] = f"{base}/model-viewer.html"
    browsers = {}
    for name, url in pages.items():
        seen = screenshot(url, out / f"{name.replace(' ', '-')}.png", out / "profile")
        browsers[name] = {"ssim": round(similarity(ours, seen), 4), "silhouette": round(overlap(ours, seen), 4)}
        if browsers[name]["ssim"] < LEAST[name] or browsers[name]["silhouette"] < 0.9:
            faults.append(f"{name}: {browsers[name]}, at least {LEAST[name]} and 0.9")
    server.shutdown()
    shutil.rmtree(out / "profile", ignore_errors=True)
    report = {"blender": blender, "browsers": browsers, "faults": faults}
    (out / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps({"browsers": browsers, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
