"""Locks that the nodes of a shared root hold for each other to try."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from instep.model.ids import FilesetName, NodeName
from instep.tree.root.marker import NO_NODE, create_marker
from instep.tree.root.node_locks import SEEN_NS, NodeLocks, OtherNode, other_nodes
from tests.support.commands import SOURCE

DATA, A, B = FilesetName("data"), NodeName("a"), NodeName("b")
HOLDS = """
import sys
from pathlib import Path
from instep.tree.root.node_locks import NodeLocks
NodeLocks(Path(sys.argv[1]), "data", "b").renew()
print("held", flush=True)
sys.stdin.read()
"""


def test_locks_of_another_process_are_seen_while_it_lives(tmp_path: Path) -> None:
    create_marker(tmp_path, DATA, NO_NODE, cluster="c")
    ours = NodeLocks(tmp_path, DATA, A)
    ours.renew()
    assert abs(ours.clock_ahead_ms) < 1_000
    assert other_nodes(tmp_path, DATA, A) == ()
    words, pipe = [sys.executable, "-c", HOLDS, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, env={**os.environ, "PYTHONPATH": SOURCE}) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        assert other_nodes(tmp_path, DATA, A) == (OtherNode("b", True, True, True),)
        other.stdin.close()
    assert other_nodes(tmp_path, DATA, A) == (OtherNode("b", True, False, False),)
    file = tmp_path / ".instep" / "locks" / "b"
    os.utime(file, ns=(0, file.stat().st_mtime_ns - SEEN_NS - 1))
    assert other_nodes(tmp_path, DATA, A) == (OtherNode("b", False, False, False),)
    ours.close()
    assert [each.name for each in other_nodes(tmp_path, DATA, B)] == ["a"]
