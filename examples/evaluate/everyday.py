"""How many of three hundred everyday prompts the built-in prior understands, and how many it draws sensibly.

    python examples/evaluate/everyday.py

`everyday_prompts.txt` was written before its author had seen the vocabulary and is not edited to fit. The table
`everyday_prompts.tsv` says what each is drawn as; its last column, "sensible", is a person's judgement: would whoever
typed the prompt take the object for what was asked, were it drawn well? This script writes the table anew and keeps
the judgements of rows that have not changed; new ones are "?" until somebody has judged them.
"""

from __future__ import annotations

import csv
from pathlib import Path

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

PROMPTS = Path(__file__).with_name("everyday_prompts.txt")
TABLE = PROMPTS.with_suffix(".tsv")


def main() -> None:
    judged = {}
    if TABLE.is_file():
        with TABLE.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            judged = {(row["prompt"], row["drawn as"], row["left out"]): row["sensible"] for row in rows}
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    table = []
    for prompt in PROMPTS.read_text(encoding="utf-8").splitlines():
        try:
            understood = understand(vocabulary, prompt)
            drawn, left = understood.drawn, ", ".join(understood.left_out)
        except UsageError:
            drawn, left = "(refused)", ""
        sensible = "no" if drawn == "(refused)" else judged.get((prompt, drawn, left), "?")
        table.append((prompt, "yes" if _strictly(vocabulary, prompt) else "no", drawn, left, sensible))
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, delimiter="\t", lineterminator="\n")
        out.writerow(("prompt", "in the vocabulary's own words", "drawn as", "left out", "sensible"))
        out.writerows(table)
    count = len(table)
    print(f"{len(vocabulary.nouns)} nouns, {count} prompts")
    print(f"in the vocabulary's own words: {sum(row[1] == 'yes' for row in table) / count:.3f}")
    print(f"accepted: {sum(row[2] != '(refused)' for row in table) / count:.3f}")
    print(f"drawn sensibly: {sum(row[4] == 'yes' for row in table) / count:.3f}")
    if unjudged := sum(row[4] == "?" for row in table):
        print(f"not judged yet: {unjudged}")


def _strictly(vocabulary: Vocabulary, prompt: str) -> bool:
    try:
        vocabulary.parse(prompt)
    except UsageError:
        return False
    return True


if __name__ == "__main__":
    main()
