"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from magic3d_cli import checks
from magic3d_cli.guidance.diffusers.catalogue import NAMES
from magic3d_cli.settings import METHODS


def one_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """What a shell offers for an option of these words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where to write: .glb, .obj, .usdz, .ply, .stl or .3mf. The run is kept in FILE's .run folder.",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="draft, standard or paper: how long to optimise, and how finely.",
        autocompletion=one_of(checks.PRESETS),
    ),
]
Prior = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=one_of(NAMES),
        help=f"The diffusion model that knows what things look like: {', '.join(NAMES)}, a diffusers directory "
        "or a hub id. auto is the built-in one; with a GPU a Stable Diffusion that is in the cache, if any.",
    ),
]
CoarsePrior = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Another one for the coarse stage alone.", autocompletion=one_of(NAMES)),
]
FinePrior = Annotated[
    str | None, typer.Option(metavar="NAME", help="Another one for the fine stage alone.", autocompletion=one_of(NAMES))
]
AlsoPrior = Annotated[
    list[str] | None,
    typer.Option(
        "--also-prior",
        metavar="NAME[=WEIGHT]",
        autocompletion=one_of(NAMES),
        help="A prior beside the others, in both stages; the losses are added up. May be given several times.",
    ),
]
Init = Annotated[
    str,
    typer.Option(
        "--init",
        metavar="SHAPE",
        help="Where the shape begins: auto (the prior's own volume where it has one), ball (as the paper does), a mesh "
        "file, a .run folder or checkpoint, or 'builtin:a dog' (the built-in prior's volume of that, for any prior).",
    ),
]
InitUp = Annotated[
    str,
    typer.Option(
        "--init-up",
        autocompletion=one_of(checks.UPS),
        metavar="AXIS",
        help="Which axis of --init's mesh file points upwards: y, z, x, -y, -z, -x.",
    ),
]
Up = Annotated[
    str,
    typer.Option(
        "--up",
        autocompletion=one_of(checks.UPS),
        metavar="AXIS",
        help=f"Which axis of a mesh points upwards: {', '.join(checks.UPS)}.",
    ),
]
Adapter = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="FILE[=WEIGHT]",
        help="What magic3d personalise made, or a LoRA or learnt word of others (.safetensors) for an open-vocabulary "
        "prior. May be given several times. An IP-Adapter, its file or folder, shows such a prior the picture of "
        "--style; its weight is its scale, 0 to 1 (default: 0.5).",
    ),
]
PerpNeg = Annotated[
    bool | None,
    typer.Option(
        "--perp-neg/--no-perp-neg",
        help="Tell an open-vocabulary prior also which views it is not, against second faces; twice the prior's work. "
        "Off by default; refine does as the checkpoint.",
        show_default=False,
    ),
]
SmallEncoder = Annotated[
    bool | None,
    typer.Option(
        "--small-encoder/--no-small-encoder",
        help="Encode images for Stable Diffusion 1 or 2 with TAESD (10 MB, MIT): nearly the same latents for a "
        "ninth of the encoder's work. Off by default; refine does as the checkpoint.",
        show_default=False,
    ),
]
Distillation = Annotated[
    str | None,
    typer.Option(
        "--distillation",
        metavar="METHOD",
        autocompletion=one_of(METHODS),
        help="How an open-vocabulary prior guides: sds (score distillation, scale 100) or vsd (variational, scale 7.5; "
        "a LoRA of the prior learns what the scene looks like; plainer colours, 2.5 times the prior's work) or bsd "
        "(the fine stage's texture by vsd toward a prior that learns its own redrawn renders, in rounds). sds by "
        "default; refine does as the checkpoint.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Another seed, another object.")]
Variations = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Make short runs of N seeds first, side by side, and finish the one with which the prior agrees most; all "
        "are kept in FILE's .variations folder, with a sheet to choose from.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.", autocompletion=one_of(checks.DEVICES))]
Faces = Annotated[int | None, typer.Option(metavar="N", help="Triangles of the mesh, at most.")]
TextureSize = Annotated[int | None, typer.Option(metavar="N", help="Side of the texture, in pixels.")]
Height = Annotated[
    float | None,
    typer.Option(
        metavar="METRES", help="How tall the object stands; default: a usual size (a mug 0.1, a car 4.5 long)."
    ),
]
Lod = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Also write N simpler meshes, FILE_LOD1 to FILE_LODN, each with half the triangles and half the texture's "
        "side of the one before.",
        show_default=False,
    ),
]
Occlusion = Annotated[
    bool | None,
    typer.Option("--ao/--no-ao", help="Bake ambient occlusion, in GLB and USDZ; off by default.", show_default=False),
]
NormalMap = Annotated[
    bool | None,
    typer.Option(
        "--normal-map/--no-normal-map",
        help="Bake a normal map from the mesh before it is simplified, in GLB, OBJ and USDZ; off by default.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a file that another request made.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over; an earlier run is moved aside, not deleted.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a prompt with any word that the built-in prior does not know.")
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON report instead of the path.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show losses, libraries' messages and, after a fault, where it happened."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be made and how long it takes; make nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a job of hours.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; errors are still shown.")]
