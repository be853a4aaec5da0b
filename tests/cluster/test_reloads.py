"""Reloads under strain: a burst is one or two reloads, one that hangs is ended with all it started, counted, retried."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.test_hooks import _hooks, _script, _start, is_gone
from tests.support.fleet import Fleet, Node
from tests.support.waiting import eventually, paced

SETTLE_S = 0.2
"""The default."""


def test_a_burst_of_changes_is_at_most_two_reloads(fleet: Fleet) -> None:
    """Goal: 500 changes within 2 s cause at most two reloads on each node, and the last state is the one reloaded.
    Method: the default settle, two partners and the writer, each with a reload hook that counts."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("first")
    fleet.make(2, add=())
    fleet.wait()
    names = ("main", "s1", "s2")
    for name in names:
        program = _script(
            fleet.base / f"reload-{name}", f'cat "$INSTEP_PATH/file" >> {fleet.base}/{name}.ran'
        )
        _hooks(fleet[name], reload=f'run = ["{program}"]')
        ran = fleet.base / f"{name}.ran"
        eventually(partial(_holds, ran, "first"), 30)
        ran.unlink()  # an added hook runs once for the present generation
    stalls, last = 0, time.monotonic()
    for number in paced(500, over_s=1.8):
        stalls += time.monotonic() - last > SETTLE_S / 2  # of this machine: to the node that is quiet
        last = time.monotonic()
        (tree / f"dir-{number % 7}").mkdir(exist_ok=True)
        (tree / f"dir-{number % 7}" / f"{number}").write_text(str(number))
        (tree / "file").write_text(f"{number}\n")
    fleet.wait()
    fleet.assert_same()
    for name in names:
        counted = (fleet.base / f"{name}.ran").read_text().split()
        assert 1 <= len(counted) <= 2 + stalls and counted[-1] == "499", (name, counted, stalls)


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _times(node: Node) -> int:
    """How often in a row the status says that it failed: it may have gone on between two looks."""
    found = re.search(r"\((\d+) times in a row\)", node.line()["reason"] or "")
    return int(found[1]) if found else 0


def _failures(node: Node) -> list[dict[str, Any]]:
    return [event for event in node.run("events").json["events"] if event["what"] == "hook_failed"]


def test_a_reload_that_hangs_is_ended_counted_and_retried(fleet: Fleet) -> None:
    """Goal: a hanging reload ends at its timeout with its whole process group, children that ignore SIGTERM too; status
    names it, its limit and how often; it is retried, also after a restart, and when it works all is well."""
    _, there, s1 = _start(fleet)
    pids, closed, done = (fleet.base / name for name in ("pids", "closed", "done"))
    reload = _script(
        fleet.base / "reload",
        f"test -e {closed} || {{ echo $INSTEP_GENERATION >> {done}; exit 0; }}\n"
        f"trap '' TERM; sh -c 'echo $$ >> {pids}; sleep 1000' & echo $$ >> {pids}; sleep 1000 & wait",
    )
    _hooks(s1, reload=f'run = ["{reload}"], timeout = "1s"')  # in which the same script goes well at the end
    eventually(lambda: done.exists() and done.read_text().endswith("\n"), 30, s1.log)
    done.unlink()  # an added hook runs once for the present generation
    closed.touch()
    fleet.write({"file": "second"})
    number = fleet.publish()
    line = s1.await_standing("failing", code="reload_failed")
    assert "reload hook of data: ran longer than 1 s and was ended" in line["reason"], line
    assert "instep retry data" in str(line["next"]), line
    assert (there / "file").read_text() == "second"
    eventually(lambda: _times(s1) >= 2, 20, s1.log)
    before = len(_failures(s1))
    s1.stop()
    eventually(lambda: all(is_gone(pid) for pid in pids.read_text().split()), 20, pids.read_text)
    s1.start()
    eventually(lambda: _times(s1) > before, 20, s1.log)
    assert len(_failures(s1)) >= 3, _failures(s1)
    closed.unlink()
    s1.await_standing("in_step")
    assert set(done.read_text().split()) == {str(number)}
    eventually(lambda: all(is_gone(pid) for pid in pids.read_text().split()), 20, pids.read_text)
