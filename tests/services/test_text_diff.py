"""``diff --text``: the lines of one path, of the tree and of generations whose contents are here or at partners."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_the_text_of_what_differs_is_shown_and_no_other_file(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes('publish = "manual"\nignore = ["*.key"]')
        main.start()
        main.write(
            {
                "a.xml": "<a>\n  one\n</a>\n",
                "same": "x",
                "unchanged": "x",
                "bin": "\0",
                "gone": "was\n",
                "big": "x",
                "my.key": "s",
            }
        )
        os.symlink("/etc/shadow", main.tree / "link")
        await main.publish()
        first = await main.head()
        main.write(
            {
                "a.xml": "<a>\n  two\x1b[2J<script>\n</a>",
                "bin": "\0\0",
                "my.key": "secret",
                "big": "y" * 300_000,
            }
        )
        (main.tree / "gone").unlink()
        (main.tree / "same").chmod(0o600)
        (main.tree / "link").unlink()
        os.symlink("/etc/passwd", main.tree / "link")

        async def text(path: str, **more: object) -> tuple[list[str], str | None]:
            told = await main.call("text_diff", fileset="data", path=path, **more)
            return list(told["lines"]), told["why"]

        changed = [
            "@@ -1,3 +1,3 @@",
            " <a>",
            "-  one",
            "-</a>",
            "+  two\x1b[2J<script>",
            "+</a> [no end of line]",
        ]
        link = ["@@ -1 +1 @@", "-/etc/shadow [no end of line]", "+/etc/passwd [no end of line]"]

        async def differs(**numbers: object) -> None:
            assert await text("a.xml", **numbers) == (changed, None)
            assert await text("gone", **numbers) == (["@@ -1 +0,0 @@", "-was"], None)
            assert await text("link", **numbers) == (link, None), (
                "the target, and never the file that it names"
            )
            assert (await text("bin", **numbers))[1] == "binary"
            assert "293.0 KiB" in str((await text("big", **numbers))[1])
            assert "mode" in str((await text("same", **numbers))[1])
            for typed in ("./gone", "x/..//gone", f"{main.tree}/gone"):
                assert await text(typed, **numbers) == (["@@ -1 +0,0 @@", "-was"], None)
            for path in ("my.key", "none", "../data/my.key", "", ".instep/id", "/etc/passwd"):
                await main.refuses("no_such_path", "text_diff", fileset="data", path=path, **numbers)
            await main.refuses("no_difference", "text_diff", fileset="data", path="unchanged", **numbers)

        await differs()
        await main.publish()
        await differs(a=first)
        await differs(a=first, b=await main.head())


@in_virtual_time
async def test_the_files_of_class_secret_are_shown_to_no_caller(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes('publish = "manual"', 'class = "secret"', 'to = ["s1"]')
        main.start()
        main.write({"key": "one"})
        await main.publish()
        main.write({"key": "two"})
        await main.refuses("not_shown", "text_diff", fileset="data", path="key")
