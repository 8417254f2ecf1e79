"""Words for things of a person's own, beside those of the built-in prior. No tensors here."""

from __future__ import annotations

import re
from pathlib import Path

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin.grammar import ARTICLES, RELATIONS, SILENT
from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary, quoted, split

MOST_WORDS, MOST_LETTERS = 4, 40
"""Of a word; longer ones are not looked for in prompts."""


def own_word(vocabulary: Vocabulary, typed: str) -> str:
    """A word as prompts will be searched for it. Raises UsageError for one that cannot be told from others."""
    words = split(typed)
    while words and words[0] in ARTICLES:
        words = words[1:]
    word = " ".join(words)
    if not re.search(r"[^\W\d_]", word):
        raise UsageError("--word holds no letters.", 'Say what to call it: --word "my chair"')
    if len(words) > MOST_WORDS or len(word) > MOST_LETTERS:
        raise UsageError(
            f"--word {quoted(typed)} is too long: at most {MOST_WORDS} words of {MOST_LETTERS} letters in all.",
            'Use a short name: --word "my chair"',
        )
    if word in vocabulary.phrases:
        raise UsageError(
            f"--word {quoted(word)} means something to the built-in prior already.", f'Use a name: --word "my {word}"'
        )
    stand_in = next(iter(vocabulary.nouns))
    try:
        if word in RELATIONS or all(part in SILENT for part in words):
            raise UsageError("It is in most prompts.")
        for prompt in (f"a {word}", f"a red {word}", f"a {word} made of wood"):
            found = understand(vocabulary.taught(word, stand_in, None), prompt)
            if (found.caption.noun, found.caption.others) != (word, ()) or found.left_out:
                raise UsageError("It is read otherwise.")
    except UsageError as error:
        raise UsageError(
            f"--word {quoted(word)} cannot be told from other words of a prompt.", 'Use a name: --word "my chair"'
        ) from error
    return word


def sheet_of(file: Path) -> Path:
    """The picture beside the file of a thing that shows what it holds."""
    return file.with_suffix(".png")


def known_kind(vocabulary: Vocabulary, word: str, kind: str | None) -> str | None:
    """The known noun that a thing is one of: what `kind` says, else what its word names; None where neither does.

    Raises UsageError for a kind that is not known.
    """
    if kind is not None:
        return understand(vocabulary, kind).caption.noun
    try:
        return understand(vocabulary, word, strict=True).caption.noun
    except UsageError:
        return None
