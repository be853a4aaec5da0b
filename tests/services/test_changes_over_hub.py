"""Changes and locks of a node that reaches the home over a hub alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.errors import ContentionError, InstepError, NotAllowedError
from instep.model.change import ChangeSet, PathChange
from instep.model.ids import node_name
from instep.model.manifest.entry import Entry, Kind
from instep.net.messages import messages as m
from instep.net.service import LOCK, UNLOCK
from instep.node.runtime.driver import wall_ms
from tests.support.offering import FILES, alike
from tests.support.services import ServiceNode, Services, services
from tests.support.vectors import digest
from tests.support.virtual_time import in_virtual_time, reached

LARGE = "".join(f"line {number} of a large file\n" for number in range(120_000))


async def _chain(cluster: Services, passed: str = '"s2", "s3"') -> tuple[ServiceNode, ...]:
    """``main`` writes, ``s1`` is the hub, ``s2`` and ``s3`` know nothing but the hub."""
    main = cluster.add("main")
    main.writes('offers_from = ["s1"]')
    cluster.add("s1").follows(main, 'drift = "offer"', f"offers_from = [{passed}]")
    cluster.link("main", "s1")
    for name in ("s2", "s3"):
        cluster.add(name).follows(main, 'drift = "offer"')
        cluster.link("s1", name, hub=True)
    main.write(FILES)
    for node in cluster.nodes.values():
        node.start()
    nodes = tuple(cluster.nodes.values())
    await cluster.followed("s1", "s2", "s3")
    await alike(*nodes)
    return nodes


@in_virtual_time
async def test_an_edit_behind_a_hub_reaches_all(tmp_path: Path) -> None:
    """Goal: added, changed, removed, small and large; nothing is archived as drift; no contents stay at the hub."""
    async with services(tmp_path) as cluster:
        main, s1, s2, s3 = await _chain(cluster)
        s2.write({"sub/f1": "of s2\n", "large": LARGE, "empty": ""})
        (s2.tree / "sub/f2").unlink()
        for node in (main, s1, s3):
            await node.holds("large", LARGE)
            await node.holds("sub/f1", "of s2\n")
        s3.write({"sub/f1": "and of s3\n"})
        await main.holds("sub/f1", "and of s3\n")
        await alike(main, s1, s2, s3)
        assert (main.tree / "empty").read_bytes() == b"" and not (main.tree / "sub/f2").exists()
        for node in (s1, s2, s3):
            assert not await node.archived("drift"), node.name
        assert not list((s1.control / "offered").iterdir())


@in_virtual_time
async def test_a_lock_behind_a_hub_keeps_all_others_out_and_its_end_is_heard_of(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1, s2, s3 = await _chain(cluster)
        where = {"fileset": "data", "path": "sub/f1"}
        granted = await s2.call("lock", **where, owner="ana", ttl_ms=60_000)
        for node in (main, s1, s3):
            with pytest.raises(ContentionError) as denied:
                await node.call("lock", **where)
            assert denied.value.facts["owner"] == "ana@s2@s1", denied.value.facts
        assert (await s2.call("lock", **where, owner="ana", token=granted["token"]))["token"] == granted[
            "token"
        ]
        s2.write({"sub/f1": "under a lock\n"})
        done = await s2.call("unlock", **where, owner="ana", message="wider")
        assert done["outcome"] in ("applied", "same") and done["generation"]
        await alike(main, s1, s2, s3)
        again = await s3.call("lock", **where, owner="ben")
        await main.call("break_lock", **where, reason="mine")

        async def is_told() -> bool:
            try:
                await s3.call("lock", **where, owner="ben", token=again["token"])
            except ContentionError as error:
                return error.facts["why"] == "broken" and "mine" in error.reason
            return False

        await reached(is_told, lambda: "the owner behind the hub knows why")


@in_virtual_time
async def test_a_partner_of_a_hub_acts_under_no_lock_of_another(tmp_path: Path) -> None:
    """Goal: lists show every token, and the home knows the hub alone: the hub keeps its partners apart."""
    async with services(tmp_path) as cluster:
        main, _, s2, s3 = await _chain(cluster)
        await s2.call("lock", fileset="data", path="sub/f1", owner="ana", ttl_ms=60_000)
        line = s3.node.services[next(iter(s3.node.services))].line
        (view,) = await s3.node.services[line.fileset].locks()
        link = s3.node.peers.uplinks[node_name("s1")]
        with pytest.raises(NotAllowedError):
            await link.client.call(UNLOCK, m.UnlockRequest(line, view.path, view.fence))
        with pytest.raises(NotAllowedError):
            await link.client.call(LOCK, m.LockRequest(line, view.path, "eve", fence=view.fence))
        new = Entry(view.path, Kind.FILE, 0o644, 0, 1, digest(""), 0)
        change = PathChange(view.path, new, new)
        asked = ChangeSet(
            1, line.fileset, line.origin, bytes(16), "eve", "", wall_ms(), (change,), token=view.fence
        )
        with pytest.raises(NotAllowedError):
            await link.client.submit(m.SubmitRequest(line, asked.encoded()), iter(()))
        assert len((await main.call("locks", fileset="data"))["locks"]) == 1


@in_virtual_time
async def test_a_hub_that_is_not_asked_to_pass_changes_on_says_so(tmp_path: Path) -> None:
    """Goal: the edit stays where it was made, the standing names the hub's command, and after that it goes on."""
    async with services(tmp_path) as cluster:
        main, s1, s2, _ = await _chain(cluster, passed='"s3"')
        s2.write({"sub/f1": "waits\n"})

        async def is_named() -> bool:
            line = await s2.line()
            return any("on s1: instep fileset set data offers_from=s2,s3" in step for step in line["next"])

        await reached(is_named, lambda: "the step at the hub")
        line = await s2.stands("drifted", code="not_the_writer")
        assert "s1" in line["reason"] and "sub/f1" in line["reason"], line
        assert (main.tree / "sub/f1").read_text() == FILES["sub/f1"]
        assert (s2.tree / "sub/f1").read_text() == "waits\n"
        with pytest.raises(InstepError) as refused:
            await s2.call("lock", fileset="data", path="sub/f2")
        assert "s1" in refused.value.reason
        await s1.set(offers_from="s2,s3")
        await s2.call("retry", fileset="data")
        await main.holds("sub/f1", "waits\n")
