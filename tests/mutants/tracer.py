"""Which test runs which lines, in every process that it starts: installed as ``sitecustomize`` beside the product.

It imports nothing of the product, for it runs before it. ``REACHED`` names a folder with ``lines.json`` (module to the
lines that are looked for); each process appends what it sees to a file of its own there. The test's name comes from
the variable that pytest sets, which daemons and commands inherit.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from types import CodeType, FrameType
from typing import Any

REACHED = "INSTEP_MUTANTS_REACHED"

_open, _write, _close = os.open, os.write, os.close  # Tests put others in their place.
_folder = os.environ.get(REACHED, "")
_wanted: dict[str, set[int]] = {}
_lines: dict[CodeType, tuple[str, frozenset[int]] | None] = {}
_seen: set[tuple[str, str, int]] = set()


def _look(code: CodeType) -> tuple[str, frozenset[int]] | None:
    _, found, name = code.co_filename.rpartition("/src/instep/")
    wanted = _wanted.get(name) if found else None
    here = frozenset(line for _, _, line in code.co_lines() if line in wanted) if wanted else frozenset()
    return (name, here) if here else None


def _enter(frame: FrameType, event: str, _: Any) -> Any:
    code = frame.f_code
    try:
        found = _lines[code]
    except KeyError:
        found = _lines[code] = _look(code)
    if found is None:
        return None
    frame.f_trace_lines = True
    name, wanted = found

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_lineno in wanted:
            _note(name, frame.f_lineno)
        return line

    if frame.f_lineno in wanted:
        _note(name, frame.f_lineno)
    return line


def _note(name: str, line: int) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    key = (test, name, line)
    if not test or key in _seen:
        return
    _seen.add(key)
    try:
        file = _open(
            f"{_folder}/{os.getpid()}.seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        try:
            _write(file, f"{json.dumps(key)}\n".encode())
        finally:
            _close(file)
    except OSError:
        return  # a process that may not write there is not heard; its test is known from others


def _begin() -> None:
    _seen.clear()
    go_on()


def go_on() -> None:
    """For the begin of each test: an error that a test makes a call of the system raise ends a trace function for good."""
    if _folder:
        sys.settrace(_enter)
        threading.settrace(_enter)


if _folder and __name__ == "sitecustomize":
    with open(f"{_folder}/lines.json", encoding="utf-8") as _file:
        _wanted = {name: set(lines) for name, lines in json.load(_file).items()}
    os.register_at_fork(after_in_child=_begin)
    _begin()
