"""The cluster's database fails over for real: a primary is lost with its last grants, and a standby is promoted."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.leases import Stamps, share_database
from tests.support.postgres import PORT, USER, PostgresServer, missing_postgres
from tests.support.waiting import crowding, eventually

ROUNDS = int(os.environ.get("INSTEP_FAILOVERS", "2"))
QUIET_MS = 10_000
"""Instead of 30 s: as long as the longest lease of the test."""
SLACK_MS = 2_000
GUARD_MS = 5_000

pytestmark = pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres() or "postgresql is there")


class Pair:
    """A primary and a standby in two folders; each failover makes the lost one anew."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.standby = PostgresServer(folder / "one"), PostgresServer(folder / "two")
        self.primary.make()
        self.primary.start()
        self.follow()

    def follow(self) -> None:
        self.standby = self.primary.clone(self.standby.folder)
        self.standby.start()

    @property
    def address(self) -> str:
        sockets = sorted(str(server.socket) for server in (self.primary, self.standby))
        return f"postgresql://{USER}@/postgres?host={','.join(sockets)}&port={PORT},{PORT}"

    def former_grants_ran_out(self) -> bool:
        """At the standby, which has no later ones."""
        late = (
            "SELECT count(*) FROM instep_lease WHERE expires_at_ms > extract(epoch FROM now()) * 1000 - 200"
        )
        return self.standby.ask(late) == "0"

    def fail_over(self) -> None:
        """The primary is lost, and the standby is promoted with what it has."""
        self.primary.kill()
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def close(self) -> None:
        for server in (self.primary, self.standby):
            server.kill()


@pytest.fixture
def databases() -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    folder.chmod(0o755)
    pair = Pair(folder)
    try:
        yield pair
    finally:
        pair.close()
        shutil.rmtree(folder)


@pytest.fixture
def nodes(databases: Pair, fleet: Fleet) -> list[Node]:
    return share_database(fleet, ("a", "b"), databases.address)


@pytest.fixture
def stamps(tmp_path: Path) -> Iterator[Stamps]:
    made = Stamps(tmp_path / "stamps")
    try:
        yield made
    finally:
        made.close()


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """The daemon hangs meanwhile, as on a machine that is cut off."""
    pid = node.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def database_of(node: Node) -> dict[str, object]:
    found: dict[str, object] = node.status()["database"]
    return found


def await_reached(node: Node) -> None:
    eventually(lambda: database_of(node)["reached"], describe=lambda: f"{database_of(node)}\n{node.log()}")


def test_no_two_holders_overlap_when_the_last_grant_is_lost(
    databases: Pair, nodes: list[Node], stamps: Stamps
) -> None:
    """In each round the lease changes hands where the standby does not see it, and stays so until the standby's row of
    the former holder has run out. Then the holder's daemon hears of nothing any more. Without the quiet time the next
    holder would begin beside the present one: that was tried."""
    for node in nodes:
        await_reached(node)
    databases.primary.ask(f"UPDATE instep_era SET longest_ttl_ms = {QUIET_MS}")
    one, other = nodes
    holding = stamps.run(one, "0 first", "--wait")
    stamps.await_running("0 first")
    for number in range(ROUNDS):
        before, lost, after = (f"{number} {word}" for word in ("first", "lost", "after"))
        next_one = stamps.run(other, lost, "--wait", ttl="10s")
        databases.standby.await_all_of(databases.primary)
        databases.standby.stop_receiving()
        holding.signal(signal.SIGTERM)
        holding.ended(128 + signal.SIGTERM)
        stamps.await_running(lost)
        expired = "SELECT count(*) FROM instep_lease WHERE expires_at_ms > instep_now_ms() - 200"
        eventually(
            databases.former_grants_ran_out, describe="the former grant to have run out at the standby"
        )
        assert databases.primary.ask(expired) == "1"
        waiting = stamps.run(one, after, "--wait")
        with stopped(other):
            databases.fail_over()
            promoted_ms = now_ms()
            stamps.await_running(after)
        next_one.ended(6)
        quiet_ms = stamps.first(after) - promoted_ms
        assert quiet_ms < (QUIET_MS + SLACK_MS) * crowding() + GUARD_MS, f"{before}: {quiet_ms} ms"
        databases.follow()
        holding = waiting
        stamps.assert_apart()
        stamps.rename(after, f"{number + 1} first")
    assert int(str(database_of(one)["era"])) == ROUNDS + 1
    assert (
        one.run("events").stdout.count("cluster_era") + other.run("events").stdout.count("cluster_era")
        >= ROUNDS
    )


def now_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def test_what_runs_goes_on_through_a_failover_that_lost_nothing(
    databases: Pair, nodes: list[Node], stamps: Stamps
) -> None:
    one, other = nodes
    holding = stamps.run(one, "first", ttl="30s")
    stamps.await_running("first")
    databases.standby.await_all_of(databases.primary)
    databases.fail_over()
    eventually(
        lambda: database_of(other)["era"] == 2, describe=lambda: f"{database_of(other)}\n{other.log()}"
    )
    eventually(lambda: fence_of(one) == "2.2", describe=lambda: f"{fence_of(one)}\n{one.log()}")
    assert database_of(other)["quiet_until"]
    assert holding.process.poll() is None
    refused = other.run("lease", "run", "--json", "other", "--", "/bin/true", expect=6, json=False).error
    assert (refused["code"], refused["facts"]["holder"]) == ("lease_held", None)
    assert "changes hands" in other.run("status", json=False).stdout
    holding.signal(signal.SIGTERM)
    holding.ended(128 + signal.SIGTERM)


def fence_of(node: Node) -> str:
    """The token of the first lease; nothing while the database moves, or the lease is granted anew."""
    rows = node.run("lease", "list", expect=None)
    leases = rows.json["leases"] if rows.code == 0 else []
    return str(leases[0]["fence"]) if leases else ""


def test_while_the_database_is_away_the_holder_is_stopped_filesets_go_on_and_status_says_so(
    databases: Pair, nodes: list[Node], fleet: Fleet, stamps: Stamps
) -> None:
    one = nodes[0]
    fleet.tree("a").mkdir()
    one.run("fileset", "add", "data", str(fleet.tree("a")), "--settle", "20ms")
    holding = stamps.run(one, "first")
    stamps.await_running("first")
    databases.primary.kill()
    databases.standby.kill()
    begun = now_ms()
    holding.ended(6)
    assert stamps.last("first") - begun < 5_000
    fleet.write({"file": "written meanwhile"}, "a")
    one.run("publish", "data", "-m", "without the database")
    eventually(lambda: not database_of(one)["reached"])
    told = one.run("status", "--exit-code", expect=7, json=False).stdout
    assert "database is AWAY" in told
    refused = one.run("lease", "run", "--json", "index", "--", "/bin/true", expect=7, json=False).error
    assert refused["code"] == "cluster_unreachable"
    assert not any(
        row["ok"] for row in one.run("check", expect=4).json["checks"] if row["name"] == "cluster database"
    )
    databases.primary.start()
    await_reached(one)
    one.run("status", "--exit-code")
    one.run("lease", "run", "index", "--wait", "--", "/bin/true", json=False)
    assert database_of(one)["era"] == 1
