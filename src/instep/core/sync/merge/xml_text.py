"""XML documents for merging. Elements of one parent are known by their tag and by a name: an attribute, or their text.

The parser of the platform judges whether the bytes are well-formed. It is stopped at a document type, so no entity is
ever expanded. Accepted bytes are cut by a grammar of tags alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from xml.parsers import expat

from instep.core.sync.merge.document import Container, DocumentItem, Part, UncleanMergeError, Value

DEPTH_MAX = 100
NAMES = (b"id", b"name", b"key", b"className", b"port", b"path", b"type", b"ref")
"""The attributes that name an element among its siblings, the best first."""

_TOKEN = re.compile(
    rb"(?P<remark><!--.*?-->|<\?.*?\?>)|(?P<data><!\[CDATA\[.*?\]\]>)|(?P<end></[^>]*>)"
    rb"|(?P<start><[^\s/>]+(?:\s+[^\s=]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*/?>)|(?P<text>[^<]+)",
    re.DOTALL,
)
_TAG = re.compile(rb"<([^\s/>]+)")
_ATTRIBUTE = re.compile(rb"\s([^\s=]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_BOM = b"\xef\xbb\xbf"

Attributes = tuple[tuple[bytes, bytes], ...]
Token = tuple[str, bytes]


def read(raw: bytes) -> Container:
    """The document. ``UncleanMergeError`` for anything but well-formed XML in UTF-8 without a document type."""
    _judge(raw)
    start = len(_BOM) if raw.startswith(_BOM) else 0
    tokens = [(str(found.lastgroup), found.group()) for found in _TOKEN.finditer(raw, start)]
    if b"".join(text for _, text in tokens) != raw[start:]:
        raise UncleanMergeError("its tags cannot be separated")
    tokens.reverse()
    items, tail, remark = _Reader(tokens).children(0)
    return Container("xml", raw[:start], tuple(items), tail, remark)


def _judge(raw: bytes) -> None:
    parser = expat.ParserCreate()

    def declared(_version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8", "us-ascii"):
            raise UncleanMergeError(f"its encoding is {encoding}")

    def has_type(*_: object) -> None:
        raise UncleanMergeError("it has a document type")

    parser.XmlDeclHandler = declared
    parser.StartDoctypeDeclHandler = has_type
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UncleanMergeError("its encoding is UTF-16")
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise UncleanMergeError(f"no XML: {error}") from error


class _Reader:
    """Builds parts from tokens, the next one last."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens

    def children(self, depth: int) -> tuple[list[DocumentItem], bytes, Hashable]:
        """The elements until the end tag or the end, the bytes behind the last one, and the comments among these."""
        if depth > DEPTH_MAX:
            raise UncleanMergeError(f"nested deeper than {DEPTH_MAX}")
        items: list[DocumentItem] = []
        lead: list[bytes] = []
        remark: list[bytes] = []
        while self._tokens:
            kind, text = self._tokens.pop()
            if kind == "end":
                self._tokens.append((kind, text))
                break
            if kind == "start":
                body, key = self._element(text, depth)
                items.append(DocumentItem(key, b"".join(lead), b"\n".join(remark), body))
                lead, remark = [], []
                continue
            lead.append(text)
            if kind == "remark" or text.strip():
                remark.append(text)
        return _named_by_text(items), b"".join(lead), b"\n".join(remark)

    def _element(self, start: bytes, depth: int) -> tuple[Part, tuple[bytes, ...]]:
        tag = _tag(start)
        attributes = _attributes(start)
        if start.endswith(b"/>"):
            return Value(start, ("element", tag, attributes, b"")), (tag, *_name(attributes))
        items, tail, remark = self.children(depth + 1)
        end = self._tokens.pop()[1]
        raw = start + b"".join(item.written() for item in items) + tail + end
        inner = raw[len(start) : len(raw) - len(end)]
        if not items:
            return Value(raw, ("element", tag, attributes, inner)), (tag, *_name(attributes))
        key = (tag, *(_name(attributes) or _named_by_child(items)))
        if self._is_mixed(items, tail) or _has_twins(items):
            return Value(raw, ("mixed", tag, attributes, inner)), key
        return Container(("element", tag), start, tuple(items), tail + end, (attributes, remark)), key

    @staticmethod
    def _is_mixed(items: list[DocumentItem], tail: bytes) -> bool:
        """Text stands between the elements."""
        return any(
            kind in ("text", "data") and text.strip()
            for lead in (*(item.lead for item in items), tail)
            for kind, text in ((str(f.lastgroup), f.group()) for f in _TOKEN.finditer(lead))
        )


def _named_by_text(items: list[DocumentItem]) -> list[DocumentItem]:
    """Elements of one tag with nothing but text are known by it."""
    counts = Counter(item.key for item in items)
    return [
        replace(item, key=(item.key, item.body.meaning))
        if counts[item.key] > 1 and isinstance(item.body, Value)
        else item
        for item in items
    ]


def _has_twins(items: list[DocumentItem]) -> bool:
    """Two elements of one name."""
    return len({item.key for item in items}) < len(items)


def _tag(start: bytes) -> bytes:
    found = _TAG.match(start)
    assert found is not None
    return found.group(1)


def _attributes(start: bytes) -> Attributes:
    return tuple(
        sorted(
            (found[1], found[2] if found[2] is not None else found[3]) for found in _ATTRIBUTE.finditer(start)
        )
    )


def _name(attributes: Attributes) -> tuple[bytes, ...]:
    by_name = dict(attributes)
    for name in NAMES:
        if name in by_name:
            return name, by_name[name]
    return ()


def _named_by_child(items: list[DocumentItem]) -> tuple[bytes, ...]:
    """An element without a naming attribute is known by its only child called id, name or key."""
    for name in NAMES[:3]:
        found = [item.body for item in items if isinstance(item.key, tuple) and item.key[0] == name]
        if len(found) == 1 and isinstance(found[0], Value):
            return name, found[0].raw
    return ()
