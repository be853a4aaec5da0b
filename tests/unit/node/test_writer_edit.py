"""The edit of ``instep.toml`` at a change of writer: every travelling key goes along, or the change is refused
before."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.model.ids import FilesetName, LineId, NodeName
from instep.node.config.editing.writer_edit import change_writer, check_change
from instep.node.config.loading import load, parse
from instep.node.directory import NodeDirectory

LINE = LineId(FilesetName("data"), NodeName("main"))
S1 = NodeName("s1")
AT_THE_WRITER = """
name = "main"
[filesets.data]
path = "/srv/data"
writer = "main"
class = "data"
ignore = ["*.tmp"]
gates = ["version"]
rollout = { strategy = "canary", order = ["s2", "s1"], quorum = "50%", canary_for = "3s", confirm_within = "2m" }
"""
AT_A_PARTNER = """# kept words
name = "s1"
[filesets.data]
path = "/srv/data"
writer = "main"
[partners.main]
address = "127.0.0.1:7443"
"""


def test_the_new_writer_publishes_with_the_same_definition(tmp_path: Path) -> None:
    """Goal: no travelling key is lost. Method: every kind of key there, from one file into the other."""
    definition = parse(AT_THE_WRITER).filesets[FilesetName("data")].definition
    assert definition is not None
    node = NodeDirectory(tmp_path)
    node.config.write_text(AT_A_PARTNER)
    check_change(node, LINE, S1, definition)
    assert node.config.read_text() == AT_A_PARTNER
    assert change_writer(node, LINE, S1, definition, None)
    found = load(tmp_path).filesets[FilesetName("data")]
    assert (found.definition, found.writer, found.line) == (definition, S1, LINE)
    assert node.config.read_text().startswith("# kept words")
    assert change_writer(node, LINE, NodeName("s2"), None, "127.0.0.1:7")
    back = load(tmp_path)
    assert back.filesets[FilesetName("data")].definition is None
    assert str(back.partners[NodeName("s2")].address) == "127.0.0.1:7"


@pytest.mark.parametrize("keeps_owners", [True, False])
def test_owners_are_kept_where_an_operator_gave_the_line_away(tmp_path: Path, keeps_owners: bool) -> None:
    """A promotion elsewhere is no word of this node's operator: it plants no right to give files away."""
    node = NodeDirectory(tmp_path)
    text = '\nname = "main"\n[partners.s1]\n[filesets.data]\npath = "/srv/data"\nwriter = "main"\npreserve = ["owner"]\n'
    node.config.write_text(text)
    assert change_writer(node, LINE, S1, None, None, keeps_owners=keeps_owners)
    assert load(tmp_path).filesets[FilesetName("data")].owners == (("by_name",) if keeps_owners else ())
