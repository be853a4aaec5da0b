"""Each obstacle to exchanging a root is named, with the needed and the present value."""

from __future__ import annotations

from pathlib import Path

from instep.model.definition import Definition
from instep.model.ids import FilesetName
from instep.tree.objects.abilities import Ability
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules
from instep.tree.stage.exchange_check import exchange_obstacles

ABLE = frozenset({Ability.EXCHANGE, Ability.HARDLINKS})


def place_at(folder: Path) -> Place:
    root = folder / "data"
    (root / "logs").mkdir(parents=True)
    (root / "logs/today.log").write_bytes(b"a")
    (root / "map.xml").write_bytes(b"b")
    return Place(root, folder / ".instep-maps", FilesetName("maps"))


def test_a_plain_followed_tree_may_be_exchanged(tmp_path: Path) -> None:
    place = place_at(tmp_path)
    assert exchange_obstacles(place, Rules(Definition()), (), ABLE, is_writer=False) == []


def test_ignored_paths_must_be_carried(tmp_path: Path) -> None:
    place, rules = place_at(tmp_path), Rules(Definition(ignore=("logs/", "*.tmp")))
    (place.root / "x.tmp").write_bytes(b"c")
    (found,) = exchange_obstacles(place, rules, (b"logs",), ABLE, is_writer=False)
    assert (found.reason, found.found) == ("ignored_outside_carry", "x.tmp")
    assert "logs" in found.needed
    assert exchange_obstacles(place, rules, (b"logs", b"x.tmp"), ABLE, is_writer=False) == []


def test_each_obstacle_is_named(tmp_path: Path) -> None:
    place = place_at(tmp_path)
    inside = Place(place.root, place.root / ".instep", place.fileset)
    found = exchange_obstacles(inside, Rules(Definition()), (), frozenset(), is_writer=True)
    assert {each.reason for each in found} == {
        "writers_tree",
        "control_inside",
        "exchange_missing",
        "hardlinks_missing",
    }
