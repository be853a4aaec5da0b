"""Whether a root can be switched by exchanging it whole: "Refused" in section 7 of ``docs/spec/journal.md``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from instep.model.paths import is_below, shown
from instep.tree.objects.abilities import Ability
from instep.tree.root.beneath import Root
from instep.tree.root.kernel import mounts_below
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules
from instep.tree.scan.subtree import walk_below
from instep.tree.stage.next_tree import refused

NAMED_MAX = 20
"""So many ignored paths outside ``carry``, or mounts, are named; the walk ends there."""


@dataclass(frozen=True, slots=True)
class ExchangeObstacle:
    """Why a root cannot be exchanged: a stable ``reason``, the value that ``exchange`` needs and the present one."""

    reason: str
    needed: str
    found: str


def exchange_obstacles(
    place: Place, rules: Rules, carry: Sequence[bytes], abilities: frozenset[Ability], *, is_writer: bool
) -> list[ExchangeObstacle]:
    """All obstacles to exchanging ``place.root``; empty when there are none.

    ``carry`` are ignored paths, relative to the root and without a trailing slash, that move along. ``abilities``
    describe the file system. Walks the tree by stat. Errors: ``OSError``.
    """
    return [
        *_of_the_place(place, is_writer),
        *_of_the_file_system(abilities),
        *_of_ignored_paths(place, rules, carry),
    ]


def refuse_obstacles(place: Place) -> None:
    """Check a place without a walk. ``RefusedError`` ``exchange_refused`` with the first obstacle."""
    for obstacle in _of_the_place(place, False):
        raise refused(place, obstacle.needed, obstacle.found)


def _of_the_place(place: Place, is_writer: bool) -> Iterator[ExchangeObstacle]:
    root, parent = place.root, place.root.parent
    if is_writer:
        yield ExchangeObstacle("writers_tree", "a followed tree", f"this node writes {place.fileset}")
    mounts = mounts_below(os.path.realpath(os.fsencode(root)))
    if mounts:
        there = ", ".join(map(shown, mounts[:NAMED_MAX]))
        yield ExchangeObstacle("mount_point", f"{root} with no mount at or below it", there)
    if not os.access(parent, os.W_OK | os.X_OK):
        mode = stat.S_IMODE(parent.stat().st_mode)
        yield ExchangeObstacle(
            "parent_not_writable", f"{parent} writable for uid {os.geteuid()}", f"mode {mode:04o}"
        )
    if place.is_control_inside:
        yield ExchangeObstacle("control_inside", f"a control folder outside {root}", str(place.control))
        return
    holder = place.control if place.control.exists() else place.control.parent
    device, other = root.stat().st_dev, holder.stat().st_dev
    if device != other:
        yield ExchangeObstacle(
            "other_file_system", f"device {device} of {root}", f"device {other} of {holder}"
        )


def _of_the_file_system(abilities: frozenset[Ability]) -> Iterator[ExchangeObstacle]:
    for ability in (Ability.EXCHANGE, Ability.HARDLINKS):
        if ability not in abilities:
            reason = ability.name.lower() + "_missing"
            yield ExchangeObstacle(reason, ability.value, f"a file system without {ability.value}")


def _of_ignored_paths(place: Place, rules: Rules, carry: Sequence[bytes]) -> Iterator[ExchangeObstacle]:
    named: list[bytes] = []
    mounts: list[bytes] = []
    with Root(place.root) as root:
        for found in walk_below(root, b""):
            if found.path == b".instep" or is_below(found.path, b".instep"):
                continue  # the marker goes along by itself
            if found.stat.st_dev != root.device:
                mounts.append(found.path)
                if len(mounts) == NAMED_MAX:
                    break
                continue
            is_ignored = rules.ignored(found.path, stat.S_ISDIR(found.stat.st_mode))
            if not is_ignored or any(found.path == path or is_below(found.path, path) for path in carry):
                continue
            if not (named and is_below(found.path, named[-1])):
                named.append(found.path)
                if len(named) == NAMED_MAX:
                    break
    if mounts:
        there = ", ".join(map(shown, mounts))
        yield ExchangeObstacle("mount_below", "a tree without mounts below it", there)
    if named:
        carried = ", ".join(map(shown, carry)) or "nothing"
        yield ExchangeObstacle(
            "ignored_outside_carry", f"ignored paths only in carry ({carried})", ", ".join(map(shown, named))
        )
