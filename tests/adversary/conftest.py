"""Ground on which another user can walk: pytest's own directories are closed to him."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_ground() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="instep-adversary-"))
    top.chmod(0o755)
    yield top
    shutil.rmtree(top)
