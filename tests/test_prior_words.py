"""How everyday words are mapped to nouns: by the nearest class in WordNet, unless a rule knows better."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "builtin_prior"))

import words as building
from manifest import Noun
from wordnet import WordNet

from magic3d_cli.guidance.builtin.lexicon import Lexicon
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

ANIMAL, ARTIFACT, FOOD, PERSON, PLANT, ACT = 5, 6, 13, 18, 20, 4
SENSES = [  # offset, lexicographer file, names, parent
    (1, ANIMAL, "animal", 0), (2, ANIMAL, "dog domestic_dog", 1), (3, ANIMAL, "hound", 2), (4, ANIMAL, "beagle", 3),
    (5, ANIMAL, "bird", 1), (6, ANIMAL, "crow", 5), (7, ANIMAL, "penguin", 5), (8, ANIMAL, "king_penguin", 7),
    (9, ANIMAL, "seal", 1), (10, ARTIFACT, "seal", 0), (11, PERSON, "dog", 0), (12, PLANT, "plum", 0),
    (13, FOOD, "plum", 0), (14, ACT, "hunt", 0), (15, ANIMAL, "Canis_lupus", 2), (16, ARTIFACT, "crow", 10),
    (17, PERSON, "baker", 0), (18, PERSON, "oaf", 0),
]  # fmt: skip
GLOSSES = {18: "(ethnic slur) offensive term for a person"}
NOUNS = [Noun("dog", ("canine",), (("a", 0.0),)), Noun("crow", (), (("b", 0.0),))]


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    index: dict[str, list[int]] = {}
    lines = ["  1 a line of the licence"]
    for offset, lexfile, names, parent in SENSES:
        words = names.split()
        pointers = f"001 @ {parent:08d} n 0000" if parent else "000"
        spelt = " ".join(f"{word} 0" for word in words)
        gloss = GLOSSES.get(offset, "a gloss")
        lines.append(f"{offset:08d} {lexfile:02d} n {len(words):02x} {spelt} {pointers} | {gloss}")
        for word in words:
            index.setdefault(word.lower(), []).append(offset)
    (tmp_path / "data.noun").write_text("\n".join(lines) + "\n")
    noun = (f"{w} n {len(at)} 1 @ {len(at)} 0 " + " ".join(f"{a:08d}" for a in at) for w, at in index.items())
    (tmp_path / "index.noun").write_text("\n".join(noun) + "\n")
    (tmp_path / "index.adj").write_text("cute a 1 0 1 0 00000001\nhound a 1 0 1 0 00000002\n")
    (tmp_path / "index.adv").write_text("")
    (tmp_path / "index.verb").write_text("run v 1 0 1 0 00000001\n")
    (tmp_path / "verb.exc").write_text("ran run\n")
    (tmp_path / "cntlist.rev").write_text("dog%1:05:00:: 1 40\nhound%1:05:00:: 1 3\nrun%2:38:00:: 1 9\n")
    return WordNet(tmp_path)


def made(wordnet: WordNet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rules: str = "") -> Lexicon:
    monkeypatch.setattr(building, "NOUNS", NOUNS)
    (tmp_path / "rules.tsv").write_text("rule\twhat\tmeans\n" + rules)
    table = building.Words(wordnet, building.Rules.read(tmp_path / "rules.tsv")).table()
    (tmp_path / "words.json").write_text(json.dumps(table))
    return Lexicon.load(tmp_path / "words.json")


def test_a_word_is_drawn_as_the_nearest_noun_above_it(wordnet, monkeypatch, tmp_path):
    lexicon = made(wordnet, monkeypatch, tmp_path)
    assert lexicon.kinds == {"beagle": "dog", "hound": "dog"}
    assert lexicon.same == {"domestic dog": "dog"}
    assert "canis lupus" not in lexicon.things and "penguin" not in lexicon.kinds
    assert lexicon.verbs == {"run", "ran"} and lexicon.others == {"cute"} and "hunt" in lexicon.nouns


def test_a_person_is_offered_for_kinds_of_people_but_not_for_an_insult(wordnet, monkeypatch, tmp_path):
    monkeypatch.setattr(building, "NOUNS", [*NOUNS, Noun("man", (), (("c", 0.0),))])
    (tmp_path / "rules.tsv").write_text("rule\twhat\tmeans\n")
    words = building.Words(wordnet, building.Rules.read(tmp_path / "rules.tsv"))
    assert words.near("baker") == "man" and words.near("oaf") is None


def test_a_class_is_drawn_as_the_first_noun_of_its_rule_and_stops_at_one_without(wordnet, monkeypatch, tmp_path):
    rules = "sense\tcrow\tcrow:bird\nclass\tbird\tsparrow, crow\nclass\tpenguin\tpenguin\nsense\tseal\tseal:animal\n"
    lexicon = made(wordnet, monkeypatch, tmp_path, rules)
    assert lexicon.kinds["bird"] == "crow"
    assert not {"penguin", "king penguin", "seal"} & lexicon.kinds.keys()


def test_rules_for_single_words_come_first(wordnet, monkeypatch, tmp_path):
    rules = "word\tbeagle\t-\nword\tdoggo\tdog\nhint\tseal\tdog\nlook\tcoal\tblack\nplain\t-\tpixelated hunt\n"
    lexicon = made(wordnet, monkeypatch, tmp_path, rules)
    assert lexicon.kinds == {"doggo": "dog", "hound": "dog"}
    assert lexicon.near["beagle"] == lexicon.near["seal"] == "dog" and lexicon.looks == {"coal": "black"}
    assert {"pixelated", "hunt"} <= lexicon.others and "hunt" not in lexicon.nouns


def test_the_fruit_is_meant_not_the_tree(wordnet):
    rules = building.Rules()
    plum = building.Words(wordnet, rules).sense_of_word("plum")
    assert plum is not None and plum.lexfile == FOOD


def test_the_shipped_words_are_sorted_so_that_changes_can_be_read():
    table = json.loads((BUILTIN / "words.json").read_text(encoding="utf-8"))
    for group in table.values():
        assert list(group) == sorted(group)
        assert all(words.split(", ") == sorted(set(words.split(", "))) for words in group.values())
    assert (BUILTIN / "words.json").stat().st_size < 1.5e6


def test_every_rule_can_be_read_and_none_is_given_twice():
    lines = building.RULES.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    assert all(len(row) == 3 and row[0] in ("sense", "class", "word", "hint", "look", "plain") for row in rows)
    once = [(rule, what) for rule, what, _ in rows if rule != "plain"]
    assert sorted(once) == sorted(set(once))
