"""Changes made on any server, with real daemons: users behind a balancer, locks, holders that sleep, editors and portals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import SOURCE, Fleet, Node
from tests.support.old_version import old_source
from tests.support.waiting import eventually

FILES = {f"sub/f{number}": f"file {number}\n" for number in range(6)}
PORTAL = Path(__file__).parents[2] / "examples" / "portal" / "portal.py"


def _begun(fleet: Fleet, partners: int, *accept: str) -> tuple[Node, ...]:
    """All partners follow, their changes are taken, and all trees are equal."""
    fleet.make(partners, accept=False)
    names = [f"s{number}" for number in range(1, partners + 1)]
    fleet.main.run("fileset", "set", "data", f"offers_from={','.join(names)}")
    for name in names:
        fleet.accept(name, *accept)
    fleet.write(FILES)
    fleet.wait()
    return (fleet.main, *(fleet[name] for name in names))


def _text(fleet: Fleet, name: str, path: str) -> str:
    file = fleet.tree(name) / path
    return file.read_text() if file.is_file() else "nothing"


def _everywhere(fleet: Fleet, path: str, text: str) -> None:
    def seen() -> dict[str, str]:
        return {name: _text(fleet, name, path) for name in fleet.nodes}

    eventually(lambda: set(seen().values()) == {text}, describe=lambda: f"{path} = {text!r}: {seen()}")


def _alike(fleet: Fleet) -> None:
    def are() -> bool:
        fleet.assert_same()
        return all(node.standing() == "in_step" for node in fleet.nodes.values())

    eventually(are, describe=lambda: str({name: node.line() for name, node in fleet.nodes.items()}))


def test_users_behind_a_balancer_write_on_whichever_server_they_reach(fleet: Fleet) -> None:
    """Goal: requests go round four servers; a file added, changed and removed on any of them is so on all; none of it is
    taken for a local change."""
    nodes = _begun(fleet, 3, "--drift", "offer")
    servers = cycle(node.name for node in nodes)
    for turn in range(4):
        adding, changing, removing = next(servers), next(servers), next(servers)
        next(servers)
        next(servers)  # so that each server gets another kind of request the next time
        fleet.write({f"new{turn}": f"by {adding}\n"}, adding)
        _everywhere(fleet, f"new{turn}", f"by {adding}\n")
        fleet.write({f"new{turn}": f"again, by {changing}\n"}, changing)
        _everywhere(fleet, f"new{turn}", f"again, by {changing}\n")
        (fleet.tree(removing) / f"sub/f{turn}").unlink()
        _everywhere(fleet, f"sub/f{turn}", "nothing")
    _alike(fleet)
    for node in nodes:
        items = node.run("archive", "list", "data").json["items"]
        assert not [item for item in items if item["why"] == "drift"], (node.name, items)


def _lock(node: Node, *words: str, expect: int = 0) -> dict[str, Any]:
    answer = node.run("lock", "acquire", "data", "sub/f1", *words, expect=expect)
    return answer.json if expect == 0 else answer.error


def test_a_lock_from_the_command_line(fleet: Fleet) -> None:
    """Goal: granted, listed with the keys of the contract, denied to another program and on another node with exit 6 and
    the owner's name, submitted and released; then free."""
    main, s1, s2 = _begun(fleet, 2)
    granted = _lock(s1, "--ttl", "5m")
    rows = main.run("lock", "list", "data").json["locks"]
    assert [(row["path"], row["token"]) for row in rows] == [("sub/f1", granted["token"])]
    assert {"fileset", "path", "owner", "until", "token"} <= rows[0].keys()
    for node, words in ((s1, ("--client", "other")), (s2, ()), (main, ())):
        denied = _lock(node, *words, expect=6)
        assert denied["code"] == "locked" and denied["facts"]["owner"] == granted["owner"], denied
    fleet.write({"sub/f1": "under a lock\n"}, "s1")
    s1.run("lock", "release", "data", "sub/f1", "-m", "wider roads")
    _everywhere(fleet, "sub/f1", "under a lock\n")
    assert s2.run("lock", "list").json["locks"] == []
    _lock(s2)
    broken = main.run("lock", "break", "data", "sub/f1", "--reason", "left for the day", "--steal").json
    assert broken["lock"]["owner"].endswith("@main")
    assert _lock(s2, expect=6)["code"] == "locked"


@pytest.mark.parametrize("is_changed_by_another", [True, False])
def test_a_holder_that_slept_past_its_time(fleet: Fleet, is_changed_by_another: bool) -> None:
    """Goal: the daemon of the holder is stopped for three times the life of its lock, with a save of before it slept. When
    another person changed the file meanwhile, the submit is refused, the bytes are in the archive and that person's file is
    here; when no other person did, it is accepted."""
    main, s1 = _begun(fleet, 1)
    _lock(s1, "--ttl", "1s")
    asleep = s1.pid
    assert asleep is not None
    os.kill(asleep, signal.SIGSTOP)
    try:
        began = time.monotonic()
        fleet.write({"sub/f1": "saved before the sleep\n"}, "s1")
        eventually(lambda: not main.run("lock", "list", "data").json["locks"], describe="the lock lapses")
        eventually(lambda: time.monotonic() - began > 3, describe="three times its life")
        if is_changed_by_another:
            fleet.write({"sub/f1": "of another\n"})
            fleet.publish()
    finally:
        os.kill(asleep, signal.SIGCONT)
    if is_changed_by_another:
        _everywhere(fleet, "sub/f1", "of another\n")
        eventually(
            lambda: (
                "sub/f1"
                in [item["path"] for item in s1.run("archive", "list", "data", "--set-aside").json["items"]]
            ),
            describe="the save of the holder in the archive",
        )
    else:
        s1.run("lock", "release", "data", "sub/f1", expect=None)
        _everywhere(fleet, "sub/f1", "saved before the sleep\n")
    _alike(fleet)


def test_edit_opens_the_file_and_submits_it(fleet: Fleet, tmp_path: Path) -> None:
    """Goal: ``instep edit`` is lock, editor, submit, release; the editor's words are no shell line."""
    _, s1 = _begun(fleet, 1)
    editor = tmp_path / "editor.py"
    editor.write_text("import sys\nopen(sys.argv[-1], 'w').write(' '.join(sys.argv[1:-1]) + '\\n')\n")
    s1.environment["VISUAL"] = f"{sys.executable} {editor} 'two words; touch pwned'"
    done = s1.run("edit", "data", "sub/f2", "-m", "by hand").json
    assert done["changed"]
    _everywhere(fleet, "sub/f2", "two words; touch pwned\n")
    assert s1.run("lock", "list", "data").json["locks"] == []


def test_the_example_of_a_portal_works_as_it_is(fleet: Fleet) -> None:
    """Goal: the program in ``examples/portal`` saves for a person, and names the other owner when it may not."""
    main, s1 = _begun(fleet, 1)
    words = [sys.executable, str(PORTAL), str(s1.directory / "control.sock"), "data", "sub/f3", "ana"]

    def portal(session: str, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*words, session], input=text, capture_output=True, text=True, timeout=60, check=False
        )

    done = portal("session-1", "<sld/>\n")
    assert done.returncode == 0, done.stderr
    _everywhere(fleet, "sub/f3", "<sld/>\n")
    main.run("lock", "acquire", "data", "sub/f3", "--owner", "ben")
    refused = portal("session-2", "lost\n")
    assert refused.returncode == 6 and "ben@main" in refused.stderr, refused
    assert _text(fleet, "s1", "sub/f3") == "<sld/>\n"


def test_a_home_of_the_version_before_is_named_and_its_upgrade_takes_the_edits(fleet: Fleet) -> None:
    """Goal: beside a writer of the version before nothing breaks and nothing is lost: the edit stays, the standing names the
    upgrade, and after it the edit is made."""
    main = fleet.node("main")
    main.source = old_source()
    fleet.make(1, accept=False)
    s1 = fleet["s1"]
    fleet.accept("s1", "--drift", "offer")
    fleet.write(FILES)
    _everywhere(fleet, "sub/f1", "file 1\n")
    s1.await_standing("in_step")
    fleet.write({"sub/f1": "waits for the upgrade\n"}, "s1")
    line = s1.await_standing("drifted", code="home_too_old")
    assert "main" in str(line["next"]), line
    assert s1.run("lock", "acquire", "data", "sub/f2", expect=7).error["code"] == "home_too_old"
    fleet.write({"sub/f3": "the rest goes on\n"})
    _everywhere(fleet, "sub/f3", "the rest goes on\n")
    main.stop()
    main.source = SOURCE
    main.start()
    main.run("fileset", "set", "data", "offers_from=s1")
    s1.run("retry", "data")
    _everywhere(fleet, "sub/f1", "waits for the upgrade\n")
    _alike(fleet)
