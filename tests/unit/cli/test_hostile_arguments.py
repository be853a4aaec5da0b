"""Every argument of every command is checked where it enters: hostile values end with exit 2 and an error of their own.

No daemon runs, so that nothing but the command line itself can refuse them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from instep.cli.main import cli, run
from instep.cli.session import InstepCommand

TYPED = {
    "server": "files", "left": "site@s1", "right": "site@p1",
    "networks": "10.0.0.0/8", "address": "10.0.0.1:7443", "pin": "ab" * 32, "words": "41", "assignments": "settle=5ms",
    "token": "TOKEN", "backup_id": "20261130T021500Z", "collision_id": "0d7316be", "kind": "haproxy", "shell": "bash", "form": "pem",
}  # fmt: skip
"""A right value for an argument that must be there; else a name."""
NOT_UTF8 = "a\udcff"
CONTROLS = ("\x1b]0;owned\x07", "a\nb\x00"[:3] + "\x1b[31m", "\x9b31m")
LONG = "x" * 10_240
WRONG = ("two words", 'a"b', "a;b", "../a", "-")
"""No name, no address, no network, no duration and no number."""
OF_FILES = frozenset({"path", "directory", "target", "output"})
"""Paths on this machine: a file name may hold a control character."""
IN_TREE = frozenset({"publish held", "restore paths", "explain path", "log path", "archive restore words",
                     "lease run program", "standby run program", "lock acquire path", "lock release path", "lock break path",
                     "edit path"})  # fmt: skip
"""Paths in a tree, and the words of a command that is run, may hold any bytes."""
FREE = frozenset({"message", "reason", "params", "accepts", "assignments", "ignore", "include", "gate", "preserve", "user", "payload", "covered_by", "not_covered",
                  "without", "carry", "trigger", "settle", "recipe_name", "token", "panel", "owner", "client"})  # fmt: skip
"""Texts whose own rules lie behind the door: of the configuration, of a recipe, of a token."""


def _commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], InstepCommand]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from _commands(found, (*words, name))
        elif isinstance(found, InstepCommand):
            yield (*words, name), found


def _line(words: tuple[str, ...], command: InstepCommand, param: click.Parameter, value: str) -> list[str]:
    """The command with this value, right values for what else it needs, and nothing more."""
    line = list(words)
    for one in command.params:
        if isinstance(one, click.Option) and (one is param or one.required):
            line += [one.opts[0], value if one is param else TYPED.get(str(one.name), "/nowhere")]
    line.append("--")
    for one in command.params:
        if isinstance(one, click.Argument):
            line += [value if one is param else TYPED.get(str(one.name), "s1")]
    return line


def _hostile(words: tuple[str, ...], param: click.Parameter) -> Iterator[str]:
    name = str(param.name)
    yield LONG
    if f"{' '.join(words)} {name}" in IN_TREE:
        return
    is_file = isinstance(param.type, click.Path)
    if not is_file:
        yield NOT_UTF8
    if name not in OF_FILES and not is_file:
        yield from CONTROLS
        if name not in FREE and words[0] not in ("recipe", "balancer"):
            yield from WRONG


CASES = [
    pytest.param(words, command, param, id=f"{' '.join(words)} {param.opts[0]}")
    for words, command in _commands(cli, ())
    for param in command.params
    if param.expose_value and not (isinstance(param, click.Option) and param.is_flag)
]


@pytest.mark.parametrize(("words", "command", "param"), CASES)
def test_a_hostile_value_is_refused_by_name(
    words: tuple[str, ...],
    command: InstepCommand,
    param: click.Parameter,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSTEP_DIR", str(tmp_path))
    for value in _hostile(words, param):
        code = run([*words[:1], "--json", *_line(words, command, param, value)[1:]])
        told = capsys.readouterr()
        error = json.loads(told.out)["error"]
        assert (code, error["exit_code"]) == (2, 2), (value[:40], error)
        assert "\x1b" not in told.out + told.err and "Traceback" not in told.err
        assert len(error["reason"]) < 1000, "the value of 10 kB is no part of the message"
        assert not list(tmp_path.iterdir())
