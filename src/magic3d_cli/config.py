"""Defaults of one's own: environment variables MAGIC3D_PRESET, ... and a TOML file. The command line wins, then these.

The file holds lines such as `preset = "standard"`. No tensors here.
"""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magic3d_cli import checks
from magic3d_cli.errors import UsageError

FILE_VARIABLE = "MAGIC3D_CONFIG"


@dataclass(frozen=True)
class Option:
    """Something that can be set once for all commands."""

    kind: type  # str, int or bool
    default: Any
    everywhere: bool = False  # for every command that has it; else for `generate` alone
    choices: tuple[str, ...] = ()


OPTIONS = {
    "preset": Option(str, "draft", choices=checks.PRESETS),
    "prior": Option(str, "auto"),
    "coarse_prior": Option(str, None),
    "fine_prior": Option(str, None),
    "perp_neg": Option(bool, None),
    "small_encoder": Option(bool, None),
    "faces": Option(int, None),
    "texture_size": Option(int, None),
    "lod": Option(int, None),
    "ao": Option(bool, None),
    "normal_map": Option(bool, None),
    "strict": Option(bool, False),
    "yes": Option(bool, False),
    "device": Option(str, "auto", everywhere=True, choices=checks.DEVICES),
    "quiet": Option(bool, False, everywhere=True),
    "verbose": Option(bool, False, everywhere=True),
}
"""By the name of the parameter. What belongs to one asset (a seed, an output, a height) is not among them; `refine` and
`export` take the sizes and priors of their checkpoint."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Setting:
    """A value and where it comes from: "default", a file or an environment variable."""

    value: Any
    origin: str


def config_file() -> Path | None:
    """Where the file is or would be; None on a machine that knows no home folder."""
    if given := os.environ.get(FILE_VARIABLE):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("APPDATA")
    else:
        base = os.environ.get("XDG_CONFIG_HOME")
    try:
        folder = Path(base) if base else Path.home() / ".config"
    except RuntimeError:  # neither HOME nor an entry for this user
        return None
    return folder / "magic3d" / "config.toml"


def variable(name: str) -> str:
    """MAGIC3D_TEXTURE_SIZE for "texture_size"."""
    return f"MAGIC3D_{name.upper()}"


def settings() -> dict[str, Setting]:
    """Every option that can be set, by name. Raises UsageError for a file or variable that makes no sense."""
    found = {name: Setting(option.default, "default") for name, option in OPTIONS.items()}
    path = config_file()
    for name, value in _read(path).items():
        found[name] = Setting(_checked(name, value, str(path)), str(path))
    for name in OPTIONS:
        if text := os.environ.get(variable(name)):
            found[name] = Setting(_checked(name, _parsed(name, text), variable(name)), variable(name))
    return found


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        if FILE_VARIABLE in os.environ:
            raise UsageError(f"{FILE_VARIABLE} names {path}, which cannot be read.", f"unset {FILE_VARIABLE}") from None
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no TOML file: {error}.", 'Write lines such as: preset = "standard"') from error
    names = {key.replace("-", "_"): value for key, value in data.items()}
    for name in names:
        if name not in OPTIONS:
            raise UsageError(
                f"{path}: {name!r} is no setting.{checks.meant(name, OPTIONS)}", f"Use any of: {', '.join(OPTIONS)}."
            )
    return names


def _parsed(name: str, text: str) -> Any:
    """A variable's text as the option's type; what does not fit is left for `_checked`."""
    kind = OPTIONS[name].kind
    if kind is bool and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    if kind is int:
        try:
            return int(text)
        except ValueError:
            return text
    return text


def _checked(name: str, value: Any, origin: str) -> Any:
    option = OPTIONS[name]
    kinds = {str: "a word", int: "a whole number", bool: "true or false"}
    if type(value) is not option.kind:
        raise UsageError(f"{origin}: {name} = {value!r} is not {kinds[option.kind]}.", f"Correct or remove {origin}")
    if option.choices and value not in option.choices:
        raise UsageError(
            f"{origin}: {name} = {value!r} is unknown.{checks.meant(str(value), option.choices)}",
            f"Use one of: {', '.join(option.choices)}.",
        )
    return value
