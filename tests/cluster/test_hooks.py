"""Hooks of real nodes: at the writer before the head is announced, at a partner around the switch."""

from __future__ import annotations

from tests.support.fleet import Fleet, Node


def _add_hooks(node: Node, hooks: str) -> None:
    path = node.directory / "instep.toml"
    path.write_text(f"{path.read_text()}\n[filesets.data.hooks]\n{hooks}\n")
    node.run("config", "reload")


def test_validate_sees_what_is_staged_and_the_writer_runs_its_own(fleet: Fleet) -> None:
    """Goal: a partner's validate hook finds staged files by their paths and keeps a bad one from going live; the
    writer's validate hook keeps one from being published. Method: a file of either name, then its removal."""
    fleet.make(1)
    tree, seen = fleet.tree("main"), fleet.base / "seen"
    check = 'ls "$INSTEP_STAGED/sub" >> "$0"; test ! -e "$INSTEP_STAGED/sub/bad"'
    _add_hooks(fleet["s1"], f"validate = {{ run = ['/bin/sh', '-c', '{check}', '{seen}'] }}")
    _add_hooks(fleet.main, """validate = { run = ['/bin/sh', '-c', 'test ! -e "$INSTEP_PATH/worse"'] }""")
    (tree / "sub").mkdir()
    (tree / "sub" / "good").write_text("good")
    fleet.wait()
    assert "good" in seen.read_text()
    (tree / "sub" / "bad").write_text("bad")
    line = fleet["s1"].await_standing("blocked", "failing", code="validate_failed")
    assert line["live"]["number"] < line["head"]["number"]
    assert not (fleet.tree("s1") / "sub" / "bad").exists()
    (tree / "sub" / "bad").unlink()
    fleet.wait()
    fleet.assert_same()
    head = fleet.main.line()["head"]["number"]
    (tree / "worse").write_text("worse")
    refused = fleet.main.run("publish", expect=4)
    assert refused.error["code"] == "validate_failed"
    assert fleet.main.line()["head"]["number"] == head
    (tree / "worse").unlink()
    fleet.wait()
