"""Every rule of the section "Entries", each by an entry that breaks just it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from instep.errors import PeerError
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.entry import CHUNKED_OVER, Entry, Extra, Kind
from instep.model.manifest.entry_rules import check_entries, check_entry
from instep.model.manifest.pages import decode_leaf, encode_page
from tests.support.trees import directory, file
from tests.support.vectors import all_kinds

D = Digest(b"d" * 32)
FILE = file(b"m/n", 1)
LINK = Entry(b"l", Kind.SYMLINK, 0o777, 4, 0, D, 0)


def extra(entry: Entry = FILE, **fields: Any) -> Entry:
    return msgspec.structs.replace(entry, extra=Extra(**fields))


def but(entry: Entry, **fields: Any) -> Entry:
    return msgspec.structs.replace(entry, **fields)


GOOD = [
    *all_kinds(),
    but(LINK, size=4095),
    but(FILE, size=CHUNKED_OVER),
    but(FILE, size=(1 << 53) - 1, extra=Extra(chunks=D)),
    but(FILE, mtime_ns=-(1 << 63)),
    extra(LINK, link_group=b"l"),
    extra(link_group=b"a"),
    extra(owner="DOMAIN\\ada b"),
    extra(directory(b"d"), xattrs=((b"system.posix_acl_default", b"x" * 4096),)),
]

BAD = {
    "a directory with a digest": but(directory(b"d"), digest=D),
    "a directory with a size": but(directory(b"d"), size=1),
    "a file without a digest": but(FILE, digest=EMPTY_DIGEST),
    "a short digest": but(FILE, digest=D[:31]),
    "a symlink to nothing": but(LINK, size=0),
    "a symlink too long": but(LINK, size=4096),
    "a large file without chunks": but(FILE, size=CHUNKED_OVER + 1),
    "a small file with chunks": extra(chunks=D),
    "a symlink with chunks": extra(LINK, chunks=D),
    "a short chunk list digest": but(FILE, size=CHUNKED_OVER + 1, extra=Extra(chunks=Digest(b"c"))),
    "an empty extra": extra(),
    "a sparse directory": extra(directory(b"d"), sparse=True),
    "a sparse empty file": extra(but(FILE, size=0), sparse=True),
    "a hard link of a later path": extra(link_group=b"z"),
    "a hard link of no path": extra(link_group=b"../x"),
    "a hard-linked directory": extra(directory(b"d"), link_group=b"d"),
    "an empty owner": extra(owner=""),
    "an owner with a newline": extra(owner="a\nb"),
    "a group with a colon": extra(group="a:b"),
    "an over-long owner": extra(owner="é" * 128),
    "attributes out of order": extra(xattrs=((b"user.b", b""), (b"user.a", b""))),
    "an attribute twice": extra(xattrs=((b"user.a", b""), (b"user.a", b""))),
    "an attribute inline and large": extra(xattrs=((b"user.a", b""),), large_xattrs=((b"user.a", D, 5000),)),
    "an attribute without a name": extra(xattrs=((b"user.", b""),)),
    "an attribute of no namespace": extra(xattrs=((b"other.a", b""),)),
    "an attribute name with NUL": extra(xattrs=((b"user.\0", b""),)),
    "an over-long attribute name": extra(xattrs=((b"user." + b"x" * 251, b""),)),
    "a large attribute inline": extra(xattrs=((b"user.a", b"x" * 4097),)),
    "a small attribute as large": extra(large_xattrs=((b"user.a", D, 4096),)),
    "a giant attribute": extra(large_xattrs=((b"user.a", D, 65537),)),
    "a large attribute without a digest": extra(large_xattrs=((b"user.a", EMPTY_DIGEST, 5000),)),
    "an entry too large": extra(xattrs=tuple((b"user.%03d" % n, b"x" * 4096) for n in range(70))),
    "a path outside": but(FILE, path=b"../x"),
}

UNREADABLE = {
    "a mode of 13 bits": but(FILE, mode=0o10000),
    "a negative size": but(FILE, size=-1),
    "a size over 2^53": but(FILE, size=1 << 53),
    "a time over int64": but(FILE, mtime_ns=1 << 63),
    "a long digest": but(FILE, digest=D + b"d"),
    "a birth before 1970": but(FILE, born_ms=-1),
    "an unknown kind": but(FILE, kind=3),
    "a path that is text": but(FILE, path="m"),
    "a size that is not whole": but(FILE, size=1.5),
}


@pytest.mark.parametrize("entry", GOOD)
def test_good_entries(entry: Entry) -> None:
    check_entry(entry)
    assert decode_leaf(encode_page(0, [entry])) == [entry]


@pytest.mark.parametrize("entry", BAD.values(), ids=BAD.keys())
def test_bad_entries(entry: Entry) -> None:
    with pytest.raises(PeerError) as alone:
        check_entry(entry)
    with pytest.raises(PeerError) as in_page:
        check_entries([entry])
    assert alone.value.error_code == in_page.value.error_code
    assert alone.value.error_code in ("bad_entry", "bad_path")


@pytest.mark.parametrize("entry", [*BAD.values(), *UNREADABLE.values()], ids=[*BAD, *UNREADABLE])
def test_a_page_with_a_bad_entry_is_refused(entry: Entry) -> None:
    good = [directory(b"-"), file(b"--")]
    with pytest.raises(PeerError) as refused:
        decode_leaf(encode_page(0, [*good, entry]))
    assert refused.value.error_code in ("bad_page", "bad_entry", "bad_path")


@pytest.mark.parametrize("paths", [[b"a", b"a"], [b"b", b"a"], [b"a-b", b"a/b"], [b"a/b", b"a"]])
def test_entries_out_of_order(paths: list[bytes]) -> None:
    with pytest.raises(PeerError) as refused:
        check_entries([directory(path) for path in paths])
    assert refused.value.error_code == "bad_order"
