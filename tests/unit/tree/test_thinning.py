"""Thinning on a real archive: what it takes, and what it never takes."""

from __future__ import annotations

from pathlib import Path

from instep.core.retention import RetentionPolicy, plan_thinning
from instep.tree.archive.archive import Archive
from tests.support.apply_world import World


def test_thinning_takes_only_what_newer_versions_stand_for(tmp_path: Path) -> None:
    """Method: four versions in one hour, one of them a local change, one beside a file of its own; a fifth later."""
    world, hour = World.make(tmp_path), 3_600_000
    world.apply({b"a": b"0", b"b": b"only"})
    for minute, (text, tree) in enumerate(
        (("1", {b"b": b"only"}), ("2", {b"b": b"only"}), ("3", {b"b": b"new"}), ("4", {b"b": b"new"}))
    ):
        world.number = 10 * hour + minute
        if text == "2":
            (world.root / "a").write_bytes(b"of a program here")
        world.apply({b"a": text.encode(), **tree})
    world.number = 20 * hour
    world.apply({b"a": b"5", b"b": b"new"})
    archive = Archive(world.place)
    versions = list(archive.versions())
    policy = RetentionPolicy(keep_last=0, max_bytes=0)
    gone = plan_thinning(archive.batches(), versions, policy, world.number)
    archive.prune(gone)
    assert len(gone) == 1
    left = [(item.path, item.why.value) for item in archive.list_items()]
    assert left == [
        (b"a", "drift"),
        (b"a", "replaced"),
        (b"b", "replaced"),
        (b"a", "replaced"),
        (b"a", "replaced"),
    ]
