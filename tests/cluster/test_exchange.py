"""The whole root is exchanged: killed anywhere it is one generation; each obstacle to it is named."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.test_crash_partner import Workload, assert_both_there, difference
from tests.support.crashes import Crasher, Tree, assert_nothing_lost, assert_rested, crashers, tables
from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually

SPECS = (
    "exchange.built",
    "switch.begun",
    "exchange.carried",
    "exchange.swapped",
    "archive.renamed",
    "follow.live_saved",
    "exchange.unlinked:9",
    "exchange.tree_gone",
)
"""At each failpoint there is: ``tests/contract/test_killed_applies.py``. Here those between which a daemon differs."""


def setup(fleet: Fleet, reloads: Path) -> None:
    node = fleet["s1"]
    node.run("fileset", "set", "data", "switch=exchange", "carry=logs", "linger=0ms")
    tables(
        node,
        f'[filesets.data.hooks.reload]\nrun = ["/bin/sh", "-c", "echo $INSTEP_GENERATION >> {reloads}"]\n',
    )


def without_logs(root: Path) -> Tree:
    return {path: what for path, what in tree_of(root).items() if path.partition(b"/")[0] != b"logs"}


def old_trees(fleet: Fleet) -> list[Path]:
    return list((fleet.base / "s1" / ".instep-data" / "archive").glob("*/next"))


@pytest.mark.timeout(600)
def test_killed_in_an_exchange(fleet: Fleet) -> None:
    """Goal: P2, P3, P5 where the root is exchanged. Method: a publish with every kind of change meets a partner armed
    to die; restarted while the writer is frozen its tree is exactly old or new, then it comes in step."""
    workload = Workload(fleet.tree("main"))
    fleet.make(1, add=("--settle", "20ms", "--ignore", "logs/", "--publish", "manual"))
    reloads = fleet.base / "reloads"
    setup(fleet, reloads)
    with crashers(fleet, "main", "s1") as (main, s1):
        s1.await_in_step(main.publish()["number"])
        logs = fleet.tree("s1") / "logs"
        logs.mkdir()
        with (logs / "app.log").open("a") as log:
            for spec in SPECS:
                log.write(f"before {spec}\n")
                log.flush()
                number = one_death(fleet, main, s1, workload, spec)
                assert str(number) in reloads.read_text().split(), f"{spec}: no reload"
                assert os.stat(logs / "app.log").st_ino == os.fstat(log.fileno()).st_ino, spec
        assert (logs / "app.log").read_text().splitlines() == [f"before {spec}" for spec in SPECS]
        main.note_numbers()


def one_death(fleet: Fleet, main: Crasher, s1: Crasher, workload: Workload, spec: str) -> int:
    mine = fleet.tree("s1")
    s1.kill()
    old = without_logs(mine)
    workload.turn()
    number = int(main.publish()["number"])
    new = tree_of(fleet.tree("main"))
    s1.spawn(spec)
    assert s1.await_end() == -signal.SIGKILL, f"{spec}: the partner ended otherwise"
    assert_both_there(mine, old, new, spec)
    with main.frozen():
        s1.start()
        s1.await_recovered()
        eventually(
            lambda: without_logs(mine) in (old, new), 30, lambda: f"{spec}: {difference(mine, old, new)}"
        )
    s1.await_in_step(number)
    assert without_logs(mine) == new, f"{spec}: {difference(mine, old, new)}"
    eventually(lambda: not old_trees(fleet), 30, lambda: f"{spec}: {old_trees(fleet)} linger")
    assert_rested(fleet, "s1")
    assert_nothing_lost(fleet, "s1", old, new)
    return number


def test_what_stands_against_an_exchange_is_named_with_both_values(fleet: Fleet) -> None:
    fleet.make(1, add=("--settle", "20ms", "--ignore", "logs/"))
    s1, root = fleet["s1"], fleet.tree("s1")
    (fleet.tree("main") / "page").write_text("one")
    fleet.wait()
    (root / "logs").mkdir()
    (root / "logs/app.log").write_text("ours")
    s1.run("fileset", "set", "data", "switch=exchange")
    (row,) = [c for c in s1.run("check", expect=4).json["checks"] if c["name"] == "exchange of data"]
    assert not row["ok"]
    assert "carry (nothing)" in row["ours"]
    assert row["theirs"] == "logs"
    (fleet.tree("main") / "page").write_text("two")
    s1.await_standing("blocked")
    assert s1.line()["code"] == "exchange_refused"
    assert (root / "page").read_text() == "one"
    s1.run("fileset", "set", "data", "carry=logs")
    fleet.wait()
    assert ((root / "page").read_text(), (root / "logs/app.log").read_text()) == ("two", "ours")
    refused = s1.run("fileset", "set", "data", "drift=keep", expect=3).error["facts"]["problems"]
    assert "does not go with switch = exchange" in refused[0]["why"]
    s1.run("fileset", "remove", "data")
    accept = ("fileset", "accept", "data", str(root), "--seed", "--switch", "exchange")
    assert s1.run(*accept, expect=4).error["code"] == "exchange_refused"
    fleet.accept("s1", "--seed", "--switch", "exchange", "--carry", "logs")
    (fleet.tree("main") / "page").write_text("three")
    fleet.wait()
    assert (root / "page").read_text() == "three"


def test_what_is_written_between_staged_and_switched_is_archived_and_put_right(fleet: Fleet) -> None:
    """A validate hook writes below the root: it runs when the next tree is built and the exchange is still to come."""
    main, root = fleet.tree("main"), fleet.tree("s1")
    fleet.make(1, add=("--settle", "20ms"))
    for name in ("page", "shared"):
        (main / name).write_text("one")
    s1 = fleet["s1"]
    fleet.wait()
    s1.run("fileset", "set", "data", "switch=exchange", "linger=100ms")
    once = f"[ -e {root}/late ] || [ -e {fleet.base}/done ] || "
    late = f"{{ echo late > {root}/late; echo edited > {root}/shared; touch {fleet.base}/done; }}"
    tables(s1, f"[filesets.data.hooks.validate]\nrun = ['/bin/sh', '-c', '{once}{late}']\n")
    s1.run("config", "reload")
    (main / "page").write_text("two")
    fleet.wait()
    assert (fleet.base / "done").exists(), "the hook did not run"

    def archived() -> set[str]:
        items = s1.run("archive", "list", "data", "--set-aside").json["items"]
        return {item["path"] for item in items}

    eventually(lambda: {"late", "shared"} <= archived(), 20, lambda: f"{archived()}\n{s1.log()}")
    eventually(lambda: (root / "shared").read_text() == "one", 20, lambda: s1.log())
    assert (root / "page").read_text() == "two"
    assert not (root / "late").exists()
    events = s1.run("events").json["events"]
    assert any("met an exchange of the root" in str(event) for event in events), events
