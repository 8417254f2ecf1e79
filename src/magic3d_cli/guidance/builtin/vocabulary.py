"""What a prompt says: words the built-in prior knows, and a caption made of them. No tensors here.

The built-in prior reads a closed vocabulary, so a prompt is understood completely or refused with the nearest
known words; nothing a person typed is dropped in silence.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from magic3d_cli.errors import EnvironmentFault, UsageError

FILLERS = frozenset(
    {"a", "an", "the", "of", "in", "from", "with", "made", "out", "one", "single", "some", "this", "my"}
    | {"photo", "picture", "image", "render", "rendering", "3d", "model", "object", "asset"}
    | {"colour", "color", "coloured", "colored"}
)
"""Words that say nothing about the object itself: articles, prepositions, "a 3d model of"."""

_RELATED = {
    "puppy": "dog", "hound": "dog", "kitten": "cat", "kitty": "cat", "stallion": "horse", "mare": "horse",
    "unicorn": "horse", "pegasus": "horse", "calf": "cow", "piglet": "pig", "warthog": "boar", "mammoth": "elephant",
    "dinosaur": "dragon", "wyvern": "dragon", "drake": "dragon", "lizard": "crocodile", "vehicle": "car",
    "taxi": "car", "jeep": "suv", "tank": "siege tower", "jet": "airplane", "aircraft": "airplane",
    "helicopter": "airplane", "spaceship": "rocket", "zeppelin": "airship", "yacht": "sailboat", "kayak": "canoe",
    "seat": "chair", "pouffe": "bean bag", "cupboard": "wardrobe", "cabinet": "dresser", "bookcase": "bookshelf",
    "mansion": "house", "cabin": "cottage", "church": "temple", "skyscraper": "tower", "fort": "castle",
    "ninja": "swordsman", "samurai": "swordsman", "elf": "witch", "monster": "ogre", "zombie": "mummy",
    "devil": "demon", "cyborg": "robot", "queen": "princess", "king": "pharaoh", "person": "man",
    "flower": "tulips", "rose": "tulips", "maple": "tree", "birch": "tree", "bag": "handbag", "bird": "crow",
    "eagle": "hawk", "duck": "rooster", "goose": "rooster", "turkey": "rooster", "penguin": "seagull",
    "owl": "hawk", "parrot": "peacock", "panther": "tiger", "leopard": "tiger", "cheetah": "tiger",
    "jaguar": "tiger", "moose": "deer", "reindeer": "deer", "elk": "deer", "dolphin": "whale", "orca": "whale",
    "salmon": "fish", "worm": "snake", "cobra": "snake", "monkey": "bear", "gorilla": "ogre", "panda": "bear",
    "koala": "teddy bear", "mouse": "rabbit", "hamster": "rabbit", "pizza": "hamburger", "sandwich": "hamburger",
    "cookie": "donut", "pie": "cake", "apple": "fruit bowl", "wine": "wine bottle", "beer": "beer bottle",
    "sword": "dagger", "blade": "knife", "gun": "drill", "shield": "knight", "ring": "torus", "box": "crate",
    "piano": "upright piano", "violin": "electric guitar", "drum": "barrel", "watering can": "jug",
    "brass": "gold", "porcelain": "clay", "brick": "clay", "oak": "wood", "bamboo": "wood", "aluminium": "metal",
    "aluminum": "metal", "titanium": "metal", "rubber": "plastic", "lego": "plastic", "ruby": "glass",
    "sapphire": "glass", "khaki": "beige", "olive": "green", "indigo": "navy", "lavender": "purple",
}  # fmt: skip
"""Words people type, and what they could mean; offered as suggestions only, never substituted."""


@dataclass(frozen=True)
class Caption:
    """What the built-in prior is asked for; `text` is the canonical form it was trained on."""

    noun: str
    colour: str | None = None
    material: str | None = None
    style: str | None = None  # one training model of the noun, for example "<car-0>"

    @property
    def text(self) -> str:
        """Tokens in order colour, material, noun, style; the words of a name are joined by underscores."""
        words = [self.colour, self.material, self.noun]
        return " ".join([w.replace(" ", "_") for w in words if w] + ([self.style] if self.style else []))


@dataclass(frozen=True)
class _Match:
    """A phrase of the prompt and everything it may mean, as (role, name)."""

    phrase: str
    meanings: tuple[tuple[str, str], ...]

    def means(self, role: str) -> str | None:
        return next((name for r, name in self.meanings if r == role), None)

    @property
    def only_noun(self) -> bool:
        return {role for role, _ in self.meanings} == {"noun"}


@dataclass(frozen=True)
class Vocabulary:
    """The words of a closed-vocabulary prior: phrases -> names, and the styles of each noun."""

    nouns: dict[str, tuple[str, ...]]  # name -> phrases that mean it
    colours: dict[str, tuple[str, ...]]
    materials: dict[str, tuple[str, ...]]
    styles: dict[str, tuple[str, ...]]  # noun -> style tokens, the best first

    @staticmethod
    def load(path: Path) -> Vocabulary:
        """Read `vocabulary.json`. Raises EnvironmentFault when it is missing or malformed."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return Vocabulary(
                nouns={name: (name, *entry["words"]) for name, entry in data["nouns"].items()},
                colours={name: (name, *words) for name, words in data["colours"].items()},
                materials={name: (name, *words) for name, words in data["materials"].items()},
                styles={name: tuple(entry.get("styles", ())) for name, entry in data["nouns"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EnvironmentFault(
                f"The prior's word list {path} cannot be read: {error}.",
                "Reinstall magic3d, or check --prior.",
            ) from error

    def parse(self, prompt: str, seed: int = 0) -> Caption:
        """The caption that a prompt means; `seed` picks the style of the noun, 0 the first one.

        Phrases are matched longest first ("teddy bear" before "bear"). A word that is both noun and modifier
        ("orange") is a modifier wherever another noun is left. Raises UsageError for an empty prompt, for
        unknown words (naming the nearest known ones) and for more than one object, colour or material.
        """
        words = [_singular(word, self._words) for word in _split(prompt)]
        if not words:
            raise UsageError("The prompt is empty.", 'Say what to make: magic3d generate "a metal dragon".')
        matches, unknown = self._match(words)
        if unknown:
            raise self._unknown(prompt, unknown)
        head = self._head(prompt, matches)
        rest = [m for m in matches if m is not head]
        extra = [m for m in rest if m.only_noun]
        if extra:
            raise UsageError(
                f"{prompt!r} names more than one object: {head.phrase!r} and {extra[0].phrase!r}.",
                f'Ask for one object at a time, for example "{_article(head.phrase)}".',
            )
        noun = head.means("noun") or ""
        colour = self._modifier(prompt, noun, "colour", [m for m in rest if m.means("colour")])
        material = self._modifier(prompt, noun, "material", [m for m in rest if not m.means("colour")])
        styles = self.styles.get(noun, ())
        return Caption(noun, colour, material, styles[seed % len(styles)] if styles else None)

    @property
    def _phrases(self) -> dict[str, tuple[tuple[str, str], ...]]:
        table: dict[str, tuple[tuple[str, str], ...]] = {}
        for role, group in (("noun", self.nouns), ("colour", self.colours), ("material", self.materials)):
            for name, phrases in group.items():
                for phrase in phrases:
                    key = " ".join(_split(phrase))
                    if (role, name) not in table.get(key, ()):
                        table[key] = (*table.get(key, ()), (role, name))
        return table

    @property
    def _words(self) -> set[str]:
        return {word for phrase in self._phrases for word in phrase.split()}

    def _match(self, words: list[str]) -> tuple[list[_Match], list[str]]:
        """Longest-match scan: matched phrases in order, and the words left over that are no fillers."""
        table = self._phrases
        longest = max(len(phrase.split()) for phrase in table)
        matches, unknown, at = [], [], 0
        while at < len(words):
            for length in range(min(longest, len(words) - at), 0, -1):
                phrase = " ".join(words[at : at + length])
                if phrase in table:
                    matches.append(_Match(phrase, table[phrase]))
                    at += length
                    break
            else:
                if words[at] not in FILLERS:
                    unknown.append(words[at])
                at += 1
        return matches, unknown

    def _head(self, prompt: str, matches: list[_Match]) -> _Match:
        """The phrase that names the object: the last pure noun, or else the last that can be a noun."""
        candidates = [m for m in matches if m.only_noun] or [m for m in matches if m.means("noun")]
        if not candidates:
            raise UsageError(
                f"{prompt!r} names no object.",
                f'Add one of the {len(self.nouns)} known objects, for example "{_article(_example(prompt, self))}".',
            )
        return candidates[-1]

    def _modifier(self, prompt: str, noun: str, role: str, found: list[_Match]) -> str | None:
        names = list(dict.fromkeys(m.means(role) for m in found))
        if len(names) > 1:
            raise UsageError(
                f"{prompt!r} asks for more than one {role}: {' and '.join(m.phrase for m in found)}.",
                f'The built-in prior takes one, for example "{_article(f"{names[0]} {noun}")}"; '
                "an open-vocabulary prior (--prior sd15) takes any prompt.",
            )
        return names[0] if names else None

    def _unknown(self, prompt: str, unknown: list[str]) -> UsageError:
        hints = []
        for word in unknown:
            near = list(self._nearest(word))
            hints.append(f"{word!r}" + (f" (nearest: {', '.join(near)})" if near else ""))
        return UsageError(
            f"The built-in prior does not know {', '.join(hints)}.",
            f"It knows {len(self.nouns)} objects ({', '.join(list(self.nouns)[:8])}, ...), "
            f"{len(self.colours)} colours and {len(self.materials)} materials ({', '.join(self.materials)}). "
            "Use those words, or an open-vocabulary prior: "
            f"magic3d generate {shlex.quote(prompt)} --prior sd15",
        )

    def _nearest(self, word: str) -> Iterator[str]:
        """At most three known phrases that a person may have meant."""
        table = self._phrases
        near = [_RELATED[word]] if _RELATED.get(word) in table else []
        near += difflib.get_close_matches(word, table, n=3, cutoff=0.65)
        near += [p for p in table if word in p.split() or (len(word) > 3 and word in p)]
        yield from list(dict.fromkeys(near))[:3]


def _split(text: str) -> list[str]:
    """Words in lower case: runs of letters and digits of any script, so that none is dropped or cut in silence."""
    return re.findall(r"(?:[^\W_]|')+", text.lower())


def _singular(word: str, known: set[str]) -> str:
    """The word itself, or its singular when only that is known ("cars", "boxes")."""
    if word in known:
        return word
    forms = [word[: -len(end)] + new for end, new in (("s", ""), ("es", ""), ("ies", "y"), ("'s", ""))
             if word.endswith(end)]  # fmt: skip
    return next((form for form in forms if form in known), word)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[:1] in 'aeiou' else 'a'} {phrase}"


def _example(prompt: str, vocabulary: Vocabulary) -> str:
    noun = "dragon" if "dragon" in vocabulary.nouns else next(iter(vocabulary.nouns))
    words = [w for w in prompt.lower().split() if w not in FILLERS]
    return " ".join([*words, noun])
