"""What photographs by strangers are taken for: `python photos.py DATA`, DATA holding Debian's tuxpaint-stamps-default.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb data

`photos.tsv` names the photos, all cut out already, and the nouns of the prior that are right for each. Every second one
was looked at when the classifier's weight was chosen. None is in this repository: their licences differ.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from magic3d_cli.guidance.builtin.classifier import by_noun, noun_chances, together
from magic3d_cli.guidance.builtin.encoder import likely_models
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

PHOTOS = Path(__file__).with_name("photos.tsv")
PLACE = Path("usr/share/tuxpaint/stamps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that the package was unpacked into")
    folder = parser.parse_args().data / PLACE
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    first, five = {"encoder": 0, "both": 0}, {"encoder": 0, "both": 0}
    with PHOTOS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        right = set(row["nouns"].split(", "))
        with Image.open(folder / row["file"]) as image:
            picture = np.array(image.convert("RGBA"))
        own = likely_models(BUILTIN, picture)
        told = {"encoder": own, "both": together(own, noun_chances(BUILTIN, picture), vocabulary)}
        for way, likely in told.items():
            names = list(by_noun(likely, vocabulary))[:5]
            first[way] += names[0] in right
            five[way] += not right.isdisjoint(names)
        noun, chance = next(iter(by_noun(told["both"], vocabulary).items()))
        print(f"{'+' if noun in right else '-'} {row['file']}: {noun} {chance:.2f}")
    for way in first:
        print(f"{way}: first {first[way]}, among five {five[way]}, of {len(rows)}")


if __name__ == "__main__":
    main()
