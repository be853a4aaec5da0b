"""The output of commands: tables and sentences for people, one JSON document for programs.

Results go to stdout, messages and errors to stderr. Colour and progress bars only on a terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from instep.errors import InstepError
from instep.model.counts import sized

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


_OWN = f"\x1b{secrets.token_hex(8)}"
"""Begins the terminal sequences of this program. No text that it prints can hold it: it is drawn for each run."""
CLEAR = f"{_OWN}[H{_OWN}[2J"
"""Empties the screen of a terminal."""
_UNSAFE = re.compile(rf"{_OWN}(?=\[)|[^\n\t -~]")


def printable(text: object) -> str:
    """One line that is safe on a terminal: control bytes and undecodable bytes are escaped."""
    if not isinstance(text, str):
        return "" if text is None else str(text)
    return text if text.isprintable() else "".join(_escaped(c) for c in text)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "replace").decode("ascii")


class _Quoting:
    """A stream whose text reaches the terminal with control bytes escaped, but for line ends, tabs and the sequences
    of this program. All text passes here, also a text that a command forgot to quote. ``typed`` gives
    commands that an operator shall type the words that they need in this shell."""

    def __init__(self, stream: TextIO, typed: Callable[[str], str]) -> None:
        self.stream = stream
        self._typed = typed

    def write(self, text: str) -> int:
        if "next" in text:
            text = "\n".join(_with_typed_steps(line, self._typed) for line in text.split("\n"))
        self.stream.write(_UNSAFE.sub(lambda c: "\x1b" if c[0] == _OWN else _escaped(c[0]), text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _with_typed_steps(line: str, typed: Callable[[str], str]) -> str:
    at = line.find("next")
    return line if at < 0 else line[:at] + typed(line[at:])


@contextlib.contextmanager
def quoting_output(typed: Callable[[str], str] = str) -> Iterator[None]:
    """Let no control byte of a path, a message or an error reach the terminal by ``sys.stdout`` or ``sys.stderr``."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Quoting(sys.stdout, typed), _Quoting(sys.stderr, typed)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def coloured(text: str, colour: str) -> str:
    """The text in a colour on a terminal that wants one, else as it is."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=colour, bold=True).replace("\x1b", _OWN)


def first_line(text: str | None, longest: int = 60) -> str:
    """The beginning of a message, for a row of a table or a sentence."""
    line = (text or "").strip().split("\n")[0]
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def write_json(document: object) -> None:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace").decode()
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A message for the person at the terminal, never part of the result."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[object]], heading: Sequence[str] = ()) -> None:
    """Columns as wide as their widest cell; the heading only on a terminal reader's behalf, in capitals."""
    lines = [[printable(cell) for cell in row] for row in rows]
    if heading:
        lines.insert(0, [title.upper() for title in heading])
    if not lines:
        return
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def shown_bytes(count: object) -> str:
    return sized(count) if isinstance(count, int | float) else "-"


def moment(iso: object) -> str:
    """``02:31`` for today, else the date as well, in local time."""
    if not isinstance(iso, str):
        return "never"
    try:
        then = datetime.fromisoformat(iso).astimezone()
    except ValueError:
        return iso
    today = datetime.now(UTC).astimezone().date()
    return f"{then:%H:%M}" if then.date() == today else f"{then:%Y-%m-%d %H:%M}"


def report_error(error: InstepError, *, is_json: bool) -> None:
    """Reason, facts and next step; with ``--json`` one error document on stdout."""
    if is_json:
        write_json({"error": error.as_json()})
        return
    say(f"instep: {printable(error.reason)}")
    for key, value in error.facts.items():
        if key == "problems" and isinstance(value, list):
            for problem in value:
                _say_problem(problem)
        elif key == "last_lines" and isinstance(value, list):
            for line in value:
                say(f"  | {printable(line)}")
        elif value not in (None, "", [], {}) and printable(str(value)) not in error.reason:
            say(f"  {key}: {_fact(value)}")
    if error.hint:
        say(f"  next: {printable(error.hint)}")


def _say_problem(problem: Mapping[str, Any]) -> None:
    where = f"line {problem['line']}: " if problem.get("line") else ""
    what = problem.get("key") or "the file"
    value = problem.get("value")
    shown = "" if value is None or isinstance(value, dict) else f" = {json.dumps(value, ensure_ascii=False)}"
    say(f"  {where}{printable(what)}{printable(shown)} {printable(problem.get('why'))}")


def _fact(value: object) -> str:
    if isinstance(value, list | tuple):
        head = ", ".join(_fact(item) for item in value[:10])
        return head + (f", and {len(value) - 10} more" if len(value) > 10 else "")
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(item)}" for key, item in value.items())
    return printable(value)


class ProgressBar:
    """Shows ``progress`` lines of the daemon as a bar with rate; silent unless stderr is a terminal."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown and sys.stderr.isatty()
        self._rich: RichProgress | None = None
        self._task: Any = None
        self._what = ""
        self._last = 0.0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def __call__(self, line: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if not self._is_shown or (now - self._last < 0.05 and line.get("what") == self._what):
            return
        self._last = now
        if self._rich is None:
            self._rich = _rich_progress()
            self._rich.start()
        is_bytes = line.get("unit") == "bytes"
        done, total, rate = line.get("done") or 0, line.get("total"), line.get("rate")
        amount = (
            f"{shown_bytes(done)} of {shown_bytes(total)}"
            if is_bytes
            else f"{done:,} of {total or 0:,} files"
        )
        speed = "" if not rate else f"{shown_bytes(rate)}/s" if is_bytes else f"{rate:,.0f} files/s"
        if line.get("what") != self._what:
            self._what = str(line.get("what"))
            if self._task is not None:
                self._rich.remove_task(self._task)
            self._task = self._rich.add_task(printable(self._what), total=total, amount="", speed="")
        self._rich.update(self._task, completed=done, total=total, amount=amount, speed=speed)


def _rich_progress() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr.stream if isinstance(sys.stderr, _Quoting) else sys.stderr),
        transient=True,
    )
