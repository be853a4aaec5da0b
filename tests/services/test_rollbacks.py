"""Going back to an older generation: whole, by path, from history, from partners; and each refusal before anything
moves."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path

from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time

MANUAL = 'publish = "manual"'


def _b64(*paths: str) -> list[str]:
    return [base64.b64encode(path.encode()).decode() for path in paths]


async def _number(node: ServiceNode, **params: object) -> int:
    """Publish; the number of the generation."""
    number: int = (await node.publish(**params))["generation"]["number"]
    return number


async def _rolled_back(node: ServiceNode, number: int, **params: object) -> dict[str, object]:
    return await node.call("rollback", fileset="data", generation=number, **params)


def _without_directories(tree: Path) -> dict[bytes, tuple[object, ...]]:
    return {path: what for path, what in tree_of(tree).items() if what[0] != "dir"}


@in_virtual_time
async def test_a_node_alone_goes_back_after_files_were_overwritten_in_place(tmp_path: Path) -> None:
    """Goal: history alone brings back overwritten, removed and retyped files, and forward again; ``log`` names where
    contents are; replaced files are archived; a paused writer and an unknown number are refused."""
    async with services(tmp_path) as cluster:
        cluster.make(0, writer=(MANUAL,))
        main = cluster["main"]
        tree = main.tree
        main.write({f"sub/f{number}": f"file {number}\n" for number in range(30)} | {"mode": "mode"})
        os.symlink("sub/f1", tree / "link")
        (tree / "mode").chmod(0o640)
        one = await _number(main)
        first = _without_directories(tree)
        for number in range(30):
            with (tree / "sub" / f"f{number}").open("r+") as file:
                file.write("OVERWRITTEN IN PLACE")
        (tree / "sub/f29").unlink()
        (tree / "sub/f28").unlink()
        main.write({"sub/f28/inner": "inner", "added": "added"})
        (tree / "link").unlink()
        (tree / "link").symlink_to("elsewhere")
        (tree / "mode").chmod(0o600)
        two = await _number(main, message="the accident")
        accident = _without_directories(tree)
        log = await main.log()
        assert [(n, row["contents"], row["message"]) for n, row in log.items()] == [
            (two, ["here"], "the accident"),
            (one, ["here"], ""),
        ]
        dry = await _rolled_back(main, one, dry_run=True)
        assert dry["changed"] and _without_directories(tree) == accident
        assert (dry["removed"], dry["added"], dry["changed_paths"]) == (2, 1, 31), dry
        done = await _rolled_back(main, one, message="undo")
        assert done["generation"]["root"] == log[one]["root"], done  # type: ignore[index]
        assert _without_directories(tree) == first
        await main.stands("in_step")
        main.write({"sub/f0": "unpublished work"})
        await main.call("pause", fileset="data")
        await main.refuses("paused", "rollback", fileset="data", generation=two)
        await main.call("resume", fileset="data")
        await _rolled_back(main, two)
        assert _without_directories(tree) == accident
        await main.refuses("no_generation", "rollback", fileset="data", generation=99)
        assert "unpublished work" in await main.taken_out("sub/f0", tmp_path / "out")
        cluster.add("s1").follows(main)
        cluster.link("main", "s1")
        await main.reload()
        cluster["s1"].start()
        await cluster.followed("s1")
        await cluster.in_step("s1")
        newest = max(await main.log())
        assert (await main.log())[newest]["contents"] == ["here", "s1"]


@in_virtual_time
async def test_an_emptied_tree_comes_back_and_the_generation_is_exactly_its_target(tmp_path: Path) -> None:
    """Goal: the present files do not matter, but go to the archive; the guard of deletions counts against the head,
    with a hint that says the word; the same command again changes nothing."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=(MANUAL,))
        main, s1 = cluster["main"], cluster["s1"]
        await cluster.followed("s1")
        main.write({f"sub/f{n}": f"one {n}" for n in range(40)})
        first = (await main.publish())["generation"]
        one = tree_of(main.tree, with_times=False)
        main.write({f"more/g{n}": "two" for n in range(60)} | {"sub/f0": "two"})
        second = (await main.publish(wait=True))["generation"]
        shutil.rmtree(main.tree / "sub")
        shutil.rmtree(main.tree / "more")
        main.write({"unpublished": "typed by people"})
        back = {"fileset": "data", "generation": first["number"]}
        for dry_run in (True, False):
            error = await main.refuses("max_deletions", "rollback", **back, dry_run=dry_run)
            assert "--accept-deletions" in str(error.hint)
        assert {path for path in tree_of(main.tree) if b"/" not in path} == {b"unpublished"}
        done = await main.call("rollback", **back, accept_deletions=True)
        assert done["changed"] and done["generation"]["root"] == first["root"], done
        assert tree_of(main.tree, with_times=False) == one
        assert "unpublished" in await main.archived()
        again = await main.call("rollback", **back)
        assert (again["changed"], again["generation"]) == (False, done["generation"]), again
        assert (await main.call("wait", fileset="data", timeout_s=60))["reached"]
        assert (await s1.line())["live"]["root"] == first["root"] != second["root"]


@in_virtual_time
async def test_edits_beside_a_rollback_are_in_no_generation(tmp_path: Path) -> None:
    """Goal: with ``publish = manual`` an unpublished edit is archived by the rollback, not published as rolled back."""
    async with services(tmp_path) as cluster:
        cluster.make(0, writer=(MANUAL,))
        main = cluster["main"]
        main.write({"a": "one", "b": "one"})
        first = (await main.publish())["generation"]
        main.write({"a": "two"})
        await main.publish()
        main.write({"b": "half an idea", "c": "new"})
        done = await _rolled_back(main, first["number"])
        assert done["generation"]["root"] == first["root"], done  # type: ignore[index]
        assert {"b", "c"} <= (await main.archived()).keys()


@in_virtual_time
async def test_contents_that_no_node_has_are_named_by_dry_run_and_command_alike(tmp_path: Path) -> None:
    """Goal: class ``data`` keeps no history: ``log`` says that no node has the old contents, and a rollback is refused
    with the path before anything moves, in the same words by the dry run."""
    async with services(tmp_path) as cluster:
        cluster.make(0, writer=(MANUAL, 'class = "data"'))
        main = cluster["main"]
        main.write({"large": "1" * 100_000})
        first = await _number(main)
        with (main.tree / "large").open("r+b") as file:
            file.write(b"2")
        main.write({"other": "other"})
        second = await _number(main)
        before = tree_of(main.tree)
        log = await main.log()
        assert [(n, row["contents"], row["restorable"]) for n, row in log.items()] == [
            (second, ["here"], True),
            (first, [], False),
        ]
        errors = [
            await main.refuses("contents_missing", "rollback", fileset="data", generation=first, dry_run=dry)
            for dry in (True, False)
        ]
        assert errors[0].as_json() == errors[1].as_json()
        assert errors[0].facts["paths"] == ["large"] and "large" in errors[0].reason
        assert tree_of(main.tree) == before
        assert await main.head() == second


@in_virtual_time
async def test_contents_that_only_a_partners_archive_has_come_back(tmp_path: Path) -> None:
    """Goal: a rollback whose contents are in no history and in one partner's archive only, large and small files and a
    link. Method: no history at the writer."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=(MANUAL, 'history = "off"'))
        main, tree = cluster["main"], cluster["main"].tree
        await cluster.followed("s1")
        (tree / "large").write_bytes(bytes(range(256)) * 12_000)
        main.write({"small": "one", "sub/same": "same"})
        os.symlink("small", tree / "link")
        first = await _number(main, wait=True)
        one = tree_of(tree, with_times=False)
        for name in ("large", "small"):
            with (tree / name).open("r+b") as file:
                file.write(b"overwritten in place")
        (tree / "link").unlink()
        await main.publish(wait=True)
        row = (await main.log())[first]
        assert (row["contents"], row["restorable"]) == (["s1"], True), row
        assert (await _rolled_back(main, first, dry_run=True))["changed"]
        done = await _rolled_back(main, first)
        assert done["generation"]["root"] == row["root"]  # type: ignore[index]
        assert tree_of(tree, with_times=False) == one


@in_virtual_time
async def test_paths_of_a_generation_come_back_alone(tmp_path: Path) -> None:
    """Goal: ``restore`` of a path touches nothing else and is published as usual; a mistyped path is named, with or
    without a dry run; a path that the generation does not have goes; a partner is referred to the writer."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1, tree = cluster["main"], cluster["s1"], cluster["main"].tree
        await cluster.followed("s1")
        main.write({"dir/a": "one", "dir/b": "one", "other": "one"})
        await cluster.in_step("s1")
        first = await main.head()
        main.write({"dir/a": "two", "dir/new": "two", "other": "two"})
        await cluster.in_step("s1")
        wanted = {"fileset": "data", "generation": first}
        done = await main.call("restore", **wanted, paths_b64=_b64("dir"))
        assert done["changed"] and done["generation"]["number"] > first, done
        assert {p.name: p.read_text() for p in (tree / "dir").iterdir()} == {"a": "one", "b": "one"}
        assert (tree / "other").read_text() == "two"
        await cluster.in_step("s1")
        assert not (await main.call("restore", **wanted, paths_b64=_b64("dir")))["changed"]
        for dry_run in (True, False):
            params = {"fileset": "data", "paths_b64": _b64("dir/a", "dir/nothing"), "dry_run": dry_run}
            error = await main.refuses("no_such_path", "restore", **params)
            assert error.facts["path"] == "dir/nothing"
        await main.call("pause", fileset="data")
        main.write({"dir/unpublished": "never published"})
        await main.call("resume", fileset="data")
        await main.call("restore", **wanted, paths_b64=_b64("dir/unpublished"))
        assert not (tree / "dir/unpublished").exists()
        error = await s1.refuses("not_the_writer", "restore", fileset="data")
        assert error.facts["writer"] == "main", error.as_json()


@in_virtual_time
async def test_the_archive_gives_back_drifted_removed_and_replaced_files(tmp_path: Path) -> None:
    """Goal: at a partner each replaced, removed and drifted content by path; a path that it does not have is refused; a
    dry run of a prune removes nothing."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        await cluster.followed("s1")
        main.write({name: f"{name} 1" for name in ("drifts", "removed", "replaced", "dir/inside")})
        await cluster.in_step("s1")
        (s1.tree / "drifts").write_text("local")
        await s1.holds("drifts", "drifts 1")
        (main.tree / "removed").unlink()
        shutil.rmtree(main.tree / "dir")
        main.write({"replaced": "replaced 2"})
        await cluster.in_step("s1")
        items = {(item["path"], item["why"]) for item in (await s1.archived()).values()}
        assert {("removed", "removed"), ("replaced", "replaced"), ("drifts", "drift")} <= items, items
        for name, text in (
            ("drifts", "local"),
            ("removed", "removed 1"),
            ("replaced", "replaced 1"),
            ("dir/inside", "dir/inside 1"),
        ):
            assert await s1.taken_out(name, tmp_path / f"out-{Path(name).name}") == [text], name
        await s1.refuses("not_archived", "archive_restore", fileset="data", path="nowhere", to=str(tmp_path))
        (tmp_path / "way").symlink_to(s1.tree)
        for inside in (s1.tree / "out", tmp_path / "way" / "out"):  # there it would be drift, or be published
            await s1.refuses(
                "inside_a_fileset", "archive_restore", fileset="data", path="drifts", to=str(inside)
            )
            await s1.refuses("inside_a_fileset", "restore", fileset="data", to=str(inside))
        dry = await s1.call("archive_prune", fileset="data", keep_last=0, keep_within_ms=0, dry_run=True)
        assert dry["dry_run"] and dry["removed"], dry
        assert await s1.archived()
