"""Writes the built-in prior's `words.json`: what people call things, mapped to the nouns that it can draw.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb data
    python words.py data            # after any change of manifest.tsv or words.tsv

The mapping follows WordNet: a word is drawn as the nearest thing above it that is a noun of the manifest ("corgi" is a
dog). Where that is no fair drawing, `words.tsv` says so, by rules that hold for nouns yet to come as well:

    sense   NOUN    SENSE   the meaning of a word where its usual one is not meant ("seal:pinniped mammal"), "-": none
    class   SENSE   NOUNS   what is of this kind is drawn as the first of these nouns that exists; none of them, or "-":
                            as nothing, whatever stands above it (a penguin is no crow)
    word    WORDS   NOUNS   the same for one phrase, before WordNet is asked
    hint    WORDS   NOUN    offered when a prompt is refused, never drawn
    look    WORDS   NAME    a colour or material by another name
    plain   -       WORDS   words that WordNet lacks and that name no object

Kinds of people are only those of the rules: WordNet's hold many slurs, for which nothing is offered either.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import manifest
from paint import COLOURS, MATERIALS
from wordnet import Sense, WordNet

from magic3d_cli.guidance.builtin.vocabulary import Vocabulary, split
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

SHIPPED = Vocabulary.load(BUILTIN / "vocabulary.json").nouns
NOUNS = [noun for noun in manifest.NOUNS if noun.name in SHIPPED]
"""Of the manifest, those that the prior was given models of."""
RULES = Path(__file__).with_name("words.tsv")
TOO_GENERAL = 80
"""Kinds below a class from which on two of its members have too little in common for a hint (mammals, devices)."""
FARTHEST = 3
"""Steps in WordNet from an unknown thing to a known one that is offered instead."""
PERSON, PLANT, ANIMAL, FOOD = 18, 20, 5, 13  # lexicographer files
TAXA = ("genus ", "family ", "order ", "class ", "phylum ", "division ", "suborder ", "subfamily ", "superfamily ",
        "tribe ", "subclass ", "kingdom ", "subphylum ", "superorder ", "subgenus ")  # fmt: skip


@dataclass
class Rules:
    """`words.tsv`, with phrases as `split` reads them."""

    sense: dict[str, str] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    word: dict[str, list[str]] = field(default_factory=dict)
    hint: dict[str, str] = field(default_factory=dict)
    look: dict[str, str] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)

    @staticmethod
    def read(path: Path) -> Rules:
        rules = Rules()
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                rule, what, means = row["rule"], row["what"], row["means"]
                if rule == "class":
                    rules.classes[what] = means.split(", ")
                elif rule == "word":
                    rules.word[_key(what)] = means.split(", ")
                elif rule == "plain":
                    rules.plain |= set(means.split())
                else:
                    getattr(rules, rule)[_key(what)] = means
        return rules


class Words:
    """Maps phrases to nouns of the manifest."""

    def __init__(self, wordnet: WordNet, rules: Rules) -> None:
        self.wordnet, self.rules = wordnet, rules
        self.names = {noun.name for noun in NOUNS}
        self.known = {_key(phrase): noun.name for noun in NOUNS for phrase in (noun.name, *noun.words)}
        self.modifiers = {_key(w) for words, _ in COLOURS.values() for w in words}
        self.modifiers |= {_key(w) for words in MATERIALS.values() for w in words}
        self.own = {name: sense for name in sorted(self.names) if (sense := self._sense_of_noun(name))}
        self.anchors: dict[int, str | None] = {}
        for name, sense in self.own.items():
            if sense.lexfile != PERSON:
                self.anchors.setdefault(sense.offset, name)
        for what, prefer in rules.classes.items():
            offset, noun = wordnet.find(what).offset, self._first(prefer)
            self.anchors[offset] = noun or self.anchors.get(offset)
        self._near = self._nearest_below()

    def _first(self, prefer: Iterable[str]) -> str | None:
        return next((name for name in prefer if name in self.names), None)

    def _sense_of_noun(self, name: str) -> Sense | None:
        """What a noun of the manifest means: by rule, or its first sense that has a shape; things before people."""
        if rule := self.rules.sense.get(_key(name)):
            return None if rule == "-" else self.wordnet.find(rule)
        senses = [sense for sense in self.wordnet.meanings(name) if sense.solid]
        return min(senses, key=lambda sense: sense.lexfile == PERSON, default=None)

    def sense_of_word(self, word: str) -> Sense | None:
        """What a person means by a word that is no noun of the manifest; None: nothing that has a shape."""
        if rule := self.rules.sense.get(_key(word)):
            return None if rule == "-" else self.wordnet.find(rule)
        meanings = self.wordnet.meanings(word)
        solid = [sense for sense in meanings if sense.solid]
        if not solid or not self._mostly_noun(word):
            return None
        if solid[0] is not meanings[0] and 3 * self.wordnet.count(word, solid=True) < max(self.wordnet.count(word), 1):
            return None
        if solid[0].lexfile == PLANT:  # a blueberry is the fruit, not the shrub
            return next((sense for sense in solid if sense.lexfile == FOOD), solid[0])
        return solid[0]

    def _mostly_noun(self, word: str) -> bool:
        """Whether a word is a noun more often than an adjective, adverb or verb ("light", "cold", "run" are not)."""
        if " " in word or word not in self.wordnet.nouns:
            return word in self.wordnet.nouns
        others = {part: self.wordnet.count(word, part) for part, index in self.wordnet.others.items() if word in index}
        noun = self.wordnet.count(word)
        return noun > max(others.values(), default=-1) or (noun == 0 and others == {"verb": 0})

    def _mostly_verb(self, word: str) -> bool:
        counts = {part: self.wordnet.count(word, part) for part in ("verb", "noun", "adj", "adv")}
        return word in self.wordnet.others["verb"] and counts["verb"] >= max(counts.values())

    def drawn_as(self, word: str) -> str | None:
        """The noun that is a fair drawing of a word, or None."""
        if (rule := self.rules.word.get(_key(word))) is not None:
            return self._first(rule)
        sense = self.sense_of_word(word)
        noun = self.drawn_as_sense(sense) if sense else None
        # Where nobody counted which meaning is the usual one, all have to agree: "wing nut" is a tree, too.
        settled = _key(word) in self.rules.sense or self.wordnet.count(word, solid=True)
        meant = {noun} if settled else {self.drawn_as_sense(s) for s in self.wordnet.meanings(word) if s.solid}
        return noun if meant == {noun} else None

    def drawn_as_sense(self, sense: Sense) -> str | None:
        """The noun of the nearest class above a sense that is one or has a rule."""
        if sense.lexfile == PERSON:
            return None
        return next((self.anchors[s.offset] for _, s in self.wordnet.above(sense) if s.offset in self.anchors), None)

    def means_just(self, word: str, noun: str) -> bool:
        """Whether a word is another name of the very noun, not a kind of it."""
        return noun in self.own and _key(word) in {_key(w) for w in self.own[noun].words}

    def near(self, word: str) -> str | None:
        """A noun to offer instead of a word that cannot be drawn, near in meaning, or None."""
        if (rule := self.rules.hint.get(_key(word))) is not None:
            return rule if rule in self.names else None
        sense = self.sense_of_word(word)
        if sense is None:
            return None
        if sense.lexfile == PERSON:
            offered = "man" in self.names and " " not in word and not sense.named
            return "man" if offered and not any(s.insult for s in self.wordnet.meanings(word)) else None
        found = [
            (up + down, -self.wordnet.count(name), name)
            for up, above in self.wordnet.above(sense)
            for down, name in self._near.get(above.offset, ())
            if up + down <= FARTHEST
        ]
        return min(found)[2] if found else None

    def _nearest_below(self) -> dict[int, list[tuple[int, str]]]:
        """Class -> its nearest nouns of the manifest, where the class is not too general."""
        below: dict[int, list[tuple[int, str]]] = {}
        for name, sense in self.own.items():
            if sense.lexfile == PERSON:
                continue
            for distance, above in self.wordnet.above(sense):
                below.setdefault(above.offset, []).append((distance, name))
        sizes: dict[int, int] = {}
        for sense in self.wordnet.senses.values():
            for _, above in self.wordnet.above(sense):
                if above.offset in below:
                    sizes[above.offset] = sizes.get(above.offset, 0) + 1
        return {
            offset: [entry for entry in names if entry[0] == min(names)[0]]
            for offset, names in below.items()
            if sizes[offset] < TOO_GENERAL
        }

    def table(self) -> dict[str, dict[str, str]]:
        """What `words.json` holds; see `magic3d_cli.guidance.builtin.lexicon`."""
        same: dict[str, list[str]] = {}
        kinds: dict[str, list[str]] = {}
        near: dict[str, list[str]] = {}
        things: set[str] = set()
        nouns: set[str] = set()
        for word in sorted({*self.wordnet.nouns, *self.rules.word, *self.rules.hint}):
            phrase = _key(word)
            if not _plain(phrase) or self._is_name(word) or (phrase in self.modifiers and not self._ruled(phrase)):
                continue
            if phrase in self.rules.plain:
                continue
            if phrase in self.known:
                if self.means_just(word, self.known[phrase]) and phrase != _key(self.known[phrase]):
                    same.setdefault(self.known[phrase], []).append(phrase)
            elif self._is_modified_noun(phrase):
                continue
            elif noun := self.drawn_as(word):
                (same if self.means_just(word, noun) else kinds).setdefault(noun, []).append(phrase)
            elif noun := self.near(word):
                near.setdefault(noun, []).append(phrase)
            elif phrase in self.rules.word or self._hides(phrase, word):
                things.add(phrase)
            elif " " not in phrase and self._mostly_noun(word):
                (things if self.sense_of_word(word) else nouns).add(phrase)
        placed = things.union(nouns, *(words for group in (same, kinds, near) for words in group.values()))
        every = {*self.wordnet.nouns, *(word for index in self.wordnet.others.values() for word in index)}
        others = {_key(word) for word in every if " " not in _key(word)} | self.rules.plain
        others = {w for w in others if w.isascii() and len(w) > 1} - placed - self.known.keys() - self.modifiers
        verbs = {w for w in others if self._mostly_verb(w)} | self.wordnet.verb_forms - placed - self.known.keys()
        verbs = {word for word in verbs if " " not in word and word.isascii()}
        looks: dict[str, list[str]] = {}
        for phrase, name in self.rules.look.items():
            looks.setdefault(name, []).append(phrase)
        groups = {"same": same, "kinds": kinds, "near": near, "looks": looks}
        lists = {"things": things, "nouns": nouns, "verbs": verbs, "others": others - verbs}
        groups |= {key: _by_letter(words) for key, words in lists.items()}
        return {
            key: {name: ", ".join(sorted(set(words))) for name, words in sorted(group.items())}
            for key, group in groups.items()
        }

    def _is_name(self, word: str) -> bool:
        """Names of science ("canis lupus", "genus canis") and of short letters ("SAM"), which few people type."""
        if word in self.rules.word or word in self.rules.hint:
            return False
        senses = self.wordnet.meanings(word)
        living = " " in word and all(sense.lexfile in (PLANT, ANIMAL) for sense in senses)
        latin = living and not self._is_word(word.split()[-1])
        return latin or word.startswith(TAXA) or any(word.upper() in s.spelt and len(word) < 5 for s in senses)

    def _is_word(self, word: str) -> bool:
        return any(
            word.removesuffix(end) in index
            for end in ("", "s")
            for index in (self.wordnet.nouns, *self.wordnet.others.values())
        )

    def _hides(self, phrase: str, word: str) -> bool:
        """Whether a phrase must be known so that its last word is not drawn: "guinea pig", "prairie dog"."""
        last = phrase.split()[-1]
        if " " not in phrase or not (last in self.known or self.drawn_as(last)):
            return False
        solid = [sense for sense in self.wordnet.meanings(word) if sense.solid]
        if not solid or any(sense.lexfile == PERSON for sense in solid):
            return False
        return not any(last in above.words for sense in solid for _, above in self.wordnet.above(sense))

    def _ruled(self, phrase: str) -> bool:
        return self._first(self.rules.word.get(phrase, ())) is not None

    def _is_modified_noun(self, phrase: str) -> bool:
        """ "blue whale", "black bear": a colour or material and a noun of the manifest, which need no entry."""
        first, _, rest = phrase.partition(" ")
        return first in self.modifiers and rest in self.known and phrase not in self.rules.word


def _by_letter(words: Iterable[str]) -> dict[str, list[str]]:
    """Words under their first letters, which are lines of the file: a change shows as a line, not as all of it."""
    lines: dict[str, list[str]] = {}
    for word in words:
        lines.setdefault(word[:2].strip(), []).append(word)
    return lines


def _key(phrase: str) -> str:
    return " ".join(split(phrase))


def _plain(phrase: str) -> bool:
    return phrase.isascii() and 1 < len(phrase) <= 40 and phrase.count(" ") < 4 and not phrase[0].isdigit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that wordnet-base was unpacked into")
    parser.add_argument("-o", "--output", type=Path, help="default: beside the shipped vocabulary.json")
    args = parser.parse_args()
    if args.output is None:
        args.output = BUILTIN / "words.json"
    words = Words(WordNet(args.data), Rules.read(RULES))
    args.output.write_text(json.dumps(words.table(), indent=0) + "\n", encoding="utf-8")
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
