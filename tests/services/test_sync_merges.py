"""Files that both sides of a sync profile changed, merged by their format and checked by a program, with real services."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instep.model.sync import SyncPhase
from instep.node.syncing.sending import ANSWERED
from instep.node.syncing.sync_run import FAILPOINTS
from instep.tree.root.failpoints import arm, disarm_all
from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time

KINDS = """
[sync.site.kinds.xml]
paths = ["*.xml"]
merge = "xml"
validate = { run = ["/bin/sh", "-c", "! grep -q WRONG \\"$INSTEP_STAGED/conf/server.xml\\""], timeout = "20s" }
[sync.site.kinds.json]
paths = ["*.json"]
merge = "json"
[sync.site.kinds.settings]
paths = ["*.properties"]
merge = "properties"
[sync.site.kinds.lists]
paths = ["*.txt"]
merge = "lines"
"""
SERVER = """<?xml version="1.0" encoding="UTF-8"?>
<Server port="8005" shutdown="SHUTDOWN">
  <Service name="Catalina">
    <!-- plain -->
    <Connector port="8080" protocol="HTTP/1.1" connectionTimeout="20000" />
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps" />
    </Engine>
  </Service>
</Server>
"""
FILES = {
    "conf/server.xml": SERVER,
    "menu.json": '{\n  "title": "First",\n  "cache": {"minutes": 5}\n}\n',
    "site.properties": "# the site\nname=First\n\nhost=localhost\n",
    "robots.txt": "a\nb\nc\nd\n",
}
LEFT = {
    "conf/server.xml": SERVER.replace("20000", "5000"),
    "menu.json": FILES["menu.json"].replace("First", "Second"),
    "site.properties": FILES["site.properties"].replace("First", "Second"),
    "robots.txt": "A\nb\nc\nd\n",
}
RIGHT = {
    "conf/server.xml": SERVER.replace('appBase="webapps"', 'appBase="/srv"'),
    "menu.json": FILES["menu.json"].replace("5", "9"),
    "site.properties": FILES["site.properties"].replace("localhost", "db1"),
    "robots.txt": "a\nb\nc\nD\n",
}
BOTH = {
    "conf/server.xml": LEFT["conf/server.xml"].replace('appBase="webapps"', 'appBase="/srv"'),
    "menu.json": LEFT["menu.json"].replace("5", "9"),
    "site.properties": LEFT["site.properties"].replace("localhost", "db1"),
    "robots.txt": "A\nb\nc\nD\n",
}


async def _edited(site: Site) -> None:
    site.s1.write(FILES)
    await site.run()
    site.s1.write(LEFT)
    site.p1.write(RIGHT)


def _changes(run: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(each["side"], each["change"], each["path"]) for each in run["changes"]}


@in_virtual_time
async def test_both_sides_get_the_merged_file_and_keep_their_own_in_the_archive(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster, KINDS)
        await site.begin()
        await _edited(site)
        dry = await site.run(dry_run=True)
        ran = await site.run()
        assert (
            _changes(dry)
            == _changes(ran)
            == {(side, "merged", path) for side in ("left", "right") for path in BOTH}
        )
        assert (ran["listed"], ran["left"]["merged"], ran["undone"]) == ([], len(BOTH), [])
        whole = site.same()
        assert {path: whole[path] for path in BOTH} == BOTH
        for node, versions in ((site.s1, LEFT), (site.p1, RIGHT)):
            for path, text in versions.items():
                assert path in await node.archived("replaced")
                assert text in await node.taken_out(path, tmp_path / f"out-{node.name}-{Path(path).name}")
        assert (await site.run())["changes_total"] == 0
        assert not (site.s1.directory.path / "merged" / "site").exists()


@in_virtual_time
async def test_what_does_not_merge_or_is_refused_is_a_collision_with_the_reason(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster, KINDS)
        await site.begin()
        await _edited(site)
        site.s1.write(
            {"conf/server.xml": SERVER.replace("20000", "WRONG"), "menu.json": "no JSON", "new.txt": "1\n"}
        )
        site.p1.write({"robots.txt": "B\nb\nc\nd\n", "new.txt": "2\n"})
        ran = await site.run()
        assert {each["path"]: (each["why"], each["reason"]) for each in ran["listed"]} == {
            "conf/server.xml": ("collision", "validate of xml: exited with 1"),
            "menu.json": ("collision", "no JSON: JSON is malformed: invalid character (byte 4)"),
            "new.txt": ("collision", "both sides added it"),
            "robots.txt": ("collision", "both sides changed the same lines"),
        }
        assert {path for _, change, path in _changes(ran) if change == "merged"} == {"site.properties"}
        assert len([name for name in site.same() if "collision" in name]) == 4


@pytest.mark.parametrize("point", [FAILPOINTS[SyncPhase.SENDING], ANSWERED, FAILPOINTS[SyncPhase.BASE]])
@in_virtual_time
async def test_a_run_that_ended_between_the_sides_merges_the_same_again(tmp_path: Path, point: str) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster, KINDS)
        await site.begin()
        await _edited(site)
        arm(point, "eio")
        try:
            await site.s1.refuses("disk_error", "sync_run", profile="site")
        finally:
            disarm_all()
        await site.s1.stop()
        site.s1.start()
        ran = await site.run()
        assert (ran["phase"], ran["listed"]) == ("done", [])
        whole = site.same()
        assert {path: whole[path] for path in BOTH} == BOTH
