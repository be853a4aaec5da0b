"""The rights that one node gives one partner.

Both sides must list each other; zeros mean "I accept, I send nothing".
"""

from __future__ import annotations

import msgspec

from instep.model.definition import FilesetClass


class Link(msgspec.Struct, frozen=True, array_like=True):
    """Metacat's row: ``replicate`` off voids the other two (M11); ``hub`` carries lines that the sender
    did not write."""

    replicate: bool = False
    data: bool = False
    hub: bool = False

    def lets(self, fileset_class: FilesetClass, *, own_line: bool) -> bool:
        """Whether a line of this class flows over this link. No hub passes on secrets."""
        if not self.replicate:
            return False
        if fileset_class is FilesetClass.DATA and not self.data:
            return False
        return own_line or (self.hub and fileset_class is not FilesetClass.SECRET)
