"""Files of ``key=value`` lines, as Java's properties. Comments and blank lines stand in front of a key."""

from __future__ import annotations

import re

from instep.core.sync.merge.document import Container, DocumentItem, UncleanMergeError, Value

_KEY = re.compile(rb"[ \t\f]*((?:\\.|[^\\=: \t\f])+)[ \t\f]*[=:]?[ \t\f]*", re.DOTALL)
_CONTINUED = re.compile(rb"\\\r?\n[ \t\f]*")
_SECTION = re.compile(rb"[ \t]*\[[^\]]*\][ \t]*$")


def read(raw: bytes) -> Container:
    """The document, in any encoding that keeps ASCII. ``UncleanMergeError`` for a key that stands twice, for sections
    in brackets and for NUL."""
    if b"\0" in raw:
        raise UncleanMergeError("it holds NUL")
    items: list[DocumentItem] = []
    lead: list[bytes] = []
    lines = raw.split(b"\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip() or line.lstrip()[:1] in (b"#", b"!"):
            lead.append(line)
            continue
        if _SECTION.match(line.strip()):
            raise UncleanMergeError("it has sections")
        while _goes_on(line) and at < len(lines):
            line += b"\n" + lines[at]
            at += 1
        found = _KEY.match(line)
        if found is None:
            raise UncleanMergeError("a line has no key")
        value = _CONTINUED.sub(b"", line[found.end() :]).rstrip(b"\r")
        before = b"".join(each + b"\n" for each in lead)
        items.append(DocumentItem(found.group(1), before, _remark(lead), Value(line, value)))
        lead = []
    if len({item.key for item in items}) < len(items):
        raise UncleanMergeError("a key stands twice")
    tail = b"\n".join(lead)
    end = b"\n" if items and lead else b""
    return Container("properties", b"", tuple(items), end + tail, _remark(lead), b"\n")


def _goes_on(line: bytes) -> bool:
    text = line.rstrip(b"\r")
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def _remark(lead: list[bytes]) -> bytes:
    return b"\n".join(line.strip() for line in lead if line.strip())
