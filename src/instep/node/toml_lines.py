"""Which line of a TOML document holds which key, so that every problem can name its line.

The scanner only runs on text that ``tomllib`` accepted, so it needs no error handling of its own: it follows
strings, arrays and inline tables far enough to know where each key begins.
"""

from __future__ import annotations

import tomllib

__all__ = ["KeyPath", "key_lines"]

KeyPath = tuple[str, ...]
_BARE_END = frozenset(" \t\r\n.=]#,}")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of every table header and key of ``text``, which must be valid TOML."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._counted_to = 0
        self._line = 1

    def line(self) -> int:
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        return self._line

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

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
                self.at += 2 if self.text.startswith("[[", self.at) else 1
                table = self.key()
                for depth in range(1, len(table) + 1):
                    self.lines.setdefault(table[:depth], line)
                while self.peek() == "]":
                    self.at += 1
            else:
                self.pair(table)
            self.blank()

    def pair(self, table: KeyPath) -> None:
        line = self.line()
        path = table + self.key()
        for depth in range(len(table) + 1, len(path) + 1):
            self.lines.setdefault(path[:depth], line)
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
        while True:
            self.blank()
            if self.peek() == closing:
                self.at += 1
                return
            if self.peek() == ",":
                self.at += 1
            elif closing == "]":
                self.value(path)
            else:
                self.pair(path)
