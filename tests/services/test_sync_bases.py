"""The bases of a sync profile at both homes: lost at one or both, older at one, and what a first run archives."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from instep.model.sync import BASES_KEPT, SyncBase, SyncMark
from tests.support.services import services
from tests.support.sync_site import Site, files
from tests.support.virtual_time import in_virtual_time

BASES = "sync/bases/site/data@s1/data@p1"
MARKS = "sync/marks/p1/data/site/s1"


def _bases(site: Site) -> tuple[SyncBase, ...]:
    return msgspec.msgpack.decode(site.s1.store.get(BASES) or b"\x90", type=tuple[SyncBase, ...])


def _marks(site: Site) -> tuple[SyncMark, ...]:
    return msgspec.msgpack.decode(site.p1.store.get(MARKS) or b"\x90", type=tuple[SyncMark, ...])


@pytest.mark.parametrize("lost_at", ["carrier", "other", "both"])
@in_virtual_time
async def test_a_base_that_a_home_lost_is_none_and_a_first_run_archives_all_that_it_replaces(
    tmp_path: Path, lost_at: str
) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        if lost_at != "other":
            s1.store.delete(BASES)
        if lost_at != "carrier":
            p1.store.delete(MARKS)
        s1.write({"a": "left", "d/x": "left", "new": "left"})
        p1.write({"a": "right", "d/x": "right", "uploads/v": "right"})
        error = await s1.refuses("no_base", "sync_run", profile="site")
        assert "--initial left" in str(error.hint)
        assert files(p1.tree)["a"] == "right"
        await site.run(initial="left")
        assert site.same()["d/x"] == "left"
        assert {"a", "d/x"} <= set(await p1.archived("replaced"))
        assert "uploads/v" in await p1.archived("removed")
        assert _bases(site)[-1].mark == _marks(site)[-1]


@pytest.mark.parametrize("older_at", ["carrier", "other"])
@in_virtual_time
async def test_where_one_home_has_an_older_base_the_run_goes_from_the_one_that_both_have(
    tmp_path: Path, older_at: str
) -> None:
    """Goal: as after a restored state, the run goes from the common base: what both sides have alike stays, a change of
    each side arrives, nothing is listed."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        for text in ("2", "3"):
            s1.write({"a": text})
            await site.run()
        if older_at == "carrier":
            s1.store.put(BASES, msgspec.msgpack.encode(_bases(site)[:-1]))
        else:
            p1.store.put(MARKS, msgspec.msgpack.encode(_marks(site)[:-1]))
        s1.write({"new": "1"})
        (p1.tree / "d/x").unlink()
        ran = await site.run()
        whole = site.same()
        assert (whole["a"], whole["new"], ran["listed"]) == ("3", "1", []) and "d/x" not in whole
        assert _bases(site)[-1].mark == _marks(site)[-1]


@in_virtual_time
async def test_homes_keep_the_newest_bases_and_no_more(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        for number in range(BASES_KEPT + 1):
            site.s1.write({"a": str(number)})
            await site.run()
        assert [base.mark for base in _bases(site)] == list(_marks(site))
        assert len(_marks(site)) == BASES_KEPT
