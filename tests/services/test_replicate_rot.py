"""A file of another home that the disk changed under an unchanged time and size: it is fetched anew, and no edit of anyone."""

from __future__ import annotations

import os
from pathlib import Path

from instep.model.ids import fileset_name
from tests.support.replicas import MODE, alike, mesh, texts
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

FILE = "of-b.xml"


def rot(node: ServiceNode, path: str, text: str) -> None:
    """Other bytes below the file system: the row of the file in the stat cache has the new stat and the old digest."""
    store, name = node.node.runtime.store, fileset_name("data")
    row = store.stat_row(name, path.encode())
    assert row is not None
    file = node.tree / path
    assert len(text) == row.size
    with file.open("r+") as there:
        there.write(text)
    os.utime(file, ns=(row.mtime_ns, row.mtime_ns))
    found = file.stat()
    assert (found.st_ino, found.st_mtime_ns, found.st_size) == (row.ino, row.mtime_ns, row.size)
    store.put_stat_rows(
        name, [row._replace(ctime_ns=found.st_ctime_ns, read_at_ns=found.st_ctime_ns + 10**10)]
    )


@in_virtual_time
async def test_rot_in_a_file_of_another_home_is_mended_and_never_offered(tmp_path: Path) -> None:
    """Goal: a deep look finds it; the home's bytes come back, the rotten ones go to the archive, and the home has no new
    generation; the same through a restart between the look and the repair. An edit afterwards is an edit again."""
    async with services(tmp_path) as cluster:
        nodes = a, *_ = mesh(cluster, "a", "b", "c")
        a.writes(MODE, 'fixity = "2m"')
        for node in nodes:
            node.write({f"of-{node.name}.xml": f"text of {node.name}"})
            node.start()
        holding = {f"of-{name}.xml": f"text of {name}" for name in "abc"}
        await alike(*nodes, holding=holding)
        heads = {node.name: await node.head() for node in nodes}
        rot(a, FILE, "tExt of b")
        await a.call("verify", fileset="data", deep=True)

        async def mended() -> bool:
            return texts(a.tree) == holding

        await reached(mended, lambda: f"the bytes of b are back: {texts(a.tree)}")
        await alike(*nodes, holding=holding)
        texts_of = [each["text"] for each in await a.events() if each["what"] == "file_mended"]
        assert texts_of == [
            f"{FILE} had other bytes under an unchanged time and size; it was restored from b"
        ]
        assert (await a.archived())[FILE]["bytes"] == len("text of b")

        rot(a, FILE, "teXt of b")  # found by itself, within the interval
        await reached(mended, lambda: f"the bytes of b are back: {texts(a.tree)}", 300.0)
        assert "audit_differs" in {each["what"] for each in await a.events()}

        cluster.cut("a", "b")
        rot(a, FILE, "texT of b")
        await a.call("verify", fileset="data", deep=True)
        await a.stop()
        a.start()
        cluster.heal("a", "b")
        await reached(mended, lambda: f"the bytes of b are back: {texts(a.tree)}")
        await alike(*nodes, holding=holding)
        assert {node.name: await node.head() for node in nodes} == heads
        a.write({FILE: "an edit at a"})
        await alike(*nodes, holding=holding | {FILE: "an edit at a"})


@in_virtual_time
async def test_rot_at_a_follower_that_offers_its_edits_is_named_and_not_offered(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, s1 = cluster.add("main"), cluster.add("s1")
        main.writes('offers_from = ["s1"]')
        s1.follows(main, 'drift = "offer"')
        cluster.link("main", "s1")
        for node in (main, s1):
            node.start()
        main.write({FILE: "text of b"})
        await main.publish()
        await cluster.in_step("s1")
        head = await main.head()
        rot(s1, FILE, "tExt of b")
        told = await s1.call("verify", fileset="data", deep=True)
        assert [row["path"] for node in told["nodes"] for row in node["differs"]] == [FILE]
        s1.write({"edit": "by a person"})

        async def is_there() -> bool:
            return "edit" in texts(main.tree)

        await reached(is_there, lambda: "the edit is at the home")
        assert texts(main.tree)[FILE] == "text of b"
        assert await main.head() == head + 1
