"""A revoked node loses both directions at once, also where the partner dialled it and follows what it writes."""

from __future__ import annotations

import pytest

from tests.support.fleet import Fleet
from tests.support.waiting import eventually


@pytest.mark.timeout(120)
def test_a_revoked_sender_is_cut_by_those_who_dialled_it(fleet: Fleet) -> None:
    fleet.tree("main").mkdir(parents=True)
    (fleet.tree("main") / "a").write_text("x")
    fleet.make(2)
    fleet.wait()
    s1, s2 = fleet["s1"], fleet["s2"]
    stolen, got = fleet.base / "s1" / "two", fleet.base / "s2" / "two"
    for directory in (stolen, got):
        directory.mkdir()
    (stolen / "k").write_text("before")
    fleet.acquaint("s1", "s2")
    s1.run("partner", "set", "s2", "--replicate", "--data")
    s2.run("partner", "set", "s1", "--address", f"127.0.0.1:{s1.port}")
    s1.run("fileset", "add", "two", str(stolen), "--settle", "20ms")
    eventually(lambda: s1.line("two")["head"], 20, "it is published")
    s2.run("fileset", "accept", "two", str(got), "--from", "s1")
    s2.await_standing("in_step", fileset="two")
    fleet.main.run("pki", "revoke", "s1")
    eventually(
        lambda: any("revoked" in str(check) for check in s2.run("check", expect=None).json["checks"]),
        20, "s2 refuses s1, by name",
    )  # fmt: skip
    before = s1.line("two")["head"]["number"]
    (stolen / "k").write_text("stolen")
    eventually(lambda: s1.line("two")["head"]["number"] > before, 20, "the stolen server publishes")
    s2.run("retry", "two")
    eventually(lambda: s2.standing("two") == "unreachable", 20, "s2 hears no more of it")
    assert (got / "k").read_text() == "before"
