"""Names the path, the operation and what helps when a system call of staging or switching fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from instep.errors import ResourceError
from instep.tree.root.os_errors import path_of_people, tree_error
from instep.tree.root.place import Place

METADATA = "given its mode, owner, attributes and time"


@contextmanager
def shortage_named(place: Place, doing: str, path: bytes | None = None) -> Iterator[None]:
    """An ``OSError`` of the block as ``resource_error``."""
    try:
        yield
    except OSError as error:
        raise resource_error(error, place, doing, path) from error


def resource_error(error: OSError, place: Place, doing: str, path: bytes | None = None) -> ResourceError:
    """The error that names ``path``, the one that people know; without one, the file of the control folder or the root.
    ``doing`` as in "cannot be staged"."""
    if path is None:
        found = os.fsencode(error.filename) if isinstance(error.filename, str | bytes) else b""
        path = path_of_people(place.by_name(found)) or os.fsencode(place.control)
    return tree_error(error, place.fileset, place.root, path, doing)
