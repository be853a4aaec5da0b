"""Files that are laid go to disk beside the laying, and a write that fails there is not forgotten."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.tree.objects import sync_beside
from instep.tree.objects.sync_beside import BYTES, SyncBeside
from instep.tree.root.beneath import Root


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Root]:
    with contextlib.closing(Root(bytes(tmp_path))) as made:
        yield made


def beside(tree: Root, monkeypatch: pytest.MonkeyPatch, answers: list[OSError | None]) -> SyncBeside:
    def sync(fd: int) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    monkeypatch.setattr(sync_beside, "syncfs", sync)
    return SyncBeside(tree)


def test_a_sync_begins_with_each_amount(tree: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[OSError | None] = [None, None, None]
    syncs = beside(tree, monkeypatch, answers)
    syncs.laid(BYTES - 1)
    syncs.end()
    assert len(answers) == 3
    for left in (2, 1):
        syncs.laid(BYTES)
        syncs.end()
        assert len(answers) == left


def test_a_failed_sync_is_reported_once_although_a_later_one_succeeds(
    tree: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the kernel reports a failed write to one sync only, so the last sync has to report it."""
    syncs = beside(tree, monkeypatch, [OSError(errno.EIO, "Input/output error"), None])
    syncs.laid(BYTES)
    assert syncs._thread is not None
    syncs._thread.join()
    syncs.laid(BYTES)
    with pytest.raises(OSError, match="Input/output error"):
        syncs.end()
    syncs.end()
