"""Edits in the home's terms, and their contents: the bytes that were seen go up, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3

from instep.errors import UnavailableError
from instep.model.change import CHANGE_SET_VERSION, ChangeSet, PathChange, wanted_contents
from instep.model.definition import Preserve
from instep.model.ids import Digest, FilesetName, NodeName
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.net.transfer import AnswerStatus
from instep.node.following.offered_edits import at_home, contents_of
from instep.tree.objects.fidelity import Local

CHUNKS = Digest(b"c" * 32)


def _digest(data: bytes) -> Digest:
    return Digest(blake3(data).digest())


def _file(path: bytes, data: bytes, mode: int = 0o644, extra: Extra | None = None) -> Entry:
    return Entry(path, Kind.FILE, mode, len(data), 5, _digest(data), 1, extra)


def _set(*entries: Entry) -> ChangeSet:
    changes = tuple(PathChange(entry.path, None, entry) for entry in entries)
    return ChangeSet(CHANGE_SET_VERSION, FilesetName("data"), NodeName("main"), b"n" * 16, "", "", 1, changes)


def test_metadata_that_this_node_cannot_keep_stay_as_the_home_has_them() -> None:
    """Goal: a save on a node that keeps neither owners, attributes nor setuid bits takes none of them away at the home."""
    before = _file(
        b"a", b"old", 0o4755, Extra(owner="tomcat", group="users", xattrs=((b"user.x", b"1"),), chunks=CHUNKS)
    )
    found = _file(b"a", b"new", 0o755)
    sent = at_home(found, before, Local())
    assert sent.digest == found.digest and sent.mode == 0o4755
    assert sent.extra == Extra(owner="tomcat", group="users", xattrs=((b"user.x", b"1"),))
    keeps = at_home(found, before, Local(preserve=frozenset({Preserve.XATTR})))
    assert keeps.extra == Extra(owner="tomcat", group="users"), "this node saw that the attribute is gone"
    assert at_home(found, None, Local()).extra is None


def test_contents_are_sent_once_each_and_in_order(tmp_path: Path) -> None:
    large = os.urandom((2 << 20) + 17)
    (tmp_path / "a").write_bytes(b"small")
    (tmp_path / "b").write_bytes(b"small")
    (tmp_path / "c").write_bytes(large)
    (tmp_path / "d").symlink_to("target")
    link = Entry(b"d", Kind.SYMLINK, 0o777, 6, 5, _digest(b"target"), 1)
    changes = _set(_file(b"a", b"small"), _file(b"b", b"small"), _file(b"c", large), link)
    wanted = wanted_contents(changes)
    assert len(wanted) == 3
    found = dict.fromkeys(range(3), b"")
    for want, status, offset, data in contents_of(tmp_path, changes, wanted):
        assert status in (AnswerStatus.WHOLE, AnswerStatus.PIECE) and offset == len(found[want])
        found[want] += bytes(data)
    assert list(found.values()) == [b"small", large, b"target"]


@pytest.mark.parametrize("size", [10, (1 << 20) + 5])
@pytest.mark.parametrize("what", ["changed", "shorter", "gone", "link"])
def test_a_file_that_is_another_by_now_is_never_sent_as_the_one_that_was_seen(
    tmp_path: Path, size: int, what: str
) -> None:
    """Goal: changed, cut, removed, or a link that leads elsewhere: the home gets the reason and no whole content."""
    data = os.urandom(size)
    file = tmp_path / "a"
    file.write_bytes(data)
    changes = _set(_file(b"a", data))
    if what == "changed":
        file.write_bytes(os.urandom(size))
    elif what == "shorter":
        file.write_bytes(data[:-1])
    else:
        file.unlink()
    if what == "link":
        (tmp_path / "secret").write_bytes(data)
        file.symlink_to("secret")
    with pytest.raises(UnavailableError) as gone:
        list(contents_of(tmp_path, changes, wanted_contents(changes)))
    assert gone.value.error_code == "contents_gone"
