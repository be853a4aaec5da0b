"""Edits of an ``instep.toml`` whose tables of one section stand apart, as persons leave them: they mean what they mean
in an ordered file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.model.address import Address
from instep.node.config.editing import edits, node_edits
from instep.node.config.editing.external_edit import remove_external, set_external
from instep.node.config.editing.sync_edit import set_sync
from instep.node.directory import NodeDirectory

PARTS = (
    'name = "s1"\n',
    '[filesets.site]\npath = "/srv/site"\nwriter = "s1"\nto = ["p1"]\n',
    '[filesets.site.hooks]\nreload = { touch = "/run/site" }\n',
    '[[filesets.site.external]]\nname = "cms-db"\n',
    '[filesets.docs]\npath = "/srv/docs"\nwriter = "p1"\n',
    "[partners.p1]\nreplicate = true\n",
    "[partners.p2]\nreplicate = true\n",
    '[sync.a]\nleft = "site@s1"\nright = "site@p1"\n',
    '[sync.a.kinds.t]\npaths = ["/t/"]\n',
    '[sync.b]\nleft = "site@s1"\nright = "site@p1"\n',
)
SCATTERED = tuple(PARTS[at] for at in (0, 1, 5, 7, 4, 3, 9, 2, 6, 8))
EDITS: dict[str, Callable[[NodeDirectory], bool]] = {
    "add": lambda node: edits.add_fileset(node, "new", "/srv/new", {"settle": "1s"}),
    "set": lambda node: edits.set_fileset(
        node, "site", {"archive.keep_last": "5", "hooks.reload.timeout": "5s"}
    ),
    "remove": lambda node: edits.remove_fileset(node, "site"),
    "partner": lambda node: edits.set_partner(node, "p3", {"replicate": True}),
    "remove partner": lambda node: edits.remove_partner(node, "p1"),
    "forget": lambda node: node_edits.forget_node(node, "p1"),
    "rename": lambda node: node_edits.rename_node(node, "p2", "p3"),
    "address": lambda node: edits.set_own_address(node, Address("10.0.0.1", 7443)),
    "profile": lambda node: set_sync(node, "c", {"left": "site@s1", "right": "site@p2"}),
    "profile again": lambda node: set_sync(node, "a", {"direction": "up"}),
    "part": lambda node: set_external(node, "site", "mail", {"kind": "service"}),
    "part of another": lambda node: set_external(node, "docs", "db", {}),
    "remove part": lambda node: remove_external(node, "site", "cms-db"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_means_the_same_in_a_scattered_file(name: str, tmp_path: Path) -> None:
    found = []
    for place, parts in (("ordered", PARTS), ("scattered", SCATTERED)):
        (tmp_path / place).mkdir()
        file = tmp_path / place / "instep.toml"
        file.write_text("".join(parts))
        before = tomllib.loads(file.read_text())
        assert EDITS[name](NodeDirectory(tmp_path / place))
        found.append(tomllib.loads(file.read_text()))
        assert found[-1] != before
    assert found[0] == found[1]
