"""Writes the built-in prior's `classes.tsv`: what each of ImageNet's thousand classes is drawn as.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb data
    python classes.py data          # after any change of manifest.tsv or words.tsv

ImageNet's classes are synsets of WordNet 3.0 (Deng et al. 2009), so that what is drawn of each follows from the rules
of `words.py`. The first column, the synsets in the order of a classifier's outputs, is kept as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wordnet import Sense, WordNet
from words import RULES, Rules, Words

from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

CLASSES = BUILTIN / "classes.tsv"
LIKE = {
    "killer whale": "whale", "leopard": "tiger", "snow leopard": "tiger", "jaguar": "tiger", "cheetah": "tiger",
    "lynx": "cat", "hyena": "wolf", "bison": "bull", "water buffalo": "bull", "ox": "bull", "bighorn": "goat",
    "llama": "camel", "vulture": "hawk", "orange": "orange fruit", "jack-o'-lantern": "pumpkin",
    "butternut squash": "pumpkin", "acorn squash": "pumpkin", "spaghetti squash": "pumpkin",
    "yawl": "sailboat", "trimaran": "sailboat", "catamaran": "sailboat", "schooner": "sailing ship",
    "pirate": "sailing ship", "recreational vehicle": "van", "racer": "race car", "golfcart": "go-kart",
    "car wheel": "tire", "passenger car": "train", "freight car": "train", "half track": "tank", "amphibian": "tank",
    "warplane": "airplane", "projectile": "rocket", "missile": "rocket", "dining table": "table",
    "dishwasher": "washing machine", "electric fan": "table fan", "espresso maker": "coffee machine",
    "harvester": "combine harvester", "maraca": "maracas", "megalith": "standing stone", "monitor": "television",
    "screen": "television", "paintbrush": "paint brush", "purse": "handbag", "racket": "tennis racket",
    "scale": "kitchen scale", "steel drum": "drum", "tub": "bathtub", "washbasin": "sink", "cello": "violin",
    "banjo": "acoustic guitar", "chime": "bell", "chain saw": "saw", "toilet seat": "toilet", "vault": "safe",
    "palace": "palace", "bow": "bow and arrow", "lampshade": "lamp", "mailbox": "mailbox",
}  # fmt: skip
"""What looks most like a class, by its first name, where that is not what it is a kind of."""


def noun_of(words: Words, sense: Sense) -> str | None:
    """The noun that a class is drawn as: by `LIKE`, by what it is a kind of, or by its very name."""
    like = LIKE.get(sense.words[0])
    named = (name for name in sense.words if name in words.names)
    return (like if like in words.names else None) or words.drawn_as_sense(sense) or next(named, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that wordnet-base was unpacked into")
    words = Words(WordNet(parser.parse_args().data), Rules.read(RULES))
    synsets = [line.split("\t")[0] for line in CLASSES.read_text(encoding="utf-8").splitlines()]
    nouns = [noun_of(words, words.wordnet.senses[int(synset[1:])]) for synset in synsets]
    lines = [f"{synset}\t{noun or ''}\n" for synset, noun in zip(synsets, nouns, strict=True)]
    CLASSES.write_text("".join(lines), encoding="utf-8")
    print(f"{CLASSES}: {sum(map(bool, nouns))} of {len(nouns)} classes are drawn, as {len({*nouns})} nouns")


if __name__ == "__main__":
    main()
