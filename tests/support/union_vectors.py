"""Makes the test vectors of ``docs/spec/replication.md``; ``python -m tests.support.vectors`` writes them with the others."""

from __future__ import annotations

from itertools import islice
from typing import Any

from blake3 import blake3

from instep.core.union.collide import names_of
from instep.core.union.lines import KnownLines
from instep.core.union.ownership import Ownership
from instep.core.union.unite import unite
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import sort_key
from instep.model.replication.union import UnionPart, UnionRecord, Withheld, plain_directory

Brief = tuple[str, int, int, str]
"""Path, kind, birth and contents of an entry."""

TIME_NS = 1_700_000_000_000_000_000
CASES: dict[str, dict[str, list[Brief]]] = {
    "nothing in common": {"alpha": [("a/x", 0, 1, "x")], "beta": [("a/y", 0, 2, "y"), ("b", 1, 0, "")]},
    "the older file keeps the name": {
        "alpha": [("doc.xml", 0, 20, "young")],
        "beta": [("doc.xml", 0, 10, "old")],
    },
    "of one age, by origin": {"beta": [("doc.xml", 0, 10, "b")], "alpha": [("doc.xml", 2, 10, "a")]},
    "a young file among old ones": {
        "alpha": [("d", 0, 30, "file")],
        "beta": [("d/x", 0, 10, "x"), ("d/y", 0, 40, "y")],
    },
    "an old file above a directory": {
        "alpha": [("d", 0, 5, "file")],
        "beta": [("d/x", 0, 10, "x"), ("d/e", 1, 0, ""), ("d/s/y", 0, 40, "y")],
    },
    "a loser costs no third line its name": {
        "alpha": [("d", 0, 10, "wins")],
        "beta": [("d/x", 0, 20, "loses to d")],
        "gamma": [("d/x/y", 0, 30, "loses to d"), ("e", 0, 1, "e")],
    },
    "winners below, losers beside": {
        "alpha": [("d/x", 0, 10, "x")],
        "beta": [("d", 0, 20, "loses to d/x")],
        "gamma": [("d/y", 0, 30, "wins, for beta's d has lost")],
    },
    "an empty directory loses to a file": {"alpha": [("d", 1, 0, "")], "beta": [("d", 0, 50, "file")]},
    "directories do not collide": {"alpha": [("d", 1, 0, "")], "beta": [("d/x", 0, 1, "x")]},
    "the first name is taken": {
        "alpha": [("a", 0, 1, "wins")],
        "beta": [
            ("a", 0, 2, "loses"),
            (next(names_of(b"a", NodeName("beta"), 2))[0].decode(), 0, 3, "taken"),
        ],
    },
}
NAMES = [
    (b"doc.xml", "beta", 20),
    (b"knb/archive.tar.gz", "catalogue-1.example.org", None),
    (b"dir/.profile", "beta", 0),
    (b"see no. 7 of the annual report", "beta", 1),
    ("é".encode() * 127 + b".txt", "beta", 1),
]


def entry_of(brief: Brief) -> Entry:
    path, kind, born_ms, text = brief
    raw = text.encode()
    if kind == Kind.DIR:
        return plain_directory(path.encode())
    mode = 0o644 if kind == Kind.FILE else 0o777
    return Entry(path.encode(), Kind(kind), mode, len(raw), TIME_NS, Digest(blake3(raw).digest()), born_ms)


def line_of(briefs: list[Brief]) -> list[Entry]:
    """The entries of a line in order, with the parents that are not listed."""
    tree = {brief[0].encode(): entry_of(brief) for brief in briefs}
    for path in list(tree):
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            tree.setdefault(path, plain_directory(path))
    return [tree[path] for path in sorted(tree, key=sort_key)]


def union_vectors() -> dict[str, Any]:
    return {
        "names": [_names(*name) for name in NAMES],
        "unions": [{"what": what, **_union(lines)} for what, lines in CASES.items()],
        "record": _record(),
    }


def _names(component: bytes, origin: str, born_ms: int | None) -> dict[str, Any]:
    made = list(islice(names_of(component, NodeName(origin), born_ms), 3))
    return {
        "component": component.hex(),
        "origin": origin,
        "born_ms": born_ms,
        "names": [name.hex() for name, _ in made],
        "tags": [tag for _, tag in made],
    }


def _union(lines: dict[str, list[Brief]]) -> dict[str, Any]:
    store: dict[Digest, bytes] = {}
    roots = {
        NodeName(origin): manifest.build(line_of(briefs), store.__setitem__)
        for origin, briefs in lines.items()
    }
    known = KnownLines(roots, store.__getitem__)
    made = unite(known, store.__getitem__, store.__setitem__)
    sources = Ownership(known, made.collisions)
    return {
        "lines": {origin: [list(brief) for brief in briefs] for origin, briefs in lines.items()},
        "shown": [
            [entry.path.decode(), source.origin, source.path.decode()]
            for entry in manifest.iterate(made.root, store.__getitem__)
            if entry.kind is not Kind.DIR
            for source in sources.of(entry.path)
        ],
        "collisions": [
            [each.component.decode(), each.origin, each.shown.decode(), each.tag, each.winner]
            for each in made.collisions
        ],
        "root": made.root.hex(),
    }


def _record() -> dict[str, Any]:
    digest = Digest(blake3(b"any").digest())
    parts = tuple(
        UnionPart(NodeName(name), HeadRef(1, n, digest, digest)) for n, name in enumerate(("alpha", "beta"))
    )
    wanted, kept = entry_of(("doc.xml", 0, 10, "new")), entry_of(("doc.xml", 0, 10, "old"))
    record = UnionRecord(1, 7, parts, digest, digest, (Withheld(NodeName("beta"), wanted, kept),))
    return {"raw": record.encoded().hex(), "id": record.id.hex()}
