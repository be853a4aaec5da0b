"""The files of flight recorders: ``records/`` in the node directory, one for each machine and reason.

A record holds names of paths and nodes, reasons, and public records with their signatures: no key and no token. It is
readable by the node's owner only, as the directory is. A newer record of the same name replaces the older one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from instep import __version__
from instep.core.record.recorder import FlightRecorder

_MODE = 0o600


def write_record(directory: Path, recorder: FlightRecorder, reason: str) -> Path:
    """Write what ``recorder`` holds, and return the file. ``reason`` is ``asked`` or ``broken``. The caller's
    ``directory`` is the node's own; the file appears whole or not at all."""
    name = re.sub(r"[^a-z0-9._@-]+", "-", f"{recorder.name}-{reason}") + ".jsonl"
    directory.mkdir(mode=0o700, exist_ok=True)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    beside = f".{name}.{secrets.token_hex(8)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(beside, flags, _MODE, dir_fd=folder), "wb") as file:
            file.write(recorder.text(__version__))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise
    finally:
        os.close(folder)
    return directory / name
