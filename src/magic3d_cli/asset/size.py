"""How large a thing usually is: a mug 0.1 m, a car 4.5 m. No tensors here."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from magic3d_cli.asset.material import PARTS

TABLE = Path(__file__).with_name("sizes.tsv")


def usual_size(prompt: str) -> tuple[str, float] | None:
    """The thing that a prompt names and the usual longest side of its bounding box in metres; None if not known.

    The last name counts, as in English ("a chair tiger" is a tiger), up to a word that begins a part or another thing
    ("a cat with a hat" is a cat), and of names that overlap the longest ("a teddy bear" is no bear).
    """
    words = re.findall(r"[a-z']+", prompt.lower())
    own = next((words[:at] for at, word in enumerate(words) if at and word in PARTS), words)
    sizes, found, at = _sizes(), None, 0
    longest = max(len(name.split()) for name in sizes)
    while at < len(own):
        for length in range(min(longest, len(own) - at), 0, -1):
            name = _known(" ".join(own[at : at + length]), sizes)
            if name is not None:
                found, at = name, at + length
                break
        else:
            if own[at] == "of" and found is not None and found not in ("statue", "pair"):
                break  # "a house of cards"; but "a statue of a lion" is a lion's
            at += 1
    return None if found is None else (found, sizes[found])


def size_of_things(things: list[tuple[str, str]]) -> tuple[str, float] | None:
    """As `usual_size`, of things that stand together: the relation of those before to each, and its own prompt.

    On and under each other they are about as large as the largest, side by side as all together.
    """
    names, total = [], 0.0
    for relation, prompt in things:
        size = usual_size(prompt)
        if size is None:
            return None
        total = max(total, size[1]) if relation in ("on", "under") else total + size[1]
        names.append(f"{relation} {size[0]}".strip())
    return " ".join(names), round(total, 2)


def _known(phrase: str, sizes: dict[str, float]) -> str | None:
    """The phrase itself, or its singular."""
    forms = [phrase, *(phrase[: -len(end)] + new for end, new in (("s", ""), ("es", ""), ("ies", "y"))
             if phrase.endswith(end))]  # fmt: skip
    return next((form for form in forms if form in sizes), None)


@cache
def _sizes() -> dict[str, float]:
    sizes: dict[str, float] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            metres, names = line.split("\t")
            sizes |= dict.fromkeys((name.strip() for name in names.split(",")), float(metres))
    return sizes
