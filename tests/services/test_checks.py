"""``check``, and the warnings of ``status``: every node can be looked at, whatever it does with its filesets."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_node_that_only_observes_is_checked(tmp_path: Path) -> None:
    """Goal: a tree in which nothing of ours is passes its checks, and one that is not there fails one of them."""
    async with services(tmp_path) as cluster:
        cluster.make(0)
        main, s1 = cluster["main"], cluster.add("s1")
        cluster.link("main", "s1")
        await main.reload()
        s1.fileset = f'[filesets.data]\npath = "{s1.tree}"\nwriter = "main"\nobserve = true'
        s1.start()
        main.write({"file": "1"})
        await main.publish()
        await s1.stands("observing")

        async def rows() -> dict[str, bool]:
            found = (await s1.call("check"))["checks"]
            return {row["name"]: row["ok"] for row in found if row["name"].endswith("of data")}

        assert await rows() == dict.fromkeys(
            ("root of data", "mount of data", "watch of data", "source of data"), True
        )
        s1.tree.rmdir()
        assert (await rows())["root of data"] is False


@in_virtual_time
async def test_an_archive_beyond_its_share_is_named(tmp_path: Path) -> None:
    """Goal: what exceeds ``max_share`` within its retention is named by ``status`` and ``check``, with what to type."""
    async with services(tmp_path) as cluster:
        cluster.make(1, partner=('archive = { max_share = "0%" }',))
        main, s1 = cluster["main"], cluster["s1"]
        for text in "12":
            main.write({"file": text * (2 << 20)})
            await cluster.followed("s1")
            await cluster.in_step("s1")

        async def is_named() -> bool:
            return any("max_share" in each for each in (await s1.status())["warnings"])

        await reached(is_named, lambda: "the warning")
        (warning,) = [each for each in (await s1.status())["warnings"] if "max_share" in each]
        assert "instep archive prune data --keep-last 1" in warning
        rows = {row["name"]: row["ok"] for row in (await s1.call("check"))["checks"]}
        assert rows["archive of data"] is False


@in_virtual_time
async def test_a_node_directory_that_others_can_reach_is_named_with_its_cure(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        cluster.make(0)
        main = cluster["main"]

        async def found() -> list[tuple[str, str]]:
            rows = (await main.call("check"))["checks"]
            return [(row["ours"], row["hint"]) for row in rows if row["name"] == "node directory"]

        assert await found() == []
        directory = main.directory
        directory.path.chmod(0o777)
        (directory.state / "access.db").touch(0o600)
        (directory.state / "access.db").chmod(0o644)
        assert await found() == [
            (f"{directory.path}: others may change it: mode 0777", f"chmod go-w {directory.path}"),
            (
                f"{directory.state / 'access.db'}: others may read it: mode 0644",
                f"chmod go-rwx {directory.state / 'access.db'}",
            ),
        ]
