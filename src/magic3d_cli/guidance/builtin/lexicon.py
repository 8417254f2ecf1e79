"""What people call things: words of everyday prompts, mapped to the nouns that a prior can draw. No tensors here.

The file `words.json` beside a prior's vocabulary is made from WordNet by `examples/builtin_prior/words.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from magic3d_cli.checks import parse_json
from magic3d_cli.errors import EnvironmentFault

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_IRREGULAR = {
    "mice": "mouse", "geese": "goose", "men": "man", "women": "woman", "children": "child", "people": "person",
    "feet": "foot", "teeth": "tooth", "oxen": "ox", "wolves": "wolf", "knives": "knife", "loaves": "loaf",
    "leaves": "leaf", "calves": "calf", "elves": "elf", "dwarves": "dwarf", "scarves": "scarf", "shelves": "shelf",
    "bookshelves": "bookshelf", "cacti": "cactus", "octopi": "octopus", "fungi": "fungus", "firemen": "fireman",
    "snowmen": "snowman", "policemen": "policeman", "hooves": "hoof",
}  # fmt: skip


@dataclass(frozen=True)
class Lexicon:
    """Words beyond a prior's own vocabulary. All in lower case; names are nouns of the vocabulary."""

    same: dict[str, str] = field(default_factory=dict)  # "doggo" -> the name that means exactly the same
    kinds: dict[str, str] = field(default_factory=dict)  # "corgi" -> "dog": a fair drawing of it
    near: dict[str, str] = field(default_factory=dict)  # "penguin" -> "seagull": only offered, never drawn
    looks: dict[str, str] = field(default_factory=dict)  # "brass" -> "gold": colours and materials
    things: frozenset[str] = frozenset()  # what has a shape and cannot be drawn
    nouns: frozenset[str] = frozenset()  # what has none: "style", "fire"
    verbs: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()  # adjectives and the like

    @staticmethod
    def load(path: Path) -> Lexicon:
        """Read `words.json`; a prior without one knows no other words. Raises EnvironmentFault when malformed."""
        return _load(path) if path.is_file() else Lexicon()

    def knows(self, word: str) -> bool:
        """Whether this is an English word, however inflected, so that it is no slip of spelling."""
        return any(form in group for form in _stems(word) for group in self._groups)

    @cached_property
    def _groups(self) -> tuple[Collection[str], ...]:
        """All of them, those of objects first."""
        objects = (self.things, self.kinds, self.same, self.near)
        return (*objects, self.looks, self.nouns, self.verbs, self.others)

    def is_verb(self, word: str) -> bool:
        """Whether a word is mostly a verb, in any form: "riding", "sat"."""
        if any(form in group for form in singulars(word) for group in self._groups[:4]):
            return False
        participle = word.endswith("ing")  # "sitting" is a noun as well
        return (participle or word not in self.nouns) and any(form in self.verbs for form in _stems(word))


@lru_cache(maxsize=4)
def _load(path: Path) -> Lexicon:
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        same, kinds, near, looks = (_inverted(data[key]) for key in ("same", "kinds", "near", "looks"))
        things, nouns, verbs, others = (
            frozenset(_inverted(data[key])) for key in ("things", "nouns", "verbs", "others")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvironmentFault(
            f"The prior's list of everyday words {path} cannot be read: {error}.",
            "Reinstall magic3d, or check --prior.",
        ) from error
    return Lexicon(same, kinds, near, looks, things, nouns, verbs, others)


def _inverted(groups: dict[str, str]) -> dict[str, str]:
    return {phrase: name for name, phrases in groups.items() for phrase in phrases.split(", ")}


def singulars(phrase: str) -> Iterator[str]:
    """The phrase, then what it may be the plural of: "fire trucks", "boxes", "wolves", "knight's"."""
    yield phrase
    first, _, last = phrase.rpartition(" ")
    lead = f"{first} " if first else ""
    if last in _IRREGULAR:
        yield lead + _IRREGULAR[last]
    for end, new in (("'s", ""), ("s'", ""), ("ies", "y"), ("es", ""), ("s", "")):
        if last.endswith(end) and len(last) > len(end) + 1:
            yield lead + last[: -len(end)] + new


def _stems(word: str) -> Iterator[str]:
    """A word and what it may be a form of: plural, past, participle, comparative, adverb."""
    yield from singulars(word)
    for end in ("ing", "ed", "er", "est", "ly", "y"):
        if word.endswith(end) and len(word) > len(end) + 2:
            stem = word[: -len(end)]
            yield from (stem, stem + "e")
            if stem[-1] == stem[-2]:
                yield stem[:-1]
            if stem[-1] == "i":
                yield stem[:-1] + "y"


def correct(word: str, groups: Sequence[Collection[str]]) -> str | None:
    """The known word that a slip of spelling was meant to be, or None.

    One slip (a letter missing, doubled, wrong, or two exchanged) is looked for in every group of words in turn, in
    words of at least four letters in the first group, five in the next, and so on; two slips in long words of the first
    group alone: the more words there are, the more of them something is like by chance.
    """
    if not (3 < len(word) < 25 and word.isascii() and word.isalpha()):
        return None
    for typed in dict.fromkeys((word, word.removesuffix("s"))):
        slips = _one_slip(typed)
        for more, group in enumerate(groups):
            near = [
                word
                for word in slips
                if word in group and len(word) > 3 + more and (word[0] == typed[0] or len(typed) > 5)
            ]
            if near:  # two letters exchanged are the commonest slip
                return min(near, key=lambda word: (word[0] != typed[0], sorted(word) != sorted(typed), word))
    like = (near for near in groups[0] if near[0] == word[0] and len(near) > 5 and abs(len(near) - len(word)) < 3)
    return min((near for near in like if _distance(near, word) < 3), default=None) if len(word) > 5 else None


def _one_slip(word: str) -> set[str]:
    halves = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    dropped = {a + b[1:] for a, b in halves if b}
    exchanged = {a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1}
    wrong = {a + letter + b[1:] for a, b in halves if b for letter in _LETTERS}
    missing = {a + letter + b for a, b in halves for letter in _LETTERS}
    return (dropped | exchanged | wrong | missing) - {word}


def _distance(a: str, b: str) -> int:
    """Letters to insert, delete, change or exchange with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, before = before, row
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
            if last and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], last[j - 2] + 1)
    return row[-1]
