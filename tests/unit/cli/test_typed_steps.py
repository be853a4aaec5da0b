"""A command that is printed works in the shell that it is printed in: with ``--dir`` where that was typed, and with the
node where it is typed elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from instep.api.parts import WaitingDocument
from instep.api.steps import with_steps
from instep.cli.main import COMMANDS, run
from instep.model.standing import typed_at, typed_with
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory

Tell = Callable[..., str]
D = "--dir /n"


@pytest.mark.parametrize(
    ("step", "typed"),
    [
        ("instep publish maps", f"instep {D} publish maps"),
        ("mount it; or: mkdir -p /t && instep restore maps", f"mount it; or: mkdir -p /t && instep {D} restore maps"),
        ("it goes on by itself, at once with: instep retry maps", f"it goes on by itself, at once with: instep {D} retry maps"),
        ("on s1: instep start; instep check", "on s1: instep start; instep check"),
        ("at the writer: instep rollback maps 4", "at the writer: instep rollback maps 4"),
        ("on the node that holds the CA key: instep invite s1; then here: instep join TOKEN",
         f"on the node that holds the CA key: instep invite s1; then here: instep {D} join TOKEN"),
        ("instep --dir /other start", "instep --dir /other start"),
        ("the user that instep runs as; /usr/bin/instep start", "the user that instep runs as; /usr/bin/instep start"),
    ],
)  # fmt: skip
def test_a_command_that_is_typed_here_names_the_directory(step: str, typed: str) -> None:
    assert typed_with(step, D, COMMANDS) == typed
    assert typed_with(typed, D, COMMANDS) == typed, "twice is once"


def test_a_step_of_a_partner_names_the_partner() -> None:
    own = "mount the disk; or, where this is the directory: instep fileset adopt maps /t"
    assert typed_at(own, "s1", is_writer=True) == f"on s1: {own}"
    assert typed_at("make it readable", "s1", is_writer=True) == "make it readable"
    assert typed_at("on hub: instep status", "s1", is_writer=True) == "on hub: instep status"
    back = "at the writer: instep rollback maps 4"
    assert typed_at(back, "s1", is_writer=True) == "instep rollback maps 4"
    assert typed_at(back, "s1", is_writer=False) == back


def test_every_step_of_an_answer_is_changed_and_nothing_else() -> None:
    waiting = WaitingDocument("instep publish", "instep publish")
    answer = {
        "message": "instep publish",
        "next": ["instep publish"],
        "rows": [{"hint": "instep publish"}],
        "waiting": waiting,
    }
    found = with_steps(answer, lambda step: typed_with(step, D, COMMANDS))
    typed = f"instep {D} publish"
    assert found == {
        "message": "instep publish",
        "next": [typed],
        "rows": [{"hint": typed}],
        "waiting": waiting,
    }


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    found = NodeDirectory(tmp_path / "a node")
    edits.create(found, {"name": "main", "listen": "127.0.0.1:7443", "allow": []})
    return found


@pytest.fixture
def tell(capfd: pytest.CaptureFixture[str]) -> Tell:
    def told(*words: str) -> str:
        run(list(words))
        return "".join(capfd.readouterr())

    return told


def test_hints_name_the_directory_only_where_it_was_typed(
    node: NodeDirectory, tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = f"instep --dir '{node.path}'"
    root = tmp_path / "tree"
    root.mkdir()
    told = tell("--dir", str(node.path), "fileset", "add", "maps", str(root))
    assert f"for a node on this machine: {named} invite NAME --from 127.0.0.1" in told, "loopback only"
    missing = tell("--dir", str(node.path), "fileset", "show", "nothing")
    assert f"next: {named} fileset list" in missing, missing
    assert '"hint": "instep fileset list"' in tell(
        "--dir", str(node.path), "fileset", "show", "nothing", "--json"
    )
    monkeypatch.setenv("INSTEP_DIR", str(node.path))
    assert "next: instep fileset list" in tell("fileset", "show", "nothing")
    assert "next: instep fileset list" in tell("--dir", str(node.path), "fileset", "show", "nothing")
