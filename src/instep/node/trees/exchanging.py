"""Whether a root of this node can be switched by exchanging it: what ``check`` shows and ``accept`` refuses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from instep.errors import RefusedError
from instep.model.definition import Definition
from instep.model.ids import FilesetName
from instep.tree.objects.abilities import probe_filesystem
from instep.tree.root.place import Place, resolve_place
from instep.tree.scan.rules import Rules
from instep.tree.stage.exchange_check import ExchangeObstacle, exchange_obstacles

EXCHANGE_HINT = "put that right, or let it be switched in place"


def obstacles(place: Place, definition: Definition | None, carry: Sequence[bytes]) -> list[ExchangeObstacle]:
    """All that stands against an exchange of a followed root. Walks the tree."""
    try:
        abilities = probe_filesystem(place.control if place.control.exists() else place.control.parent)
        return exchange_obstacles(place, Rules(definition or Definition()), carry, abilities, is_writer=False)
    except OSError as error:
        return [
            ExchangeObstacle("unreadable", f"{place.root} and {place.control} open to the daemon", str(error))
        ]


def refuse_exchange(name: FilesetName, path: Path, definition: Definition, carry: Iterable[object]) -> None:
    """Before ``path`` is accepted with ``--switch exchange``. A directory that is still to be made is judged by where
    its control folder will lie. ``RefusedError`` ``exchange_refused``."""
    if not path.exists():
        return  # nothing is in it, and its parent must be writable for it to be made
    place = resolve_place(path, name)
    found = obstacles(place, definition, [os.fsencode(str(item).removesuffix("/")) for item in carry])
    if found:
        first = found[0]
        raise RefusedError(
            f"{path} cannot be exchanged: it needs {first.needed}, and there is {first.found}",
            hint=f"{EXCHANGE_HINT}; ignored paths move along with --carry RELPATH",
            code="exchange_refused",
            obstacles=[{"reason": o.reason, "needed": o.needed, "found": o.found} for o in found],
        )
