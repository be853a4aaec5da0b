"""Edits on any server of a mirror with ``drift = "offer"`` reach all; what loses is set aside and named; locks keep order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from instep.api.command import Role
from instep.core.changes.home_facts import HomeFacts
from instep.errors import ContentionError, NotAllowedError, UnavailableError
from instep.model.ids import LineId, fileset_name
from instep.node.access.caller import Caller, DoorName
from instep.node.access.door import CALLER
from instep.store.port import ChangeSide
from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

FILES = {f"sub/f{number}": f"file {number}\n" for number in range(8)}
OFFERS = 'drift = "offer"'


async def _begun(cluster: Services, partners: int = 2, *, drift: str = OFFERS) -> tuple[ServiceNode, ...]:
    names = [f"s{number}" for number in range(1, partners + 1)]
    taken = ", ".join(f'"{name}"' for name in names)
    cluster.make(partners, writer=(f"offers_from = [{taken}]",), partner=(drift,))
    main = cluster["main"]
    main.write(FILES)
    await cluster.followed(*names)
    await cluster.in_step(*names)
    return (main, *(cluster[name] for name in names))


async def _alike(*nodes: ServiceNode) -> None:
    """Wait until all trees are equal and every node stands in step."""

    async def are() -> bool:
        trees = [tree_of(node.tree) for node in nodes]
        standings = [(await node.line())["standing"] for node in nodes]
        return all(tree == trees[0] for tree in trees) and set(standings) == {"in_step"}

    def shown() -> str:
        return "; ".join(f"{node.name}: {sorted(tree_of(node.tree))}" for node in nodes)

    await reached(are, shown)


@in_virtual_time
async def test_an_edit_on_any_server_reaches_all(tmp_path: Path) -> None:
    """Goal: a file added, changed and removed, a directory, a symlink and a mode, on each server in turn, are the same on
    every server a moment later; nothing is archived as drift anywhere."""
    async with services(tmp_path) as cluster:
        nodes = await _begun(cluster)
        for turn, node in enumerate(nodes):
            node.write({f"new{turn}": f"made on {node.name}\n", "sub/f1": f"changed on {node.name}\n"})
            node.write({f"dir{turn}/deep/file": "deep\n"})
            (node.tree / f"sub/f{turn + 2}").unlink()
            (node.tree / f"link{turn}").symlink_to("sub/f1")
            (node.tree / "sub/f7").chmod(0o600 if turn % 2 else 0o640)
            await nodes[0].holds(f"new{turn}", f"made on {node.name}\n")
            await _alike(*nodes)
            assert nodes[0].tree.joinpath("sub/f1").read_text() == f"changed on {node.name}\n"
            assert not any((other.tree / f"sub/f{turn + 2}").exists() for other in nodes)
        for node in nodes:
            assert not await node.archived("drift"), node.name


@in_virtual_time
async def test_two_servers_change_one_file_and_the_loser_is_named_on_both(tmp_path: Path) -> None:
    """Goal: one wins, the other's bytes are in its own archive, never lost and never spread, and an event names the path
    on the loser and on the home."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await _begun(cluster)
        cluster.cut("main", "s2")
        s1.write({"sub/f1": "of s1\n"})
        await main.holds("sub/f1", "of s1\n")
        s2.write({"sub/f1": "of s2\n", "sub/f2": "only s2\n"})
        await s2.stands("drifted", "unreachable")
        cluster.heal("main", "s2")
        await s2.holds("sub/f1", "of s1\n")
        await main.holds("sub/f2", "only s2\n")
        await _alike(main, s1, s2)
        assert "of s2\n" in await s2.taken_out("sub/f1", tmp_path / "out")
        assert not any("of s2" in file.read_text() for file in main.tree.rglob("f*") if file.is_file())
        for node in (s2, main):

            async def is_named(node: ServiceNode = node) -> bool:
                return any("sub/f1" in event["text"] for event in await node.events())

            await reached(is_named, lambda: "an event that names the path")


@in_virtual_time
async def test_a_hundred_offers_leave_nothing_in_the_archive(tmp_path: Path) -> None:
    """Goal: an accepted offer comes back as a generation and is not archived as a local change, also when the same file
    is saved again before its first version has come back."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, 1)
        for number in range(100):
            s1.write({"sub/f1": f"version {number}\n", f"added{number % 10}": f"{number}\n"})
            if number % 3:
                await main.holds("sub/f1", f"version {number}\n")
        await main.holds("sub/f1", "version 99\n")
        await _alike(main, s1)
        assert not await s1.archived("drift")
        assert not await main.archived("drift")


@in_virtual_time
async def test_a_file_that_was_changed_or_made_here_is_removed_here(tmp_path: Path) -> None:
    """Goal: the accepted file counts as laid and seen at the node that made it, so that its removal is offered, also after
    a change that came from elsewhere."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, 1)
        s1.write({"sub/f1": "mine\n", "made": "here\n"})
        (s1.tree / "link").symlink_to("made")
        await main.holds("made", "here\n")
        main.write({"sub/f2": "of main\n"})
        await _alike(main, s1)
        for name in ("sub/f1", "made", "link", "sub/f2"):
            (s1.tree / name).unlink()
        await _alike(main, s1)
        assert not [
            name
            for name in ("sub/f1", "made", "link", "sub/f2")
            if (main.tree / name).is_symlink() or (main.tree / name).exists()
        ]


@in_virtual_time
async def test_nothing_is_offered_where_the_home_takes_none(tmp_path: Path) -> None:
    """Goal: without ``offers_from`` nothing changes at the home, and the partner's standing says which setting is missing."""
    async with services(tmp_path) as cluster:
        cluster.make(1, partner=(OFFERS,))
        main, s1 = cluster["main"], cluster["s1"]
        main.write(FILES)
        await cluster.followed("s1")
        await cluster.in_step("s1")
        s1.write({"sub/f1": "mine\n"})

        async def says_so() -> bool:
            line = await s1.line()
            return "offers_from" in str(line)

        await reached(says_so, lambda: "the missing setting")
        assert (main.tree / "sub/f1").read_text() == "file 1\n"
        assert (s1.tree / "sub/f1").read_text() == "mine\n"
        await main.set(offers_from="s1")
        await s1.call("retry", fileset="data")
        await main.holds("sub/f1", "mine\n")


@in_virtual_time
async def test_edits_of_before_a_start_and_of_a_pause_are_offered(tmp_path: Path) -> None:
    """Goal: edits of while the daemon was down, or paused, are offered when it is back; none while it pauses."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, 1)
        await s1.stop()
        s1.write({"sub/f1": "asleep\n"})
        (s1.tree / "sub/f2").unlink()
        s1.start()
        await main.holds("sub/f1", "asleep\n")
        await _alike(main, s1)
        await s1.call("pause", fileset="data")
        await s1.stands("paused")
        s1.write({"sub/f1": "paused\n"})
        main.write({"other": "x\n"})
        await main.publish()
        assert (main.tree / "sub/f1").read_text() == "asleep\n"
        await s1.call("resume", fileset="data")
        await main.holds("sub/f1", "paused\n")
        await _alike(main, s1)


async def _lock(node: ServiceNode, path: str = "sub/f1", **params: Any) -> dict[str, Any]:
    return await node.call("lock", fileset="data", path=path, ttl_ms=60_000, **params)


@in_virtual_time
async def test_a_lock_is_granted_refreshed_submitted_and_released(tmp_path: Path) -> None:
    """Goal: the way of one lock, with the policy that reverts: while it lasts the edit is not reverted, its release
    submits it, and the list has it in between, here and at the home."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await _begun(cluster, drift='drift = "revert"')
        granted = await _lock(s1, owner="ana", client="word")
        assert (
            granted["owner"] == "ana@s1" and granted["changed"] and granted["until"] > granted["server_time"]
        )
        again = await _lock(s1, owner="ana", client="word")
        assert again["token"] == granted["token"] and not again["changed"]
        for node in (main, s1, s2):
            rows = (await node.call("locks", fileset="data"))["locks"]
            assert [(row["path"], row["owner"], row["token"]) for row in rows] == [
                ("sub/f1", "ana@s1", granted["token"])
            ], node.name
        s1.write({"sub/f1": "under a lock\n", "sub/f2": "without\n"})
        await s1.holds("sub/f2", "file 2\n")
        assert (s1.tree / "sub/f1").read_text() == "under a lock\n"
        await main.holds("sub/f1", "under a lock\n")
        s1.write({"sub/f1": "and once more\n"})
        done = await s1.call(
            "unlock", fileset="data", path="sub/f1", owner="ana", client="word", message="wider"
        )
        assert done["outcome"] in ("applied", "same") and done["generation"] is not None
        row = (await main.log())[done["generation"]["number"]]
        assert row["message"] == "wider" and "ana" in row["author"], row
        await _alike(main, s1, s2)
        assert (s2.tree / "sub/f1").read_text() == "and once more\n"
        assert (await s1.call("locks", fileset="data"))["locks"] == []
        assert "sub/f1" not in await s1.archived("drift")


@in_virtual_time
async def test_a_locked_path_is_denied_to_others_and_to_other_programs_of_the_owner(tmp_path: Path) -> None:
    """Goal: ``locked`` names owner, program and time; another program of the same person is another owner; a change of
    another server is not made while the lock is in force."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await _begun(cluster)
        await _lock(s1, owner="ana", client="word")
        for node, params in (
            (s1, {"owner": "ana", "client": "vi"}),
            (s2, {"owner": "ana", "client": "word"}),
        ):
            with pytest.raises(ContentionError) as denied:
                await _lock(node, **params)
            assert denied.value.error_code == "locked" and denied.value.exit_code == 6
            assert denied.value.facts["owner"] == "ana@s1" and denied.value.facts["client"] == "word"
            assert denied.value.facts["until"]
        s2.write({"sub/f1": "of s2\n"})
        await s2.holds("sub/f1", "file 1\n")
        assert "of s2\n" in await s2.taken_out("sub/f1", tmp_path / "out")
        assert (main.tree / "sub/f1").read_text() == "file 1\n"
        with pytest.raises(ContentionError):
            await s1.call("unlock", fileset="data", path="sub/f1", owner="ana", client="vi")
        assert len((await main.call("locks", fileset="data"))["locks"]) == 1


@in_virtual_time
async def test_a_lock_on_an_old_file_is_outdated_with_what_to_fetch(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, 1)
        await s1.call("pause", fileset="data")
        main.write({"sub/f1": "newer\n"})
        await main.publish()
        with pytest.raises(ContentionError) as refused:
            await _lock(s1)
        assert (refused.value.error_code, refused.value.exit_code) == ("outdated", 6)
        assert refused.value.facts["generation"] == await main.head()
        assert refused.value.hint is not None and "instep wait" in refused.value.hint


@in_virtual_time
async def test_only_the_home_grants_a_lock(tmp_path: Path) -> None:
    """Goal: with the home out of reach there is no lock, and no time is waited for it."""
    async with services(tmp_path) as cluster:
        _, s1 = await _begun(cluster, 1)
        cluster.cut("main", "s1")
        await s1.stands("unreachable", "in_step")

        async def is_refused() -> bool:
            try:
                await _lock(s1)
            except UnavailableError as error:
                return error.error_code == "home_unreachable"
            return False

        await reached(is_refused, lambda: "no lock without the home")


@in_virtual_time
async def test_a_lock_is_broken_and_taken_over_for_a_reason(tmp_path: Path) -> None:
    """Goal: an operator at the home breaks a lock, or takes it over in one act; the former owner's change is then compared
    like any other, and its program learns why the lock is gone."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, 1)
        await _lock(s1, owner="ana")
        broken = await main.call(
            "break_lock", fileset="data", path="sub/f1", reason="left for the day", steals=True
        )
        assert broken["lock"]["token"]
        with pytest.raises(ContentionError):
            await _lock(s1, owner="ana")
        s1.write({"sub/f1": "late\n"})
        await s1.holds("sub/f1", "file 1\n")
        assert "late\n" in await s1.taken_out("sub/f1", tmp_path / "out")
        assert (main.tree / "sub/f1").read_text() == "file 1\n"


@in_virtual_time
async def test_another_owner_is_named_only_by_those_who_may(tmp_path: Path) -> None:
    """Goal: root and the node's own user act for others; another user of the machine, whatever its role, is itself, and
    cannot end a lock of another person either, though lists show it the token."""
    async with services(tmp_path) as cluster:
        _, s1 = await _begun(cluster, 1)
        granted = await _lock(s1, owner="ana")
        mark = CALLER.set(Caller("eve", Role.ADMIN, None, DoorName.SOCKET))
        try:
            for command, params in (("lock", {"path": "sub/f2"}), ("unlock", {"path": "sub/f1"})):
                with pytest.raises(NotAllowedError) as refused:
                    await s1.call(command, fileset="data", owner="ana", **params)
                assert refused.value.error_code == "owner_not_yours" and refused.value.exit_code == 5
            with pytest.raises(ContentionError) as other:
                await s1.call("unlock", fileset="data", path="sub/f1", token=granted["token"])
            assert other.value.error_code == "no_lock"
            assert (await s1.call("lock", fileset="data", path="sub/f2"))["owner"] == "eve@s1"
        finally:
            CALLER.reset(mark)
        assert len((await s1.call("locks", fileset="data"))["locks"]) == 2


@in_virtual_time
async def test_too_many_removals_wait_for_an_operator(tmp_path: Path) -> None:
    """Goal: an ``rm -rf`` on one server empties no other: nothing of it is offered until an operator says so, and other
    edits go on. Undone they come back; accepted there, the home still refuses them by its own ``max_deletions``; where
    that lets them go, they go everywhere."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, 1)
        many = {f"many/f{number}": f"{number}\n" for number in range(60)}
        main.write(many)
        await cluster.in_step("s1")
        for judged in ("undo", "accept", "accept at both"):
            if judged == "accept at both":
                await main.set(max_deletions="off")
            for path in many:
                (s1.tree / path).unlink()
            s1.write({"sub/f1": f"edited before {judged}\n"})
            await main.holds("sub/f1", f"edited before {judged}\n")
            line = await s1.stands("drifted", code="removals_blocked")
            assert any("instep offer" in step for step in line["next"]), line
            assert (main.tree / "many/f59").exists()
            shown = await s1.call("offers", fileset="data")
            assert {each["state"] for each in shown["edits"]} == {"blocked"} and shown["total"] == 60
            done = await s1.call("judge_removals", fileset="data", accept=judged != "undo")
            assert done["removals"] == 60
            await _alike(main, s1)
            assert (main.tree / "many/f59").exists() == (judged != "accept at both")
        assert (await s1.call("offers", fileset="data"))["total"] == 0


@in_virtual_time
async def test_a_removal_that_was_refused_is_never_made_later(tmp_path: Path) -> None:
    """Goal: a file that is removed on one server while a person on another holds its lock comes back there, and stays
    when the lock is over."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await _begun(cluster)
        await _lock(s1, owner="ana")
        (s2.tree / "sub/f1").unlink()
        await s2.holds("sub/f1", "file 1\n")
        await s1.call("unlock", fileset="data", path="sub/f1", owner="ana")
        s2.write({"sub/f2": "something else\n"})
        await main.holds("sub/f2", "something else\n")
        await _alike(main, s1, s2)
        assert (s2.tree / "sub/f1").read_text() == "file 1\n"


@in_virtual_time
async def test_a_home_behind_a_hub_is_named_as_out_of_reach(tmp_path: Path) -> None:
    """Goal: a follower that has no link to the home says that its edits wait for one, instead of calling them offered."""
    async with services(tmp_path) as cluster:
        main, hub, leaf = cluster.add("main"), cluster.add("hub"), cluster.add("leaf")
        main.writes('offers_from = ["hub"]')
        hub.follows(main)
        leaf.follows(main, OFFERS)
        cluster.link("main", "hub")
        cluster.link("hub", "leaf", hub=True)
        for node in (main, hub, leaf):
            node.start()
        main.write(FILES)
        await leaf.holds("sub/f1", "file 1\n")
        leaf.write({"sub/f1": "waits\n"})
        line = await leaf.stands("drifted", code="home_unreachable")
        assert "hub" in line["reason"] and "sub/f1" in line["reason"], line
        assert (main.tree / "sub/f1").read_text() == "file 1\n"
        assert (leaf.tree / "sub/f1").read_text() == "waits\n"


@in_virtual_time
async def test_a_home_restored_from_yesterday_honours_no_old_token(tmp_path: Path) -> None:
    """Goal: the state of the home goes back to before a grant. It grants the path to another node, under the same counter:
    the first holder's save is not made, and its release says that the lock is not known."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await _begun(cluster, drift='drift = "revert"')
        line = LineId(fileset_name("data"), main.name)
        yesterday = main.store.load_changes(line, ChangeSide.HOME) or msgspec.msgpack.encode(HomeFacts())
        first = await _granted(s1, owner="ana")
        await main.stop()
        main.store.save_changes(line, ChangeSide.HOME, yesterday)
        main.start()
        second = await _granted(s2, owner="ben")
        assert first["token"].rpartition(".")[0] == second["token"].rpartition(".")[0], "the same counter"
        assert first["token"] != second["token"]
        s1.write({"sub/f1": "under the old token\n"})
        await s1.holds("sub/f1", "file 1\n")
        assert "under the old token\n" in await s1.taken_out("sub/f1", tmp_path / "out")
        assert (main.tree / "sub/f1").read_text() == "file 1\n"
        rows = (await main.call("locks", fileset="data"))["locks"]
        assert [row["token"] for row in rows] == [second["token"]]


async def _granted(node: ServiceNode, **params: Any) -> dict[str, Any]:
    """A lock, as soon as the home can be asked again."""
    found: dict[str, Any] = {}

    async def is_granted() -> bool:
        try:
            found.update(await _lock(node, **params))
        except UnavailableError:
            return False
        return True

    await reached(is_granted, lambda: f"a lock for {node.name}")
    return found
