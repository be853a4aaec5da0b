"""JSON documents for merging. Objects merge by key, lists of objects with distinct names by name."""

from __future__ import annotations

import re

import msgspec

from instep.core.sync.merge.document import Container, DocumentItem, Part, UncleanMergeError, Value

DEPTH_MAX = 100
NAMES = ("id", "name", "key")
_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_SCALAR = re.compile(rb"[^,\]}\s]+")
_BOM = b"\xef\xbb\xbf"


def read(raw: bytes) -> Container:
    """The document. ``UncleanMergeError`` for anything but valid JSON in UTF-8 without duplicate keys."""
    start = len(_BOM) if raw.startswith(_BOM) else 0
    try:
        msgspec.json.decode(raw[start:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UncleanMergeError(f"no JSON: {error}") from error
    reader = _Reader(raw, start)
    lead = reader.space()
    body = reader.value(0)
    item = DocumentItem("document", lead, b"", body)
    return Container("json", raw[:start], (item,), raw[reader.at :], b"")


class _Reader:
    """Cuts text that is known to be valid."""

    def __init__(self, raw: bytes, at: int) -> None:
        self._raw = raw
        self.at = at

    def space(self) -> bytes:
        return self._taken(_SPACE)

    def value(self, depth: int) -> Part:
        if depth > DEPTH_MAX:
            raise UncleanMergeError(f"nested deeper than {DEPTH_MAX}")
        match self._raw[self.at : self.at + 1]:
            case b"{":
                return self._object(depth)
            case b"[":
                return self._list(depth)
            case b'"':
                raw = self._taken(_STRING)
            case _:
                raw = self._taken(_SCALAR)
        return Value(raw, _meaning(raw))

    def _object(self, depth: int) -> Part:
        items: list[DocumentItem] = []
        tail = self._open()
        while not tail:
            lead = self.space()
            name = self._taken(_STRING)
            middle = self.space() + self._step() + self.space()
            key = msgspec.json.decode(name, type=str)
            body = self.value(depth + 1)
            items.append(DocumentItem(key, lead + name + middle, b"", body))
            tail = self._next()
        if len({item.key for item in items}) < len(items):
            raise UncleanMergeError("a key stands twice in one object")
        return Container("object", b"{", tuple(items), tail, b"", b",")

    def _list(self, depth: int) -> Part:
        start = self.at
        items: list[DocumentItem] = []
        tail = self._open()
        while not tail:
            lead = self.space()
            items.append(DocumentItem(None, lead, b"", self.value(depth + 1)))
            tail = self._next()
        names = [_name(item.body) for item in items]
        if items and None not in names and len(set(names)) == len(names):
            named = tuple(
                DocumentItem(name, i.lead, b"", i.body) for name, i in zip(names, items, strict=True)
            )
            return Container("list", b"[", named, tail, b"", b",")
        return Value(self._raw[start : self.at], ("list", *(item.body.meaning for item in items)))

    def _open(self) -> bytes:
        """After the bracket: the tail of an empty container, else nothing."""
        self.at += 1
        at = self.at
        space = self.space()
        if self._raw[self.at : self.at + 1] in (b"}", b"]"):
            return space + self._step()
        self.at = at
        return b""

    def _next(self) -> bytes:
        """After an item: the tail behind the last one, nothing behind a comma."""
        space = self.space()
        found = self._step()
        if found != b",":
            return space + found
        return b""

    def _step(self) -> bytes:
        self.at += 1
        return self._raw[self.at - 1 : self.at]

    def _taken(self, pattern: re.Pattern[bytes]) -> bytes:
        found = pattern.match(self._raw, self.at)
        if found is None:
            raise UncleanMergeError(f"no JSON at byte {self.at}")
        self.at = found.end()
        return found.group()


def _meaning(raw: bytes) -> tuple[str, object]:
    """A scalar by its type, too: 1, 1.0 and true are different. Numbers are compared as they are written."""
    if raw[:1] == b'"':
        return "text", msgspec.json.decode(raw, type=str)
    return "plain", raw


def _name(body: Part) -> object:
    """What an element of a list is called, when it is an object with a name."""
    if not isinstance(body, Container) or body.kind != "object":
        return None
    by_key = {item.key: item.body for item in body.items}
    for name in NAMES:
        found = by_key.get(name)
        if isinstance(found, Value):
            return name, found.meaning
    return None
