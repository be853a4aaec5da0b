"""What ``diff`` and ``log`` show of the changes between generations and of those in the tree."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached


async def _shown(node: ServiceNode, **params: object) -> list[str]:
    rows = (await node.call("diff", **{"fileset": "data", **params}))["changes"]
    return sorted(" ".join(filter(None, (row["change"], row.get("from"), row["path"]))) for row in rows)


@in_virtual_time
async def test_renames_are_one_change(tmp_path: Path) -> None:
    """Goal: a file under another name, in another directory, and a whole directory are shown as renamed, before they are
    published and between two generations; a copy, an empty file and a file of another mode are not."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes('publish = "manual"')
        main.start()
        main.write(
            {
                "z": "one",
                "twin/a": "one",
                "sub/x": "two",
                "old/deep/f": "3",
                "old/g": "4",
                "mode": "5",
                "kept": "6",
            }
        )
        main.write({"empty": "", "void/nil": ""})
        await main.publish()
        first, tree = await main.head(), main.tree
        os.rename(tree / "sub/x", tree / "y")
        (tree / "new").mkdir()
        os.rename(tree / "twin/a", tree / "new/a")
        os.rename(tree / "z", tree / "b")
        os.rename(tree / "old", tree / "older")
        os.rename(tree / "mode", tree / "edom")
        (tree / "edom").chmod(0o600)
        os.rename(tree / "empty", tree / "vacant")
        os.rename(tree / "void/nil", tree / "nil")
        (tree / "copy").write_text("6")
        wanted = [
            "added copy", "added edom", "added new", "added vacant", "removed empty", "removed mode",
            "renamed old older", "renamed sub/x y", "renamed twin/a new/a", "renamed void/nil nil", "renamed z b",
        ]  # fmt: skip
        assert await _shown(main) == wanted
        await main.publish()
        assert await _shown(main, a=first) == wanted


@in_virtual_time
async def test_the_log_of_a_path(tmp_path: Path) -> None:
    """Goal: each change of one path is a row with its author, followed over renames of the file and of its directory; each
    node has the version that it serves; a directory changes with all below it."""
    async with services(tmp_path) as cluster:
        cluster.make(2, writer=('publish = "manual"',))
        main, s1 = cluster["main"], cluster["s1"]

        async def published(author: str) -> int:
            number: int = (await main.publish(author=author, message="why", wait=True))["generation"][
                "number"
            ]
            return number

        main.write({"old/a": "1", "other": "1"})
        await cluster.followed("s1", "s2")
        numbers = [await published("ana")]
        main.write({"other": "2"})
        await published("ben")
        main.write({"old/a": "22"})
        numbers.append(await published("ben"))
        os.rename(main.tree / "old", main.tree / "new")
        numbers.append(await published("cy"))
        os.rename(main.tree / "new/a", main.tree / "new/b")
        numbers.append(await published("dan"))
        await s1.call("pause", fileset="data")
        main.write({"new/b": "333"})
        numbers.append((await main.publish(author="eve"))["generation"]["number"])
        await cluster["s2"].holds("new/b", "333")

        async def rows(node: ServiceNode, path: str) -> list[tuple[object, ...]]:
            found = await node.call("path_log", fileset="data", path=path)
            return [
                (r["number"], r["author"], r["change"], r.get("from"), r["path"])
                for r in found["generations"]
            ]

        wanted = [
            (numbers[4], "eve", "changed", None, "new/b"),
            (numbers[3], "dan", "renamed", "new/a", "new/b"),
            (numbers[2], "cy", "renamed", "old/a", "new/a"),
            (numbers[1], "ben", "changed", None, "old/a"),
            (numbers[0], "ana", "added", None, "old/a"),
        ]
        assert await rows(main, "new/b") == wanted
        assert [row[0] for row in await rows(main, "new")] == numbers[::-1]
        found = await main.call("path_log", fileset="data", path="new/b")
        assert [(node["name"], node["version"]) for node in found["nodes"]] == [
            ("main", numbers[4]), ("s1", numbers[3]), ("s2", numbers[4]),
        ]  # fmt: skip
        (main.tree / "other").unlink()
        last = (await main.publish(author="eve"))["generation"]["number"]
        assert (await rows(main, "other"))[0][:3] == (last, "eve", "removed")
        error = await main.refuses("no_path", "path_log", fileset="data", path="nowhere")
        assert error.hint == "instep log data"
        shown = await rows(s1, "new/b")
        assert shown[-1][0] == numbers[0] and shown[1:] == wanted[1:], (
            "a paused partner has the pages that it fetched"
        )


@in_virtual_time
async def test_an_automatic_publish_names_the_owner_of_its_files(tmp_path: Path) -> None:
    """Goal: one owner of all changed files is named; with several, and where a path was only removed, nothing is said."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes()
        main.start()
        me = pwd.getpwuid(os.getuid()).pw_name

        async def author(of: Callable[[], object]) -> str:
            await main.call("pause", fileset="data")
            before = await main.head()
            of()
            await main.call("resume", fileset="data")

            async def is_there() -> bool:
                return bool(await main.head() > before)

            await reached(is_there, lambda: "the next generation")
            name: str = (await main.line())["head"]["author"]
            return name

        main.write({"begin": "1"})
        await main.publish(author="ana")
        assert (await main.line())["head"]["author"] == "ana"
        assert await author(lambda: main.write({"a": "1", "sub/b": "2"})) == f"auto, files of {me}"
        assert await author((main.tree / "a").unlink) == "auto"
        if os.getuid() == 0:

            def shared() -> None:
                main.write({"c": "1", "d": "2"})
                os.chown(main.tree / "c", 65_000, 65_000)

            assert await author(shared) == "auto"
            assert await author(lambda: (main.tree / "c").write_text("2")) == "auto, files of 65000"


@in_virtual_time
async def test_a_look_before_the_publish_keeps_nothing_from_the_history(tmp_path: Path) -> None:
    """Goal: what ``diff`` or ``verify`` has read is read again by the publish, which keeps it: the version is there
    when the next one has replaced it."""
    async with services(tmp_path) as cluster:
        cluster.make(0, writer=('publish = "manual"',))
        main = cluster["main"]
        for look in ("diff", "verify"):
            main.write({"f": f"version of {look}"})
            os.utime(main.tree / "f", (1, 1))  # no entry is young any more
            await main.call(look, fileset="data")
            await main.publish()
            number = await main.head()
            main.write({"f": f"behind {look}"})
            await main.publish()
            assert (await main.log())[number]["contents"] == ["here"], look
