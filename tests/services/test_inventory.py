"""The inventory of parts that are not carried: an unmarked database keeps a fileset from standing in step, and a profile from
being in sync, and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from instep.api.changes.sync import SyncRunDocument
from instep.api.command import command_from
from instep.api.looking import StatusDocument
from instep.cli.filesets.status_text import exit_code, status_lines
from instep.cli.filesets.sync import end_of_run
from instep.node.config.editing.external_edit import set_external
from tests.support.services import ServiceNode, services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time

DATABASE = '[[filesets.data.external]]\nname = "cms-db"\n'


async def mark(node: ServiceNode, **keys: str) -> None:
    set_external(node.directory, "data", "cms-db", keys)
    await node.call("reload_config")


@in_virtual_time
async def test_a_fileset_is_not_in_step_while_a_database_is_not_marked(tmp_path: Path) -> None:
    """Goal: `status` names the database and what to type, exits 11, and is in step as soon as it is marked; the standing
    of the trouble itself counts more; publishing and following do not change."""
    async with services(tmp_path) as cluster:
        main, s1 = cluster.add("main"), cluster.add("s1")
        main.writes(DATABASE)
        s1.follows(main)
        cluster.link("main", "s1")
        main.start()
        s1.start()
        main.write({"a": "1"})
        await main.publish()
        await s1.holds("a", "1")
        line = await main.stands("held", code="external_unmarked")
        assert "the database cms-db is not carried" in line["reason"]
        assert line["next"][0] == "instep fileset external add data cms-db --covered-by TEXT"
        document = command_from(StatusDocument, await main.status())  # type: ignore[type-var]
        assert exit_code(document) == 11
        assert "NOT IN STEP" in "\n".join(status_lines(document))
        await main.call("pause", fileset="data", reason="tea")
        line = await main.stands("paused")
        assert line["reason"].startswith("tea; also: the database cms-db")
        await main.call("resume", fileset="data")
        await mark(main, not_covered="each server has its own")
        assert (await main.stands("in_step"))["code"] is None
        found = (await main.status())["filesets"][0]["external"]
        assert [(one["name"], one["not_covered"]) for one in found] == [("cms-db", "each server has its own")]


@in_virtual_time
async def test_a_profile_is_never_in_sync_while_a_database_of_a_side_is_not_marked(tmp_path: Path) -> None:
    """Goal: of either side, named with the side, as soon as this side's file or a run says so."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        assert (await site.s1.call("sync_show", profile="site"))["in_sync"]
        await mark(site.p1, kind="database")
        ran = await site.run()
        assert not ran["left"]["external"]
        with pytest.raises(click.exceptions.Exit) as ended:
            end_of_run(command_from(SyncRunDocument, ran), ok_set_aside=True)  # type: ignore[type-var]
        assert ended.value.exit_code == 11
        shown = await site.s1.call("sync_show", profile="site")
        assert not shown["in_sync"]
        assert shown["why_not"].startswith("the database cms-db of data@p1 is not carried")
        assert shown["last"]["right"]["external"][0]["name"] == "cms-db"
        await mark(site.p1, covered_by="replication")
        await mark(site.s1, kind="database")
        await site.run()
        why = (await site.s2.call("sync_show", profile="site"))["why_not"]
        assert "data@s1" in why
        assert "data@p1" not in why
        await mark(site.s1, not_covered="staging has test data")
        assert (await site.s2.call("sync_show", profile="site"))["in_sync"]
