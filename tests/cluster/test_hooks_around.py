"""The hooks around a switch: freeze keeps it away, thaw follows, on_failure runs, paths choose."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from instep.fleet.scratch import PREFIX
from tests.cluster.test_hooks import _hooks, _script, _start
from tests.support.crashes import Crasher
from tests.support.fleet import Fleet
from tests.support.waiting import eventually


def test_freeze_thaw_and_on_failure(fleet: Fleet) -> None:
    """Goal: a failing ``freeze`` keeps the switch away with its reason and is thawed, ``on_failure`` runs; then
    freeze, switch, thaw come in order, and only the reload whose ``paths`` match runs."""
    _, there, s1 = _start(fleet)
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
    eventually((fleet.base / "reloaded").exists, 30, s1.log)
    (fleet.base / "reloaded").unlink()  # an added hook runs once for the present generation
    closed.touch()
    fleet.write({"file": "second"})
    fleet.publish()
    line = s1.await_standing("failing", code="freeze_failed")
    assert "exited with 1" in line["reason"], line
    assert (there / "file").read_text() == "good"
    eventually(told.exists, 20, s1.log)
    eventually(lambda: told.read_text().endswith("\n"), 20, s1.log)
    assert json.loads(told.read_text().splitlines()[0])["code"] == "freeze_failed"
    closed.unlink()
    s1.run("retry", "data")
    fleet.wait()
    assert seen.read_text().splitlines()[:2] == ["freeze good", "thaw good"]
    assert seen.read_text().splitlines()[-2:] == ["freeze good", "thaw second"]
    assert not (fleet.base / "reloaded").exists()
    fleet.write({"styles/one": "new"})
    fleet.publish()
    fleet.wait()
    assert (fleet.base / "reloaded").exists()


def test_a_thaw_that_fails_is_a_standing_until_it_works(fleet: Fleet) -> None:
    """Goal: a line whose application was frozen and not thawed is never *in step*: the line stands failing with
    reason and next step, also after a restart, is retried by itself, and recovers. Method: SIGKILL between freeze and
    thaw, a thaw that fails, a second restart, then the cause goes. Every ``thaw`` runs although the first one
    fails. The folder of a call that was cut off goes with the next start."""
    _, there, s1 = _start(fleet)
    seen, stuck = fleet.base / "seen", fleet.base / "stuck"
    freeze = _script(fleet.base / "freeze", f'echo "freeze $INSTEP_GENERATION" >> {seen}')
    thaw = _script(fleet.base / "thaw", f'echo "thaw $INSTEP_GENERATION" >> {seen}; test ! -e {stuck}')
    second = _script(fleet.base / "second", f"echo second >> {seen}")
    toml = s1.directory / "instep.toml"
    text = toml.read_text()
    both = f"""
[filesets.data.hooks]
freeze = {{ run = ["{freeze}"] }}
[[filesets.data.hooks.thaw]]
run = ["{thaw}"]
[[filesets.data.hooks.thaw]]
run = ["{second}"]
"""
    toml.write_text(text + both)
    left = fleet.base / "scratch" / f"{PREFIX}of-a-killed-call"
    (left / "view").mkdir(parents=True)
    s1.environment["TMPDIR"] = str(left.parent)
    partner = Crasher(s1).take_over().start("switch.step.before")
    stuck.touch()
    fleet.write({"file": "second"})
    number = fleet.publish()
    assert partner.await_end() == -9
    assert seen.read_text() == f"freeze {number}\n" and not left.exists()
    try:
        partner.start()
        line = partner.await_line(lambda line: line["code"] == "thaw_failed")
        assert line["standing"] == "failing" and "exited with 1" in line["reason"], line
        assert "instep retry data" in str(line["next"]), line
        partner.await_line(lambda line: "times in a row" in (line["reason"] or ""))
        assert (there / "file").read_text() == "second"
        eventually(lambda: fleet.main.line()["partners"][0]["code"] == "thaw_failed", 20, s1.log)
        partner.kill()
        assert set(seen.read_text().splitlines()) == {f"freeze {number}", f"thaw {number}", "second"}
        partner.start()
        partner.await_line(lambda line: line["code"] == "thaw_failed")
        stuck.unlink()
        partner.await_line(lambda line: line["standing"] == "in_step")
        before = seen.read_text()
        assert before.endswith(f"thaw {number}\nsecond\n"), before
        fleet.write({"file": "third"})
        third = fleet.wait()["generation"]["number"]
        assert seen.read_text() == before + f"freeze {third}\nthaw {third}\nsecond\n"
    finally:
        partner.kill()


def _holds(path: Path, text: str) -> bool:
    return path.read_text() == text


def test_repair_runs_once_for_each_generation_that_failed(fleet: Fleet) -> None:
    """Goal: ``repair`` runs after a put-back, once, with the refused generation as input and the old tree in place;
    the next generation that fails gets its own. Method: a probe that refuses two generations, then accepts."""
    _, _, s1 = _start(fleet)
    seen = fleet.base / "seen"
    repair = _script(
        fleet.base / "repair",
        f'echo "$INSTEP_HOOK $INSTEP_GENERATION $(cat "$INSTEP_PATH/file")" >> {seen}; exit 3',
    )
    probe = _script(fleet.base / "probe", '! grep -q bad "$INSTEP_PATH/file"')
    _hooks(s1, repair=f'run = ["{repair}"]', probe=f'run = ["{probe}"]')
    wanted = ""
    for word in ("bad", "bad again"):
        fleet.write({"file": word})
        wanted += f"repair {fleet.publish()} good\n"
        s1.await_standing("failing", code="probe_failed")
        eventually(partial(_holds, seen, wanted), 20, s1.log)
    s1.run("retry", "data")
    fleet.write({"file": "better"})
    fleet.wait()
    assert seen.read_text() == wanted
    assert "repair hook of data: exited with 3" in str(s1.run("events").json["events"])
