"""Sync runs with a home that does not publish what it changed, and with a home that says what is not so."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.model.change import ChangeAnswer, OutcomeKind, PathOutcome, change_set_of
from instep.model.ids import Digest, FilesetName, HeadRef
from instep.net.messages import messages as m
from tests.support.services import services
from tests.support.sync_site import Site, files
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
@pytest.mark.parametrize("at_left", [True, False], ids=["left", "right"])
async def test_changes_that_a_home_has_not_published_are_never_taken_back(
    tmp_path: Path, at_left: bool
) -> None:
    """Goal: a home that publishes by hand gets its changes, the run is held with the next step, and repeats nothing
    until they are published. No edit of the other side is taken back."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        manual, other = (site.s1, site.p1) if at_left else (site.p1, site.s1)
        await manual.set(publish="manual")
        other.write({"a": "precious"})
        error = await site.s1.refuses("sync_held", "sync_run", profile="site")
        assert f"{manual.name} has not published 1 changed path" in error.reason
        assert f"on {manual.name}: instep publish data" in (error.hint or "")
        head = await manual.head()
        other.write({"d/x": "2"})
        for _ in range(2):
            await site.s1.refuses("sync_held", "sync_run", profile="site")
            assert (files(manual.tree)["a"], files(other.tree)["a"]) == ("precious", "precious")
            assert await manual.head() == head
        shown = await site.s1.call("sync_show", profile="site")
        assert (shown["in_sync"], shown["last"]["phase"]) == (False, "held")
        await manual.publish()
        await site.s1.refuses("sync_held", "sync_run", profile="site")
        await manual.publish()
        ran = await site.run()
        assert (ran["phase"], ran["listed"], ran["undone"]) == ("done", [], [])
        assert (site.same()["a"], site.same()["d/x"]) == ("precious", "2")


@in_virtual_time
async def test_edits_while_an_earlier_one_waits_at_a_home_are_no_collision(tmp_path: Path) -> None:
    """Goal: what production got and publishes later is what both sides had: a newer edit of staging goes over it, and one
    that production made upon it goes to staging."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        s1, p1 = site.s1, site.p1
        await p1.set(publish="manual")
        s1.write({"a": "2", "d/x": "2", "page": "2"})
        await s1.refuses("sync_held", "sync_run", profile="site")
        s1.write({"a": "3"})
        (s1.tree / "page").unlink()
        p1.write({"d/x": "3"})
        await p1.publish()
        await s1.refuses("sync_held", "sync_run", profile="site")
        await p1.publish()
        ran = await site.run()
        assert (ran["phase"], ran["listed"]) == ("done", [])
        assert (await s1.call("sync_collisions", profile="site"))["listed"] == []
        whole = site.same()
        assert (whole["a"], whole["d/x"], "page" in whole) == ("3", "3", False)


@in_virtual_time
async def test_changes_that_a_person_took_back_by_hand_hold_no_run(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        await site.p1.set(publish="manual")
        before = (site.p1.tree / "a").stat()
        site.s1.write({"a": "2"})
        await site.s1.refuses("sync_held", "sync_run", profile="site")
        await site.p1.call("restore", fileset="data")
        assert (site.p1.tree / "a").stat().st_mtime_ns == before.st_mtime_ns
        await site.s1.refuses("sync_held", "sync_run", profile="site")
        assert (site.p1.tree / "a").read_text() == "2", "the run begins, and makes its change again"


def _says(made: str, head: HeadRef | None) -> object:
    async def submit(who: object, request: m.SubmitRequest, contents: object) -> m.SubmitReply:
        change_set = change_set_of(request.change_set)
        all_made = tuple(PathOutcome(each.path, OutcomeKind.APPLIED) for each in change_set.changes)
        outcomes = () if made == "none" else all_made
        return m.SubmitReply(ChangeAnswer(change_set.id, outcomes, head))

    return submit


@in_virtual_time
@pytest.mark.parametrize("lie", ["nothing", "no such head", "the old head"])
async def test_a_home_is_believed_as_far_as_its_generation_shows(
    tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a home that claims changes which no generation of it has ends no run as done, and moves no base: as soon as
    it is honest, the changes go there."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        site.s1.write({"a": "precious"})
        service = site.p1.node.services[FilesetName("data")]
        head = (
            HeadRef(9, 1 << 40, Digest(b"z" * 32), Digest(b"y" * 32))
            if lie == "no such head"
            else service.head
        )
        made = "none" if lie == "nothing" else "all"
        with monkeypatch.context() as lying:
            lying.setattr(site.p1.node.peers, "submit", _says(made, head))
            if lie == "the old head":
                ran = await site.run()
                assert [each["path"] for each in ran["undone"]] == ["a"]
            else:
                code = "bad_answer" if lie == "nothing" else "bad_head"
                await site.s1.refuses(code, "sync_run", profile="site")
            assert not (await site.s1.call("sync_show", profile="site"))["in_sync"]
        ran = await site.run()
        assert (ran["undone"], site.same()["a"]) == ([], "precious")
