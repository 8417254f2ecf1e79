"""WordNet 3.0's nouns as a graph: senses of a word in their order, what each is a kind of, how often it was counted.

Reads the data files of Debian's package wordnet-base (formats: wndb(5WN), senseidx(5WN)). WordNet is copyright 2006 by
Princeton University; its licence permits use and distribution with its notice.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PLACE = Path("usr/share/wordnet")
"""Where the package puts its files."""

KINDS = {5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 18: "person", 20: "plant", 25: "shape",
         27: "substance"}  # fmt: skip
"""Lexicographer files of nouns that have a shape, or that things are made of (lexnames(5WN))."""

_INSULT = re.compile(r"ethnic slur|\b(offensive|disparaging\)?|derogatory|insulting) (term|name|word|slang)")
"""What a definition says of a name that hurts."""


@dataclass(frozen=True)
class Sense:
    """One meaning of a noun."""

    offset: int
    lexfile: int
    spelt: tuple[str, ...]  # its names, words apart; the first is the most usual
    parents: tuple[int, ...]  # hypernyms, also of an instance
    named: bool  # a particular one: "Eiffel Tower"
    insult: bool  # a name that hurts, by its definition

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Its names in lower case, as the index has them."""
        return tuple(name.lower() for name in self.spelt)

    @property
    def solid(self) -> bool:
        return self.lexfile in KINDS


class WordNet:
    """The nouns, and the lemmas of every part of speech with their counts."""

    def __init__(self, root: Path) -> None:
        folder = root / PLACE if (root / PLACE).is_dir() else root
        self._counts = _counts(folder / "cntlist.rev")
        self.senses: dict[int, Sense] = dict(_senses(folder / "data.noun"))
        self.nouns: dict[str, tuple[int, ...]] = dict(_index(folder / "index.noun"))
        self.others = {part: dict(_index(folder / f"index.{part}")) for part in ("adj", "adv", "verb")}
        exceptions = (folder / "verb.exc").read_text(encoding="utf-8").splitlines()
        self.verb_forms = {line.split()[0] for line in exceptions}  # "stood", "ate", "ridden"

    def count(self, word: str, part: str = "noun", solid: bool = False) -> int:
        """How often a word was counted in WordNet's texts as a part of speech; `solid`: as a thing with a shape."""
        files = self._counts.get((word, part), {})
        return sum(n for lexfile, n in files.items() if not solid or lexfile in KINDS)

    def meanings(self, word: str) -> list[Sense]:
        """Senses of a noun, the most usual first."""
        return [self.senses[offset] for offset in self.nouns.get(word, ())]

    def above(self, sense: Sense) -> Iterator[tuple[int, Sense]]:
        """A sense and everything that it is a kind of, with the distance, the nearest first."""
        queue, seen = deque([(0, sense.offset)]), {sense.offset}
        while queue:
            distance, offset = queue.popleft()
            yield distance, self.senses[offset]
            for parent in self.senses[offset].parents:
                if parent not in seen:
                    seen.add(parent)
                    queue.append((distance + 1, parent))

    def find(self, text: str) -> Sense:
        """The sense that "crane:bird" means: the first of "crane" that is a kind of "bird"; "crane#2": the second.

        Raises KeyError when there is none.
        """
        if "#" in text:
            word, number = text.split("#")
            return self.meanings(word)[int(number) - 1]
        word, _, kind = text.partition(":")
        for sense in self.meanings(word):
            if not kind or any(kind in above.words for distance, above in self.above(sense) if distance):
                return sense
        raise KeyError(text)


def _senses(path: Path) -> Iterator[tuple[int, Sense]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        data, _, gloss = line.partition("|")
        fields = data.split()
        count = int(fields[3], 16)
        spelt = tuple(field.replace("_", " ") for field in fields[4 : 4 + 2 * count : 2])
        at = 4 + 2 * count
        pointers = [fields[i : i + 4] for i in range(at + 1, at + 1 + 4 * int(fields[at]), 4)]
        parents = tuple(int(offset) for symbol, offset, part, _ in pointers if symbol in ("@", "@i") and part == "n")
        named = any(symbol == "@i" for symbol, *_ in pointers)
        insult = _INSULT.search(gloss) is not None
        yield int(fields[0]), Sense(int(fields[0]), int(fields[1]), spelt, parents, named, insult)


def _index(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split()
        offsets = fields[-int(fields[2]) :]
        yield fields[0].replace("_", " "), tuple(map(int, offsets))


def _counts(path: Path) -> dict[tuple[str, str], dict[int, int]]:
    """(word, part of speech) -> lexicographer file -> count, of the texts that WordNet's makers tagged."""
    parts = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
    counts: dict[tuple[str, str], dict[int, int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, number = line.split()
        word, rest = key.split("%")
        kind, lexfile = rest.split(":")[:2]
        files = counts.setdefault((word.replace("_", " "), parts[kind]), {})
        files[int(lexfile)] = files.get(int(lexfile), 0) + int(number)
    return counts
