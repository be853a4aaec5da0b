"""One key of a Java properties file, read and set; every other byte of the file stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_KEY = re.compile(rb"[ \t\f]*((?:\\.|[^\\=: \t\f\r\n])+)[ \t\f]*[=:]?[ \t\f]*", re.DOTALL)
_CONTINUED = re.compile(rb"\\(?:\r\n|\n|\r)[ \t\f]*")
_LINES = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|$)")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_BREAKS = b"\r\n"


class KeyTwiceError(ValueError):
    """The key stands twice in the file, so that no single line of it counts."""


class _Value(NamedTuple):
    """Where the bytes of a value lie. ``is_bare``: nothing stands between key and value."""

    begin: int
    end: int
    is_bare: bool


def property_value(raw: bytes, key: str) -> str | None:
    """The value of ``key``, or None. ``KeyTwiceError``."""
    found = _find(raw, key)
    return None if found is None else _decoded(_CONTINUED.sub(b"", raw[found.begin : found.end]))


def with_property(raw: bytes, key: str, value: str) -> bytes:
    """The file with ``key`` set to ``value``: in the line that has it, or in a new last line. ``KeyTwiceError``."""
    text = _encoded(value)
    found = _find(raw, key)
    if found is not None:
        return raw[: found.begin] + (b"=" if found.is_bare else b"") + text + raw[found.end :]
    end = b"\r\n" if b"\r\n" in raw else b"\n"
    before = b"" if not raw or raw[-1:] in (b"\n", b"\r") else end
    return raw + before + _encoded(key, is_key=True) + b"=" + text + end


def _find(raw: bytes, key: str) -> _Value | None:
    found = None
    for begin, end in _logical_lines(raw):
        match = _KEY.match(raw, begin, end)
        if match is None or _decoded(match[1]) != key:
            continue
        if found is not None:
            raise KeyTwiceError(key)
        found = _Value(match.end(), end, match.end() == match.end(1))
    return found


def _logical_lines(raw: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end, without the line's end, of each line that holds a key; continued lines are one."""
    at = 0
    while at < len(raw):
        begin, at, end = at, *_line(raw, at)
        text = raw[begin:end].lstrip(b" \t\f")
        if not text or text[:1] in (b"#", b"!"):
            continue
        while _goes_on(raw[begin:end]) and at < len(raw):
            at, end = _line(raw, at)
        yield begin, end


def _line(raw: bytes, at: int) -> tuple[int, int]:
    """Where the next line begins, and where this one ends without its line's end."""
    match = _LINES.match(raw, at)
    assert match is not None
    return match.end(), at + len(match[0].rstrip(_BREAKS))


def _goes_on(line: bytes) -> bool:
    return (len(line) - len(line.rstrip(b"\\"))) % 2 == 1


def _decoded(raw: bytes) -> str:
    """Escapes name the code units of UTF-16, two for a character beyond its first plane."""
    text = _ESCAPE.sub(
        lambda m: chr(int(m[1], 16)) if m[1] else _LETTERS.get(m[2], m[2]), raw.decode("latin-1")
    )
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _encoded(text: str, *, is_key: bool = False) -> bytes:
    """As Java writes it: ISO 8859-1 without its upper half, everything else by its code units."""
    parts = []
    for at, character in enumerate(text):
        if character == "\\" or (is_key and character in "=: ") or (at == 0 and character in " #!"):
            parts.append("\\" + character)
        elif character in "\t\n\r\f":
            parts.append("\\" + {value: name for name, value in _LETTERS.items()}[character])
        elif " " <= character <= "~":
            parts.append(character)
        else:
            units = character.encode("utf-16-be")
            parts += [f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2)]
    return "".join(parts).encode("ascii")
