"""`magic3d priors [--words]`: the diffusion models that can be asked, and the words the built-in one knows."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import put


@reported
def priors(
    words: Annotated[bool, typer.Option("--words", help="The vocabulary of the built-in prior instead.")] = False,
    as_json: options.Json = False,
) -> None:
    """List the priors, or the built-in one's words.

    A prior is listed with its size, its licence and whether it is on this machine.
    """
    if words:
        known = _vocabulary()
        put(json.dumps(known) if as_json else _told(known))
        return
    rows = _rows()
    put(json.dumps(rows) if as_json else _table(rows))


def _rows() -> list[dict[str, Any]]:
    from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, HUB
    from magic3d_cli.guidance.diffusers.files import installed_bytes
    from magic3d_cli.guidance.diffusers.hub import INSTALLED, state_of

    rows = [
        {
            "name": "builtin",
            "gigabytes": round(installed_bytes(BUILTIN) / 1e9, 3),
            "licence": "CC-BY-SA 4.0",
            "state": INSTALLED,
            "source": "part of magic3d; its words: magic3d priors --words",
        }
    ]
    rows += [
        {
            "name": name,
            "gigabytes": prior.gigabytes,
            "licence": prior.licence + (" (to be accepted first)" if prior.gated else ""),
            "state": state_of(prior),
            "source": f"https://huggingface.co/{prior.repository}",
        }
        for name, prior in HUB.items()
    ]
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    shown = [{**row, "gigabytes": f"{row['gigabytes']:.3g} GB"} for row in rows]
    widths = {key: max(len(str(row[key])) for row in shown) for key in shown[0]}
    lines = ["  ".join(str(row[key]).ljust(width) for key, width in widths.items()).rstrip() for row in shown]
    return "\n".join([*lines, "--prior also takes a directory in diffusers layout, or a hub id: owner/name."])


def _vocabulary() -> dict[str, dict[str, list[str]]]:
    """Names and synonyms by role."""
    from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
    from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

    known = Vocabulary.load(BUILTIN / "vocabulary.json")
    groups = {"objects": known.nouns, "colours": known.colours, "materials": known.materials}
    return {
        role: {name: [word for word in words if word != name] for name, words in sorted(group.items())}
        for role, group in groups.items()
    }


def _told(known: dict[str, dict[str, list[str]]]) -> str:
    lines = []
    for role, group in known.items():
        lines.append(f"{len(group)} {role}:")
        lines += [f"  {name}" + (f" ({', '.join(words)})" if words else "") for name, words in group.items()]
    return "\n".join(lines)
