"""Edits on any server of a mirror with ``drift = "offer"`` reach all; those that lose are set aside and named."""

from __future__ import annotations

from pathlib import Path

from tests.support.offering import FILES, OFFERS, alike, begun
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_an_edit_on_any_server_reaches_all(tmp_path: Path) -> None:
    """Goal: a file added, changed and removed, a directory, a symlink and a mode, on each server in turn, are the same on
    every server a moment later; nothing is archived as drift anywhere."""
    async with services(tmp_path) as cluster:
        nodes = await begun(cluster)
        for turn, node in enumerate(nodes):
            node.write({f"new{turn}": f"made on {node.name}\n", "sub/f1": f"changed on {node.name}\n"})
            node.write({f"dir{turn}/deep/file": "deep\n"})
            (node.tree / f"sub/f{turn + 2}").unlink()
            (node.tree / f"link{turn}").symlink_to("sub/f1")
            (node.tree / "sub/f7").chmod(0o600 if turn % 2 else 0o640)
            await nodes[0].holds(f"new{turn}", f"made on {node.name}\n")
            await alike(*nodes)
            assert nodes[0].tree.joinpath("sub/f1").read_text() == f"changed on {node.name}\n"
            assert not any((other.tree / f"sub/f{turn + 2}").exists() for other in nodes)
        for node in nodes:
            assert not await node.archived("drift"), node.name
            warned = [event["text"] for event in await node.events() if event["level"] == "warning"]
            assert not warned, f"{node.name}: a save that is taken is no trouble"


@in_virtual_time
async def test_wait_waits_for_edits_of_before_wherever_they_were_made(tmp_path: Path) -> None:
    """Goal: on the node of the edit and on the writer: from the write on, also before any look has seen it, until its
    generation is there; an edit that lost is set aside then."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await begun(cluster)
        for turn in range(4):
            s1.write({"sub/f1": f"turn {turn}\n"})
            waited = await s1.call("wait", fileset="data")
            assert waited["reached"], waited
            assert (main.tree / "sub/f1").read_text() == f"turn {turn}\n"
            s2.write({"sub/f3": f"turn {turn}\n"})
            waited = await main.call("wait", fileset="data")
            assert waited["reached"], waited
            for node in (main, s1):
                assert (node.tree / "sub/f3").read_text() == f"turn {turn}\n", node.name
        await main.call("lock", fileset="data", path="sub/f2")
        s1.write({"sub/f2": "too late\n"})
        assert (await s1.call("wait", fileset="data"))["reached"]
        assert (s1.tree / "sub/f2").read_text() == FILES["sub/f2"]


@in_virtual_time
async def test_two_servers_change_one_file_and_the_loser_is_named_on_both(tmp_path: Path) -> None:
    """Goal: one wins, the other's bytes are in its own archive, never lost and never spread, and an event names the path
    on the loser and on the home."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await begun(cluster)
        cluster.cut("main", "s2")
        s1.write({"sub/f1": "of s1\n"})
        await main.holds("sub/f1", "of s1\n")
        s2.write({"sub/f1": "of s2\n", "sub/f2": "only s2\n"})
        await s2.stands("drifted", "unreachable")
        cluster.heal("main", "s2")
        await s2.holds("sub/f1", "of s1\n")
        await main.holds("sub/f2", "only s2\n")
        await alike(main, s1, s2)
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
        main, s1 = await begun(cluster, 1)
        for number in range(100):
            s1.write({"sub/f1": f"version {number}\n", f"added{number % 10}": f"{number}\n"})
            if number % 3:
                await main.holds("sub/f1", f"version {number}\n")
        await main.holds("sub/f1", "version 99\n")
        await alike(main, s1)
        assert not await s1.archived("drift")
        assert not await main.archived("drift")


@in_virtual_time
async def test_a_file_that_was_changed_or_made_here_is_removed_here(tmp_path: Path) -> None:
    """Goal: the accepted file counts as laid and seen at the node that made it, so that its removal is offered, also after
    a change that came from elsewhere."""
    async with services(tmp_path) as cluster:
        main, s1 = await begun(cluster, 1)
        s1.write({"sub/f1": "mine\n", "made": "here\n"})
        (s1.tree / "link").symlink_to("made")
        await main.holds("made", "here\n")
        main.write({"sub/f2": "of main\n"})
        await alike(main, s1)
        for name in ("sub/f1", "made", "link", "sub/f2"):
            (s1.tree / name).unlink()
        await alike(main, s1)
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
        main, s1 = await begun(cluster, 1)
        await s1.stop()
        s1.write({"sub/f1": "asleep\n"})
        (s1.tree / "sub/f2").unlink()
        s1.start()
        await main.holds("sub/f1", "asleep\n")
        await alike(main, s1)
        await s1.call("pause", fileset="data")
        await s1.stands("paused")
        s1.write({"sub/f1": "paused\n"})
        main.write({"other": "x\n"})
        await main.publish()
        assert (main.tree / "sub/f1").read_text() == "asleep\n"
        await s1.call("resume", fileset="data")
        await main.holds("sub/f1", "paused\n")
        await alike(main, s1)


@in_virtual_time
async def test_too_many_removals_wait_for_an_operator(tmp_path: Path) -> None:
    """Goal: an ``rm -rf`` on one server empties no other: nothing of it is offered until an operator says so, and other
    edits go on. Undone they come back; accepted there, the home still refuses them by its own ``max_deletions``; where
    that lets them go, they go everywhere."""
    async with services(tmp_path) as cluster:
        main, s1 = await begun(cluster, 1)
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
            await alike(main, s1)
            assert (main.tree / "many/f59").exists() == (judged != "accept at both")
        assert (await s1.call("offers", fileset="data"))["total"] == 0
