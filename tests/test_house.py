"""How the package's files import each other: never in a circle, and never upwards."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import magic3d_cli

ROOT = Path(magic3d_cli.__file__).parent
LAYERS = (
    (
        "atomic",
        "checks",
        "config",
        "environment",
        "errors",
        "kernels",
        "photos",
        "picture_file",
        "picture_request",
        "reference",
        "settings",
        "srgb",
        "style",
        "version",
    ),
    ("open_presets", "presets", "recipes", "scene"),
    ("training",),
    ("guidance",),
    ("coarse",),
    ("fine",),
    ("run",),
    ("asset",),
    (
        "",  # magic3d_cli/__init__.py, which hands on `api` when it is asked for it
        "api",
        "assembly",
        "batch",
        "bench",
        "delivery",
        "editing",
        "initial_shapes",
        "job",
        "personalise",
        "pictures",
        "pipeline",
        "plan",
        "precheck",
        "request",
        "tuning",
    ),
    ("cli", "__main__"),
)
"""The package's files and folders from the lowest to the highest; those of one layer may import each other."""


class Import(NamedTuple):
    """One import of a module of the package by another; names without the package's own."""

    importer: str
    imported: str
    at_module_level: bool  # runs when the importer is imported; False in a function or for type checkers only


def imports(root: Path = ROOT) -> list[Import]:
    """Of every file of a package."""
    files = {".".join(path.relative_to(root).with_suffix("").parts): path for path in sorted(root.rglob("*.py"))}
    modules = {name.removesuffix("__init__").removesuffix("."): path for name, path in files.items()}
    found = []
    for module, path in modules.items():
        for statement, at_module_level in _statements(ast.parse(path.read_text(encoding="utf-8")), True):
            for name in _imported(statement, root.name):
                target = name if name in modules else name.rpartition(".")[0]
                assert target in modules, f"{module} imports {name}"
                found.append(Import(module, target, at_module_level))
    return found


def _statements(node: ast.AST, at_module_level: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_module_level
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            never = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _statements(child, at_module_level and not later and not never)


def _imported(statement: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Names inside the package: "kernels.march.march" of `from magic3d_cli.kernels.march import march`."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    else:
        assert statement.level == 0, "an import relative to the file's own folder"
        names = [f"{statement.module}.{alias.name}" for alias in statement.names]
    return [name.removeprefix(package).removeprefix(".") for name in names if f"{name}.".startswith(f"{package}.")]


def circle(edges: Iterable[tuple[str, str]]) -> list[str] | None:
    """The modules of one circle of imports, if there is one."""
    graph: TopologicalSorter[str] = TopologicalSorter()
    for importer, imported in edges:
        if importer != imported:  # a package's __init__ imports its own files by the package's name
            graph.add(importer, imported)
    try:
        graph.prepare()
    except CycleError as error:
        return error.args[1]
    return None


def layer(module: str) -> int:
    """The number of a module's layer. Raises ValueError for a file that LAYERS does not know."""
    for number, names in enumerate(LAYERS):
        if module.partition(".")[0] in names:
            return number
    raise ValueError(f"{module} is in no layer of {__name__}.LAYERS")


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Nor do imports inside functions hide one."""
    assert circle([(one.importer, one.imported) for one in imports()]) is None


def test_nothing_imports_the_command_line() -> None:
    assert [one for one in imports() if layer(one.imported) == len(LAYERS) - 1 > layer(one.importer)] == []


def test_nothing_imports_what_is_above_it() -> None:
    assert [one for one in imports() if layer(one.imported) > layer(one.importer)] == []


@pytest.mark.parametrize(
    ("files", "expected", "hidden"),
    [
        ({"a": "from package.b import x", "b": "import package.a"}, True, True),
        ({"a": "from package import b", "b": "def f():\n    from package.a import x"}, False, True),
        ({"a": "from package.b import x", "b": "import a\nfrom other.a import x"}, False, False),
        ({"a": "if True:\n    import package.b", "b": "class B:\n    from package.a import x"}, True, True),
    ],
)
def test_circles_are_found(files: dict[str, str], expected: bool, hidden: bool, tmp_path: Path) -> None:
    root = tmp_path / "package"
    root.mkdir()
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    found = imports(root)
    assert (circle([one[:2] for one in found if one.at_module_level]) is not None) == expected
    assert (circle([one[:2] for one in found]) is not None) == hidden
