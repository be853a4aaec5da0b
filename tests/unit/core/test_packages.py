"""Which package names which file, and where its step stands in a switch."""

from __future__ import annotations

import pytest

from instep.core.union.packages import PACKAGE_BYTES_MAX, names_any
from instep.model.definition import Definition
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.tree.journal.journal import Op, Step, encode_record
from instep.tree.stage.package_order import in_package_order


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        (b"<doc>knb/knb.12.3.xml</doc>", True),
        (b"https://example.org/files/knb.12.3.xml", True),
        (b"the data set knb.12.3.", True),
        (b'"knb.12.3"', True),
        (b"knb.12.30", False),
        (b"knb.12.3.4", False),
        (b"old-knb.12.3", False),
        (b"knb.12.3.xml.bak", False),
        (b"", False),
        (b" " * (PACKAGE_BYTES_MAX + 1), True),
    ],
)
def test_a_package_names_a_file_by_path_name_or_stem(text: bytes, is_named: bool) -> None:
    assert names_any(text, [b"other", b"knb/knb.12.3.xml"]) is is_named
    assert not names_any(text, [])


def test_a_package_waits_unread_where_looking_would_take_long() -> None:
    """Goal: a peer chooses package and names: 1 MiB and 4,096 names took seconds."""
    names = [b"nothing-like-it-%d.xml" % number for number in range(200)]
    assert names_any(b" " * PACKAGE_BYTES_MAX, names)
    assert not names_any(b" " * 1000, names)


def _entry(path: str, kind: Kind = Kind.FILE) -> Entry:
    return Entry(path.encode(), kind, mode=0o644, size=1, mtime_ns=0, born_ms=0, digest=Digest(b"d" * 32))


def _step(op: Op, path: str, kind: Kind = Kind.FILE) -> Step:
    entry = _entry(path, kind)
    return Step(
        op, path.encode(), new=None if op is Op.REMOVE else entry, old=entry if op is Op.REMOVE else None
    )


def test_packages_come_last_and_go_first() -> None:
    """Directories stay in their places, and steps that close directories stay behind everything."""
    steps = [
        _step(Op.MODE, "shut", Kind.DIR),
        _step(Op.NEW, "a.pkg"),
        _step(Op.NEW, "d.pkg", Kind.DIR),
        _step(Op.NEW, "m"),
        _step(Op.CHANGE, "n.pkg"),
        _step(Op.CHANGE, "z"),
        _step(Op.REMOVE, "b"),
        _step(Op.REMOVE, "c.pkg"),
        _step(Op.MODE, "shut", Kind.DIR),
        _step(Op.TIME, "", Kind.DIR),
    ]

    def order(packages: tuple[str, ...], *, without: Op | None = None) -> str:
        raw = [encode_record(step) for step in steps if step.op is not without]
        found = in_package_order(lambda: raw, Definition(packages=packages))
        return " ".join(f"{step.op.name.lower()[0]}:{step.path.decode()}" for step in found)

    assert order(("*.pkg",)) == ("m:shut n:d.pkg n:m c:z n:a.pkg c:n.pkg r:c.pkg r:b m:shut t:")
    assert order(("*.pkg",), without=Op.REMOVE) == "m:shut n:d.pkg n:m c:z n:a.pkg c:n.pkg m:shut t:"
    assert order(()) == "m:shut n:a.pkg n:d.pkg n:m c:n.pkg c:z r:b r:c.pkg m:shut t:"
