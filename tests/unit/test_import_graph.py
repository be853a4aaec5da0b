"""The graph of imports has no circle, among modules nor among rooms; folders stay small and say what belongs there.

The contracts in ``pyproject.toml`` give the order of the rooms. This test needs no list: a circle is a circle anywhere,
whether an import is for types only, late, or at the top of the file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
MODULES_MAX = 15
LONGER_FOLDERS: dict[str, tuple[int, str]] = {
    "src/instep/api": (16, "a module for each subject of commands, and no module knows another one's"),
    "src/instep/cli/filesets": (17, "a module for each subject of commands about filesets, each on its own"),
    "src/instep/core/changes": (16, "two machines, each with its facts, words and floors, and one contract"),
    "src/instep/model": (18, "a module for each noun, and no module knows more than those below"),
    "src/instep/node/commands": (16, "a module for each subject of commands, and checks that several ask"),
    "src/instep/node/config": (18, "a module for each table of the file, above one reader"),
    "src/instep/node/lines": (18, "what both roles of a line share, each on its own"),
    "src/instep/node/peers": (16, "one class for each part of a connection"),
    "src/instep/node/replica": (
        16,
        "the own line, the lines of others and their union, each with what it acts on",
    ),
    "src/instep/node/runtime": (17, "small services that every room above uses, each on its own"),
    "src/instep/node/writing": (17, "publishing, restoring and changes from elsewhere meet in the writer"),
}
"""Folders with more modules: how many they may have, and why."""
LONGER_FOLDERS_MAX = 20

Graph = Mapping[str, frozenset[str]]


def imports_of(text: str, modules: Iterable[str]) -> frozenset[str]:
    """The modules that a text imports, wherever in it the import stands."""
    known = frozenset(modules)
    named: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are banned"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                named.add(module if module in known else node.module or "")
    return frozenset(named & known)


@cache
def graph() -> Graph:
    paths = {
        ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(SRC.rglob("*.py"))
    }
    return {module: imports_of(path.read_text(), paths) - {module} for module, path in paths.items()}


def circle_of(graph: Graph) -> list[str]:
    """One circle, each name imported by the next; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def rooms_of(package: str, graph: Graph) -> Graph:
    """The graph of what lies directly in a package: a folder counts as one."""

    def room(module: str) -> str:
        return module.removeprefix(f"{package}.").partition(".")[0]

    inside = {module: to for module, to in graph.items() if module.startswith(f"{package}.")}
    rooms: dict[str, set[str]] = {room(module): set() for module in inside}
    for module, imported in inside.items():
        rooms[room(module)] |= {room(each) for each in imported if each in inside} - {room(module)}
    return {name: frozenset(to) for name, to in rooms.items()}


def packages() -> list[str]:
    return sorted({module.rpartition(".")[0] for module in graph()} - {""})


@pytest.mark.parametrize(
    "late",
    [
        "import p.a",
        "from p.a import x",
        "from p import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import T",
        "def f():\n    from p.a import x",
    ],
)
def test_a_circle_is_found_however_it_is_imported(late: str) -> None:
    texts = {"p": "", "p.a": "import p.b", "p.b": late}
    made = {module: imports_of(text, texts) - {module} for module, text in texts.items()}
    assert set(circle_of(made)) == {"p.a", "p.b"}


def test_no_module_imports_itself_by_a_circle() -> None:
    assert len(graph()) > 400
    assert not circle_of(graph()), "move what both need below them, or give one of them a protocol"


def test_no_circle_exists_among_rooms() -> None:
    circles = {package: circle_of(rooms_of(package, graph())) for package in packages()}
    assert not {package: circle for package, circle in circles.items() if circle}


def test_folders_are_small() -> None:
    counts = {
        str(folder.relative_to(SRC.parent)): sum(
            1 for path in folder.glob("*.py") if path.name != "__init__.py"
        )
        for folder in (SRC / package.replace(".", "/") for package in packages())
    }
    too_long = {n: k for n, k in counts.items() if k > LONGER_FOLDERS.get(n, (MODULES_MAX, ""))[0]}
    assert not too_long, "split these along their nouns"
    assert all(k <= LONGER_FOLDERS_MAX for k, _ in LONGER_FOLDERS.values())
    slack = [n for n in LONGER_FOLDERS if counts.get(n, 0) <= MODULES_MAX]
    assert not slack, "these fit by now: take them off the list"


def test_every_folder_says_in_one_line_what_belongs_there() -> None:
    silent = []
    for package in packages():
        text = (SRC / package.replace(".", "/") / "__init__.py").read_text()
        first = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
        if "\n" in first or not first.endswith(".") or len(first.split()) < 5:
            silent.append(package)
    assert not silent, "the map of the architecture page is made from these lines"
