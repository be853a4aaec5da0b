"""Packages, which name other files: hidden while one of those cannot be had."""

from __future__ import annotations

from pathlib import Path

from tests.support.replicas import alike, mesh, texts
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached

LARGE = 200_000


@in_virtual_time
async def test_a_package_waits_for_the_file_that_it_names(tmp_path: Path) -> None:
    """Goal: one file cannot be had; all others of that head are live, also a package that names another file. Its own package
    stays as it was, a package of that package stays hidden, and both are named apart from the file. With the file all come."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b", keys=('history = "off"', 'packages = ["*.pkg.xml"]'))
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        a.write({"set.pkg.xml": "<names>1.xml</names>"})
        await alike(*nodes)
        cluster.cut("a", "b")
        docs = {f"docs/{n}.xml": f"{n}" for n in range(50)} | {
            "other.pkg.xml": "<names>docs/large.binary</names>"
        }
        named = {"set.pkg.xml": "<names>1.xml, large.bin</names>", "all.pkg.xml": '<a href="set.pkg.xml"/>'}
        a.write(docs | named | {"docs/large.bin": "x" * LARGE})
        await a.publish()
        await a.call("pause", fileset="data")
        (a.tree / "docs/large.bin").rename(tmp_path / "away")
        cluster.heal("a", "b")

        async def is_so() -> bool:
            lines = (await b.status())["filesets"][0]["lines"]
            (line,) = (line for line in lines if line["origin"] == "a")
            reason = line["reason"] or ""
            return line["code"] == "withheld" and "1 file cannot" in reason and "2 packages wait" in reason

        await reached(is_so, lambda: f"the file and its packages are named: {texts(b.tree).keys()}")
        here = texts(b.tree)
        assert docs.items() <= here.items()
        assert here["set.pkg.xml"] == "<names>1.xml</names>"
        assert not {"all.pkg.xml", "docs/large.bin"} & here.keys()
        (tmp_path / "away").rename(a.tree / "docs/large.bin")
        await a.call("resume", fileset="data")
        await alike(*nodes)
        assert named.items() <= texts(b.tree).items()
