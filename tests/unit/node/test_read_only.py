"""The state of a read-only node."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from instep.errors import RefusedError, Retry
from instep.model.ids import node_name
from instep.node.directory import NodeDirectory
from instep.node.lines.snapshot import offline_status
from instep.node.runtime.read_only import ReadOnly
from instep.store.sqlite import SqliteStore

MAIN, S1 = node_name("main"), node_name("s1")


def test_it_outlives_the_daemon_and_each_refusal_says_where_it_is_ended(tmp_path: Path) -> None:
    """Goal: the state alone says it, with the first beginning; another node gets the name of this one in the hint."""
    node = NodeDirectory(tmp_path / "node")
    node.create()
    node.config.write_text('name = "main"\n')
    wakes: list[None] = []
    with closing(SqliteStore(node.database)) as store:
        first = ReadOnly(lambda: store, lambda: wakes.append(None), lambda: MAIN)
        assert (first.now, first.trouble(), first.end()) == (None, None, False)
        assert first.begin("ana", "stocktaking") and not first.begin("ben", "")
        again = ReadOnly(lambda: store, lambda: None, lambda: MAIN)
        assert again.now == first.now
        for asker, ending in ((None, "instep readonly off"), (S1, "on main: instep readonly off")):
            with pytest.raises(RefusedError) as refused:
                again.require_off(asker)
            assert (refused.value.hint, refused.value.retry) == (ending, Retry.LATER)
        (said,) = offline_status(node.path).warnings or ()
        assert "main is read-only since" in said and said.endswith("by ana: stocktaking")
        assert first.end() and len(wakes) == 2
        first.require_off(S1)
    assert not offline_status(node.path).warnings
