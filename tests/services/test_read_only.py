"""A read-only node publishes, takes and offers no edits, says so wherever it is asked, and goes on following."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.offering import alike, begun
from tests.support.replicas import alike as alike_homes
from tests.support.replicas import mesh, texts
from tests.support.services import ServiceNode, services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time, reached


async def _waits(node: ServiceNode, reader: ServiceNode) -> dict[str, Any]:
    """Wait until an edit at ``node`` waits for the end of read-only of ``reader``."""
    last: dict[str, Any] = {}

    async def is_so() -> bool:
        last.clear()
        last.update(await node.call("offers", fileset="data"))
        return last["total"] > 0 and f"{reader.name} is read-only" in str(last["reason"])

    await reached(is_so, lambda: f"{node.name}: {last}")
    return last


@in_virtual_time
async def test_a_read_only_writer_publishes_nothing_and_takes_nothing_until_it_is_ended(
    tmp_path: Path,
) -> None:
    """Goal: M24: its own edits wait and are named; publish, restore, wait, locks and offers are refused by name with the
    end of it; all of that over a restart; once it is ended every edit that waited is everywhere, none was lost."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await begun(cluster)
        head = await main.head()
        begun_now = await main.call("readonly", on=True, reason="stocktaking")
        assert begun_now["changed"] and begun_now["on"] and begun_now["reason"] == "stocktaking"
        assert not (await main.call("readonly", on=True, reason="stocktaking"))["changed"]
        quiet = await main.stands("in_step", code="read_only")
        assert quiet["next"] == ["instep readonly off"]
        main.write({"sub/f1": "of main\n"})
        line = await main.stands("held", code="read_only")
        assert "stocktaking" in line["reason"] and "wait" in line["reason"]
        assert line["next"] == ["instep diff data", "instep readonly off"]
        assert [each["path"] for each in (await main.call("diff", fileset="data"))["changes"]] == ["sub/f1"]
        for command, params in (
            ("publish", {}), ("wait", {"timeout_s": 5}), ("rollback", {"generation": 1}),
            ("lock", {"path": "sub/f3"}), ("restore", {}),
        ):  # fmt: skip
            error = await main.refuses("read_only", command, fileset="data", **params)
            assert (error.exit_code, error.hint) == (4, "instep readonly off"), command
        s1.write({"sub/f2": "of s1\n"})
        waits = await _waits(s1, main)
        assert waits["next"] == ["on main: instep readonly off"]
        error = await s1.refuses("read_only", "lock", fileset="data", path="sub/f3")
        assert error.hint == "on main: instep readonly off"
        await main.stop()
        main.start()
        await main.stands("held", code="read_only")
        warned = (await main.status())["warnings"]
        assert any("main is read-only since" in each and "stocktaking" in each for each in warned), warned
        assert await main.head() == head
        assert (await main.call("readonly", on=False, reason="stock is taken"))["changed"]
        assert not (await main.call("readonly", on=False))["changed"]
        await s2.holds("sub/f1", "of main\n")
        await s2.holds("sub/f2", "of s1\n")
        await alike(main, s1, s2)
        events = [each["text"] for each in await main.events() if each["what"] == "read_only"]
        assert len(events) == 2, events
        assert "main takes edits again: stock is taken" in events


@in_virtual_time
async def test_a_read_only_follower_goes_on_following_and_offers_nothing(tmp_path: Path) -> None:
    """Goal: generations come in; an edit that was made there waits at that node, with the reason, and is offered when it
    is ended."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await begun(cluster)
        await s1.call("readonly", on=True)
        s1.write({"sub/f1": "of s1\n"})
        waits = await _waits(s1, s1)
        assert waits["next"] == ["instep readonly off"]
        await s1.refuses("read_only", "lock", fileset="data", path="sub/f3")
        refused = await main.refuses("not_ready", "handover", fileset="data", node="s1")
        assert "on s1: instep readonly off" in str(refused.hint)
        main.write({"sub/f2": "of main\n"})
        await s1.holds("sub/f2", "of main\n")
        assert (main.tree / "sub/f1").read_text() != "of s1\n"
        await s1.call("readonly", on=False)
        await main.holds("sub/f1", "of s1\n")
        await alike(main, s1, s2)


@in_virtual_time
async def test_a_read_only_home_of_many_keeps_its_own_edits_and_takes_the_files_of_others(
    tmp_path: Path,
) -> None:
    """Goal: modes.md, small ones: in mode replicate the tree goes on getting other homes' files, also beside own edits
    that wait; nothing of its own leaves it before the end."""
    async with services(tmp_path) as cluster:
        nodes = a, b, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({f"of-{node.name}": "1"})
            node.start()
        await alike_homes(*nodes, holding={f"of-{n}": "1" for n in "abc"})
        await a.call("readonly", on=True, reason="new disks")
        a.write({"of-a": "2", "new-of-a": "1"})
        await a.stands("held", code="read_only")
        b.write({"of-b": "2", "new-of-b": "1"})
        await a.holds("of-b", "2")
        await c.holds("new-of-b", "1")
        await a.stands("held", code="read_only")
        assert (texts(a.tree)["of-a"], texts(a.tree)["new-of-a"]) == ("2", "1")
        assert (texts(b.tree)["of-a"], texts(c.tree)["of-a"]) == ("1", "1")
        assert "new-of-a" not in texts(b.tree)
        await a.call("readonly", on=False)
        both = {f"{new}of-{n}": "1" if new else "2" for n in "ab" for new in ("", "new-")}
        await alike_homes(*nodes, holding=both | {"of-c": "1"})


@in_virtual_time
async def test_a_sync_run_changes_nothing_while_one_side_is_read_only(tmp_path: Path) -> None:
    """Goal: the home that carries runs out refuses them by name; with the far home read-only a run ends before it
    changed either side, and says why. After the end the next run brings both together."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        site.s1.write({"a": "2"})
        site.p1.write({"of-p1": "1"})
        await site.s1.call("readonly", on=True)
        await site.s1.refuses("read_only", "sync_run", profile="site")
        await site.s1.call("readonly", on=False)
        await site.p1.call("readonly", on=True, reason="audit")
        error = await site.s1.refuses("read_only", "sync_run", profile="site")
        assert "p1 is read-only" in error.reason
        assert not (site.s1.tree / "of-p1").exists() and (site.p1.tree / "a").read_text() != "2"
        await site.p1.call("readonly", on=False)
        await site.run()
        assert site.same() == texts(site.p1.tree)
