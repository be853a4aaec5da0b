"""The names of copies that a sync run makes where both sides changed one path.

They come from the losing digest: a run that is repeated finds its copy again, where a number of the run or a date would
make a second one."""

from __future__ import annotations

import re
from collections.abc import Mapping

from blake3 import blake3

from instep.model.ids import Digest
from instep.model.limits import COMPONENT_MAX
from instep.model.manifest.entry import Entry
from instep.model.paths import sort_key

_NAME = b"instep sync collision 1\0"
_COMPONENT = b"instep sync component 1\0"
_HEX = 8
_TURNS = 32 * 2 // _HEX
_TAG = re.compile(rb"\.collision-[0-9a-f]{8}(?=(?:\.[^./]*)?(?:/|\Z))")


def copy_name(path: bytes, digest: Digest, turn: int = 0) -> bytes:
    """``stem.collision-HEX.ext`` beside ``path``, cut to 255 bytes in front of the tag. ``turn`` takes the next eight
    hex digits where the name holds something else already; after the last it goes on with new ones."""
    round_, at = divmod(turn, _TURNS)
    known = blake3(_NAME + round_.to_bytes(4) + digest + path).hexdigest()
    tag = b".collision-" + known[at * _HEX : (at + 1) * _HEX].encode()
    folder, slash, name = path.rpartition(b"/")
    stem, dot, extension = name.rpartition(b".")
    if not stem:  # no extension, or a hidden file
        stem, dot, extension = name, b"", b""
    rest = tag + dot + extension
    if len(rest) >= COMPONENT_MAX:
        stem, rest = name, tag
    return folder + slash + stem[: COMPONENT_MAX - len(rest)] + rest


def name_before(path: bytes) -> bytes:
    """The path whose copy this is, or lies in; a path that is no copy is its own. A stem that was cut stays cut."""
    return _TAG.sub(b"", path)


def component_digest(top: bytes, entries: Mapping[bytes, Entry]) -> Digest:
    """The digest that stands for a component: that of a file or link, else one of all contents below the directory."""
    if list(entries) == [top]:
        return entries[top].digest
    total = blake3(_COMPONENT)
    for path in sorted(entries, key=sort_key):
        rest = path[len(top) :]
        total.update(len(rest).to_bytes(4) + rest + bytes([entries[path].kind]) + entries[path].digest)
    return Digest(total.digest())
