"""Which line of a TOML document holds which key, so that every problem can name its line.

The scanner only runs on text that ``tomllib`` accepted, so it needs no error handling of its own: it follows
strings, arrays and inline tables far enough to know where each key begins. The elements of an array differ
by ``element(0)``, ``element(1)`` in a path; without them a path means the first.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str, ...]
_TOKEN = re.compile(
    r'''
    (?P<blank> (?: \s | \#[^\n]* )+ )
    | """ (?: \\. | [^\\] )*? "{3,5}
    | \'\'\' .*? '{3,5}
    | " (?: \\. | [^"\\] )* "
    | ' [^']* '
    | [\[\]{},=.]
    | [^\s\[\]{},=."'\#]+
    ''',
    re.DOTALL | re.VERBOSE,
)


class NotToml(ValueError):
    """The text is not TOML from a line on; None where the parser does not say which."""

    def __init__(self, line: int | None, why: str) -> None:
        super().__init__(f"is not TOML: {why}")
        self.line = line


def toml_document(text: str) -> dict[str, Any]:
    """The document, or ``NotToml``."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        why, _, where = str(error).rpartition(" (at ")  # its message ends in "(at line 3, column 5)"
        if where.startswith("line "):
            raise NotToml(int(where[5:].split(",")[0]), why) from None
        raise NotToml(text.count("\n") + 1, why or str(error)) from None
    except ValueError:  # Python converts no number of more than 4,300 digits
        raise NotToml(None, "a number has too many digits") from None
    except RecursionError:
        raise NotToml(None, "arrays or tables lie too deep in each other") from None


def element(index: int) -> str:
    """The part of a path that means one element of an array. No bare key looks like it."""
    return f"[{index}]"


def path_text(path: KeyPath) -> str:
    """How a path is shown: ``filesets.data.hooks.reload[1].timeout``."""
    return ".".join(path).replace(".[", "[")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of every table header and key of ``text``, which must be valid TOML."""
    scanner = _LineScanner(text)
    scanner.document()
    return scanner.lines


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Strings, bare words and marks, each with its line."""
    line = 1
    for found in _TOKEN.finditer(text):
        if found["blank"] is None:
            yield found[0], line
        line += found[0].count("\n")


class _LineScanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._rest = _tokens(text)
        self._elements: dict[KeyPath, int] = {}
        """How many elements each array of tables has so far."""
        self.token, self.line = "", 0
        self.step()

    def step(self) -> None:
        """Go on to the next token; none is left where it is empty."""
        self.token, self.line = next(self._rest, ("", 0))

    def note(self, path: KeyPath, from_depth: int, line: int) -> None:
        """Keep the line of ``path`` and of the tables on the way that are new, with and without elements."""
        for depth in range(from_depth, len(path) + 1):
            exact = path[:depth]
            self.lines.setdefault(exact, line)
            self.lines.setdefault(tuple(part for part in exact if not part.startswith("[")), line)

    def resolved(self, header: KeyPath, *, is_array: bool) -> KeyPath:
        """The header's path with the newest element of each array of tables on the way."""
        path: KeyPath = ()
        for depth, part in enumerate(header, 1):
            path = (*path, part)
            if is_array and depth == len(header):
                self._elements[path] = self._elements.get(path, 0) + 1
            if path in self._elements:
                path = (*path, element(self._elements[path] - 1))
        return path

    def document(self) -> None:
        table: KeyPath = ()
        while self.token:
            if self.token != "[":
                self.pair(table)
                continue
            line = self.line
            self.step()
            is_array = self.token == "["
            if is_array:
                self.step()
            table = self.resolved(self.key(), is_array=is_array)
            self.note(table, 1, line)
            while self.token == "]":
                self.step()

    def pair(self, table: KeyPath) -> None:
        line = self.line
        path = table + self.key()
        self.note(path, len(table) + 1, line)
        self.step()  # the equals sign
        self.value(path)

    def key(self) -> KeyPath:
        """A dotted key; stops at what follows it."""
        parts: list[str] = []
        while True:
            is_quoted = self.token[0] in "\"'"
            parts.append(tomllib.loads(f"k = {self.token}")["k"] if is_quoted else self.token)
            self.step()
            if self.token != ".":
                return tuple(parts)
            self.step()

    def value(self, path: KeyPath) -> None:
        if self.token == "[":
            self.step()
            index = 0
            while self.token != "]":
                inner = (*path, element(index))
                self.lines.setdefault(inner, self.line)
                self.value(inner)
                index += 1
                self.comma()
            self.step()
        elif self.token == "{":
            self.step()
            while self.token != "}":
                self.pair(path)
                self.comma()
            self.step()
        else:
            line = self.line
            is_quoted = self.token[0] in "\"'"
            self.step()
            while not is_quoted and self.line == line and self.token not in (",", "]", "}"):
                self.step()  # a date and its time, or the parts of a number

    def comma(self) -> None:
        if self.token == ",":
            self.step()
