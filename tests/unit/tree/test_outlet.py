"""Files that an operator lets the daemon write elsewhere stay there, even if other users may write in that
directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.errors import RefusedError
from instep.tree.archive.outlet import finish_directory, open_outlet, put_out


def test_a_directory_that_was_swapped_before_its_end_keeps_its_mode(tmp_path: Path) -> None:
    """The owner of the outlet moves another directory to the name of one that was just made."""
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    to = tmp_path / "to"
    to.mkdir()
    made: dict[bytes, tuple[int, int]] = {}

    def make(fd: int, name: bytes) -> None:
        os.mkdir(name, 0o755, dir_fd=fd)
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        made[name] = (found.st_dev, found.st_ino)

    with open_outlet(os.fsencode(to)) as outlet:
        for name in (b"kept", b"swapped"):
            put_out(outlet, name, make)
        finish_directory(outlet, b"kept", made[b"kept"], 0o2750, 7_000_000_000)
        os.rename(to / "swapped", tmp_path / "away")
        os.rename(other, to / "swapped")
        with pytest.raises(RefusedError) as refused:
            finish_directory(outlet, b"swapped", made[b"swapped"], 0o777, 0, shown_as=os.fsencode(to))
    assert refused.value.error_code == "directory_replaced"
    assert str(to / "swapped") in refused.value.reason
    assert (to / "swapped").stat().st_mode & 0o7777 == 0o700
    assert (to / "kept").stat().st_mode & 0o7777 == 0o750
    assert (to / "kept").stat().st_mtime == 7
