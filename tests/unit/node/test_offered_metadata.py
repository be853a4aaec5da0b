"""Metadata that a partner's change may set at the home (P7)."""

from __future__ import annotations

import msgspec
import pytest

from instep.model.change import PathChange
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.node.writing.offered_metadata import as_allowed, is_only_owner, not_allowed
from instep.tree.objects.fidelity import Allow
from tests.support.vectors import digest

NOTHING: frozenset[Allow] = frozenset()


def _file(path: bytes, mode: int = 0o644, extra: Extra | None = None) -> Entry:
    return Entry(path, Kind.FILE, mode, 3, 1, digest("one"), 0, extra)


CAPABLE = Extra(xattrs=((b"security.capability", b"all"),))
LARGE = Extra(large_xattrs=((b"trusted.x", Digest(bytes(32)), 5_000),))


@pytest.mark.parametrize(
    ("new", "base", "allow", "is_refused"),
    [
        (_file(b"a", 0o4755), _file(b"a", 0o755), NOTHING, True),
        (_file(b"a", 0o2755), None, NOTHING, True),
        (_file(b"a", 0o4755), _file(b"a", 0o4755), NOTHING, False),
        (_file(b"a", 0o755), _file(b"a", 0o4755), NOTHING, False),
        (_file(b"a", 0o4755), None, frozenset({Allow.SETUID}), False),
        (_file(b"a", 0o755, CAPABLE), _file(b"a"), NOTHING, True),
        (_file(b"a", 0o755, LARGE), None, NOTHING, True),
        (_file(b"a", 0o755, CAPABLE), _file(b"a", 0o644, CAPABLE), NOTHING, False),
        (_file(b"a", 0o755, CAPABLE), None, frozenset({Allow.SECURITY}), False),
        (None, _file(b"a", 0o4755, CAPABLE), NOTHING, False),
    ],
)
def test_rights_of_programs_come_only_where_they_are_let_in(
    new: Entry | None, base: Entry | None, allow: frozenset[Allow], is_refused: bool
) -> None:
    outcome = not_allowed(PathChange(b"a", base, new), allow)
    assert (outcome is not None) is is_refused
    assert outcome is None or outcome.code == "metadata_not_allowed"


def test_owners_are_those_of_the_home_unless_a_partner_may_give_them() -> None:
    theirs = Extra(owner="root", group="root", xattrs=((b"user.a", b"1"),))
    here = Extra(owner="www", group="www")
    live = {
        b"d": Entry(b"d", Kind.DIR, 0o755, 0, 1, Digest(b""), 0, here),
        b"d/old": _file(b"d/old", extra=here),
    }
    for path in (b"d/old", b"d/new"):
        laid = as_allowed(_file(path, extra=theirs), live, NOTHING)
        assert laid.extra == Extra(owner="www", group="www", xattrs=((b"user.a", b"1"),))
        assert as_allowed(_file(path, extra=theirs), live, frozenset({Allow.OWNER})).extra == theirs
    mine = _file(b"d/old", extra=Extra(owner="root", group="root"))
    only = is_only_owner(PathChange(b"d/old", live[b"d/old"], mine), live, NOTHING)
    assert only is not None and only.code == "metadata_not_allowed"
    more = msgspec.structs.replace(mine, mode=0o600)
    assert is_only_owner(PathChange(b"d/old", live[b"d/old"], more), live, NOTHING) is None
    linked = _file(b"d/new", extra=Extra(link_group=b"d/a"))
    assert as_allowed(linked, live, NOTHING).extra is None, "a name of its own"
