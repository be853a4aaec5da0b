"""Sync commands, profiles and authors as other nodes send them: strangers' words, of bounded size and about one profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from instep.api.changes import sync as api
from instep.api.command import Role
from instep.errors import InstepError
from instep.model.ids import Digest, FilesetName, LineId, NodeName
from instep.model.sync import RUN_MAX, ProfileNews, SyncMark
from instep.net.messages import messages as m
from instep.net.messages.parts import INT_MAX
from instep.node.access.caller import Caller, DoorName
from instep.node.access.door import CALLER
from instep.node.profiles.known_profiles import PROFILES_MAX, keep_news, known_profile, known_profiles
from instep.node.syncing import peer_commands
from tests.support.services import ServiceNode, services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time

PRIVATE = """
[sync.private]
left = "data@s1"
right = "data@p1"
initiators = ["s1"]
"""
S1, S2 = NodeName("s1"), NodeName("s2")


async def _asked(home: ServiceNode, command: Any, profile: str, raw: bytes) -> dict[str, Any]:
    reply = await home.node.peers.sync(S2, m.SyncRequest(command, profile, raw))
    found: dict[str, Any] = msgspec.json.decode(reply.document)
    return found


async def _refused(home: ServiceNode, command: Any, at: str, **params: Any) -> str:
    with pytest.raises(InstepError) as refused:
        await _asked(home, command, at, msgspec.json.encode(params))
    return refused.value.error_code


@in_virtual_time
async def test_an_initiator_of_one_profile_has_no_part_in_another(tmp_path: Path) -> None:
    """Goal: the profile that is looked at for rights is the one that is run, shown and reviewed; words that are no JSON
    are named as that; a peer writes no author in another node's name."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        site.s1.tail += PRIVATE
        await site.begin()
        await site.s1.call("sync_run", profile="private", initial="left")
        site.s1.write({"a": "left"})
        site.p1.write({"a": "right"})
        (listed,) = (await site.s1.call("sync_run", profile="private"))["listed"]
        for command in ("sync_run", "sync_cancel"):  # as a mirror of a side it may look
            assert await _refused(site.s1, command, "private", profile="private") == "no_initiator"
        for command, params in (
            ("sync_run", {}), ("sync_collisions", {}), ("sync_collisions", {"reviewed": listed["id"]}),
        ):  # fmt: skip
            assert await _refused(site.s1, command, "site", profile="private", **params) == "bad_message"
        shown = await site.s1.call("sync_collisions", profile="private")
        assert [each["reviewed"] for each in shown["listed"]] == [False]
        for raw in (b"\xff not json", b"[]", b'{"profile": "site", "nonsense": 1}'):
            with pytest.raises(InstepError) as refused:
                await _asked(site.s1, "sync_run", "site", raw)
            assert refused.value.error_code == "bad_message", raw
        site.s1.write({"new": "1"})
        raw = msgspec.json.encode({"profile": "site", "author": "the boss@s1"})
        assert (await _asked(site.s1, "sync_run", "site", raw))["undone"] == []
        rows = await site.p1.log()
        assert rows[max(rows)]["author"] == "s1: s2: the boss@s1"
        site.s1.write({"new": "2"})
        mark = CALLER.set(Caller("ana", Role.OPERATOR, None, DoorName.SOCKET))
        await site.s1.refuses("bad_author", "sync_run", profile="site", author="b" * 129)
        await site.s1.call("sync_run", profile="site", author="ben")
        CALLER.reset(mark)
        rows = await site.p1.log()
        assert rows[max(rows)]["author"] == "s1: ben, by ana"


@in_virtual_time
async def test_profiles_that_a_partner_names_are_bounded_and_name_no_strangers(tmp_path: Path) -> None:
    """Goal: however many profiles a partner names, the state has one row of them, and the hint of another partner's
    profile stays what that one said."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        peers, store = site.p1.node.peers, site.p1.node.runtime.store
        line = LineId(FilesetName("data"), NodeName("p1"))
        news = ProfileNews("other", S1, "data@s1", "data@p1", "both", (NodeName("trustme"),), 1)
        for number in range(PROFILES_MAX + 20):
            await peers.sync_profile(S1, m.ProfileNotice(line, replace(news, name=f"other{number}")))
        assert len(known_profiles(store, FilesetName("data"))) == PROFILES_MAX
        with pytest.raises(InstepError, match="that s2 carries out"):
            await peers.sync_profile(S1, m.ProfileNotice(line, replace(news, carrier=NodeName("s2"))))
        error = await site.p1.refuses("no_initiator", "sync_run", profile="other3")
        assert "trustme" not in str(error.hint) + error.reason
        marks = m.MarksRequest(line, "other70", SyncMark(1, *(Digest(bytes(32)),) * 3))
        with pytest.raises(InstepError, match="nothing is kept here"):
            await peers.sync_marks(S1, marks)
        await site.run(dry_run=True)
        error = await site.p1.refuses("no_initiator", "sync_run", profile="site")
        assert "on s1: instep sync run site" in str(error.hint)


@in_virtual_time
async def test_another_partner_s_profile_of_the_same_name_takes_nothing_of_ours(tmp_path: Path) -> None:
    """Goal: a partner whose changes are taken, too, cannot end or lead a profile that it has no part in. Method: it
    names one of that name with the highest number that a message can have, and keeps marks of it; then the home itself
    lies."""
    async with services(tmp_path) as cluster:
        site = Site(cluster, has_p2=True)
        await site.begin()
        config = site.p1.directory.config
        config.write_text(config.read_text().replace('offers_from = ["s1"]', 'offers_from = ["s1", "p2"]'))
        await site.p1.call("reload_config")
        before = await site.run()
        line, p2, store = (
            LineId(FilesetName("data"), NodeName("p1")),
            NodeName("p2"),
            site.p1.node.runtime.store,
        )
        news = ProfileNews("site", p2, "data@p2", "data@p1", "both", (), RUN_MAX)
        asked = m.MarksRequest(line, "site", SyncMark(0, *(Digest(bytes(32)),) * 3))
        peers = site.p1.node.peers
        with pytest.raises(InstepError, match=f"no run has a number above {RUN_MAX}"):
            await peers.sync_profile(p2, m.ProfileNotice(line, replace(news, run=INT_MAX)))
        await peers.sync_profile(p2, m.ProfileNotice(line, news))
        assert len((await peers.sync_marks(p2, asked)).marks) == 1
        site.s1.write({"a": "2"})
        after = await site.run()
        assert (after["run"], after["phase"], after["undone"]) == (before["run"] + 1, "done", [])
        marks = (await peers.sync_marks(S1, replace(asked, new=None))).marks
        assert [mark.run for mark in marks] == [1, 2]
        found = known_profile(store, site.p1.node.runtime.settings, "site")
        assert found is not None
        assert found.carrier == S1, "what came first is meant by its name"
        keep_news(store, FilesetName("data"), replace(found, run=RUN_MAX))
        refusal = await site.s1.refuses("bad_profile", "sync_run", profile="site")
        assert f"p1 has heard of run {RUN_MAX} of site" in refusal.reason
        keep_news(store, FilesetName("data"), replace(found, run=INT_MAX))  # kept by an older version
        assert (await site.run())["run"] == after["run"] + 2, "the refused run had a number"


def test_a_listing_comes_in_pages_that_fit_a_message() -> None:
    """Goal: a hundred thousand listed paths arrive whole and in order, in answers that a peer takes."""
    rows = tuple(
        api.SyncListedDocument(
            id=f"{number:012x}",
            why="collision",
            loser="right",
            copy="c" * 200,
            renamed_to=None,
            path="p" * 200,
        )
        for number in range(10_000)
    )
    found: list[api.SyncListedDocument] = []
    is_last = False
    while not is_last:
        page, is_last = peer_commands.page_of(rows, found[-1].id if found else None)
        raw = m.encode(m.SyncReply(msgspec.json.encode(api.SyncCollisionsDocument("site", page, is_last))))
        m.decode(raw, m.SyncReply)
        found += page
    assert tuple(found) == rows
