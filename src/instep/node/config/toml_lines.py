"""Which line of a TOML document holds which key, so that every problem can name its line.

The scanner only runs on text that ``tomllib`` accepted, so it needs no error handling of its own: it follows
strings, arrays and inline tables far enough to know where each key begins. The elements of an array differ
by ``element(0)``, ``element(1)`` in a path; without them a path means the first.
"""

from __future__ import annotations

import tomllib
from typing import Any

KeyPath = tuple[str, ...]
_BARE_END = frozenset(" \t\r\n.=]#,}")


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


class _LineScanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._counted_to = 0
        self._line = 1
        self._elements: dict[KeyPath, int] = {}
        """How many elements each array of tables has so far."""

    def line(self) -> int:
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        return self._line

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

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

    def blank(self) -> None:
        """Skip white space, line ends and comments."""
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in " \t\r\n":
                self.at += 1
            else:
                return

    def document(self) -> None:
        table: KeyPath = ()
        self.blank()
        while self.at < len(self.text):
            if self.peek() == "[":
                line = self.line()
                is_array = self.text.startswith("[[", self.at)
                self.at += 2 if is_array else 1
                table = self.resolved(self.key(), is_array=is_array)
                self.note(table, 1, line)
                while self.peek() == "]":
                    self.at += 1
            else:
                self.pair(table)
            self.blank()

    def pair(self, table: KeyPath) -> None:
        line = self.line()
        path = table + self.key()
        self.note(path, len(table) + 1, line)
        self.at += 1  # the equals sign
        self.value(path)

    def key(self) -> KeyPath:
        """A dotted key; stops at what follows it."""
        parts: list[str] = []
        while True:
            self.blank()
            start = self.at
            if self.peek() in "\"'":
                self.string()
                parts.append(str(tomllib.loads(f"k = {self.text[start : self.at]}")["k"]))
            else:
                while self.at < len(self.text) and self.text[self.at] not in _BARE_END:
                    self.at += 1
                parts.append(self.text[start : self.at])
            self.blank()
            if self.peek() != ".":
                return tuple(parts)
            self.at += 1

    def string(self) -> None:
        quote = self.peek()
        if self.text.startswith(quote * 3, self.at):
            self.at += 3
            while not self.text.startswith(quote * 3, self.at):
                self.at += 2 if quote == '"' and self.peek() == "\\" else 1
            while self.peek() == quote:
                self.at += 1
            return
        self.at += 1
        while self.peek() != quote:
            self.at += 2 if quote == '"' and self.peek() == "\\" else 1
        self.at += 1

    def value(self, path: KeyPath) -> None:
        self.blank()
        opening = self.peek()
        if opening in ('"', "'"):
            self.string()
        elif opening == "[":
            self.sequence(path, "]")
        elif opening == "{":
            self.sequence(path, "}")
        else:
            while self.at < len(self.text) and self.text[self.at] not in "\n,]}#":
                self.at += 1

    def sequence(self, path: KeyPath, closing: str) -> None:
        self.at += 1
        index = 0
        while True:
            self.blank()
            if self.peek() == closing:
                self.at += 1
                return
            if self.peek() == ",":
                self.at += 1
            elif closing == "]":
                inner = (*path, element(index))
                index += 1
                self.lines.setdefault(inner, self.line())
                self.value(inner)
            else:
                self.pair(path)
