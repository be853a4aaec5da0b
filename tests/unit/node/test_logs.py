"""The daemon's log: events keep their facts and their level, and a file that no other program keeps small stays so."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from instep.api.event_kinds import NOTES, WARNINGS
from instep.node.runtime.logs import FILES_KEPT, BoundedFile, JsonLines

ROOT = Path(__file__).resolve().parents[3]


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _filled(path: Path, lines: int, max_bytes: int) -> None:
    """Write numbered lines of ten bytes to the descriptor of ``path``, as a detached daemon does."""
    with os.fdopen(_open(path), "w") as stream:
        handler = BoundedFile(path, stream, stream.fileno(), max_bytes)
        for number in range(lines):
            handler.handle(logging.LogRecord("n", logging.INFO, "", 0, f"line {number:04}", None, None))
        stream.write("a traceback of the interpreter\n")


def test_the_log_is_bounded_and_keeps_a_few(tmp_path: Path) -> None:
    """Goal: the newest lines are there, in order over the files, the oldest go, and other text of the process
    lands in the present file."""
    log = tmp_path / "daemon.log"
    _filled(log, 1_000, 100)
    kept = [log, *(log.with_name(f"daemon.log.{n}") for n in range(1, FILES_KEPT))]
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    text = "".join(file.read_text() for file in reversed(kept))
    *lines, last = text.splitlines()
    first = int(lines[0].split()[1])
    assert lines == [f"line {number:04}" for number in range(first, 1_000)]
    assert last == "a traceback of the interpreter"
    assert all(file.stat().st_size <= 150 for file in kept)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in kept)


def test_a_log_that_cannot_be_renamed_says_so_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    (tmp_path / "daemon.log.2").touch()
    (tmp_path / "daemon.log.3" / "in the way").mkdir(parents=True)
    _filled(log, 20, 100)
    assert "line 0019" in log.read_text()


def _kinds(text: str, places: dict[str, int]) -> Iterator[str]:
    """The words in the argument that names the kind, of the calls in this source; of composed names nothing."""
    for call in ast.walk(ast.parse(text)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
            at = places.get(name, len(call.args))
            for one in ast.walk(call.args[at]) if at < len(call.args) else ():
                if isinstance(one, ast.Constant) and re.fullmatch(r"[a-z]\w*", str(one.value)):
                    yield str(one.value)


def test_every_kind_of_event_is_explained() -> None:
    """Goal: each kind that the sources note is in the table, so that its level is decided and documented."""
    found: set[str] = set()
    for path in (ROOT / "src/instep").rglob("*.py"):
        places = {"note": 0, "_note": 0, "Note": 0, "note_of_peer": 1, "_name": 2}
        if path.parent.name == "follow":
            places["_refuse"] = 1
        if re.search(r"ote(_of_peer)?\(|_refuse\(|self\._name\(", text := path.read_text()):
            found.update(_kinds(text, places))
    assert len(found) > 50
    unknown = found - WARNINGS.keys() - NOTES.keys()
    assert not unknown, "say in event_kinds what these mean"
    assert not WARNINGS.keys() & NOTES.keys()


def test_a_line_of_an_event_has_its_facts() -> None:
    record = logging.LogRecord("instep.x", logging.WARNING, "", 0, "the text", None, None)
    record.about = {"event": "link_down", "node": "s1", "text": "not this", "fileset": None}
    line = json.loads(JsonLines().format(record))
    assert (line["event"], line["node"], line["text"], line["level"]) == (
        "link_down",
        "s1",
        "the text",
        "warning",
    )
    assert "fileset" not in line
