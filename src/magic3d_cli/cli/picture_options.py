"""Options of `generate` that are about pictures, and reading what they name."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magic3d_cli.checks import RECIPES, check_picture, expanded, place_of
from magic3d_cli.cli.options import one_of
from magic3d_cli.errors import UsageError

if TYPE_CHECKING:  # NumPy and Pillow take longer to import than --help may take
    from magic3d_cli.picture_request import PictureRequest

_PANEL = "A picture in"

Image = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="FILE[@AZIMUTH]",
        help="A picture that the model has to look like; best a PNG with transparency, or a photo before a plain wall. "
        "May be given again with other sides: side.png@90 is what is on the right of the front picture (degrees).",
        rich_help_panel=_PANEL,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="One model for each picture of a folder; -o then names a folder.",
        rich_help_panel=_PANEL,
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="White where the thing is in --image.", rich_help_panel=_PANEL),
]
Depth = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|auto|none",
        help="Depth of --image, bright where near, as Depth Anything and MiDaS write it; auto: estimated by Depth "
        "Anything V2 Small (99 MB, Apache-2.0, downloaded once). A folder with another network of transformers' kind "
        "will do too. Default: none.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Normals = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Normals of --image: red rightwards, green upwards, blue towards the viewer.",
        rich_help_panel=_PANEL,
    ),
]
Elevation = Annotated[
    float | None,
    typer.Option(
        metavar="DEGREES",
        help="How far above the horizon the picture was taken; default: found out, else 10.",
        rich_help_panel=_PANEL,
    ),
]
Fov = Annotated[
    float | None,
    typer.Option(metavar="DEGREES", help="The picture's field of view; default: 40.", rich_help_panel=_PANEL),
]
Imagine = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="0: nothing but the picture; 1: the prior pulls twice as hard on what it does not show. With two kinds "
        "of priors, which of them leads: those that know the camera (0) or those that are told in words (1). "
        "Default: 0.5; 0 for a thing that the built-in prior does not know.",
        rich_help_panel=_PANEL,
    ),
]
Style = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A picture whose look the thing gets. The built-in prior paints in its colours, over those that the "
        "prompt names: dark parts take its dark colours, light ones its light ones. Stable Diffusion is shown it by an "
        "IP-Adapter: --adapter.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=one_of(RECIPES),
        help=f"Follow a published program: {', '.join(RECIPES)}. Some need priors that are told in words and shown the "
        "picture: --prior sd15 --also-prior zero123-xl. dreamcraft3d draws its picture itself where none is given.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]


def requested(
    image: list[str] | None,
    images: Path | None,
    mask: Path | None,
    depth: str | None,
    normals: Path | None,
    elevation: float | None,
    fov: float | None,
    imagine: float | None,
) -> PictureRequest | None:
    """The pictures of one asset; None where none is asked for. Raises UsageError for what cannot be used."""
    if images is not None and (image or mask or normals or not estimated(depth)):
        raise UsageError(
            "--images takes whole folders, without --image, and without --mask, --depth or --normals files.",
            "Use one or the other.",
        )
    if image:
        beside = [mask, normals, None if estimated(depth) else Path(str(depth))]
        for path in [place_of(text)[0] for text in image] + [expanded(path) for path in beside if path]:
            check_picture(path)  # before NumPy and Pillow are imported
        from magic3d_cli.picture_request import read_pictures

        return read_pictures(
            image, mask=mask, depth=depth, normals=normals, elevation=elevation, fov=fov, imagine=imagine
        )
    given = {"--mask": mask, "--depth": depth, "--normals": normals, "--elevation": elevation, "--fov": fov,
             "--imagine": imagine}  # fmt: skip
    unused = [option for option, value in given.items() if value is not None and images is None]
    if unused:
        raise UsageError(f"{unused[0]} says something of a picture, and there is none.", "Add --image FILE.")
    return None


def estimated(depth: str | None) -> bool:
    """Whether `--depth` names no file: it is left out, none, auto, or a folder."""
    return depth is None or depth in ("auto", "none") or expanded(depth).is_dir()


def outputs_of(images: Path, output: Path | None) -> list[tuple[Path, Path]]:
    """Every picture of a folder and the GLB that is made of it, in the folder `output` or the current one."""
    folder = Path() if output is None else expanded(output)
    if not folder.is_dir():
        raise UsageError(
            f"With --images, -o names a folder, and {folder} is none.", f"mkdir -p {shlex.quote(str(folder))}"
        )
    from magic3d_cli.picture_request import pictures_in

    found = pictures_in(images)
    names = [path.stem for path in found]
    return [
        (path, folder / f"{path.stem if names.count(path.stem) == 1 else path.name.replace('.', '-')}.glb")
        for path in found
    ]
