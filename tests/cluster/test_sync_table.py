"""The table of a sync run with four daemons: a change on each server, each way, by each initiator, and the nodes that have
it in the end, beside the expected file."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.sync_fleet import SERVERS, FleetSite

EXPECTED = Path(__file__).with_name("sync_table.expected.txt")
SHOWN = {"main": "S1", "s2": "S2", "p1": "P1", "p2": "P2"}
HOMES = {"main": "main", "s2": "main", "p1": "p1", "p2": "p1"}
INITIATORS = ("main", "s2")
DIRECTIONS = ("up", "down", "both")
ACTIONS = ("add", "modify", "delete")
KINDS = """
[sync.site.kinds.up]
paths = ["up/"]
direction = "up"
[sync.site.kinds.down]
paths = ["down/"]
direction = "down"
"""


def test_which_nodes_have_a_change_is_the_table(fleet: Fleet) -> None:
    """Goal: whichever server a file is added, changed or removed on, the nodes that have it after a run are those of the
    expected file, by any initiator; both sides' mirrors verify deeply; production starts none."""
    site = FleetSite(fleet)
    site.make(KINDS, offers=True)
    names = [(way, action, server) for way in DIRECTIONS for server in SERVERS for action in ACTIONS]
    fleet.write({_path(by, *cell): "old" for by in INITIATORS for cell in names if cell[1] != "add"})
    site.run("main", "--initial", "left")
    site.settled()
    site.assert_same()
    tables = [_table(site, by, names) for by in INITIATORS]
    assert tables[0] == tables[1], "another initiator, another table"
    table = "\n".join(tables[0]) + "\n"
    sys.stdout.write(table)
    assert table == EXPECTED.read_text()
    for home in ("main", "p1"):
        fleet[home].run("verify", "data", "--fleet", "--deep", timeout=90)
    assert fleet["p1"].run("sync", "run", "site", expect=5).error["code"] == "no_initiator"


def _table(site: FleetSite, by: str, cells: list[tuple[str, str, str]]) -> list[str]:
    """One run by that initiator, and its table."""
    for server in SERVERS:
        here = [cell for cell in cells if cell[2] == server]
        written = {_path(by, *cell): "new" for cell in here if cell[1] != "delete"}
        removed = [_path(by, *cell) for cell in here if cell[1] == "delete"]
        for path, text in written.items():
            file = site.fleet.tree(server) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for path in removed:
            (site.fleet.tree(server) / path).unlink()
    for way, action, server in cells:
        site.await_text(HOMES[server], _path(by, way, action, server), None if action == "delete" else "new")
    site.run(by)
    site.settled()
    lines = [
        f"{'way':5} {'change':7} {'on':3} | " + " ".join(f"{SHOWN[name]:3}" for name in SERVERS).rstrip()
    ]
    for way, action, server in cells:
        found = (site.text(name, _path(by, way, action, server)) or "-" for name in SERVERS)
        lines.append(
            f"{way:5} {action:7} {SHOWN[server]:3} | " + " ".join(f"{each:3}" for each in found).rstrip()
        )
    return lines


def _path(by: str, way: str, action: str, server: str) -> str:
    return f"{by}/{way}/{action}-{server}"
