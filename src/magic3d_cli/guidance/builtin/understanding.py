"""What a prompt is drawn as: the main thing it names, and what is read otherwise or left out. No tensors here.

A prompt in the vocabulary's own words means what `Vocabulary.parse` says, and nothing else. Any other is read clause by
clause; it is refused only where nothing in it can be drawn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin.grammar import ARTICLES, MOST_LETTERS, RELATIONS, Clause, Item, clauses, known
from magic3d_cli.guidance.builtin.vocabulary import Caption, Placed, Vocabulary, article, check, quoted

PARTS = frozenset({"with", "wearing", "holding", "without", "like", "for", "of"})
"""Relations whose object is not drawn in place of what it belongs to: the hat of a penguin, the owner of a teapot."""
PLACES = {
    "on": "on", "riding": "on", "under": "under", "next to": "next to", "in front of": "in front of",
    "behind": "behind", "and": "and", ",": "and",
}  # fmt: skip
"""Relations in which two things are drawn together, and what they are to `arrangement.place`."""
MOST_THINGS = 3
POSES = frozenset({
    "sitting", "sits", "seated", "standing", "stands", "lying", "lies", "laying", "resting", "rests", "placed", "put",
    "set", "parked", "perched", "perching", "positioned", "located", "left", "mounted", "balanced", "balancing",
})  # fmt: skip
"""Before a place they say no more than the place does: "sitting on"."""
DEPICTIONS = frozenset({
    "statue", "sculpture", "statuette", "figurine", "figure", "bust", "model", "toy", "replica", "miniature",
    "drawing", "painting", "sketch", "illustration", "picture", "photo", "photograph", "portrait", "print",
    "poster", "closeup", "view", "scene", "version", "rendition", "shot", "baby", "cub", "pup", "chick", "kid",
    "family", "half", "pair", "piece", "slice", "stack", "pile", "heap", "set", "bunch", "group", "herd", "flock",
    "pack", "bit", "lot", "couple", "part", "plushie", "plush", "cartoon", "head", "face",
})  # fmt: skip
"""Before "of", or after an object: a statue of a horse, a horse statue and a slice of bread are drawn as the object."""
_NOTHING_NEAR = (
    "Nothing near it is known: magic3d priors --words lists all that is. "
    "An open-vocabulary prior (--prior sd15) takes any prompt."
)
SHOWN = 80
"""Letters of left-out words in a message."""


@dataclass(frozen=True)
class Reading:
    """Something that was typed, and what it was taken for."""

    typed: str
    read: str


@dataclass(frozen=True)
class Mention:
    """A thing or a part that the prompt names and that is not drawn, in the order of the prompt."""

    relation: str  # "with", "in", "wearing", ...; to the main thing, or to the mention before it
    text: str  # as typed: "with black wheels"
    name: str  # the thing alone: "wheels"
    noun: str | None = None  # the name in the vocabulary, where it can be drawn
    colour: str | None = None
    material: str | None = None


@dataclass(frozen=True)
class Understood:
    """A prompt as it is drawn."""

    caption: Caption
    drawn: str  # "a golden dog": a prompt in the vocabulary's own words that means the same
    things: tuple[tuple[str, str], ...] = ()  # ("", "a dog"), ("on", "a table"): each as a prompt of its own
    substituted: tuple[Reading, ...] = ()  # ("corgi", "dog")
    corrected: tuple[Reading, ...] = ()  # ("elefant", "elephant")
    left_out: tuple[str, ...] = ()  # what cannot be seen in the result, the mentions included
    mentions: tuple[Mention, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """For a person: one line, and a second one when something was left out."""
        swaps = [f"{quoted(r.typed)} is read as {quoted(r.read)}" for r in self.corrected[:3]]
        swaps += [f"{quoted(r.typed)} is drawn as {quoted(r.read)}" for r in self.substituted[:3]]
        mixed = " (a mixture of two that are known)" if " " in (self.caption.style or "") else ""
        first = f"Drawing {self.drawn}{mixed}" + (f": {', '.join(swaps)}." if swaps else ".")
        return (first, f"Left out: {_listed(self.left_out)}.") if self.left_out else (first,)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able report; `things` are all that is drawn, each in the relation of those before to it."""
        placed = [("", self.caption), *((other.relation, other.caption) for other in self.caption.others)]
        things = [
            {"relation": relation, **{key: getattr(thing, key) for key in ("noun", "colour", "material", "style")}}
            for relation, thing in placed
        ]
        return {**asdict(self), "caption": self.caption.text, "things": things}


def understand(vocabulary: Vocabulary, prompt: str, seed: int = 0, *, strict: bool = False) -> Understood:
    """What a prompt is drawn as; `seed` picks the style of the noun, 0 the first one.

    Raises UsageError for a prompt that is empty or no text, that names more than `MOST_THINGS` things to be drawn
    together, or in which nothing can be drawn; it then offers a prompt that works, if one is near in meaning. With
    `strict`, also for a single word that the vocabulary does not know.
    """
    check(prompt)
    try:
        if strict or len(prompt) <= MOST_LETTERS:
            return _exact(vocabulary, prompt, seed)
    except UsageError as error:
        if strict:
            free = _freely(vocabulary, prompt, seed) if _names_several(vocabulary, prompt) else None
            if free and free.caption.others and not (free.substituted or free.corrected or free.left_out):
                return free
            raise UsageError(error.what, _instead(vocabulary, prompt) or error.next_step) from error
    return _freely(vocabulary, prompt, seed)


def _exact(vocabulary: Vocabulary, prompt: str, seed: int) -> Understood:
    """A prompt in the vocabulary's own words; synonyms that change what is seen are told ("eagle": a hawk)."""
    caption, matches = vocabulary.read(prompt, seed)
    head, *rest = (known(match.phrase, vocabulary) for match in matches)
    swaps = [Reading(head.phrase, caption.noun)] if head and not head.same_noun else []
    swaps += [Reading(item.phrase, item.look[1]) for item in rest if item and item.look and not item.same_look]
    drawn = _phrase(vocabulary, caption)
    return Understood(caption, drawn, (("", drawn),), _unique(swaps))


def _freely(vocabulary: Vocabulary, prompt: str, seed: int) -> Understood:
    """A prompt read clause by clause. Raises UsageError where nothing in it can be drawn, or too much."""
    found, whole = clauses(prompt, vocabulary)
    at, head = _main(found)
    if head is None or head.noun is None:
        raise _refusal(vocabulary, found)
    caption, painted = _painted(vocabulary, head.noun, _looks(found, at, head), seed)
    others, named, more = _others(vocabulary, found, at, seed)
    if len(others) >= MOST_THINGS:
        raise _too_many([caption, *(other.caption for other in others)])
    caption = replace(caption, others=tuple(others))
    kin = [i for i in found[at].things if i is not head and i.noun == head.noun]  # "golden retriever puppy"
    named, painted = [head, *named, *kin], painted + more
    left, mentions = _rest(found, at, named + painted)
    swaps = [Reading(item.phrase, item.noun) for item in named if item.noun and not item.same_noun]
    swaps += [Reading(item.phrase, item.look[1]) for item in painted if item.look and not item.same_look]
    typos = [Reading(i.typed, i.corrected) for clause in found for i in clause.items if i.corrected]
    if not whole:
        left.append("all after the first words")
    things = _things(vocabulary, caption)
    drawn = " ".join(f"{relation} {phrase}".strip() for relation, phrase in things)
    return Understood(caption, drawn, things, _unique(swaps), _unique(typos), tuple(left), tuple(mentions))


def _names_several(vocabulary: Vocabulary, prompt: str) -> bool:
    """Whether a short prompt has a word that places one thing beside another."""
    return len(prompt) <= MOST_LETTERS and any(c.relation in PLACES for c in clauses(prompt, vocabulary)[0])


def _main(found: list[Clause]) -> tuple[int, Item | None]:
    """The clause and the phrase that say what to draw; None where nothing can be drawn."""
    for at, clause in enumerate(found):
        if clause.relation == "shaped like" and (item := _head(clause)):
            return at, item
    for at, clause in enumerate(found):
        if at and (clause.relation == "made of" or (clause.relation in PARTS and found[at - 1].things)):
            continue
        where, item = _named(found, at)
        if item:
            return where, item
    return 0, None


def _named(found: list[Clause], at: int) -> tuple[int, Item | None]:
    """The clause and the phrase that name what clause `at` shows: the horse, in "a statue of a horse"."""
    clause, follows = found[at], found[at + 1] if at + 1 < len(found) else None
    if follows and follows.relation == "of" and clause.things and (inner := _head(follows)):
        last = clause.things[-1]
        if last.phrase in DEPICTIONS or not (last.noun or last.solid):
            return at + 1, inner
    return at, _head(clause)


def _head(clause: Clause) -> Item | None:
    """The phrase that names a clause's object: the last that can be drawn, a depiction only where alone."""
    things = clause.things
    while things and things[-1].noun is None and (not things[-1].solid or things[-1].phrase in DEPICTIONS):
        things = things[:-1]  # "lion head", "car design": of the whole there is nothing else to draw
    if not things or things[-1].noun is None or (things[-1].possessive and things[-1] is not clause.things[-1]):
        return None  # "computer mouse" is no computer
    drawable = [item for item in things if item.noun]
    objects = [item for item in drawable if item.phrase not in DEPICTIONS]
    return (objects or drawable)[-1]


def _looks(found: list[Clause], at: int, head: Item) -> list[Item]:
    """Colours and materials of the main thing: from its clause, and from those around it that name nothing else."""
    looks = list(found[at].looks)
    before = [item for clause in found[:at] for item in clause.looks]
    looks = before + looks if found[at].relation in ("", ",", "of", "shaped like") else looks
    for clause in found[at + 1 :]:
        if clause.relation in (*PARTS, "while") or (_beside(clause) and _head(clause)):
            break  # what follows belongs to the other thing: the orange of "a plate and an orange"
        other = any(item.thing and not item.both for item in clause.items)
        if other and clause.relation not in (",", "made of", "in", "that"):
            break
        looks += [] if other else [item for item in clause.items if item.look]
    return looks


def _painted(vocabulary: Vocabulary, noun: str, looks: list[Item], seed: int) -> tuple[Caption, list[Item]]:
    """A thing in the first colour and the first material of some looks, and the phrases that say these two."""
    first = dict(item.look for item in reversed(looks) if item.look)
    caption = vocabulary.caption(noun, first.get("colour"), first.get("material"), seed)
    return caption, [item for item in looks if item.look and item.look[1] == first[item.look[0]]]


def _others(
    vocabulary: Vocabulary, found: list[Clause], at: int, seed: int
) -> tuple[list[Placed], list[Item], list[Item]]:
    """The things that are drawn beside the main one of clause `at`, the phrases that name and those that paint them."""
    others: list[Placed] = []
    named: list[Item] = []
    painted: list[Item] = []
    part = False  # the clause before is a part of a thing: "a knight with a sword and a shield"
    for number in range(at + 1, len(found)):
        clause = found[number]
        if clause.relation in PARTS or clause.relation == "in":
            part = clause.relation in ("with", "wearing", "holding") or (part and clause.relation == "of")
            continue
        part = part and clause.relation in ("and", ",")
        if part or not _beside(clause):
            continue
        where, thing = _named(found, number)
        if thing is None or thing.noun is None:
            continue
        looks = _looks(found, where, thing) if where == number else found[where].looks
        caption, said = _painted(vocabulary, thing.noun, looks, seed)
        others.append(Placed(PLACES[clause.relation], caption))
        named.append(thing)
        painted += said
    return others, named, painted


def _beside(clause: Clause) -> bool:
    """Whether what a clause names is drawn beside the things before it."""
    if clause.relation not in PLACES or clause.typed in ("or", "trending on") or clause.text == "on fire":
        return False
    # "a castle, tower, 4k" are words about one thing
    return clause.relation != "," or (bool(clause.items) and clause.items[0].typed in ARTICLES)


def _rest(found: list[Clause], at: int, used: list[Item]) -> tuple[list[str], list[Mention]]:
    """What is left out, as typed, and of it the things and parts that are named."""
    left: list[str] = []
    mentions: list[Mention] = []
    whole = False  # the clause before was left out as a whole
    for number, clause in enumerate(found):
        if number == at or any(item is one for item in clause.items for one in used):
            typed = " ".join(word for word in clause.typed.split() if number == at or word not in POSES)
            if typed not in ("", *RELATIONS):  # "fire breathing dragon", "sleeping on a sofa"
                left.append(clause.typed.removesuffix(f" {clause.relation}") if number != at else clause.typed)
            left += _runs(clause, used)
            whole = False
        elif clause.relation == "of" and whole:
            left[-1] += f" {clause.text}"  # "on a pile of gold"
        elif clause.typed not in ("", *RELATIONS) or any(not item.silent for item in clause.items):
            left.append(clause.text)
            whole = True
            if any(item.solid or item.noun for item in clause.things):
                mentions.append(_mention(clause))
    return left, mentions


def _runs(clause: Clause, used: list[Item]) -> list[str]:
    """Phrases of a clause that were not used, those side by side together."""
    runs: list[list[str]] = [[]]
    for item in clause.items:
        if any(item is one for one in used):
            runs.append([])
        elif not item.silent:
            runs[-1].append(item.typed)
    return [" ".join(run) for run in runs if run]


def _mention(clause: Clause) -> Mention:
    thing = _head(clause) or clause.things[-1]
    looks = dict(item.look for item in reversed(clause.looks) if item.look and item is not thing)
    relation = "and" if clause.relation in ("", ",") else clause.relation
    return Mention(relation, clause.text, thing.typed, thing.noun, looks.get("colour"), looks.get("material"))


def _refusal(vocabulary: Vocabulary, found: list[Clause]) -> UsageError:
    """What cannot be drawn, and a prompt that works if one is near in meaning."""
    named = [clause for clause in found if clause.things]
    if not named:
        text = " ".join(clause.text for clause in found)
        what = f"The built-in prior cannot draw {quoted(text, 40)}." if text else "The prompt names no object."
        return UsageError(what, _NOTHING_NEAR)
    main = next((clause for clause in named if clause.things[-1].phrase not in DEPICTIONS), named[0])
    things = main.things
    name = " ".join(item.corrected or item.typed for item in things)
    what = f"The built-in prior cannot draw {quoted(name, 40)}."
    words = name.split()
    inside = [item.noun for word in words[:-1] if things[-1].solid and (item := known(word, vocabulary))]
    near = [vocabulary.lexicon.near.get(word) for word in (*(item.phrase for item in things), *reversed(words))]
    # By meaning; else a computer for "computer mouse".
    offer = next((noun for noun in [near[0], *inside, *near[1:]] if noun in vocabulary.nouns), None)
    if offer is None:
        return UsageError(what, _NOTHING_NEAR)
    looks = dict(item.look for item in reversed(main.looks) if item.look)
    prompt = _phrase(vocabulary, Caption(offer, looks.get("colour"), looks.get("material")))
    return UsageError(
        what, f'Try: magic3d generate "{prompt}". An open-vocabulary prior (--prior sd15) takes any prompt.'
    )


def _too_many(things: list[Caption]) -> UsageError:
    """More things than are drawn together."""
    names = ", ".join(thing.noun for thing in things[:8]) + (", ..." if len(things) > 8 else "")
    few = " and ".join(article(thing.noun) for thing in things[:MOST_THINGS])
    return UsageError(
        f"The prompt names {len(things)} things to draw together ({names}); {MOST_THINGS} are the most, because they "
        "share the detail of one volume.",
        f'Try: magic3d generate "{few}", and make the rest as another asset.',
    )


def _instead(vocabulary: Vocabulary, prompt: str) -> str | None:
    """What to type instead of a prompt that is refused for a word."""
    try:
        return f'Try: magic3d generate "{_freely(vocabulary, prompt, 0).drawn}", or leave out --strict.'
    except UsageError as error:
        return error.next_step


def _phrase(vocabulary: Vocabulary, caption: Caption) -> str:
    """A caption's thing as a person would write it: "a golden horse"."""
    material = caption.material
    if material:
        forms = (material, *vocabulary.materials[material])
        material = next((form for form in forms if form in (f"{material}en", "golden")), material)
    return article(" ".join(word for word in (caption.colour, material, caption.noun) if word))


def _things(vocabulary: Vocabulary, caption: Caption) -> tuple[tuple[str, str], ...]:
    """See `Understood.things`."""
    placed = [("", caption), *((other.relation, other.caption) for other in caption.others)]
    return tuple((relation, _phrase(vocabulary, thing)) for relation, thing in placed)


def _listed(texts: tuple[str, ...]) -> str:
    """Quoted, as many as fit a line, and how many more there are."""
    shown: list[str] = []
    for text in texts:
        shown.append(quoted(text, 40))
        if sum(map(len, shown)) > SHOWN:
            shown.pop()
            break
    more = len(texts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _unique(readings: list[Reading]) -> tuple[Reading, ...]:
    return tuple(dict.fromkeys(readings))
