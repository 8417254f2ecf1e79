"""`magic3d personalise SOURCE...`: a word for a thing of a person's own, kept in a small file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from magic3d_cli import checks
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import answer, session
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import LORA, TOKENS
from magic3d_cli.guidance.builtin.own_words import known_kind, own_word, sheet_of
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, check_name

SUFFIX = ".safetensors"
METHODS = {"lora": LORA, "word": TOKENS}


@reported
def personalise(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A mesh (.glb, .obj, ...); or pictures, FILE or FILE@AZIMUTH; or a folder of pictures.",
            show_default=False,
        ),
    ],
    word: Annotated[str, typer.Option(metavar="WORD", help='What prompts will call it: "my chair".')],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; default: WORD.safetensors."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="NOUN",
            help="What it is, in words that the prior knows; default: what the word says, or what it looks like.",
        ),
    ] = None,
    up: options.Up = "y",
    turn: Annotated[
        float, typer.Option(metavar="DEGREES", help="Turn a mesh to its left until it faces +Z: 180 if it faces away.")
    ] = 0.0,
    elevation: Annotated[
        float | None,
        typer.Option(metavar="DEGREES", help="How far above the horizon pictures were taken; default: found out."),
    ] = None,
    prior: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Whom to teach: builtin, or an open-vocabulary prior, which is tuned on photos (GPU)."
        ),
    ] = "builtin",
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=options.one_of(METHODS),
            help="For an open-vocabulary prior: lora (DreamBooth, the default) or word (textual inversion: lighter; "
            "one picture is enough).",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Of tuning; default: 500, a word 3000.")] = None,
    rank: Annotated[int | None, typer.Option(metavar="N", help="Of the LoRA; default: 4.")] = None,
    kept: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="The prior's own pictures of the kind that tuning must keep; default: 50, 0 for a word."
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there already.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Teach a prior a thing of your own.

    The built-in one learns from a mesh or pictures, others from 3 to 20 photos. It is then drawn wherever a prompt
    has its word, also in other colours and materials and beside other things:
    magic3d generate "a golden my chair" --adapter chair.safetensors
    """
    for source in sources:
        if not checks.place_of(source)[0].exists():
            raise UsageError(f"There is no file {source}.", "Give a mesh, pictures, or a folder of pictures.")
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_seed(seed)
    bounds = {"--steps": (steps, 1, 100_000), "--rank": (rank, 1, 256), "--kept": (kept, 0, 1000)}
    for option, (value, low, high) in bounds.items():
        if value is not None and not low <= value <= high:
            raise UsageError(f"{option} {value} is out of range.", f"Use a number from {low} to {high}.")
    if prior != "builtin":
        _tune(sources, word, output, kind, prior, method or "lora", steps, rank, kept, seed, device, force,
              as_json, quiet, verbose)  # fmt: skip
        return
    tuning = {"--method": method, "--steps": steps, "--rank": rank, "--kept": kept}
    if unused := next((option for option, value in tuning.items() if value is not None), None):
        raise UsageError(f"{unused} is for an open-vocabulary prior.", "Add --prior sd15, or leave it out.")
    checks.check_choice("--up", up, checks.UPS)
    if not -360 <= turn <= 360:
        raise UsageError(f"--turn {turn:g} is out of range.", "Use degrees from -360 to 360.")
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    word = own_word(vocabulary, word)
    if kind is not None:
        known_kind(vocabulary, word, kind)
    out = check_adapter_output(output or _named_after(word), force)
    if (sheet := sheet_of(out)).exists() and not force:
        raise UsageError(
            f"{sheet} exists already, and a picture of what is learnt would be written there.",
            "Give another name with -o, or --force to overwrite it.",
        )
    with session(quiet, verbose) as work:
        from magic3d_cli.photos import are_pictures, read_sources

        pictures = read_sources(sources, elevation) if are_pictures(sources) else None
        mesh = checks.expanded(sources[0]) if pictures is None else None
        from magic3d_cli.personalise import Wish, personalise

        work.observer.phase("learn the thing")
        wish = Wish(word, out, mesh, pictures, kind, up, turn)
        answer(personalise(wish, work.observer.note), as_json)


def _tune(
    sources: list[str],
    word: str,
    output: Path | None,
    kind: str | None,
    prior: str,
    method: str,
    steps: int | None,
    rank: int | None,
    kept: int | None,
    seed: int,
    device: str,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """For a prior that is told words."""
    checks.check_choice("--method", method, tuple(METHODS))
    word = checks.check_prompt(word)
    kind = kind or word.split()[-1]
    check_name(prior)
    out = check_adapter_output(output or _named_after(word), force)
    with session(quiet, verbose) as work:
        from magic3d_cli.photos import LEAST_PHOTOS, read_photos

        photos = read_photos(sources, least=1 if METHODS[method] == TOKENS else LEAST_PHOTOS)
        from magic3d_cli.assembly import choose_device
        from magic3d_cli.tuning import Lesson, learn

        where = choose_device(device, work.observer)
        work.observer.phase("learn the thing")
        lesson = Lesson(tuple(photos), word, kind, out, prior, METHODS[method], steps, rank, kept, seed, where)
        answer(learn(lesson, work.interrupts, work.observer.note), as_json)


def _named_after(word: str) -> Path:
    return Path(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") or "thing")


def check_adapter_output(output: Path, force: bool) -> Path:
    """A .safetensors file that can be written. Raises UsageError."""
    output = checks.expanded(output)
    if output.suffix == "":
        output = output.with_suffix(SUFFIX)
    if output.suffix != SUFFIX:
        raise UsageError(f"{output} does not end in {SUFFIX}.", f"Use -o {output.with_suffix(SUFFIX)}")
    if not output.parent.is_dir():
        raise UsageError(f"The folder {output.parent} does not exist.", f"mkdir -p {shlex.quote(str(output.parent))}")
    checks.check_name_length(output)
    if output.is_dir():
        raise UsageError(f"{output} is a folder.", "Name a file with -o.")
    if output.exists() and not force:
        raise UsageError(f"{output} exists already.", "Give another name with -o, or --force to overwrite it.")
    return output
