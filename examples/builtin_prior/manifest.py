"""What the built-in prior learns: nouns, the models that show them, and which way each has to be turned.

Every model was looked at on a contact sheet; `yaw` turns it, in degrees about +Y, until it faces +Z.
"""

from __future__ import annotations

from dataclasses import dataclass

CC0, CCBY, KATOR, SCOPIA = "BlendSwap-CC-0", "BlendSwap-CC-BY", "KatorLegaz", "Scopia"
"""Catalogues of Debian's sweethome3d-furniture. CC0 1.0 for the first, CC-BY 3.0 for the others."""


@dataclass(frozen=True)
class Noun:
    """A noun people type, its synonyms, and its models as (source, yaw); each model becomes one style."""

    name: str
    words: tuple[str, ...]
    models: tuple[tuple[str, float], ...]

    @property
    def token(self) -> str:
        return self.name.replace(" ", "_")

    @property
    def styles(self) -> list[str]:
        return [f"<{self.token}-{i}>" for i in range(len(self.models))]


def noun(names: str, *models: str | tuple[str, float]) -> Noun:
    words = tuple(names.split(", "))
    return Noun(words[0], words, tuple(m if isinstance(m, tuple) else (m, 0.0) for m in models))


def animal(names: str, actor: str, *more: str | tuple[str, float]) -> Noun:
    """0 A.D.'s animals are stored facing -Z."""
    return noun(names, (f"0ad:fauna/{actor}", 180.0), *more)


_MG = "megaglest:techs/megapack/factions"

NOUNS: list[Noun] = [
    # furniture
    noun("armchair, easy chair", f"{CC0}:86"),
    noun("chair", f"{CC0}:26", f"{CC0}:31"),
    noun("sofa, couch, settee", f"{CC0}:140", f"{CC0}:132"),
    noun("table, round table", f"{CC0}:27"),
    noun("bed", f"{CC0}:3"),
    noun("stool, bar stool", f"{CC0}:168"),
    noun("fireplace, chimney", f"{SCOPIA}:165"),
    noun("lamp, table lamp, desk lamp", f"{CC0}:15"),
    noun("chest, treasure chest", f"{CCBY}:75"),
    noun("piano, grand piano", f"{CC0}:30"),
    noun("bathtub, bath", f"{CCBY}:3"),
    noun("toilet", f"{CC0}:57"),
    noun("toaster", f"{SCOPIA}:395"),
    # food and tableware
    noun("mug, cup", f"{KATOR}:28"),
    noun("bottle, wine bottle", f"{SCOPIA}:22"),
    noun("vase, jar", f"{SCOPIA}:42"),
    noun("hamburger, burger, cheeseburger", f"{CCBY}:96"),
    noun("cupcake, muffin", f"{CC0}:142"),
    noun("cake, birthday cake", f"{SCOPIA}:128"),
    # outdoors
    noun("lantern, stone lantern", f"{CC0}:167"),
    noun("mailbox, letterbox", f"{CC0}:25"),
    noun("snowman", f"{CCBY}:72"),
    noun("fountain", f"{CCBY}:113"),
    noun("boat, rowboat, rowing boat", f"{CCBY}:133"),
    noun("fire hydrant, hydrant", f"{KATOR}:79"),
    noun("tent, camping tent", f"{SCOPIA}:357"),
    noun("dog house, doghouse, kennel", f"{SCOPIA}:178"),
    noun("traffic cone, cone", f"{SCOPIA}:262"),
    noun("palm tree, palm, coconut tree", "0ad:flora/trees/palm_tropical"),
    noun("christmas tree, fir tree, fir", f"{SCOPIA}:130"),
    noun("cactus", f"{CC0}:107"),
    # things
    noun("barrel, keg", f"{CC0}:72"),
    noun("crate, box", f"{CC0}:73"),
    noun("gift, present, gift box", f"{CCBY}:26"),
    noun("suitcase", f"{CCBY}:103"),
    noun("backpack, rucksack", f"{CCBY}:2"),
    noun("hat", f"{SCOPIA}:238"),
    noun("helmet, motorcycle helmet", f"{SCOPIA}:239"),
    noun("skull", f"{_MG}/magic/units/tower_of_souls/models/tower_of_souls_projectile.g3d"),
    noun("pyramid", f"{_MG}/egypt/units/pyramid/models/pyramid.g3d"),
    # vehicles
    noun("car, automobile", f"{CCBY}:94", f"{KATOR}:69"),
    noun("truck, lorry", f"{SCOPIA}:212"),
    noun("bus, coach", f"{SCOPIA}:361"),
    noun("forklift, fork lift, forklift truck", (f"{CC0}:119", 90.0)),
    noun("airplane, plane, aeroplane, biplane", f"{CC0}:10"),
    noun("motor scooter, scooter, moped", f"{SCOPIA}:248"),
    # animals
    noun("teddy bear, teddy", f"{CC0}:51"),
    noun("dog, bulldog", f"{CCBY}:89"),
    noun("cat", f"{CCBY}:100"),
    noun("rabbit, bunny, hare", f"{SCOPIA}:205"),
    noun("chicken, hen", f"{CC0}:94"),
    animal("horse, pony", "horse", f"{CCBY}:97"),
    animal("elephant", "elephant_african_bush"),
    animal("lion", "lion"),
    animal("tiger", "tiger"),
    animal("bear, grizzly bear", "bear_brown"),
    animal("giraffe", "giraffe_adult"),
    animal("camel, dromedary", "camel"),
    animal("zebra", "zebra"),
    animal("rhino, rhinoceros", "rhino"),
    animal("cow", "cow"),
    animal("pig", "pig1"),
    animal("sheep, lamb", "sheep1"),
    animal("whale", "whale"),
    animal("shark", "shark"),
    # fantasy
    noun(
        "dragon",
        ("0ad:fauna/dragon", 180.0),
        (f"{_MG}/magic/units/evil_dragon/models/dragon_standing.g3d", 180.0),
    ),
    noun("castle, fortress", f"{_MG}/tech/units/castle/models/castle.g3d"),
    noun("tower, watchtower", f"{_MG}/tech/units/defense_tower/models/defense_tower.g3d"),
    noun("golem", f"{_MG}/magic/units/golem/models/golem_standing.g3d"),
    noun("wizard, mage, sorcerer", f"{_MG}/magic/units/archmage/models/archmage_standing.g3d"),
    noun("knight, soldier, guard", f"{_MG}/tech/units/guard/models/guard_standing.g3d"),
]
