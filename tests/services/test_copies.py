"""Copies wanted of documents: what nodes report is compared with what the home wants, and nothing is moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from instep.api.parts import CopiesDocument
from instep.model.ids import EMPTY_DIGEST, fileset_name
from instep.model.manifest.pages import Child, digest_of, encode_page
from instep.net.messages.messages import encode
from instep.node.commands.cluster.copy_checks import copies_rows
from tests.support.replicas import MODE, alike, link_both, mesh
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

WANTED = '[[filesets.data.copies]]\npaths = ["*.xml"]\n'


async def _found(home: ServiceNode, **fields: Any) -> dict[str, Any]:
    """The rule in ``status`` once it has these fields."""
    last: list[Any] = [None]

    async def is_so() -> bool:
        (fileset,) = (await home.status())["filesets"]
        last[0] = (fileset.get("copies") or [None])[0]
        return last[0] is not None and all(last[0][name] == value for name, value in fields.items())

    await reached(is_so, lambda: f"{fields}: {last}")
    rule: dict[str, Any] = last[0]
    return rule


async def _noted(home: ServiceNode, kind: str) -> str:
    found: list[str] = []

    async def is_there() -> bool:
        found[:] = [event["text"] for event in await home.events() if event["what"] == kind]
        return bool(found)

    await reached(is_there, lambda: f"the event {kind}")
    return found[-1]


async def _row(home: ServiceNode) -> dict[str, Any]:
    rows = (await home.call("check"))["checks"]
    (row,) = (row for row in rows if row["name"].startswith("copies of "))
    found: dict[str, Any] = row
    return found


@in_virtual_time
async def test_a_copy_counts_while_its_node_is_there(tmp_path: Path) -> None:
    """Goal: two copies are enough, one whose node is away is not known, and comes back by itself; check, status, events
    and explain say the same. Method: a mirror of two followers, of which one stops."""
    async with services(tmp_path) as cluster:
        cluster.make(2, writer=(WANTED + "wanted = 2",))
        main, s1, s2 = (cluster[name] for name in ("main", "s1", "s2"))
        main.write({"a.xml": "1", "b.txt": "1"})
        await main.publish()
        for node in (s1, s2):
            await node.holds("a.xml", "1")
        rule = await _found(main, kept=True, documents=1)
        assert rule["trouble"] == []
        assert (await _row(main))["ok"]
        await s2.stop()
        rule = await _found(main, kept=False, doubtful=1, short=0)
        assert "what s2 has is not known: s2 is not connected" in rule["trouble"]
        assert "a.xml with 1" in await _noted(main, "copies_short")
        row = await _row(main)
        assert not row["ok"]
        assert "instep explain data a.xml" in row["hint"]
        (of_path,) = (await main.call("explain", fileset="data", path="a.xml"))["copies"]
        assert of_path["at"] == ["s1"]
        assert of_path["unknown"] == [{"node": "s2", "why": "s2 is not connected"}]
        assert "copies" not in await main.call("explain", fileset="data", path="b.txt")
        s2.start()
        await _found(main, kept=True)
        assert "data" in await _noted(main, "copies_kept")


@in_virtual_time
async def test_preferred_and_blocked_nodes_are_named(tmp_path: Path) -> None:
    """Goal: a copy on a blocked node is named and does not count, a preferred node that nothing names is not taken for
    one that has all. Method: one follower, which is blocked."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=(WANTED + 'wanted = 1\nprefer = ["s9"]\nblock = ["s1"]',))
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a.xml": "1"})
        await main.publish()
        await s1.holds("a.xml", "1")
        rule = await _found(main, kept=False, doubtful=1)
        assert [(one["node"], one["documents"]) for one in rule["blocked"]] == [("s1", 1)]
        assert "what s9 has is not known: no partner list that is known here names it" in rule["trouble"]
        await s1.stop()
        rule = await _found(main, kept=False)
        assert [one["node"] for one in rule["blocked"]] == ["s1"]


@in_virtual_time
async def test_a_node_that_is_behind_lacks_the_documents_that_it_has_not(tmp_path: Path) -> None:
    """Goal: copies are counted by digest: a paused node counts for the documents that its older generation has as well.
    Method: the follower pauses between two generations."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=(WANTED + 'prefer = ["s1"]',))
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a.xml": "1", "old.xml": "1"})
        await main.publish()
        await _found(main, kept=True, documents=2)
        await s1.call("pause", fileset="data", reason="tea")
        await s1.stands("paused")
        main.write({"a.xml": "2", "new.xml": "1"})
        await main.publish()
        rule = await _found(main, kept=False, short=2, documents=3)
        assert rule["trouble"][0] == "2 documents of *.xml have not the copy wanted, such as a.xml with 0"
        assert [one["path"] for one in rule["sample"]] == ["a.xml", "new.xml"]
        assert [(one["node"], one["documents"]) for one in rule["missing"]] == [("s1", 2)]
        await s1.call("resume", fileset="data")
        await _found(main, kept=True, documents=3)


@in_virtual_time
async def test_each_home_of_many_counts_its_own(tmp_path: Path) -> None:
    """Goal: in mode replicate the copies of a home's own documents count, over a hub as well. Method: a chain; then the
    far node is gone, and the hub says so."""
    async with services(tmp_path) as cluster:
        a, hub, c = (cluster.add(name) for name in ("a", "hub", "c"))
        a.writes(MODE, WANTED + "wanted = 2")
        for node in (hub, c):
            node.writes(MODE)
        for node in (a, hub, c):
            node.write({f"{node.name}.xml": f"of {node.name}"})
        for name in ("a", "c"):
            link_both(cluster, "hub", name, hub=True)
        for node in (a, hub, c):
            node.start()
        await alike(a, hub, c)
        await _found(a, kept=True, documents=1)
        (of_path,) = (await a.call("explain", fileset="data", path="a.xml"))["copies"]
        assert of_path["at"] == ["c", "hub"]
        await c.stop()
        rule = await _found(a, kept=False, doubtful=1)
        assert [one["node"] for one in rule["unknown"]] == ["c"]


@in_virtual_time
async def test_a_tree_that_is_not_attested_whole_is_not_known(tmp_path: Path) -> None:
    """Goal: what a node of many homes does not say to be whole is not known, never enough. Method: a home is paused."""
    async with services(tmp_path) as cluster:
        a, b = mesh(cluster, "a", "b")
        a.fileset += "\n" + WANTED
        for node in (a, b):
            node.start()
        a.write({"a.xml": "1"})
        b.write({"of_b": "1"})
        await alike(a, b)
        await _found(a, kept=True)
        await b.call("pause", fileset="data", reason="tea")
        a.write({"b.xml": "1"})
        rule = await _found(a, kept=False, documents=2)
        assert rule["short"] + rule["doubtful"] >= 1, rule


@in_virtual_time
async def test_manifests_that_cannot_be_read_end_no_daemon(tmp_path: Path) -> None:
    """Goal: a head whose manifest is not here yet, as after an older copy came back, and a node that reports a page of its
    own making are not known, and the look goes on. Method: the pages of the head are taken away; a report is forged."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=(WANTED,))
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a.xml": "1"})
        await main.publish()
        await _found(main, kept=True, documents=1)
        assert "as many nodes as wanted" in (await _row(main))["theirs"]
        (service,), store = main.node.services.values(), main.store
        await s1.stop()
        bad = encode_page(0, [Child(b"a.xml", EMPTY_DIGEST, 1, 1)])
        store.put_pages([(digest_of(bad), bad)])
        told = msgspec.structs.replace(service.reports()[s1.name], attested_root=digest_of(bad))
        store.save_report(service.line, s1.name, encode(told))
        rule = await _found(main, kept=False, doubtful=1)
        assert not (await _row(main))["ok"]
        assert (await main.call("explain", fileset="data", path="a.xml"))["copies"][0]["unknown"]
        assert service.head is not None
        store.delete_pages([service.head.root])
        rule = await _found(main, kept=False, documents=0)
        assert "the manifest of generation 1 is not here yet" in rule["trouble"][0]
        await main.refuses("contents_missing", "explain", fileset="data", path="a.xml")
        assert not (await _row(main))["ok"]


def test_a_rule_that_names_no_document_says_so() -> None:
    """Goal: a mistyped pattern does not look like enough copies."""
    rule = CopiesDocument(("*.xlm",), 2, True, 0, 0, 0, (), (), (), (), (), ())
    ((_, is_well, _, said, step),) = copies_rows(fileset_name("data"), (rule,))
    assert is_well and said == "no document has such a path" and step is None
