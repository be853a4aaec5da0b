"""Files of keys and certificates: where they may lie, and how they are written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from instep.errors import ResourceError


def is_below_any(directory: Path, roots: Sequence[Path]) -> Path | None:
    """The root (a fileset's, a served path) that ``directory`` lies in, if any: keys must not (K17)."""
    real = directory.resolve()
    for root in roots:
        resolved = root.resolve()
        if real == resolved or resolved in real.parents:
            return root
    return None


def write_file(path: Path, data: bytes, *, mode: int) -> None:
    """Replace a file atomically and durably; it is never readable by more than ``mode`` says."""
    writing = path.with_name(f".writing-{path.name}")
    try:
        with contextlib.suppress(FileNotFoundError):
            writing.unlink()
        descriptor = os.open(writing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        writing.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error
