"""The faults that rsync had to mend in 2026 beside its paths: lengths that a peer sends, and names that decide about
admission."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import inspect

from instep.errors import PeerError
from instep.model.manifest import entry, pages
from instep.model.manifest.entry import Entry, Kind
from instep.net.messages import messages

SOURCES = Path(__file__).parents[2] / "src/instep"
LOOKS_UP = frozenset({"gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo", "getfqdn"})
DIALS_OR_LISTENS = frozenset({"net/connections/dial.py", "net/connections/listener.py"})
"""Here a name that the operator wrote becomes an address to dial; it admits no peer."""


def structs() -> list[type[msgspec.Struct]]:
    found = {
        each
        for module in (messages, entry, pages)
        for each in vars(module).values()
        if isinstance(each, type)
    }
    return sorted(
        (each for each in found if issubclass(each, msgspec.Struct)), key=lambda each: each.__name__
    )


def _unbounded(kind: inspect.Type, where: str, depth: int = 0) -> Iterator[str]:
    match kind:
        case inspect.IntType(ge=low, gt=above, le=high, lt=below):
            if (low is None and above is None) or (high is None and below is None):
                yield where
        case inspect.UnionType(types=types):
            for each in types:
                yield from _unbounded(each, where, depth)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            yield from _unbounded(item, where + "[]", depth)
        case inspect.TupleType(item_types=items):
            for number, item in enumerate(items):
                yield from _unbounded(item, f"{where}[{number}]", depth)
        case inspect.DictType(value_type=value):
            yield from _unbounded(value, where + "{}", depth)
        case inspect.StructType(fields=fields) if depth == 0:
            for field in fields:
                yield from _unbounded(field.type, f"{where}.{field.name}", 1)


@pytest.mark.parametrize("kind", structs(), ids=lambda kind: kind.__name__)
def test_every_number_that_a_peer_sends_has_bounds(kind: type[msgspec.Struct]) -> None:
    assert list(_unbounded(inspect.type_info(kind), kind.__name__)) == []


@pytest.mark.parametrize("size", [-1, 2**63, 2**64 - 1])
def test_a_size_that_no_file_has_is_refused(size: int) -> None:
    raw = pages.encode_page(0, [Entry(b"f", Kind.FILE, 0o644, size, 1, b"d" * 32, 1)])  # type: ignore[arg-type]
    with pytest.raises(PeerError):
        pages.decode_leaf(raw)


def test_no_name_is_looked_up_to_decide_who_may_come_in() -> None:
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        where = str(path.relative_to(SOURCES))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Attribute | ast.Name):
                continue
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in LOOKS_UP or (name == "getaddrinfo" and where not in DIALS_OR_LISTENS):
                found.append(f"{where}:{node.lineno}: {name}")
    assert found == []
