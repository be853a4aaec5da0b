"""The version before this one, from the history of the repository: its sources, run by today's interpreter and packages."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

__all__ = ["OLD", "old_source"]

OLD = "3bf2f140759d"
"""The commit that stands for the version before. Pinned: a node in the field does not move with this repository."""
ROOT = Path(__file__).resolve().parents[2]
GIT_S = 60.0


def old_source() -> str:
    """The folder of the old sources, for ``PYTHONPATH``. Unpacked once for each environment. Skips, in words, where the
    repository has no such history."""
    kept = Path(sys.prefix) / f"instep-{OLD}"
    if not kept.is_dir():
        _unpack(kept)
    return str(kept / "src")


def _unpack(kept: Path) -> None:
    """Whole or not at all: another worker of the same run may do the same beside this one."""
    packed = _archive()
    fresh = Path(tempfile.mkdtemp(dir=kept.parent, prefix=f".{kept.name}-"))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(fresh, filter="data")
        try:
            fresh.rename(kept)
        except OSError:
            if not kept.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _archive() -> bytes:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is missing: the version before comes from the history of this repository")
    done = subprocess.run(
        [git, "-C", str(ROOT), "archive", OLD, "src"],
        capture_output=True,
        timeout=GIT_S,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(ROOT.parent), "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        pytest.skip(f"this copy of the repository has no commit {OLD}, the version before: {said}")
    return done.stdout
