"""`magic3d config`: the defaults that hold here and where each comes from; and how they reach the commands."""

from __future__ import annotations

import json
from typing import Any

from magic3d_cli import config as defaults
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import put


@reported
def config(as_json: options.Json = False) -> None:
    """Show your defaults and where each comes from.

    An option on the command line wins, then an environment variable, then the file (TOML, lines such as
    preset = "standard").
    """
    found, path = defaults.settings(), defaults.config_file()
    if as_json:
        listed = {name: {"value": one.value, "from": one.origin} for name, one in found.items()}
        put(json.dumps({"file": str(path) if path else None, "settings": listed}))
        return
    rows = [(name.replace("_", "-"), _shown(one.value), one.origin, defaults.variable(name)) for name, one in
            found.items()]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    state = "is read" if path is not None and path.is_file() else 'is not there; it may hold: preset = "standard"'
    put(
        "\n".join([*lines, f"The file {path} {state}." if path else "No home folder: name a file with MAGIC3D_CONFIG."])
    )


def _shown(value: Any) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def default_map(commands: dict[str, set[str]]) -> dict[str, dict[str, Any]]:
    """For click: by command, the values of its parameters (`commands`) that a file or a variable set."""
    given = {name: one.value for name, one in defaults.settings().items() if one.origin != "default"}
    found = {
        command: {
            name: value
            for name, value in given.items()
            if name in parameters and (defaults.OPTIONS[name].everywhere or command == "generate")
        }
        for command, parameters in commands.items()
    }
    # An empty entry for the command "version" would be taken for the value of the option --version.
    return {command: values for command, values in found.items() if values}
