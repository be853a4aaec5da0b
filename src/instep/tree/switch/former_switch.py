"""An unfinished switch that says nothing any more, moved out of the way with all that it displaced."""

from __future__ import annotations

import os
from pathlib import Path

from instep.tree.journal.journal import Journal
from instep.tree.objects.laying import sync_directory
from instep.tree.root.place import Place

ASIDE = "set-aside"


def move_aside(place: Place, journal: Journal) -> Path:
    """Move stage and journal to the folder that is returned, in the control folder of ``place``, which is open.

    The journal goes last: while it is there a crash is gone on from, into the same folder, and a stage that is missing
    was moved before."""
    name = f"{ASIDE}-{journal.header.sealed_at_ns // 1_000_000}"
    control = place.stage.parent
    folder = control / name
    folder.mkdir(0o700, exist_ok=True)
    if not (folder / "stage").exists() and place.stage.exists():
        os.rename(place.stage, folder / "stage")
    sync_directory(folder)
    sync_directory(control)
    os.rename(place.journal, folder / "journal")
    sync_directory(folder)
    sync_directory(control)
    return place.control / name
