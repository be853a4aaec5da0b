"""P1, P2, P3 and P5 when the power fails: recovery from every state that a disk may be left in.

A sample of the states by seed (``INSTEP_SEED``), all of them in ``./run soak power``. ``docs/power-cuts.md`` has the
model.
"""

from __future__ import annotations

import logging
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.tree.root.beneath import HAS_OPENAT2
from tests.support.power.cuts import without_syncs
from tests.support.power.disk import Sync
from tests.support.power.explore import RUNS, first_failure, recorded
from tests.support.power.shelf_runs import SHELF_RUNS

SEED = os.environ.get("INSTEP_SEED", "20260")
CUTS = 24
"""So many cuts of each run are drawn, beside those before every sync."""
IN_FULL = {"apply", "addition", "exchange", *SHELF_RUNS} - {"withdrawn exchange"}
WHOLE = 24
"""Of the other runs, which share most of their code, so many are drawn of those, too."""

pytestmark = pytest.mark.skipif(not HAS_OPENAT2, reason="the recorder knows kernels that have openat2")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Hide recovery's warnings about torn files, which come thousands of times here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """Where a run happens: in memory where that is available, as each makes thousands of files."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", RUNS)
def test_recovered_from_every_power_cut(base: Path, name: str) -> None:
    with recorded(base, name) as (run, whole):
        cuts = whole.sample(random.Random(SEED + name), CUTS, None if name in IN_FULL else WHOLE)
        failure = first_failure(base, run, whole, cuts)
    assert failure is None, f"INSTEP_SEED={SEED}\n{failure}"


PLANTS: dict[str, tuple[str, Callable[[Sync], bool]]] = {
    "directories of the tree": ("apply", lambda sync: sync.path.startswith(b"root")),
    "the directory of staged objects": ("apply", lambda sync: sync.path.endswith(b"/o")),
    "staged contents": ("apply", lambda sync: b"/o/" in sync.path),
    "the sealed journal": ("apply", lambda sync: b"stage/" in sync.path and sync.path.endswith(b"/journal")),
    "the beginning of the switch": ("apply", lambda sync: sync.path == b".instep-maps"),
    "the outdated paths in the journal": ("compared", lambda sync: sync.path == b".instep-maps/journal"),
    "marks of the journal": ("addition", lambda sync: sync.path == b".instep-maps/journal"),
    "renames into the archive": ("apply", lambda sync: sync.path == b".instep-maps/archive"),
    "renames out of the staging": ("apply", lambda sync: sync.path == b".instep-maps/stage"),
    "the whole file system": ("apply, synced at once", lambda sync: sync.inode is None),
    "the next tree": ("exchange", lambda sync: b"/next" in sync.path),
    "the name of the root": ("exchange", lambda sync: sync.path == b"."),
    "appends to the history": ("publish", lambda sync: b"pack-" in sync.path),
    "large contents of the history": ("publish", lambda sync: sync.path.endswith(b".new")),
    "names in the history": ("first publish", lambda sync: sync.path.endswith(b"/history")),
    "hiding a batch that is pruned": ("prune", lambda sync: sync.path == b".instep-maps/archive"),
    "late objects in the index": ("linger", lambda sync: sync.path.endswith(b"/index")),
    "files that are copied out": ("restore out of the archive", lambda sync: sync.path.endswith(b"/two")),
    "the marker": ("join", lambda sync: b".instep/id." in sync.path),
}
"""The sync that a planted fault forgets, and the run that shows it."""


@pytest.mark.parametrize("plant", PLANTS)
def test_a_forgotten_sync_is_found(base: Path, plant: str) -> None:
    name, is_forgotten = PLANTS[plant]
    with recorded(base, name) as (run, whole):
        assert any(isinstance(event, Sync) and is_forgotten(event) for event in whole.events), (
            "nothing to forget"
        )
        planted = without_syncs(whole, is_forgotten)
        cuts = planted.sample(random.Random(SEED + name), CUTS)
        # Other cuts leave what they leave without the plant.
        failure = first_failure(base, run, planted, (cut for cut in cuts if planted.is_new_in(cut, whole)))
    assert failure is not None
