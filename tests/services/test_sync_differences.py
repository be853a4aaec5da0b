"""The other side of a sync run is seen by what changed there since the last run, and whole where that cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from instep.errors import InstepError
from instep.model.ids import Digest, FilesetName, LineId, NodeName
from instep.net.messages import messages as m
from instep.net.messages.syncing import DifferenceReply, DifferenceRequest
from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time

S1 = NodeName("s1")
LINE = LineId(FilesetName("data"), NodeName("p1"))


class _Asked:
    """Counts the questions for pages at a home; ``lie`` alters each difference that it gives."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        peers = site.p1.node.peers
        self.pages = 0
        self.differences = 0
        self.lie = False
        pages, difference = peers.pages, peers.difference

        async def pages_counted(who: NodeName, request: m.PagesRequest) -> m.PagesReply:
            self.pages += 1
            return await pages(who, request)

        async def difference_counted(who: NodeName, request: DifferenceRequest) -> DifferenceReply:
            self.differences += 1
            reply = await difference(who, request)
            if not self.lie:
                return reply
            entries = tuple(replace(entry, size=entry.size + 1) for entry in reply.entries)
            return DifferenceReply(entries, reply.removed)

        monkeypatch.setattr(peers, "pages", pages_counted)
        monkeypatch.setattr(peers, "difference", difference_counted)


@in_virtual_time
async def test_a_later_run_fetches_no_page_of_the_other_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: only what changed since the last run comes, before the plan and behind the changes, also after a restart and a
    sweep of pages; where the home keeps the old generation no more, its pages come."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        asked = _Asked(site, monkeypatch)
        site.s1.write({"a": "left", "new/x": "1"})
        (site.p1.tree / "d/x").unlink()
        site.p1.write({"uploads/v": "1", "a": "right"})
        await site.run()
        site.same()
        assert (asked.pages, asked.differences) == (0, 2)
        await site.s1.stop()
        site.s1.start()
        assert await site.s1.daemon.housekeeping.sweep() is not None
        site.p1.write({"d/x": "again"})
        await site.run()
        assert site.same()["d/x"] == "again"
        assert (asked.pages, asked.differences) == (0, 3)
        old = site.p1.node.runtime.store.generations(LINE, 1)[0].ref()
        site.p1.write({"d/x": "and again"})
        await site.p1.publish()
        site.p1.node.runtime.store.delete_generations([old.id])
        await site.run()
        assert site.same()["d/x"] == "and again"
        assert asked.pages > 0


@in_virtual_time
async def test_a_difference_that_is_not_the_signed_manifest_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        asked = _Asked(site, monkeypatch)
        asked.lie = True
        site.p1.write({"d/x": "2"})
        await site.s1.refuses("bad_shape", "sync_run", profile="site")
        asked.lie = False
        assert (await site.run())["phase"] == "done"
        assert site.same()["d/x"] == "2"


@in_virtual_time
async def test_what_changed_in_another_line_is_not_shown_by_naming_its_generation(tmp_path: Path) -> None:
    """Goal: a partner learns nothing of a line but from generations of that line, and only one whose changes are taken."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        peers, store = site.p1.node.peers, site.p1.node.runtime.store
        head = store.generations(LINE, 1)[0].ref()
        other = site.s1.node.runtime.store.generations(replace(LINE, origin=S1), 1)[0]
        store.add_generation(other)
        for since in (other.ref().id, Digest(bytes(32))):
            with pytest.raises(InstepError) as refused:
                await peers.difference(S1, DifferenceRequest(LINE, head.id, since))
            assert refused.value.error_code == "superseded"
        with pytest.raises(InstepError) as refused:
            await peers.difference(NodeName("p2"), DifferenceRequest(LINE, head.id, head.id))
        assert refused.value.error_code == "not_listed"
        assert await peers.difference(S1, DifferenceRequest(LINE, head.id, head.id)) == DifferenceReply()
