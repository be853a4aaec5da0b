"""Edits of ``instep.toml`` that follow another node."""

from __future__ import annotations

from pathlib import Path

from instep.node.config.editing.node_edits import rename_node
from instep.node.directory import NodeDirectory

CONFIG = """name = "main"
listen = "127.0.0.1:7443"

[filesets.data]
path = "/srv/data"
writer = "main"

[[filesets.data.copies]]
paths = ["*.xml"]
prefer = ["s2"]

[[filesets.data.copies]]
paths = ["*.sld"]
wanted = 1
block = ["s1", "s2"]
"""


def test_a_node_of_another_name_is_renamed_in_the_rules_about_copies(tmp_path: Path) -> None:
    (tmp_path / "instep.toml").write_text(CONFIG)
    assert rename_node(NodeDirectory(tmp_path), "s2", "s3")
    text = (tmp_path / "instep.toml").read_text()
    assert 'prefer = ["s3"]' in text and 'block = ["s1", "s3"]' in text
