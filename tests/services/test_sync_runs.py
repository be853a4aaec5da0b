"""Sync runs between two homes with real services: which changes travel, which paths are listed, which nodes may start one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from instep.node.syncing.sending import ANSWERED
from instep.node.syncing.sync_run import FAILPOINTS
from instep.tree.root.failpoints import arm, disarm_all
from tests.support.services import services
from tests.support.sync_site import Site, files
from tests.support.virtual_time import in_virtual_time

LARGE = 8 << 20
"""Bytes of a file that no history keeps beside the tree."""


@in_virtual_time
async def test_both_sides_end_alike_and_a_second_run_publishes_nothing(tmp_path: Path) -> None:
    """Goal: changes of each side arrive at the other, both copies of a collision are kept and listed until reviewed, the
    dry run says what the run does, and each side publishes once."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        heads = await s1.head(), await p1.head()
        s1.write({"a": "left", "new": "1", "d/x": "2"})
        (p1.tree / "d/x").unlink()
        p1.write({"a": "right", "uploads/v": "1", "templates/t": "edited"})
        dry = await site.run(dry_run=True)
        ran = await site.run()
        assert (dry["changes"], dry["listed"]) == (ran["changes"], ran["listed"])
        whole = site.same()
        copies = [name for name in whole if "collision" in name]
        assert {whole["a"], *(whole[name] for name in copies)} == {"left", "right"}
        assert (whole["d/x"], whole["uploads/v"], whole["templates/t"], whole["new"]) == ("2", "1", "1", "1")
        assert {each["path"]: each["why"] for each in ran["listed"]} == {
            "a": "collision", "d/x": "change_over_deletion", "templates/t": "locked_edit",
        }  # fmt: skip
        assert (await s1.head() - heads[0], await p1.head() - heads[1]) == (2, 2)
        assert "templates/t" in await p1.archived("replaced")
        again = await site.run()
        assert (again["changes_total"], again["phase"]) == (0, "done")
        assert (await s1.head() - heads[0], await p1.head() - heads[1]) == (2, 2)
        listed = (await s1.call("sync_collisions", profile="site"))["listed"]
        await s1.call("sync_collisions", profile="site", reviewed=listed[0]["id"])
        assert len((await s1.call("sync_collisions", profile="site"))["listed"]) == len(listed) - 1
        await s1.refuses("unknown_listing", "sync_collisions", profile="site", reviewed="0")


@in_virtual_time
async def test_a_large_file_that_both_sides_changed_arrives_in_one_run(tmp_path: Path) -> None:
    """Goal: production's bytes, which the run moved to the copy, and which are in no history, reach staging from there."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        site.s1.write({"large": "1" * LARGE})
        site.p1.write({"large": "2" * LARGE})
        ran = await site.run()
        assert (ran["phase"], len(ran["listed"])) == ("done", 1)
        assert {"1" * LARGE, "2" * LARGE} <= set(site.same().values())


@in_virtual_time
async def test_any_initiator_starts_the_same_run_and_production_none(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, s2, p1 = site.s1, site.s2, site.p1
        await site.begin()
        s1.write({"a": "2"})
        ran = await site.run(s2)
        assert (ran["initiator"], ran["node"], site.same()["a"]) == ("s2", "s1", "2")
        assert (await s2.call("sync_show", profile="site"))["last"]["initiator"] == "s2"
        error = await p1.refuses("no_initiator", "sync_run", profile="site")
        assert error.reason.endswith("allowed: s1"), "s2 is no node that production knows"
        await p1.refuses("unknown_profile", "sync_run", profile="other")
        s1.write({"a": "3"})
        first, error = await asyncio.gather(
            site.run(), s2.refuses("sync_running", "sync_run", profile="site")
        )
        assert error.exit_code == 6 and error.facts["node"] == "s1"
        assert {"since", "phase", "percent"} <= error.facts.keys()
        assert first["phase"] == "done"


@pytest.mark.parametrize("point", [*FAILPOINTS.values(), ANSWERED])
@in_virtual_time
async def test_a_run_that_ended_in_a_phase_is_finished_by_the_next(tmp_path: Path, point: str) -> None:
    """Goal: cut off as the phase began, the next run comes to the same end: one copy of a collision, no generation more."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        heads = await s1.head(), await p1.head()
        s1.write({"a": "left", "new": "1"})
        p1.write({"a": "right", "uploads/v": "1"})
        arm(point, "eio")
        try:
            await s1.refuses("disk_error", "sync_run", profile="site")
        finally:
            disarm_all()
        await s1.stop()
        s1.start()
        assert (await site.run())["phase"] == "done"
        whole = site.same()
        assert len([name for name in whole if "collision" in name]) == 1
        assert whole["uploads/v"] == whole["new"] == "1"
        assert (await s1.head() - heads[0], await p1.head() - heads[1]) <= (3, 3)


@in_virtual_time
async def test_no_home_changes_its_tree_before_the_contents_that_it_gives_are_sent(tmp_path: Path) -> None:
    """Goal: what one side gives is read from the tree that the other set replaces. Here the contents for s1 do not come."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        site.s1.write({"a": "staging"})
        site.p1.write({"uploads/u": "production"})
        folder = next(site.s1.directory.path.parent.rglob("offered"))
        folder.rmdir()
        folder.write_text("no folder")
        await site.s1.refuses("disk_error", "sync_run", profile="site")
        left, right = files(site.s1.tree), files(site.p1.tree)
        assert (left["uploads/u"], right["a"]) == ("1", "1")
        folder.unlink()
        assert (await site.run())["phase"] == "done"
        assert site.same() == {**left, "uploads/u": "production"}


@in_virtual_time
async def test_a_side_that_went_back_is_named(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        before = await p1.head()
        s1.write({"a": "2"})
        await site.run()
        await p1.call("rollback", fileset="data", generation=before)
        error = await s1.refuses("went_back", "sync_run", profile="site")
        assert "--accept-rollback" in str(error.hint)
        await site.run(accept_rollback=True)
        assert site.same()["a"] == "1"


@in_virtual_time
async def test_a_removal_that_makes_an_older_tree_is_no_rollback(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        site.s1.write({"page": "1"})
        await site.run()
        (site.p1.tree / "page").unlink()
        assert (await site.run())["phase"] == "done"
        assert "page" not in site.same()


@pytest.mark.parametrize("by", ["rollback", "restore", "restore by hand"])
@in_virtual_time
async def test_a_side_that_went_back_is_named_also_after_an_edit(tmp_path: Path, by: str) -> None:
    """Goal: whatever is published after it, nothing of the other side is overwritten until an operator accepts it."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        before = await p1.head()
        s1.write({"a": "2"})
        await site.run()
        if by == "restore by hand":
            await p1.set(publish="manual")
        await p1.call(by.split()[0], fileset="data", generation=before)
        p1.write({"other": "1"})
        await p1.publish()
        for _ in range(2):
            error = await s1.refuses("went_back", "sync_run", profile="site")
            assert f"was rolled back to generation {before}" in error.reason
        assert (s1.tree / "a").read_text() == "2"
        await p1.set(publish="auto")
        await site.run(accept_rollback=True)
        assert (site.same()["a"], site.same()["other"]) == ("1", "1")
        p1.write({"a": "3"})
        await site.run()
        assert site.same()["a"] == "3"


@in_virtual_time
async def test_a_rollback_that_is_taken_back_is_none(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1 = site.s1
        await site.begin()
        before = await s1.head()
        s1.write({"a": "2"})
        await site.run()
        last = await s1.head()
        s1.write({"new": "1"})
        await s1.publish()
        await s1.call("rollback", fileset="data", generation=before)
        await s1.refuses("went_back", "sync_run", profile="site")
        await s1.call("rollback", fileset="data", generation=last + 1)
        await site.run()
        assert (site.same()["a"], site.same()["new"]) == ("2", "1")


@in_virtual_time
async def test_production_that_takes_no_changes_or_is_away_is_named(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        s1.write({"a": "2"})
        cluster.cut("s1", "p1")
        await s1.refuses("connection_refused", "sync_run", profile="site")
        cluster.heal("s1", "p1")
        p1.fileset = p1.fileset.replace('offers_from = ["s1"]', "offers_from = []")
        await p1.reload()
        error = await s1.refuses("offers_not_taken", "sync_run", profile="site")
        assert "on p1: instep fileset set data offers_from=s1" in str(error.hint)
        assert (p1.tree / "a").read_text() == "1"


@in_virtual_time
async def test_a_fileset_of_many_homes_is_no_side_of_a_profile(tmp_path: Path) -> None:
    """Goal: refused by name at either side, before anything is changed."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        for node in (site.p1, site.s1):
            node.fileset = node.fileset.replace("[filesets.data]", '[filesets.data]\nmode = "replicate"')
            await node.reload()
            error = await site.s1.refuses("not_in_replicate", "sync_run", profile="site")
            assert error.exit_code == 4
