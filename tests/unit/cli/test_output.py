"""Whatever is printed reaches the terminal with control bytes escaped, and as JSON it stays JSON."""

from __future__ import annotations

import json
import sys

import pytest

from instep.cli.output import coloured, first_line, quoting_output, say, write_json

HOSTILE = "a\x1b[31mb\x9bc\udcffd\u202ee"


def test_no_control_byte_reaches_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with quoting_output():
        sys.stdout.write(f"{HOSTILE}\ttab\n")
        say(HOSTILE)
        monkeypatch.setattr(sys.stdout.stream, "isatty", lambda: True)  # type: ignore[union-attr]
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        sys.stdout.write(coloured("IN STEP", "green") + "\n")
    told = capsys.readouterr()
    shown = "a\\x1b[31mb\\x9bc\\udcffd\\u202ee"
    assert told.err == f"{shown}\n"
    assert told.out == f"{shown}\ttab\n\x1b[32m\x1b[1mIN STEP\x1b[0m\n"


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    with quoting_output():
        write_json({"path": HOSTILE, "emoji": "\U0001f600", "tag": "\U000e0001"})
    told = capsys.readouterr().out
    assert json.loads(told) == {
        "path": HOSTILE.replace("\udcff", "?"), "emoji": "\U0001f600", "tag": "\U000e0001",
    }  # fmt: skip
    assert "\x9b" not in told and "\u202e" not in told


def test_a_row_holds_the_first_line_of_a_message() -> None:
    assert first_line("new styles\n\nlong story") == "new styles"
    assert len(first_line("x" * 1000)) == 60
    assert first_line(None) == ""
