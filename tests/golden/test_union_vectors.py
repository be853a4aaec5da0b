"""The published vectors of the union hold for the naive twin, which was made from the page alone.

That our own code still makes them is tested in ``test_manifest_vectors.py``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from blake3 import blake3

from instep.model.manifest.entry import Kind
from tests.support import reference, vectors
from tests.support.union_twin import DIRECTORY, Tree, name, united
from tests.support.union_vectors import line_of

PUBLISHED = json.loads((vectors.VECTORS / "union.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", PUBLISHED["names"], ids=lambda vector: vector["origin"])
def test_the_twin_gives_the_same_names(vector: dict[str, Any]) -> None:
    component, origin = bytes.fromhex(vector["component"]), vector["origin"]
    hashed = blake3(b"instep collision 1\0" + reference.pack([component, origin, vector["born_ms"]]))
    digits = hashed.digest(length=12).hex()
    assert vector["tags"] == [digits[:8], digits[8:16], digits[16:]]
    assert [name(component, origin, tag).hex() for tag in vector["tags"]] == vector["names"]


@pytest.mark.parametrize("vector", PUBLISHED["unions"], ids=lambda vector: vector["what"])
def test_the_twin_makes_the_same_union(vector: dict[str, Any]) -> None:
    lines: dict[str, Tree] = {
        origin: {entry.path: entry for entry in line_of([(p, k, b, t) for p, k, b, t in briefs])}
        for origin, briefs in vector["lines"].items()
    }
    twin = united(lines)
    assert [[c, o, s, t] for c, o, s, t, _ in vector["collisions"]] == [
        [loser.component.decode(), loser.origin, loser.shown.decode(), loser.tag] for loser in twin.losers
    ]
    files = {path for path, fields in twin.shown.items() if fields != DIRECTORY}
    assert files == {shown.encode() for shown, _, _ in vector["shown"]}
    for shown, origin, source in vector["shown"]:
        entry = lines[origin][source.encode()]
        assert twin.shown[shown.encode()][4:6] == (entry.digest, entry.born_ms)
    entries = [[path, *fields] for path, fields in twin.shown.items()]
    assert reference.manifest([[p, int(k), *rest] for p, k, *rest in entries]).root.hex() == vector["root"]


def test_the_record_is_tagged_and_hashed_as_the_page_says() -> None:
    raw, digest = bytes.fromhex(PUBLISHED["record"]["raw"]), blake3(b"any").digest()
    fields = [
        [b"doc.xml", int(Kind.FILE), 0o644, 3, 1_700_000_000_000_000_000, blake3(text).digest(), 10, None]
        for text in (b"new", b"old")
    ]
    parts = [["alpha", [1, 0, digest, digest]], ["beta", [1, 1, digest, digest]]]
    assert reference.pack([1, 7, parts, digest, digest, [["beta", *fields]]]) == raw
    assert blake3(b"instep union 1\0" + raw).hexdigest() == PUBLISHED["record"]["id"]
