"""Every command that the product can print is one that it takes: hints, next steps and examples, from the sources.

A command in a text begins at ``instep WORD`` and ends at a mark (``;``, ``,``, ``:``, a bracket, a quote, a pipe) or with
the text. The words between are given to the parser of the command line as an operator would type it, with values for
its placeholders. Where a node may have several filesets, the command names its own.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator

import click
import pytest

from docs.generator.pages import ROOT
from instep.cli.main import COMMANDS, cli
from instep.cli.session import EXISTING_FILE, Session
from instep.errors import UsageError

BEGIN = re.compile(r"\binstep (?:--dir \S+ )?(?=([a-z]+)\b)(?! command)")
END = re.compile(r"[;,:](?= |$)|[()`\n|>]|&&|(?<=\w)\.$")
VALUES = {
    "number": "41",
    "form": "pem",
    "verb": "drain",
    "act": "add",
    "pin": "ab" * 32,
    "advertise": "10.0.0.1:7443",
    "address": "10.0.0.1:7443",
    "network": "10.0.0.0/8",
    "backup_id": "20261130T021500Z",
    "collision_id": "0d7316be",
}
"""The stand-in of a value of the program, by the last word of its expression; else a name."""
PATHS = {"path", "root", "file", "node_path"}
A_PATH = "/srv/a b"
TYPED = {
    "NAME": "s1", "FILESET": "catalog", "NODE": "s1", "HOME": "main", "GENERATION": "41", "FILE": __file__, "CIDR": "10.0.0.0/8", "HOST:PORT": "10.0.0.1:7443",
    "ADDR": "10.0.0.1", "ADDRESS": "10.0.0.1:7443", "KIND": "haproxy", "FINGERPRINT": "ab" * 32, "ID": "20261130T021500Z",
}  # fmt: skip
"""What an operator types for a word in capitals; else the word itself."""
WHOLE_NODE = frozenset({"status", "retry", "collisions list"})
"""Commands that mean every fileset of the node where none is named."""
NUMBERED = frozenset({"diff", "rollback", "archive restore"})
"""Commands whose fileset is the first of their words, where it is named."""
OF_MANY_HOMES = ("core/keep/", "core/union/", "core/unite/", "node/replica/")
"""The rooms of filesets of many homes."""
NOT_WITH_MANY_HOMES = ("fileset accept", "handover", "promote", "rollback", "rollout")
"""Commands that are refused there."""
NO_COMMANDS = ("errors.py", "fleet/balancers/plan.py", "net/connections/dial.py", "cli/cluster/topology.py")
"""Modules with texts that begin like a command and are none: a pattern, a mark in a file, a question, a graph."""


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text of a module but its docstrings, with values of the program filled in."""
    inside = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(each) for each in node.values}
            yield node.lineno, "".join(_part(each) for each in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.FormattedValue):
        node = node.value
    if isinstance(node, ast.IfExp):
        node = node.body
    if isinstance(node, ast.Constant):
        return str(node.value)
    name = ast.unparse(node)
    is_quoted = name.startswith(("quote(", "shlex.quote("))
    last = re.findall(r"\w+", name)[-1]
    value = A_PATH if last in PATHS else VALUES.get(last, "s1")
    return shlex.quote(value) if is_quoted else value


def _printed() -> Iterator[tuple[str, str]]:
    """Where it stands, and the command without ``instep``."""
    for path in sorted((ROOT / "src/instep").rglob("*.py")):
        module = str(path.relative_to(ROOT / "src/instep"))
        if "testing" in path.parts or module in NO_COMMANDS:
            continue
        for line, text in _texts(ast.parse(path.read_text())):
            for found in BEGIN.finditer(text):
                if found[1] in COMMANDS:
                    yield f"{module}:{line}", END.split(text[found.end() :])[0].strip()


def why_not_typed(typed: str) -> str | None:
    """What the command's own parser says against it, or that it names no fileset."""
    words = [TYPED.get(word, word) for word in shlex.split(typed)]
    command: click.Command = cli
    context, name = click.Context(cli, info_name="instep", obj=Session()), ""
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0]) if words else None
        if found is None:
            return f"there is no command {words[:1]}"
        command, name, words = found, f"{name} {words[0]}".strip(), words[1:]
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=command.name, parent=context)
    try:
        params = command.make_context(name, list(words), parent=context).params
    except click.UsageError as error:
        return error.format_message()
    except UsageError as error:
        is_stand_in = error.error_code == "bad_address" and "'s1'" in error.reason
        return None if is_stand_in else error.reason
    is_named = params.get("fileset", True) or params.get("is_table") or name in WHOLE_NODE
    if name in NUMBERED:
        is_named = any(not word.isdecimal() for word in params["words"])
    return None if is_named else "it names no fileset, and a node may have several"


def test_every_printed_command_is_taken_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no operator types a hint in vain. Method: over the sources, as the module says."""
    monkeypatch.setattr(EXISTING_FILE, "exists", False)  # a file of an example
    printed = sorted(set(_printed()))
    assert len(printed) > 250
    wrong = {f"{where}: instep {typed}": why_not_typed(typed) for where, typed in printed}
    assert not {key: why for key, why in wrong.items() if why is not None}


def test_no_step_for_many_homes_is_a_command_that_is_refused_there() -> None:
    printed = [(where, typed) for where, typed in _printed() if where.startswith(OF_MANY_HOMES)]
    assert len(printed) > 5
    assert not [(where, typed) for where, typed in printed if typed.startswith(NOT_WITH_MANY_HOMES)]
