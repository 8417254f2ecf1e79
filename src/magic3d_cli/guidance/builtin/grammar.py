"""How a prompt is put together: its words, what each may be, and the clauses they form. No tensors here.

Not a grammar of English: prompts are noun phrases, so a clause is cut wherever a preposition, a verb, "and" or a comma
follows an object, and the first clause with an object says what to draw.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from magic3d_cli.guidance.builtin.lexicon import correct, singulars
from magic3d_cli.guidance.builtin.vocabulary import FILLERS, Vocabulary, split

MOST_WORDS, MOST_LETTERS = 200, 2000
"""How much of a prompt is read; what follows is left out."""
MOST_CORRECTED = 8
"""Words of a prompt in which slips of spelling are looked for, which takes about a millisecond each."""

SILENT = FILLERS - {"of", "in", "from", "with", "out", "made"} | {
    "i", "i'd", "i'm", "me", "my", "we", "us", "our", "you", "your", "he", "his", "she", "her", "it", "it's",
    "its", "they", "their", "there", "here", "please", "make", "create", "generate", "draw", "show", "give",
    "get", "build", "design", "need", "want", "would", "could", "can", "will", "is", "are", "was", "were", "be",
    "been", "being", "am", "do", "does", "just", "very", "really", "quite", "so", "too", "also", "only", "any",
    "every", "each", "that's", "these", "those", "thanks", "thank", "hello", "hi", "let", "let's", "kind", "type",
    "sort",
}  # fmt: skip
"""Words that are dropped without being mentioned: they ask for nothing that could be seen."""

ARTICLES = ("a", "an", "the")

RELATIONS = {
    "on": "on", "on top of": "on", "upon": "on", "atop": "on", "onto": "on", "on top": "on",
    "under": "under", "underneath": "under", "beneath": "under", "below": "under",
    "next to": "next to", "beside": "next to", "by": "next to", "near": "next to", "alongside": "next to",
    "close to": "next to", "at": "next to", "against": "next to",
    "in front of": "in front of", "behind": "behind", "over": "over", "above": "over",
    "and": "and", "plus": "and", "together with": "and", "along with": "and", "or": "and", "followed by": "and",
    "with": "with", "has": "with", "have": "with", "having": "with", "featuring": "with", "including": "with",
    "full of": "with", "filled with": "with", "covered in": "with", "covered with": "with", "w": "with",
    "wearing": "wearing", "dressed in": "wearing", "dressed as": "wearing",
    "holding": "holding", "carrying": "holding", "wielding": "holding", "riding": "riding", "riding on": "riding",
    "in": "in", "inside": "in", "within": "in", "into": "in", "of": "of", "from": "from", "for": "for", "to": "to",
    "made of": "made of", "made out of": "made of", "made from": "made of", "made in": "made of", "out of": "made of",
    "built of": "made of", "built from": "made of", "carved from": "made of", "carved out of": "made of",
    "carved in": "made of", "crafted from": "made of", "cast in": "made of", "built out of": "made of",
    "painted": "made of", "painted in": "made of", "coloured in": "made of",
    "in the shape of": "shaped like", "in shape of": "shaped like", "in the form of": "shaped like",
    "shaped like": "shaped like", "shaped as": "shaped like", "that looks like": "shaped like",
    "looks like": "shaped like", "looking like": "shaped like", "in the shape of a": "shaped like",
    "in the style of": "like", "style of": "like", "inspired by": "like", "like": "like", "as": "like",
    "without": "without", "no": "without", "not": "without", "except": "without", "minus": "without",
    "that": "that", "which": "that", "who": "that", "whose": "with", "while": "while", "during": "while",
    "but": "that", "between": "next to", "around": "next to", "through": "in", "across": "on", "along": "next to",
}  # fmt: skip
"""Words between two things, and what is made of them."""

NUMBERS = frozenset({
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty", "hundred",
    "thousand", "several", "many", "few", "dozen", "couple", "both",
})  # fmt: skip

_TOKEN = re.compile(
    r"\d+\.\d+|[^\W_]+-(?:[^\W_]+(?:ed|ing)|drawn|eaten|made|like)\b"  # "horse-drawn" is one word
    r"|(?:[^\W_]|')+|[,;:.|()\[\]\n/]"
)
_LONGEST = 5


@dataclass(frozen=True)
class Item:
    """A phrase of the prompt and what it may be."""

    typed: str
    noun: str | None = None  # the name it is drawn as
    phrase: str = ""  # the known phrase it was read as
    thing: bool = False  # a noun, whether it can be drawn or not
    solid: bool = False  # the noun of something that has a shape
    look: tuple[str, str] | None = None  # ("colour" or "material", name)
    same_noun: bool = False  # it means just that noun: nothing to say
    same_look: bool = False
    possessive: bool = False
    corrected: str | None = None  # the spelling it was read as
    verb: bool = False
    silent: bool = False
    relation: str | None = None

    @property
    def both(self) -> bool:
        """Whether it can be an object and a look: "orange", "glass"."""
        return self.look is not None and self.thing


@dataclass
class Clause:
    """Phrases up to the next relation, and the relation to what stands before: "", "on", "with", ..."""

    relation: str
    typed: str  # the relation as it was written
    items: list[Item] = field(default_factory=list)

    @property
    def text(self) -> str:
        """As it was written; without a relation, from the first word that says something."""
        items = self.items if self.typed else itertools.dropwhile(lambda item: item.silent, self.items)
        return " ".join([self.typed, *(item.typed for item in items)]).strip()

    @property
    def things(self) -> list[Item]:
        """Phrases that name objects; what can also be a look is one only where nothing else can be drawn."""
        pure = [item for item in self.items if item.thing and not item.both]
        both = [item for item in self.items if item.both][-1:]
        if both and not any(item.noun for item in pure) and (not pure or self.items[-1] is both[0]):
            return [*pure, *both]  # "an orange", "chinook salmon"; but not "a stone wall"
        return pure

    @property
    def looks(self) -> list[Item]:
        """Colours and materials."""
        things = self.things
        return [item for item in self.items if item.look and not any(item is thing for thing in things)]


def clauses(prompt: str, vocabulary: Vocabulary) -> tuple[list[Clause], bool]:
    """The clauses of a prompt, and whether all of it was read."""
    tokens = _tokens(prompt[:MOST_LETTERS])
    words = tokens[:MOST_WORDS]
    found = [Clause("", "")]
    named = False  # an object has been named already
    items = list(_items(words, vocabulary))
    for item, follows in zip(items, [*items[1:], None], strict=True):
        here = found[-1]
        things = any(i.thing and not i.both for i in here.items)
        if item.relation == "and" and follows is not None and follows.typed in ARTICLES:
            things = things or any(i.noun for i in here.things)  # "a rock and a tree"; but "a stone and wood house"
        if item.relation and (named or things or item.relation in ("made of", "shaped like", "without")):
            # "red and white" is one clause: "and" divides objects, not their colours.
            if item.relation != "and" or things or not here.items:
                # "sitting on" and "trending on" are one relation.
                bare = here.relation in ("while", ",") and not any(i.thing or i.look for i in here.items)
                found.append(Clause(item.relation, f"{found.pop().text if bare else ''} {item.typed}".strip()))
        elif item.typed == ",":
            if here.items or here.relation:
                found.append(Clause(",", ""))
        elif item.verb and things:
            found.append(Clause("while", item.typed))
        elif item.verb and named and not here.items:
            here.typed = f"{here.typed} {item.typed}".strip()
        elif not item.relation:
            here.items.append(item)
            named = named or item.thing
    return [clause for clause in found if clause.items or clause.typed], len(tokens) <= MOST_WORDS and len(
        prompt
    ) <= MOST_LETTERS


def _tokens(prompt: str) -> list[str]:
    """Words in lower case without accents, and a comma for any mark that ends a clause."""
    tokens = []
    for token in _TOKEN.findall(prompt.lower().replace("\u2019", "'").replace("&", " and ").replace("w/", "with ")):
        if not (token[0].isalnum() or token[0] == "'"):
            tokens.append(",")
        elif word := token.strip("'"):
            plain = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
            tokens.append(plain if plain.isascii() else word)
    return tokens


def _items(words: list[str], vocabulary: Vocabulary) -> Iterator[Item]:
    """What the words may be, the longest known phrases first."""
    at, corrected = 0, 0
    while at < len(words):
        if words[at] == ",":
            yield Item(",")
            at += 1
            continue
        for length in range(min(_LONGEST, len(words) - at), 0, -1):
            typed = " ".join(words[at : at + length])
            if "," not in typed and (item := known(typed, vocabulary)):
                break
            if length == 3 and words[at + 1] == "of" and (item := _of(words[at], words[at + 2], vocabulary)):
                break
        else:
            length, typed = 1, words[at]
            item = _unknown(typed, vocabulary, corrected < MOST_CORRECTED)
            corrected += item.corrected is not None or not vocabulary.lexicon.knows(typed)
        yield item
        at += length


def known(typed: str, vocabulary: Vocabulary) -> Item | None:
    """What a phrase is to the vocabulary or the lexicon; None: a single word of no use, or no phrase at all."""
    lexicon = vocabulary.lexicon
    if " " in typed and typed.split()[0] in ARTICLES:
        return None  # "a battery" is no A battery
    if typed in RELATIONS and typed not in vocabulary.phrases:
        return Item(typed, relation=RELATIONS[typed])
    if typed in SILENT or re.fullmatch(r"1|\d+\.\d+", typed):
        return Item(typed, silent=True)
    phrase = typed.replace("-", " ")
    for form in singulars(phrase):
        meanings = vocabulary.phrases.get(form, ())
        noun = dict(meanings).get("noun") or lexicon.same.get(form) or lexicon.kinds.get(form)
        look = next(((role, name) for role, name in meanings if role != "noun" and form == phrase), None)
        if look is None and form == phrase and form in lexicon.looks:  # "woods" are no wood
            look = _look(lexicon.looks[form], vocabulary)
        noun = noun if noun in vocabulary.nouns else None
        thing = noun is not None or form in lexicon.near or (" " in form and form in lexicon.things)
        if not thing and look is None:
            continue
        same = noun is not None and (form == " ".join(split(noun)) or lexicon.same.get(form) == noun)
        return Item(typed, noun, form, thing, thing, look, same, _is_form(form, look), typed.endswith("'s"))
    return None


def _of(thing: str, content: str, vocabulary: Vocabulary) -> Item | None:
    """ "bottle of wine", where "wine bottle" is known."""
    item = known(f"{content} {thing}", vocabulary)
    return replace(item, typed=f"{thing} of {content}", same_noun=True) if item and item.noun else None


def _unknown(word: str, vocabulary: Vocabulary, search: bool) -> Item:
    """A word that nothing is drawn of: a thing, a verb, another word, or a slip of spelling."""
    lexicon = vocabulary.lexicon
    if word in NUMBERS:
        return Item(word)
    if lexicon.knows(word):
        solid = any(form in lexicon.things for form in singulars(word))
        thing = solid or any(form in lexicon.nouns for form in singulars(word))
        return Item(word, None, word, thing, solid, possessive=word.endswith("'s"), verb=lexicon.is_verb(word))
    groups = (vocabulary.single_words, lexicon.looks, lexicon.kinds, lexicon.near, lexicon.things)
    if search and (near := correct(word, groups)):
        return replace(known(near, vocabulary) or Item(word, None, near, True, True), typed=word, corrected=near)
    return Item(word)


def _look(name: str, vocabulary: Vocabulary) -> tuple[str, str] | None:
    if name in vocabulary.colours:
        return "colour", name
    return ("material", name) if name in vocabulary.materials else None


def _is_form(phrase: str, look: tuple[str, str] | None) -> bool:
    """Whether a phrase is but another form of a look's name: "wooden", "metallic", "grey"."""
    return look is not None and (phrase.startswith(look[1][:4]) or phrase.replace("grey", "gray") == look[1])
