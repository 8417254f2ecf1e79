"""What can be refused in a fraction of a second: words, names and paths, before PyTorch is imported.

The job checks the same again where it matters; here a typing mistake is answered before a person looks away.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magic3d_cli.asset.names import belonging
from magic3d_cli.checks import (
    BUILTIN_SHAPE,
    INITS,
    check_followed,
    check_output,
    check_picture,
    check_prompt,
    default_output,
    expanded,
    is_checkpoint,
    meant,
)
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import Adapter, check_shown, image_prompt, vocabulary_with
from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.diffusers.catalogue import (
    FROM_PICTURE,
    IN_SETS,
    UNSHOWN,
    check_name,
    local,
    needs_picture,
    no_style,
    of_stage,
)
from magic3d_cli.guidance.diffusers.files import vocabulary_of
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.settings import PICTURES_ALONE

if TYPE_CHECKING:
    from magic3d_cli.style import Style


def check_generate(
    prompt: str,
    seed: int,
    priors: Iterable[str],
    device: str,
    output: Path,
    *,
    strict: bool = False,
    words: bool = True,
    adapters: Sequence[Adapter] = (),
) -> None:
    """Raises UsageError as `check_words` and for a run in use; EnvironmentFault for a prior that does not exist.

    `words` is false where a picture says what is to be made.
    """
    RunDirectory.for_output(output).check_free()
    for name in dict.fromkeys(priors):
        check_name(name)
        if words:
            check_words(name, prompt, seed, device, strict=strict, adapters=adapters)


def check_distilled(method: str | None, coarse: str, fine: str, added: Sequence[str], device: str) -> None:
    """Raises UsageError for a method of distillation that none of the priors can follow, as far as their names tell:
    each stage's own, and those `added` to both."""
    auto = "auto" if _may_have_gpu(device) else "builtin"  # a GPU may change which prior that is
    named = {"coarse": [coarse, *added], "fine": [fine, *added]}
    chosen = {stage: [auto if name == "auto" else name for name in some] for stage, some in named.items()}
    check_followed(method, {stage: {name: _without_lora(name) for name in some} for stage, some in chosen.items()})


def check_words(
    name: str, prompt: str, seed: int, device: str, *, strict: bool = False, adapters: Sequence[Adapter] = ()
) -> None:
    """Raises UsageError for a prompt in which the prior of this name can draw nothing, and where it is shown a picture.

    Where a GPU may change which prior "auto" is, the words are left for later.
    """
    if name in FROM_PICTURE:
        raise needs_picture(name)
    _understand(None if name == "auto" and _may_have_gpu(device) else local(name), prompt, seed, strict, adapters)


def styled(
    path: Path | None,
    priors: Iterable[str],
    device: str,
    adapters: Sequence[Adapter] = (),
    pictured: bool = False,
    variations: int | None = None,
) -> Style | None:
    """The style of a picture; None where none is asked for.

    Raises UsageError for what it does not go with, for a prior that cannot paint in it (where a GPU may change which
    one "auto" is, that is left for later), for an IP-Adapter without one, and as `read_style`.
    """
    check_shown(adapters, path is not None)
    if path is None:
        return None
    if pictured:
        raise UsageError(
            "--style, and a picture or a recipe of pictures, both say what colours the thing has.",
            "Use one or the other of them.",
        )
    if variations is not None:
        raise UsageError("--variations does not take --style.", "Leave out one of them.")
    check_picture(path)
    check_paints((name for name in priors if not (name == "auto" and _may_have_gpu(device))), adapters)
    from magic3d_cli.style import read_style  # NumPy and Pillow

    return read_style(path)


def check_paints(names: Iterable[str], adapters: Sequence[Adapter] = ()) -> None:
    """Raises UsageError for a prior, by its name, that cannot take in a style.

    Those of closed vocabulary can; others need an IP-Adapter, and whether it fits is seen when they are here.
    """
    shown = image_prompt(adapters) is not None
    for name in dict.fromkeys(names):
        folder = local(name)
        if folder is not None and vocabulary_of(of_stage(folder, "coarse")) is not None:
            continue
        if not shown or name in UNSHOWN:
            raise no_style(name)


def check_init(init: str, seed: int) -> str:
    """A word, a caption of the built-in prior after "builtin:", or a file; for a run folder its checkpoint.

    Raises UsageError for what is none of these, a caption in which nothing can be drawn, an unreadable checkpoint.
    """
    if init in INITS:
        return init
    if init.startswith(BUILTIN_SHAPE):
        _understand(local("builtin"), check_prompt(init.removeprefix(BUILTIN_SHAPE)), seed)
        return init
    path = expanded(init)
    if path.is_dir():
        saved = RunDirectory(path).furthest
        if saved is None:
            raise UsageError(f"--init {init}: the folder holds no checkpoint.", "Name a .run folder or a mesh file.")
        path, init = saved, str(saved)
    if not path.is_file():
        raise UsageError(
            f"--init {init!r} is neither a word that is known nor a file.{meant(init, INITS)}",
            f'Use one of: {", ".join(INITS)}, builtin:"a dog", or the path of a mesh, a checkpoint or a .run folder.',
        )
    if is_checkpoint(path):
        checkpoint.read_header(path)
    return init


def choose_output(
    given: Path | None,
    prompt: str,
    seed: int,
    preset: str,
    force: bool,
    digest: str | None = None,
    typed: str | None = None,
    seeds: int = 1,
    adapters: str | None = None,
    lod: int | None = None,
) -> Path:
    """Where a request's asset goes, so that nothing is overwritten in silence.

    A file of the same request is written again. Without a name of its own, a request that finds its default name taken
    takes the next one, car-1.glb, with a run of its own. `digest` is of a request with pictures or of an
    edit, `typed` its prompt; of several `seeds` from `seed` on each is the same request. `adapters` are `marks`. Raises
    UsageError where a given name is taken, or that of a file that goes with it, unless `force`.
    """
    output = check_output(given or default_output(prompt))
    prompt = prompt if digest is None else typed or ""

    def ours(path: Path) -> bool:
        run = RunDirectory.for_output(path)
        return any(run.is_of(prompt, seed + n, preset, digest, adapters) for n in range(seeds))

    if force:
        return output
    if given is not None or ours(output):
        refuse_to_overwrite(output, lod, own_names(output, ours(output)))
        return output
    number = 0
    candidate = output
    while RunDirectory.for_output(candidate).path.exists() or any(_strangers(candidate, lod, own_names(candidate))):
        if ours(candidate):
            refuse_to_overwrite(candidate, lod, own_names(candidate, True))
            break
        number += 1
        candidate = output.with_name(f"{output.stem}-{number}{output.suffix}")
    return candidate


def drawn_digest(recipe: str | None, prompt: str, seed: int) -> str | None:
    """What stands for the pictures' digest where a recipe draws the picture itself: known before it is drawn."""
    return None if recipe is None else hashlib.sha256(repr((recipe, prompt, seed)).encode()).hexdigest()[:16]


def find_finished(source: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of a run that is to be edited: of a .run folder, of the asset beside it, or as it is; its header.

    Raises UsageError where there is none, or it is damaged.
    """
    run = RunDirectory(source) if source.is_dir() else RunDirectory.for_output(source)
    found = source if is_checkpoint(source) and source.is_file() else run.furthest
    if found is None:
        raise UsageError(
            f"There is no checkpoint of {source}.",
            "Name a .run folder, its asset or a checkpoint; for a mesh of your own: magic3d refine MESH --prompt TEXT",
        )
    return found, checkpoint.read_header(found)


def prior_of(header: dict[str, Any]) -> str:
    """The prior that edits a run unless another is asked for: its own, or the built-in one where it had none."""
    name = header["prior"]["id"]
    return "builtin" if name == PICTURES_ALONE else name


def edit_digest(source: Path, box: object, recolour: bool, style: str | None = None) -> str:
    """Of an edit of a checkpoint: what its result depends on beside the prompt and the settings."""
    asked = (box, recolour) if style is None else (box, recolour, style)
    return hashlib.sha256(source.read_bytes() + repr(asked).encode()).hexdigest()[:16]


def refuse_to_overwrite(output: Path, lod: int | None = None, own: Collection[str] = ()) -> None:
    """Raises UsageError where an output, or a file that goes with it, would replace one whose name is not among its
    `own_names`."""
    for path, what in _strangers(output, lod, own):
        told = "was not made by this request" if path == output else f"the {what} of {output} would be written there"
        raise UsageError(
            f"{path} exists already, and {told}.", "Give another name with -o, or --force to overwrite it."
        )


def own_names(output: Path, ours: bool = False) -> set[str]:
    """Names of files that may be written again with an output: all that its run has written. The output itself, and
    what it refers to, only where the run is `ours`, of the same request."""
    found = RunDirectory.for_output(output).written
    if not ours:
        return found - {output.name}
    return found | {path.name for path in belonging(output)} if output.exists() else found


def _strangers(output: Path, lod: int | None, own: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Files that are there and would be written with an output, but are not its own; and what they would be."""
    for path, what in belonging(output, lod or 0).items():
        if path.exists() and path.name not in own:
            yield path, what


def check_source(path: Path, output: Path, force: bool, lod: int | None = None) -> None:
    """Raises UsageError for a checkpoint that cannot be read; unless `force`, for files that its run did not write."""
    header = checkpoint.read_header(path)
    if force:
        return
    if lod is None:
        lod = header.get("settings", {}).get("asset", {}).get("lod", 0)
    run = RunDirectory.for_output(output)
    same = run.path.absolute() == path.absolute().parent
    refuse_to_overwrite(output, lod, run.written if same else own_names(output))


def _understand(
    folder: Path | None, prompt: str, seed: int, strict: bool = False, adapters: Sequence[Adapter] = ()
) -> None:
    """Raises UsageError for a prompt in which the prior in a folder can draw nothing; an open vocabulary draws all."""
    known = vocabulary_of(of_stage(folder, "coarse")) if folder is not None else None
    if known is not None:
        understand(vocabulary_with(known, adapters), prompt, seed, strict=strict)


def _without_lora(name: str) -> str | None:
    """The kind of a prior that learns no renders, see `NO_LORA`, as far as its name tells."""
    if name == "builtin":
        return name
    return "picture" if name in FROM_PICTURE else "sets" if name in IN_SETS else None


def _may_have_gpu(device: str) -> bool:
    """Whether PyTorch might find a CUDA GPU; only PyTorch knows for certain."""
    if device == "cpu" or sys.platform == "darwin":
        return False
    return sys.platform == "win32" or Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
