"""The map of rooms on the architecture page, from the first line of each folder's ``__init__``."""

from __future__ import annotations

import ast
from pathlib import Path

BEGIN = "<!-- rooms: made by python -m docs.generator.pages from each __init__; do not edit. -->\n"
END = "<!-- end of rooms -->\n"
HOUSE = ("cli", "daemon", "panel", "node", "api", "tree", "store", "net", "fleet", "core", "model", "testing")
"""The rooms of the house from the roof down, and the simulated world beside it."""


def with_rooms(page: str, sources: Path) -> str:
    """The page with a new table between the two marks; each stands there once. ``sources`` holds the rooms."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert before, "the page has no mark where the map begins"
    assert after, "the page has no mark where the map ends"
    rows = ["| room | holds |", "|---|---|", *(_row(room, sources) for room in _rooms(sources))]
    return before + BEGIN + "\n".join(rows) + "\n" + END + after


def _rooms(sources: Path) -> list[str]:
    """Every folder with modules as a path below ``sources``, in the order of the house."""
    found = sorted(str(init.parent.relative_to(sources)) for init in sources.glob("*/**/__init__.py"))
    assert {room.partition("/")[0] for room in found} == set(HOUSE), "a room that HOUSE does not name"
    return sorted(found, key=lambda room: (HOUSE.index(room.partition("/")[0]), room))


def _row(room: str, sources: Path) -> str:
    text = ast.get_docstring(ast.parse((sources / room / "__init__.py").read_text())) or ""
    holds = text.partition("\n\n")[0].replace("``", "`").replace("|", "\\|")
    return f"| [`{room}/`](../src/instep/{room}) | {holds} |"
