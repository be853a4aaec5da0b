"""Local edits on a partner: archived, named and put back, or left; and looking without touching."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

FILES = {f"sub/f{number}": f"file {number}\n" for number in range(20)}


async def _begun(cluster: Services, *partner: str) -> tuple[ServiceNode, ServiceNode]:
    cluster.make(1, partner=partner)
    main, s1 = cluster["main"], cluster["s1"]
    main.write(FILES)
    os.symlink("sub/f1", main.tree / "link")
    await cluster.followed("s1")
    await cluster.in_step("s1")
    return main, s1


async def _joined(cluster: Services) -> tuple[ServiceNode, ServiceNode]:
    """A writer, and a node that may follow and does not yet."""
    main, s1 = cluster.add("main"), cluster.add("s1")
    main.writes()
    cluster.link("main", "s1")
    for node in (main, s1):
        node.start()

    async def is_offered() -> bool:
        return bool((await s1.status()).get("offers"))

    await reached(is_offered, lambda: "an offer")
    return main, s1


def _everything(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """The tree with the change times and inodes that no honest look changes."""
    found = tree_of(root)
    for path in found:
        about = os.lstat(os.path.join(os.fsencode(root), path))
        found[path] = (*found[path], about.st_ino, about.st_ctime_ns)
    return found


@in_virtual_time
async def test_edits_on_a_partner_are_put_back_and_kept(tmp_path: Path) -> None:
    """Goal: changed, added, removed, retyped and re-moded paths are archived, reported by path and put back, also a
    whole directory and edits from while the node slept; the archive gives the local work back."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        there = s1.tree

        async def is_back() -> bool:
            return tree_of(there) == tree_of(main.tree)

        s1.write({"sub/f1": "local work", "extra": "precious", "newdir/deep/file": "deep"})
        (there / "sub/f2").unlink()
        (there / "sub/f3").unlink()
        s1.write({"sub/f3/inside": "inside"})
        (there / "sub/f4").chmod(0o600)
        (there / "link").unlink()
        (there / "link").symlink_to("/etc/passwd")
        os.utime(there / "sub/f5", ns=(1, 1))
        os.rename(there / "sub/f6", there / "renamed")
        await reached(is_back, lambda: "the tree as published")
        await s1.stands("in_step")
        assert {"sub/f1", "extra"} <= (await s1.archived("drift")).keys()
        for node, named in ((s1, None), (main, "s1")):
            events = [
                e for e in await node.events() if e["what"] == "drift_reverted" and e.get("node") == named
            ]
            assert any("sub/f1" in event["text"] for event in events), (named, await node.events())
            told = [part for event in events for part in event["text"].split("; ")]
            assert any(" restored: " in f" {part}" and "sub/f2" in part for part in told), told
            assert not any("archived" in part and "sub/f2" in part for part in told), told
        for number, (path, text) in enumerate(
            {
                "sub/f1": "local work",
                "extra": "precious",
                "newdir/deep/file": "deep",
                "sub/f3/inside": "inside",
            }.items()
        ):
            assert text in await s1.taken_out(path, tmp_path / f"out{number}"), path
        os.rename(there / "sub", tmp_path / "gone")
        await reached(is_back, lambda: "the directory as published")
        await s1.stop()
        s1.write({"sub/f7": "written while it slept"})
        (there / "sub/f8").unlink()
        main.write({"sub/f9": "published meanwhile"})
        await main.publish()
        s1.start()
        await reached(is_back, lambda: "the tree as published meanwhile")
        assert "sub/f7" in await s1.archived("drift")
        assert (await main.call("verify", fileset="data", fleet=True, deep=True))["identical"]


@in_virtual_time
async def test_drift_that_is_kept_is_reported_only(tmp_path: Path) -> None:
    """Goal: with ``keep`` the standing names the path here and at the writer, nothing is touched, a newer generation of
    that path sets the local work aside in the archive, and ``revert`` puts back the others."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster, 'drift = "keep"')
        s1.write({"sub/f1": "local work", "extra": "precious"})
        line = await s1.stands("drifted")
        assert "sub/f1" in line["reason"] or "extra" in line["reason"], line
        assert line["next"], line
        assert (s1.tree / "sub/f1").read_text() == "local work"

        async def is_told() -> bool:
            return bool((await main.line())["partners"][0]["standing"] == "drifted")

        await reached(is_told, lambda: "the writer hears of it")
        assert not (await main.call("wait", fileset="data", timeout_s=0.5))["reached"]
        (node,) = (await s1.call("verify", fileset="data"))["nodes"]
        assert {row["path"] for row in node["differs"]} == {"sub/f1", "extra"}
        changes = {row["path"]: row["change"] for row in (await s1.call("diff", fileset="data"))["changes"]}
        assert changes == {"sub/f1": "changed", "extra": "added"}
        main.write({"sub/f1": "published", "sub/f2": "published"})
        await main.publish()
        await s1.holds("sub/f1", "published")
        await s1.stands("drifted")
        assert "sub/f1" in await s1.archived("drift")
        assert (s1.tree / "extra").read_text() == "precious"
        await s1.set(drift="revert")
        await s1.stands("in_step")
        assert tree_of(s1.tree) == tree_of(main.tree)
        assert "extra" in await s1.archived("drift")


@in_virtual_time
async def test_observing_never_writes(tmp_path: Path) -> None:
    """Goal: observing a different tree reports numbers and paths, also of newer generations and edits, and leaves every
    byte, time and inode as it is; no command waits for it. Without a mode the accept is refused; ``replace`` and
    ``seed`` follow for real, and drift is put back after a restart without anything new."""
    async with services(tmp_path) as cluster:
        main, s1 = await _joined(cluster)
        main.write(FILES)
        await main.publish()
        there = s1.tree
        shutil.copytree(main.tree / "sub", there / "sub")
        s1.write({"sub/f1": "other", "extra": "precious"})
        (there / "sub/f2").unlink()
        refused = await s1.refuses("not_empty", "fileset_accept", name="data", path=str(there))
        numbers = {key: refused.facts[key] for key in ("only_here", "only_there", "differing")}
        assert numbers == {"only_here": 1, "only_there": 1, "differing": 1}, refused.facts
        before = _everything(there)
        assert (await s1.accepts("observe"))["changed"]
        line = await s1.stands("observing", code="differs")
        assert all(name in line["reason"] for name in ("sub/f1", "sub/f2", "extra")), line
        assert "1 would be added, 1 changed, 1 removed" in line["reason"], line
        assert _everything(there) == before
        assert not (there / ".instep").exists(), "observing makes no marker and no control folder"
        changes = {row["path"]: row["change"] for row in (await s1.call("diff", fileset="data"))["changes"]}
        assert changes == {"sub/f1": "changed", "sub/f2": "removed", "extra": "added"}
        main.write({"sub/f3": "newer"})
        assert (await main.publish(wait=True))["wait"]["reached"], "no wait is for a node that observes"

        async def counts(text: str) -> None:
            async def is_so() -> bool:
                return text in ((await s1.line())["reason"] or "")

            await reached(is_so, lambda: f"{text} of s1")

        await counts("2 changed")
        s1.write({"sub/f4": "edited here"})
        await counts("3 changed")
        assert (await main.line())["partners"][0]["standing"] == "observing"
        after = _everything(there)
        assert {path for path in {*before, *after} if before.get(path) != after.get(path)} == {b"sub/f4"}
        await s1.accepts("replace")
        await cluster.followed("s1")
        await cluster.in_step("s1")
        assert await s1.taken_out("extra", tmp_path / "out") == ["precious"]
        await s1.stop()
        s1.start()
        await s1.stands("in_step")
        s1.write({"sub/f1": "drift"})
        await s1.holds("sub/f1", FILES["sub/f1"])


@in_virtual_time
async def test_a_wait_right_after_an_accept_waits_for_that_node(tmp_path: Path) -> None:
    """Goal: once an accept has returned the writer knows of that node, so that no ``wait`` says before it is in step
    that all are. A seeded tree keeps the files that are right."""
    async with services(tmp_path) as cluster:
        main, s1 = await _joined(cluster)
        main.write(FILES)
        await main.publish()
        s1.write({"sub/f1": FILES["sub/f1"], "mine": "mine"})
        os.utime(s1.tree / "sub/f1", ns=(1, (main.tree / "sub/f1").stat().st_mtime_ns))
        inode = (s1.tree / "sub/f1").stat().st_ino
        await s1.accepts("seed")
        rows = {row["name"]: row["standing"] for row in (await main.line())["partners"]}
        assert rows.get("s1") not in (None, "observing"), (
            "the writer did not hear of it before the accept returned"
        )
        assert (await main.call("wait", fileset="data", timeout_s=60))["reached"]
        assert tree_of(s1.tree) == tree_of(main.tree)
        assert (s1.tree / "sub/f1").stat().st_ino == inode
        assert await s1.taken_out("mine", tmp_path / "out") == ["mine"]


@in_virtual_time
async def test_pipes_in_place_of_what_a_partner_has_are_put_right(tmp_path: Path) -> None:
    """Goal: a partner puts the file and the directory back that a local program replaced with pipes."""
    async with services(tmp_path) as cluster:
        main, s1 = await _begun(cluster)
        (s1.tree / "sub").rename(tmp_path / "away")
        os.mkfifo(s1.tree / "sub")
        (s1.tree / "link").unlink()
        os.mkfifo(s1.tree / "link")

        async def are_gone() -> bool:
            return (s1.tree / "link").is_symlink() and (s1.tree / "sub").is_dir()

        await reached(are_gone, lambda: "the pipes go")
        await s1.stands("in_step")
        assert tree_of(s1.tree) == tree_of(main.tree)
