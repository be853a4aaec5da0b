"""The hooks around a switch: freeze keeps it away, thaw follows, on_failure is told, paths choose."""

from __future__ import annotations

import json

from tests.cluster.test_hooks import _hooks, _script, _start
from tests.support.fleet import Fleet
from tests.support.waiting import eventually


def test_freeze_thaw_and_on_failure(fleet: Fleet) -> None:
    """Goal: a failing ``freeze`` keeps the switch away with its reason and is thawed, ``on_failure`` is told; then
    freeze, switch, thaw come in order, and only the reload whose ``paths`` match runs."""
    tree, there, s1 = _start(fleet)
    seen, told, closed = (fleet.base / name for name in ("seen", "told", "closed"))
    note = f'echo "$INSTEP_HOOK $(cat "$INSTEP_PATH/file")" >> {seen}'
    freeze = _script(fleet.base / "freeze", f"{note}; test ! -e {closed}")
    thaw = _script(fleet.base / "thaw", note)
    failure = _script(fleet.base / "failure", f"cat >> {told}; echo >> {told}")
    _hooks(
        s1,
        freeze=f'run = ["{freeze}"]',
        thaw=f'run = ["{thaw}"]',
        on_failure=f'run = ["{failure}"]',
        reload=f'touch = "{fleet.base}/reloaded", paths = ["styles/**"]',
    )
    closed.touch()
    (tree / "file").write_text("second")
    fleet.main.run("publish", "data")
    line = s1.await_standing("failing", code="freeze_failed")
    assert "exited with 1" in line["reason"], line
    assert (there / "file").read_text() == "good"
    eventually(told.exists, 10, s1.log)
    eventually(lambda: told.read_text().endswith("\n"), 10, s1.log)
    assert json.loads(told.read_text().splitlines()[0])["code"] == "freeze_failed"
    closed.unlink()
    s1.run("retry", "data")
    fleet.wait()
    assert seen.read_text().splitlines()[:2] == ["freeze good", "thaw good"]
    assert seen.read_text().splitlines()[-2:] == ["freeze good", "thaw second"]
    assert not (fleet.base / "reloaded").exists()
    (tree / "styles").mkdir()
    (tree / "styles" / "one").write_text("new")
    fleet.main.run("publish", "data")
    fleet.wait()
    assert (fleet.base / "reloaded").exists()
