"""What a batch made, to look at: a page for any browser, a contact sheet, a table."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from magic3d_cli.asset.check import read_mesh
from magic3d_cli.asset.preview import render_mesh
from magic3d_cli.asset.show import as_glb, lit, page
from magic3d_cli.atomic import write_atomically
from magic3d_cli.batch.tasks import FAILED, GALLERY
from magic3d_cli.errors import Magic3DError
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.scene.views import turntable

TEMPLATE = Path(__file__).with_name("gallery.html")
THUMBNAIL = 256
SHOWN = (".glb", ".obj")
COLUMNS = (
    "prompt", "seed", "preset", "image", "style", "distillation", "status", "output", "faces", "seconds", "understood",
    "error",
)  # fmt: skip


def write_gallery(folder: Path, records: Sequence[dict[str, Any]]) -> list[Path]:
    """Write index.html, sheet.png and results.csv into the folder, and a page beside each asset; returns the three.

    The pages need no network and work from file://. Raises OSError.
    """
    cards, pictures = [], []
    for record in records:
        picture, turned = _shown(Path(record["output"])) if record["status"] != FAILED else (None, None)
        if picture is not None:
            pictures.append(picture)
        cards.append(_card(folder, record, picture, turned))
    text = TEMPLATE.read_text(encoding="utf-8").replace("@CARDS@", _script(json.dumps(cards)))
    files = [folder / name for name in GALLERY]
    write_atomically(files[0], text.encode(), durable=False)
    write_atomically(files[1], _sheet(pictures), durable=False)
    write_atomically(files[2], _table(records).encode(), durable=False)
    return files


def _shown(asset: Path) -> tuple[np.ndarray | None, Path | None]:
    """A picture of an asset, and a page that turns it; of formats that cannot be read back the run's last preview."""
    if asset.suffix.lower() in SHOWN:
        try:
            mesh = read_mesh(asset)
            glb, title = as_glb(asset, mesh)
            turned = asset.with_suffix(".html")
            write_atomically(turned, page(glb, title), durable=False)
            return render_mesh(mesh, lit(turntable(1, start=30.0)), THUMBNAIL)[0], turned
        except Magic3DError:
            return None, None  # somebody changed the file since
    preview = RunDirectory.for_output(asset).preview
    if not preview.is_file():
        return None, None
    with Image.open(preview) as image:
        side = min(image.size)
        return np.asarray(image.convert("RGB").crop((0, 0, side, side)).resize((THUMBNAIL, THUMBNAIL))), None


def _card(folder: Path, record: dict[str, Any], picture: np.ndarray | None, turned: Path | None) -> dict[str, Any]:
    """What the page shows of a task."""
    understood = record.get("understood") or {}
    return {
        "title": record["prompt"] or Path(record["image"] or "").name,
        "seed": record["seed"],
        "status": record["status"],
        "file": _beside(folder, Path(record["output"])),
        "page": _beside(folder, turned) if turned else None,
        "picture": _data_url(picture) if picture is not None else None,
        "drawn": understood.get("drawn", ""),
        "left_out": ", ".join(understood.get("left_out", ())),
        "seconds": record.get("work_seconds", record.get("seconds", 0)),
        "error": record.get("error", {}).get("what", ""),
    }


def _beside(folder: Path, path: Path) -> str:
    """A path as the page names it."""
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def _data_url(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _script(text: str) -> str:
    """JSON inside a script element: nothing in it can end the element."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _sheet(pictures: Sequence[np.ndarray]) -> bytes:
    """All pictures on one, about as wide as high."""
    blank = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
    across = max(int(np.ceil(np.sqrt(len(pictures)))), 1)
    filled = [*pictures, *[blank] * (-len(pictures) % across)] or [blank]
    rows = [np.concatenate(filled[i : i + across], 1) for i in range(0, len(filled), across)]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, "PNG")
    return buffer.getvalue()


def _table(records: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in records:
        understood = (record.get("understood") or {}).get("drawn", "")
        error = record.get("error", {}).get("what", "")
        writer.writerow({**record, "understood": understood, "error": error})
    return out.getvalue()
