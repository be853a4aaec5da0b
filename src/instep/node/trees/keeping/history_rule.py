"""Which contents of its own a writer keeps in its history (design, section 5 "History")."""

from __future__ import annotations

from instep.model.definition import FilesetClass
from instep.node.config.filesets import FilesetSettings

HISTORY_FILE_MAX = 4 << 20


def history_keeps(fileset: FilesetSettings, size: int) -> bool:
    """Whether the writer keeps contents of this size of its own (design, section 5 "History")."""
    if fileset.history == "off" or fileset.definition is None:
        return False
    if fileset.history == "on":
        return True
    return fileset.definition.fileset_class is FilesetClass.METADATA and size <= HISTORY_FILE_MAX
