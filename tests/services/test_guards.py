"""A writer never publishes a disaster (P10): each guard refuses with its reason, and partners stay as they were."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from instep.errors import InstepError
from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time


async def _refused(main: ServiceNode, code: str, **params: object) -> InstepError:
    """``publish`` is refused so, the writer stands so, and the head stays."""
    head = await main.head()
    error = await main.refuses(code, "publish", fileset="data", **params)
    assert (error.exit_code, bool(error.hint)) == (4, True), error.as_json()
    line = await main.stands("blocked", code=code)
    assert line["reason"] and line["next"], line
    assert line["head"]["number"] == head
    return error


@in_virtual_time
async def test_an_emptied_root_and_a_mass_deletion(tmp_path: Path) -> None:
    """Goal: a root that is gone, emptied or another's, and most files gone, are each refused, by hand and by itself;
    partners are untouched; ``accept_deletions`` lets only the deletions through, once."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1, tree = cluster["main"], cluster["s1"], cluster["main"].tree
        main.write({f"sub/f{number}": f"file {number}\n" for number in range(60)})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        before = tree_of(s1.tree)
        away = tree.with_name("away")
        os.rename(tree, away)
        for code in ("root_missing", "marker_missing"):
            if code == "marker_missing":
                tree.mkdir()
            await _refused(main, code)
            await _refused(main, code, accept_deletions=True)
        assert os.listdir(tree) == [], "a marker must never be made anew"
        shutil.copytree(s1.tree / ".instep", tree / ".instep")
        await _refused(main, "marker_foreign", accept_deletions=True)
        assert tree_of(s1.tree) == before
        shutil.rmtree(tree)
        os.rename(away, tree)
        await main.call("retry", fileset="data")
        await main.stands("in_step")
        await main.call("pause", fileset="data")
        for number in range(50):
            (tree / f"sub/f{number}").unlink()
        await main.call("resume", fileset="data")
        await main.stands("blocked", code="max_deletions")
        error = await _refused(main, "max_deletions")
        assert {key: error.facts[key] for key in ("allowed", "entries", "removed")} == {
            "allowed": 30, "entries": 61, "removed": 50,
        }  # fmt: skip
        assert error.hint == "when that is meant: instep publish data --accept-deletions"
        await main.refuses("max_deletions", "publish", fileset="data", dry_run=True)
        await main.refuses("max_deletions", "wait", fileset="data", timeout_s=2)
        assert tree_of(s1.tree) == before
        published = await main.publish(accept_deletions=True, wait=True)
        assert published["removed"] == 50 and published["wait"]["reached"], published
        assert tree_of(s1.tree) == tree_of(tree)
        for number in range(51, 60):
            (tree / f"sub/f{number}").unlink()
        await cluster.in_step("s1")  # nine of the ten that are left: below the number that is always free
