"""The closed vocabulary of the built-in prior, and the caption that a prompt in its own words means. No tensors here.

Here a prompt is understood completely or refused; `understanding` also reads prompts in other words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from magic3d_cli.checks import parse_json
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.builtin.lexicon import Lexicon

FILLERS = frozenset(
    {"a", "an", "the", "of", "in", "from", "with", "made", "out", "one", "single", "some", "this", "my"}
    | {"photo", "picture", "image", "render", "rendering", "3d", "model", "object", "asset"}
    | {"colour", "color", "coloured", "colored"}
)
"""Words that say nothing about the object itself: articles, prepositions, "a 3d model of"."""


@dataclass(frozen=True)
class Caption:
    """What the built-in prior is asked for; `text` is the canonical form it was trained on."""

    noun: str
    colour: str | None = None
    material: str | None = None
    style: str | None = None  # one training model of the noun, for example "<car-0>", or a mixture: "<car-0> <car-1>"
    metres: float | None = None  # its usual longest side
    others: tuple[Placed, ...] = ()  # further things of the same scene
    stands: str | None = None  # the known noun whose place a person's own thing takes

    @property
    def text(self) -> str:
        """Tokens in order colour, material, noun, style; the words of a name are joined by underscores.

        Of several things it names the first alone, without its paint: their common volume is painted already.
        """
        noun = self.stands or self.noun
        words = [noun] if self.others else [self.colour, self.material, noun]
        return " ".join([w.replace(" ", "_") for w in words if w] + ([self.style] if self.style else []))


@dataclass(frozen=True)
class Placed:
    """A further thing, and how all things before it stand to it: they are "on" it, "next to" it, ..."""

    relation: str  # as `arrangement.place` takes it
    caption: Caption


@dataclass(frozen=True)
class Match:
    """A phrase of the prompt and everything it may mean, as (role, name)."""

    phrase: str
    meanings: tuple[tuple[str, str], ...]

    def means(self, role: str) -> str | None:
        """The name it has in a role ("noun", "colour", "material"), or None."""
        return next((name for r, name in self.meanings if r == role), None)

    @property
    def only_noun(self) -> bool:
        """Whether it can be nothing but an object."""
        return {role for role, _ in self.meanings} == {"noun"}


@dataclass(frozen=True)
class Vocabulary:
    """The words of a closed-vocabulary prior: phrases -> names, and the styles of each noun."""

    nouns: dict[str, tuple[str, ...]]  # name -> phrases that mean it
    colours: dict[str, tuple[str, ...]]
    materials: dict[str, tuple[str, ...]]
    styles: dict[str, tuple[str, ...]]  # noun -> style tokens, the best first
    metres: dict[str, float] = field(default_factory=dict)  # noun -> usual longest side
    lexicon: Lexicon = field(default_factory=Lexicon)  # other words for them
    own: dict[str, str] = field(default_factory=dict)  # a person's own things -> the known noun whose place each takes

    @staticmethod
    def load(path: Path) -> Vocabulary:
        """Read `vocabulary.json`, and `words.json` beside it. Raises EnvironmentFault when missing or malformed."""
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            return Vocabulary(
                nouns={name: (name, *entry["words"]) for name, entry in data["nouns"].items()},
                colours={name: (name, *words) for name, words in data["colours"].items()},
                materials={name: (name, *words) for name, words in data["materials"].items()},
                styles={name: tuple(entry.get("styles", ())) for name, entry in data["nouns"].items()},
                metres={name: float(entry["metres"]) for name, entry in data["nouns"].items() if "metres" in entry},
                lexicon=Lexicon.load(path.with_name("words.json")),
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
        unknown words and for more than one object, colour or material.
        """
        return self.read(prompt, seed)[0]

    def read(self, prompt: str, seed: int = 0) -> tuple[Caption, list[Match]]:
        """As `parse`; also the phrases that were matched, the one that names the object first."""
        words = [_singular(word, self._words) for word in split(check(prompt))]
        matches, unknown = self._match(words)
        if unknown:
            first = ", ".join(quoted(word) for word in unknown[:3])
            more = f" and {len(unknown) - 3} more words" if len(unknown) > 3 else ""
            raise UsageError(
                f"The built-in prior does not know {first}{more}.",
                "Its words: magic3d priors --words. An open-vocabulary prior (--prior sd15) takes any prompt.",
            )
        head = self._head(prompt, matches)
        rest = [m for m in matches if m is not head]
        extra = [m for m in rest if m.only_noun]
        if extra:
            raise UsageError(
                f"{quoted(prompt)} names more than one object: {head.phrase} and {extra[0].phrase}.",
                f'Ask for one object at a time, for example "{article(head.phrase)}".',
            )
        noun = head.means("noun") or ""
        colour = self._modifier(prompt, noun, "colour", [m for m in rest if m.means("colour")])
        material = self._modifier(prompt, noun, "material", [m for m in rest if not m.means("colour")])
        return self.caption(noun, colour, material, seed), [head, *rest]

    def caption(self, noun: str, colour: str | None = None, material: str | None = None, seed: int = 0) -> Caption:
        """The caption of names of this vocabulary, with the noun's style for a seed."""
        style = _style(self.styles.get(noun, ()), seed)
        return Caption(noun, colour, material, style, self.metres.get(noun), stands=self.own.get(noun))

    def taught(self, word: str, noun: str, style: str | None) -> Vocabulary:
        """The same with a word for a thing of a person's own, which takes the place of a known one's `style`."""
        metres = {word: self.metres[noun]} if noun in self.metres else {}
        return replace(
            self,
            nouns={**self.nouns, word: (word,)},
            styles={**self.styles, word: (style,) if style else ()},
            metres={**self.metres, **metres},
            own={**self.own, word: noun},
        )

    @cached_property
    def phrases(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Phrase -> everything it may mean, as (role, name)."""
        table: dict[str, tuple[tuple[str, str], ...]] = {}
        for role, group in (("noun", self.nouns), ("colour", self.colours), ("material", self.materials)):
            for name, phrases in group.items():
                for phrase in phrases:
                    key = " ".join(split(phrase))
                    if (role, name) not in table.get(key, ()):
                        table[key] = (*table.get(key, ()), (role, name))
        return table

    @cached_property
    def single_words(self) -> frozenset[str]:
        """Phrases of one word."""
        return frozenset(phrase for phrase in self.phrases if " " not in phrase)

    @cached_property
    def _words(self) -> set[str]:
        return {word for phrase in self.phrases for word in phrase.split()}

    @cached_property
    def _longest(self) -> int:
        return max(len(phrase.split()) for phrase in self.phrases)

    def _match(self, words: list[str]) -> tuple[list[Match], list[str]]:
        """Longest-match scan: matched phrases in order, and the words left over that are no fillers."""
        matches, unknown, at = [], [], 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                phrase = " ".join(words[at : at + length])
                if phrase in self.phrases:
                    matches.append(Match(phrase, self.phrases[phrase]))
                    at += length
                    break
            else:
                if words[at] not in FILLERS:
                    unknown.append(words[at])
                at += 1
        return matches, unknown

    def _head(self, prompt: str, matches: list[Match]) -> Match:
        """The phrase that names the object: the last pure noun, or else the last that can be a noun."""
        candidates = [m for m in matches if m.only_noun] or [m for m in matches if m.means("noun")]
        if not candidates:
            example = "dragon" if "dragon" in self.nouns else next(iter(self.nouns))
            words = [m.phrase for m in matches[:2]]
            raise UsageError(
                f"{quoted(prompt)} names no object.",
                f"Add one of the {len(self.nouns)} known objects, for example "
                f'"{article(" ".join([*words, example]))}".',
            )
        return candidates[-1]

    def _modifier(self, prompt: str, noun: str, role: str, found: list[Match]) -> str | None:
        names = list(dict.fromkeys(m.means(role) for m in found))
        if len(names) > 1:
            raise UsageError(
                f"{quoted(prompt)} asks for more than one {role}: {' and '.join(m.phrase for m in found[:3])}.",
                f'The built-in prior takes one, for example "{article(f"{names[0]} {noun}")}"; '
                "an open-vocabulary prior (--prior sd15) takes any prompt.",
            )
        return names[0] if names else None


def check(prompt: str) -> str:
    """The prompt itself. Raises UsageError when it is empty, or holds bytes that are no text."""
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise UsageError(
            "The prompt holds bytes that are not UTF-8 text.", "Type it again, or check the terminal's encoding."
        )
    if not re.search(r"[^\W_]", prompt):
        raise UsageError(
            "The prompt is empty: it holds no words.", 'Say what to make: magic3d generate "a metal dragon".'
        )
    return prompt


def quoted(text: str, limit: int = 60) -> str:
    """A piece of a prompt in quotes for a message: short, and without characters that a terminal would obey."""
    seen = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * limit])
    seen = " ".join(seen.split())
    return f'"{seen[:limit].rstrip()}..."' if len(seen) > limit or len(text) > 4 * limit else f'"{seen}"'


def split(text: str) -> list[str]:
    """Words in lower case: runs of letters and digits of any script, so that none is dropped or cut in silence."""
    return re.findall(r"(?:[^\W_]|')+", text.lower())


def article(phrase: str) -> str:
    """A phrase with "a" or "an" before it, unless it is a plural ("red scissors")."""
    if phrase.endswith("s") and not phrase.endswith(("ss", "us", "is")):
        return phrase
    vowel = phrase.startswith(("a", "e", "i", "o", "u")) and not phrase.startswith(("uni", "uri", "uku", "ufo", "eu"))
    return f"{'an' if vowel else 'a'} {phrase}"


def _style(styles: tuple[str, ...], seed: int) -> str | None:
    """Seeds go through the styles first, the best first, and then through mixtures of two, each the first once."""
    if len(styles) < 2:
        return styles[0] if styles else None
    count = len(styles)
    turn, place = divmod(seed % (count * count), count)
    return styles[place] if turn == 0 else f"{styles[place]} {styles[(place + turn) % count]}"


def _singular(word: str, known: set[str]) -> str:
    """The word itself, or its singular when only that is known ("cars", "boxes")."""
    if word in known:
        return word
    forms = [word[: -len(end)] + new for end, new in (("s", ""), ("es", ""), ("ies", "y"), ("'s", ""))
             if word.endswith(end)]  # fmt: skip
    return next((form for form in forms if form in known), word)
