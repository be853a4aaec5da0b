"""Hooks whose application writes into the tree, as GeoServer rewrites ``global.xml`` at each reload."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.support.fleet import Fleet, Node
from tests.support.waiting import eventually


def _hook(node: Node, runs: Path, more: str = "") -> None:
    """A reload that counts its runs, and writes the count into the tree, as GeoServer its updateSequence."""
    path = node.directory / "instep.toml"
    script = f'echo x >> {runs}; wc -l < {runs} > "$INSTEP_PATH/global.xml.new"; cd "$INSTEP_PATH"; mv global.xml.new global.xml'
    own = f"\n[filesets.data.hooks]\nreload = {{ run = ['/bin/sh', '-c', '{script}']{more} }}\n"
    path.write_text(path.read_text().split("\n[filesets.data.hooks]")[0] + own)
    node.run("config", "reload")


def _count(runs: Path) -> int:
    return len(runs.read_text().split()) if runs.exists() else 0


def _head(node: Node) -> int:
    number: int = node.line()["head"]["number"]
    return number


def _begin(fleet: Fleet) -> Node:
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "style").write_text("1")
    (tree / "global.xml").write_text("0")
    fleet.make(1)
    fleet.wait()
    return fleet["s1"]


def test_at_a_partner_the_hook_is_named_and_its_writes_are_put_back(fleet: Fleet) -> None:
    """Goal: no fight and no wrong culprit; the hook runs twice for a generation, and once where it names the path."""
    s1 = _begin(fleet)
    runs, there = fleet.base / "runs", fleet.tree("s1")
    _hook(s1, runs)

    def is_at_rest(ran: int) -> bool:
        return _count(runs) == ran and (there / "global.xml").read_text() == "0"

    eventually(partial(is_at_rest, 2), 20, s1.log)  # a hook that was added runs for the present generation
    for number in (2, 3, 4, 5):
        fleet.write({"style": f"new {number}"})
        fleet.wait()
        eventually(partial(is_at_rest, 2 * number), 20, s1.log)
        line = s1.await_standing("in_step", code="hook_writes")
        assert "the reload hook writes global.xml into the tree" in line["reason"], line
    assert "hook writes global.xml" in s1.run("events").stdout
    _hook(s1, runs, ", writes = ['/global.xml']")
    for number in (11, 12):
        fleet.write({"style": f"new {number}"})
        fleet.wait()
        eventually(partial(is_at_rest, number), 20, s1.log)
    assert s1.await_standing("in_step")["code"] is None


def test_at_a_writer_the_row_of_generations_ends(fleet: Fleet) -> None:
    """Goal: what the hook writes is published, and it does not run for that for ever."""
    _begin(fleet)
    main, runs = fleet.main, fleet.base / "runs"
    _hook(main, runs)
    line = main.await_standing("in_step", code="hook_writes")
    assert "the reload hook writes global.xml into the tree" in line["reason"], line
    head, ran = _head(main), _count(runs)
    fleet.write({"style": "2"})
    eventually(lambda: (_head(main), _count(runs)) == (head + 3, ran + 2), 20, main.log)
    fleet.wait()
    assert (fleet.tree("s1") / "global.xml").read_text() == (fleet.tree("main") / "global.xml").read_text()
    assert (_head(main), _count(runs)) == (head + 3, ran + 2)
    _hook(main, runs, ", writes = ['/global.xml']")
    fleet.write({"style": "3"})
    eventually(lambda: _head(main) == head + 5, 20)
    fleet.wait()
    assert (_head(main), _count(runs)) == (head + 5, ran + 3)
